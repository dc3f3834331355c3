"""What became of attacks on the API, and whether their frames were answered as promised."""

import contextlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError
from soccer.v1 import player_recognition_pb2 as pb

_MOST_REPORTED = 20


@dataclass
class Tally:
    """What became of the attacks.

    Attributes:
        calls: Calls and connections.
        inputs: Messages sent in calls, and bare connections.
        statuses: How calls ended.
        frames: Frames of streams, by answer.
        violations: What should not be, each with the number of its attack.
    """

    calls: int = 0
    inputs: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    frames: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def violate(self, what: str) -> None:
        """Enter a violation; only the first ones are kept."""
        if len(self.violations) < _MOST_REPORTED:
            self.violations.append(what)

    def account(
        self,
        number: int,
        parts: list[bytes],
        responses: list[pb.RecognizeStreamResponse],
        *,
        is_whole: bool,
    ) -> None:
        """Check that each frame was answered once, or at most once where the stream was ended."""
        sent = Counter(index for part in parts for index in _sent(part))
        answered = Counter(index for response in responses for index in _indices(response))
        if answered - sent or (is_whole and sent - answered):
            self.violate(f"{number}: sent frames {sent}, answered {answered}")
        kinds = [response.WhichOneof("response") for response in responses]
        if is_whole and (kinds[:1] != ["started"] or kinds[-1:] != ["summary"]):
            self.violate(f"{number}: responses {kinds}")
        for response in responses:
            if response.HasField("recognition"):
                self.frames["RECOGNIZED"] += 1
            if response.HasField("gap"):
                reason = pb.GapReason.Name(response.gap.reason).removeprefix("GAP_REASON_")
                self.frames[reason] += 1
                if reason == "INTERNAL":
                    self.violate(f"{number}: a gap {response.gap.detail!r}")


def _sent(part: bytes) -> Iterable[int]:
    with contextlib.suppress(DecodeError):
        request = pb.RecognizeStreamRequest.FromString(part)
        if request.HasField("frame"):
            return [request.frame.frame_index]
    return []


def _indices(response: pb.RecognizeStreamResponse) -> Iterable[int]:
    if response.HasField("recognition"):
        return [response.recognition.frame_index]
    if response.HasField("gap"):
        return range(response.gap.first_frame_index, response.gap.last_frame_index + 1)
    return []
