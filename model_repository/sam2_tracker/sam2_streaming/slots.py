"""Places for live sequences: so many and no more, and none for long without a frame."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class SequenceState(Protocol):
    """What a live sequence remembers."""

    @property
    def object_count(self) -> int:
        """Number of objects that it follows."""

    @property
    def nbytes(self) -> int:
        """Size of what is remembered of them, in bytes."""


T = TypeVar("T", bound=SequenceState)


@dataclass(frozen=True, slots=True)
class Usage:
    """How far the slots are used.

    Attributes:
        slots: Most sequences alive at a time.
        sequences: Those that live.
        objects: Objects of all of them.
        nbytes: Size of what is remembered of all objects, in bytes.
    """

    slots: int
    sequences: int
    objects: int
    nbytes: int


class SlotsExhaustedError(Exception):
    """Every slot holds a live sequence; a START may succeed later or elsewhere."""


class UnknownSequenceError(Exception):
    """The sequence was not started here, has ended, or was idle for too long."""


@dataclass(slots=True)
class _Slot(Generic[T]):
    state: T
    used_at: float


class Slots(Generic[T]):
    """The states of live sequences by their ids. Triton does not tell of idle ones: we count.

    Args:
        count: Most sequences alive at a time.
        ttl_s: Seconds after which an idle sequence is dropped.
        clock: Monotonic seconds.
    """

    def __init__(
        self, count: int, ttl_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._count = count
        self._ttl_s = ttl_s
        self._clock = clock
        self._live: dict[int, _Slot[T]] = {}

    def usage(self) -> Usage:
        """Count what lives."""
        self._drop_idle()
        states = [slot.state for slot in self._live.values()]
        objects = sum(state.object_count for state in states)
        return Usage(self._count, len(states), objects, sum(state.nbytes for state in states))

    def start(self, sequence_id: int, state: T) -> None:
        """Give a sequence a slot; replaces a live one of the same id.

        Raises:
            SlotsExhaustedError: All slots are taken.
        """
        self._drop_idle()
        if sequence_id not in self._live and len(self._live) >= self._count:
            raise SlotsExhaustedError(f"all {self._count} sequence slots are in use")
        self._live[sequence_id] = _Slot(state, self._clock())

    def use(self, sequence_id: int) -> T:
        """Return the state of a sequence, which is not idle now.

        Raises:
            UnknownSequenceError: There is no such sequence.
        """
        self._drop_idle()
        if sequence_id not in self._live:
            raise UnknownSequenceError(f"sequence {sequence_id} is not known; send START")
        slot = self._live[sequence_id]
        slot.used_at = self._clock()
        return slot.state

    def end(self, sequence_id: int) -> None:
        """Free the slot of a sequence; unknown ones are ignored."""
        self._live.pop(sequence_id, None)

    def _drop_idle(self) -> None:
        oldest = self._clock() - self._ttl_s
        self._live = {k: slot for k, slot in self._live.items() if slot.used_at >= oldest}
