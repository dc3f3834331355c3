"""The replicas of a stateful model: each sequence lives on one of them, from its START to its END.

Where a sequence starts is decided by rendezvous hashing among the replicas with free slots, so that
it does not matter which process asks, and replicas that come or go move nobody. A sequence that
must move is declared lost: its stream starts another one elsewhere, with what it knows.
"""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Iterable
from statistics import fmean

from orchestrator import metrics
from orchestrator.errors import (
    ModelError,
    ModelOverloadedError,
    SequenceLostError,
    SlotsExhaustedError,
)
from orchestrator.settings import TritonSettings
from orchestrator.triton.codec import Tensor
from orchestrator.triton.faults import ReplicaDownError
from orchestrator.triton.lane import Lane, Traffic
from orchestrator.triton.members import Members
from orchestrator.triton.pool import nobody, pool_snapshot
from orchestrator.triton.replica import Replica
from orchestrator.triton.snapshot import PoolSnapshot, ReplicaSnapshot, ReplicaState
from orchestrator.triton.wire import NO_OBJECTS, Request, SequenceStep
from orchestrator.types.streams import Caller

_END_S = 2.0
"""Longest wait for the room to tell of an end, and the pause until that is tried again."""
_END_TRIES = 30
"""At least a minute of them, after which its time-to-live has freed a slot as well."""
_FULL_S = 1.0
"""How long a replica that refused a START is not asked again; slots there belong to others, too."""
_MAX_ORPHANS = 256


class _Home:
    """A replica and the sequences of this process that live there.

    Attributes:
        epoch: The replica's, as far as its losses were taken note of.
        orphans: Sequences left behind while it did not answer; ended once it does.
        full_until: When it may be asked again after it refused a START.
    """

    def __init__(
        self, replica: Replica, model: str, settings: TritonSettings, traffic: Traffic
    ) -> None:
        self.replica = replica
        self.epoch = replica.epoch
        self.sequences: set[int] = set()
        self.orphans: set[int] = set()
        self.full_until = 0.0
        self.lane = Lane(
            model, self._pick, settings.max_queued, traffic, lambda: int(replica.is_usable)
        )

    @property
    def has_slot(self) -> bool:
        """Whether a START has a chance."""
        slots = self.replica.slots
        return time.monotonic() >= self.full_until and (not slots or len(self.sequences) < slots)

    def leave(self, sequence_ids: Iterable[int]) -> None:
        """Leave sequences behind, to be ended once the replica answers."""
        if len(self.orphans) < _MAX_ORPHANS:
            self.orphans.update(sequence_ids)

    def _pick(self, rows: int) -> Replica | None:
        if not self.replica.has_room(rows):
            return None
        self.replica.reserve(rows)
        return self.replica


