"""Places for live sequences: so many and no more, and none for long without a frame."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


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
        self.count = count
        self._ttl_s = ttl_s
        self._clock = clock
        self._live: dict[int, _Slot[T]] = {}

    def __len__(self) -> int:
        """Return the number of live sequences."""
        self._drop_idle()
        return len(self._live)

    def __iter__(self) -> Iterator[T]:
        """Iterate over the states of all sequences."""
        return (slot.state for slot in self._live.values())

    def start(self, sequence_id: int, state: T) -> None:
        """Give a sequence a slot; replaces a live one of the same id.

        Raises:
            SlotsExhaustedError: All slots are taken.
        """
        self._drop_idle()
        if sequence_id not in self._live and len(self._live) >= self.count:
            raise SlotsExhaustedError(f"all {self.count} sequence slots are in use")
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
