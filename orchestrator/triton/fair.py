"""Who is next: a queue that shares what comes out of it fairly between those who wait.

Start-time fair queueing (Goyal, Vin and Cheng, 1996), nested. Every share has a clock that each of
its items moves on by cost / weight; the share whose clock is furthest behind goes next. One that
was away starts at the present: it neither saves up credit nor owes for idle time. A leaf hands out
its items by rank, first come first served among equals.
"""

import bisect
import itertools
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")

_MOST_REMEMBERED = 128
"""Shares of a level from which on those that do not wait are forgotten, whatever they owe."""

Path = tuple[tuple[Hashable, float], ...]
"""Where an item belongs: name and weight of its share on every level, the outermost first."""


@dataclass(frozen=True, slots=True, order=True)
class Item(Generic[T]):
    """Something that waits.

    Attributes:
        rank: Lower goes first among the items of one path.
        order: Breaks ties by arrival.
        cost: How much of the path's share it uses up, more than 0.
    """

    rank: float
    order: int
    cost: float = field(compare=False)
    path: Path = field(compare=False)
    value: T = field(compare=False)


class _Queue(Protocol[T]):
    def __len__(self) -> int: ...
    def push(self, path: Path, item: Item[T]) -> None: ...
    def peek(self) -> Item[T]: ...
    def pop(self) -> Item[T]: ...
    def remove(self, path: Path, item: Item[T]) -> None: ...


class _Ranked(Generic[T]):
    """The leaf: items of one path by rank."""

    def __init__(self) -> None:
        self._items: list[Item[T]] = []

    def __len__(self) -> int:
        return len(self._items)

    def push(self, path: Path, item: Item[T]) -> None:  # noqa: ARG002  ends here
        bisect.insort(self._items, item)

    def peek(self) -> Item[T]:
        return self._items[0]

    def pop(self) -> Item[T]:
        return self._items.pop(0)

    def remove(self, path: Path, item: Item[T]) -> None:  # noqa: ARG002
        self._items.remove(item)


@dataclass(slots=True)
class _Share(Generic[T]):
    queue: _Queue[T]
    weight: float
    clock: float


class _Shared(Generic[T]):
    """One level: shares by name, each with a queue of its own."""

    def __init__(self) -> None:
        self._shares: dict[Hashable, _Share[T]] = {}
        self._clock = 0.0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, path: Path, item: Item[T]) -> None:
        (name, weight), *rest = path
        share = self._shares.get(name)
        if share is None:
            self._forget_idle()
            queue: _Queue[T] = _Shared() if rest else _Ranked()
            share = self._shares[name] = _Share(queue, weight, self._clock)
        share.weight = weight
        if not len(share.queue):
            share.clock = max(share.clock, self._clock)
        share.queue.push(tuple(rest), item)
        self._count += 1

    def peek(self) -> Item[T]:
        return self._next().queue.peek()

    def pop(self) -> Item[T]:
        share = self._next()
        item = share.queue.pop()
        self._clock = share.clock
        share.clock += item.cost / share.weight
        self._leave()
        return item

    def remove(self, path: Path, item: Item[T]) -> None:
        (name, _), *rest = path
        self._shares[name].queue.remove(tuple(rest), item)
        self._leave()

    def _next(self) -> _Share[T]:
        waiting = (share for share in self._shares.values() if len(share.queue))
        return min(waiting, key=lambda share: (share.clock, -share.weight))

    def _leave(self) -> None:
        self._count -= 1
        if not self._count:  # nobody waits, so nobody was held up: start from scratch
            self._shares.clear()
            self._clock = 0.0

    def _forget_idle(self) -> None:
        """Drop shares that would start at the present anyway, and in a long rush all idle ones."""
        remembers = len(self._shares) < _MOST_REMEMBERED
        self._shares = {
            name: share
            for name, share in self._shares.items()
            if len(share.queue) or (remembers and share.clock > self._clock)
        }


class FairQueue(Generic[T]):
    """A queue with fair shares between the paths of its items."""

    def __init__(self) -> None:
        self._root: _Shared[T] = _Shared()
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._root)

    def push(self, value: T, path: Path, *, cost: float, rank: float) -> Item[T]:
        """Let a value wait; return its item, by which it can be removed.

        Args:
            value: What waits.
            path: Its shares, at least one.
            cost: How much of them it uses up, more than 0.
            rank: Its place among the values of the same path; lower goes first.
        """
        item = Item(rank, next(self._order), cost, path, value)
        self._root.push(path, item)
        return item

    def peek(self) -> Item[T]:
        """Return the next item without taking it; ValueError if nobody waits."""
        return self._root.peek()

    def pop(self) -> Item[T]:
        """Take the next item; ValueError if nobody waits."""
        return self._root.pop()

    def remove(self, item: Item[T]) -> None:
        """Take an item out of turn; it must still wait."""
        self._root.remove(item.path, item)