class SequencePool:
    """Places sequences on replicas and keeps them there."""

    def __init__(self, members: Members, settings: TritonSettings) -> None:
        self.members = members
        self._name = members.contract.name
        self._settings = settings
        self._traffic = Traffic(self._name)
        self._homes: dict[Replica, _Home] = {}
        self._home_of: dict[int, _Home] = {}
        self._ending: set[asyncio.Task[None]] = set()
        members.on_change = self._on_change

    async def infer(self, request: Request) -> dict[str, Tensor]:
        """Take one step of a sequence.

        A step that fails ends its sequence, unless `ModelOverloadedError` says that it was not
        taken at all.

        Raises:
            SequenceLostError: The sequence is not known, or its replica is not to be used any more.
            SlotsExhaustedError: No replica has a slot for a new sequence.
            ModelOverloadedError: The step could not be sent before its deadline.
            ModelUnavailableError: No replica lives, or there was no answer in time.
            ModelError: As the server says.
        """
        assert request.step is not None
        sequence_id = request.step.sequence_id
        if request.step.is_start:
            return await self._start(request, sequence_id)
        home = self._home_of.get(sequence_id)
        if home is None or self._must_move(home):
            self._abandon(sequence_id)
            raise SequenceLostError(self._name, f"sequence {sequence_id} has no replica any more")
        return await self._step(home, request, sequence_id)

    def snapshot(self) -> PoolSnapshot:
        """Return the present state."""
        queued = sum(home.lane.queued for home in self._homes.values())
        found = [home.lane.replica_rows_per_s for home in self._homes.values()]
        known = [rows_per_s for rows_per_s in found if rows_per_s is not None]
        each = fmean(known) if known else None
        replicas = tuple(self._replica_snapshot(replica) for replica in self.members.all)
        return pool_snapshot(self._name, self._traffic, queued, each, replicas)

    async def close(self) -> None:
        """Let sequences that are being ended end, unless that takes long; leave the replicas."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                await asyncio.gather(*self._ending, return_exceptions=True)
        await self.members.close()

    async def _start(self, request: Request, sequence_id: int) -> dict[str, Tensor]:
        """Start where there is a slot: each replica is asked once, in rendezvous order."""
        patience = min(self.members.patience_s, request.deadline - time.monotonic())
        await self.members.wait_for_one(max(0.0, patience))
        is_full = False
        for home in self._in_order(sequence_id):
            if not home.replica.is_usable:  # it went down while others were asked
                continue
            if not home.has_slot:
                is_full = True
                continue
            try:
                return await self._step(home, request, sequence_id)
            except SlotsExhaustedError:
                metrics.TRACKER_STARTS_REFUSED.inc()
                home.full_until = time.monotonic() + _FULL_S
                is_full = True
            except SequenceLostError:  # the replica went down with it
                continue
        if is_full:
            raise SlotsExhaustedError(self._name, "no replica has a free slot")
        raise nobody(self.members)

    async def _step(self, home: _Home, request: Request, sequence_id: int) -> dict[str, Tensor]:
        """Take a step at a sequence's replica; the sequence lives there afterwards, or not."""
        self._home_of[sequence_id] = home
        home.sequences.add(sequence_id)
        assert request.step is not None
        try:
            outputs = await home.lane.ask(request)
        except (SequenceLostError, SlotsExhaustedError):
            self._forget(sequence_id)
            raise
        except ModelOverloadedError:
            if request.step.is_start:
                self._forget(sequence_id)
            elif request.step.is_end:
                self._abandon(sequence_id)
            raise
        except ReplicaDownError as error:
            self._abandon(sequence_id)
            raise SequenceLostError(self._name, str(error)) from error
        except BaseException:  # also if cancelled: whether the server took the step is unknown
            self._abandon(sequence_id)
            raise
        if request.step.is_end:
            self._forget(sequence_id)
        return outputs

    def _in_order(self, sequence_id: int) -> list[_Home]:
        """All usable replicas in rendezvous order of a sequence (Thaler and Ravishankar, 1998)."""

        def score(replica: Replica) -> bytes:
            key = f"{sequence_id} {replica.address}".encode()
            return hashlib.blake2b(key, digest_size=8).digest()

        return [self._homes[replica] for replica in sorted(self.members.usable, key=score)]

    def _must_move(self, home: _Home) -> bool:
        """Whether a sequence's replica is about to end, and another has a slot for it."""
        if home.replica.state is not ReplicaState.DRAINING:
            return False
        return any(
            other.has_slot and other.replica.state is ReplicaState.READY
            for other in self._homes.values()
        )

    def _forget(self, sequence_id: int) -> None:
        """A sequence has ended; its slot is free."""
        home = self._home_of.pop(sequence_id, None)
        if home is not None:
            home.sequences.discard(sequence_id)
            home.full_until = 0.0

    def _abandon(self, sequence_id: int) -> None:
        """A sequence is given up: end it in the background, so that its slot is free."""
        home = self._home_of.get(sequence_id)
        self._forget(sequence_id)
        if home is not None:
            self._end(home, sequence_id)

    def _end(self, home: _Home, sequence_id: int) -> None:
        task = asyncio.create_task(self._send_end(home, sequence_id))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _send_end(self, home: _Home, sequence_id: int) -> None:
        """Tell a replica until it has heard, or is out of use: once it is back it is told again."""
        step, timeout_s = SequenceStep(sequence_id, is_end=True), self._settings.infer_timeout_s
        for _ in range(_END_TRIES):
            deadline = time.monotonic() + _END_S
            try:
                await home.lane.ask(Request(NO_OBJECTS, Caller(""), timeout_s, deadline, step))
            except SequenceLostError:  # already unknown there
                return
            except ModelError:
                if not home.replica.is_usable:
                    home.leave([sequence_id])
                    return
                await asyncio.sleep(_END_S)
            else:
                return

    def _on_change(self) -> None:
        """Follow the replicas: whatever lives on one that is out of use is lost."""
        members = self.members.all
        for replica in self._homes.keys() - set(members):
            self._lose(self._homes.pop(replica))
        for replica in members:
            home = self._homes.get(replica) or self._settle(replica)
            if home.epoch != replica.epoch:
                self._lose(home)
            elif replica.is_usable:
                orphans, home.orphans = home.orphans, set()
                for sequence_id in orphans:
                    self._end(home, sequence_id)
                home.lane.pump()

    def _settle(self, replica: Replica) -> _Home:
        home = self._homes[replica] = _Home(replica, self._name, self._settings, self._traffic)
        return home

    def _lose(self, home: _Home) -> None:
        """Give up all sequences of a replica; its server may still hold them."""
        home.epoch = home.replica.epoch
        for sequence_id in home.sequences:
            self._home_of.pop(sequence_id, None)
        home.leave(home.sequences)
        home.sequences.clear()
        home.full_until = 0.0
        home.lane.refuse(ReplicaDownError(self._name, f"{home.replica.address} is out of use"))

    def _replica_snapshot(self, replica: Replica) -> ReplicaSnapshot:
        home = self._homes.get(replica)
        used = len(home.sequences) if home else 0
        return ReplicaSnapshot(
            replica.address, replica.state, replica.in_flight, used, replica.slots
        )
