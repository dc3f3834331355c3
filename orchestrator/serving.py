"""What the streams of a process share, and what outlives a single call of a stream."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from orchestrator.drain import Drain
from orchestrator.handover import Handover
from orchestrator.overload.control import LoadControl
from orchestrator.replies import AnswerLog
from orchestrator.resume import StreamRegistry
from orchestrator.security.guard import Guard
from orchestrator.session import StreamState
from orchestrator.settings import Settings
from orchestrator.triton.client import TritonClient
from orchestrator.types.streams import StreamConfig


@dataclass(eq=False, slots=True)
class ServedStream:
    """A stream over all the calls that serve it, one after the other.

    Attributes:
        id: The server's id of it.
        token: Its resume token.
        owner: Name of its tenant, who alone may resume it.
        config: The config that it began with.
        answers: What it was answered of late.
        state: What was learnt; None until it has started.
    """

    id: str
    token: str
    owner: str
    config: StreamConfig
    answers: AnswerLog
    state: StreamState | None = None

    @property
    def size_bytes(self) -> int:
        """Memory held, roughly."""
        return self.answers.size_bytes + (self.state.size_bytes if self.state else 0)


@dataclass(frozen=True, slots=True)
class Serving:
    """What the calls of a process share.

    Attributes:
        triton: The models.
        settings: All settings.
        guard: Watches over who calls.
        control: What streams share under load.
        drain: The end of the server.
        place: Takes a place of the server for a config and whether the stream had one before.
        streams: All streams by resume token.
        handover: To the other worker processes.
    """

    triton: TritonClient
    settings: Settings
    guard: Guard
    control: LoadControl
    drain: Drain
    place: Callable[[StreamConfig, bool], AbstractContextManager[None]]
    streams: StreamRegistry[ServedStream]
    handover: Handover
