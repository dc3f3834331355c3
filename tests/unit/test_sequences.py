"""Sequences stay where they started, move when they must, and leave no slot behind."""

import asyncio
import contextlib
import math
import time

import numpy as np
import pytest

from orchestrator import metrics
from orchestrator.errors import (
    DeadlinePassedError,
    ModelError,
    ModelOverloadedError,
    ModelUnavailableError,
    SequenceLostError,
    SlotsExhaustedError,
)
from orchestrator.settings import TritonSettings
from orchestrator.triton import sequences
from orchestrator.triton.client import SequenceStep, TritonClient
from orchestrator.triton.endpoints import Endpoint
from orchestrator.triton.snapshot import ReplicaState
from tests.patience import until
from tests.unit.fake_triton import (
    BAD_INPUT,
    FOLLOWER,
    GOING,
    STUB_DIED,
    FakeTriton,
    fake_tritons,
    numbers,
    serving,
)
from tests.unit.test_pool import QUICK, READY, states

NOBODY = {"forget_object_ids": np.zeros((1, 1), np.int64)}


def client(tritons, **options):
    addresses = [triton.address for triton in tritons]
    return TritonClient(
        TritonSettings(urls={"follower": addresses}, **(QUICK | options)), (FOLLOWER,)
    )


async def step(triton, number, is_start=False, **options):
    answer = await triton.infer(
        FOLLOWER, numbers(number), step=SequenceStep(number, is_start), **options
    )
    return answer["y"][0, 0]


async def end(triton, number, **options):
    await triton.infer(FOLLOWER, NOBODY, step=SequenceStep(number, is_end=True), **options)


async def all_ready(triton, count):
    await until(lambda: states(triton) == {READY: count})


def used(triton):
    return sum(replica.slots_used for replica in triton.snapshot()[0].replicas)


def home_of(fakes, number):
    (home,) = (fake for fake in fakes if number in fake.sequences)
    return home


async def test_sequences_fill_all_slots_and_stay_where_they_started():
    async with fake_tritons(3) as fakes, client(fakes) as triton:
        await all_ready(triton, 3)
        for number in range(1, 7):
            await step(triton, number, True)
        homes = [home_of(fakes, number) for number in range(1, 7)]
        assert [len(fake.sequences) for fake in fakes] == [2, 2, 2]
        for _ in range(3):
            assert await asyncio.gather(*(step(triton, n) for n in range(1, 7))) == [*range(1, 7)]
        assert homes == [home_of(fakes, number) for number in range(1, 7)]
        assert used(triton) == 6


async def test_a_start_beyond_all_slots_says_so_and_succeeds_once_one_is_free():
    async with fake_tritons(2) as fakes, client(fakes) as triton:
        await all_ready(triton, 2)
        refused = metrics.TRACKER_STARTS_REFUSED._value.get()
        for number in range(1, 5):
            await step(triton, number, True)
        with pytest.raises(SlotsExhaustedError, match="follower: no replica has a free slot"):
            await step(triton, 9, True)
        assert metrics.TRACKER_STARTS_REFUSED._value.get() > refused
        # A replica that has just refused is not asked again at once.
        asked = metrics.TRACKER_STARTS_REFUSED._value.get()
        with pytest.raises(SlotsExhaustedError):
            await step(triton, 10, True)
        assert metrics.TRACKER_STARTS_REFUSED._value.get() == asked
        await end(triton, 2)
        assert await step(triton, 9, True) == 9
        assert used(triton) == 4


async def test_starts_agree_on_the_order_of_replicas_whoever_asks():
    async with fake_tritons(4, slots=1000) as fakes, client(fakes) as one, client(fakes) as other:
        await all_ready(one, 4)
        await all_ready(other, 4)
        for number in range(1, 41):
            await step(one, number, True)
            await step(other, number + 1000, True)
        assert all(len(fake.sequences) >= 3 for fake in fakes)
        for number in range(1, 41):
            home = home_of(fakes, number)
            await end(one, number)
            await step(other, number, True)
            assert home_of(fakes, number) is home


@pytest.mark.parametrize("fault", [GOING, STUB_DIED])
async def test_a_sequence_whose_replica_goes_down_is_lost_and_can_start_elsewhere(fault):
    async with fake_tritons(2) as fakes, client(fakes, repair_attempts=0) as triton:
        await all_ready(triton, 2)
        await step(triton, 1, True)
        home_of(fakes, 1).fault = fault
        with pytest.raises(SequenceLostError):
            await step(triton, 1)
        assert await step(triton, 2, True) == 2
        with pytest.raises(SequenceLostError, match="sequence 1 has no replica any more"):
            await step(triton, 1)


async def test_what_else_lives_on_a_replica_that_goes_down_is_lost_without_a_wait():
    out = {"ejection_s": 600, "max_ejection_s": 600}
    async with fake_tritons(1) as (fake,), client([fake], **out) as triton:
        await step(triton, 1, True)
        await step(triton, 2, True)
        fake.fault = GOING
        for number in (1, 2):
            with pytest.raises(SequenceLostError):
                await step(triton, number, deadline=time.monotonic() + 5)
        assert used(triton) == 0


async def test_a_start_passes_over_a_replica_that_goes_down_with_it():
    async with fake_tritons(2) as fakes, client(fakes) as triton:
        await all_ready(triton, 2)
        fakes[0].fault = GOING
        assert [await step(triton, n, True) for n in (1, 2)] == [1, 2]
        assert fakes[1].sequences == {1, 2}


async def test_a_hanging_replica_gives_its_slots_back_once_it_answers():
    async with fake_tritons(2) as fakes, client(fakes, probe_timeout_s=0.2) as triton:
        await all_ready(triton, 2)
        await step(triton, 1, True)
        home = home_of(fakes, 1)
        home.hangs = True
        with pytest.raises(SequenceLostError, match="answers neither probes nor requests"):
            await step(triton, 1)
        assert home.sequences == {1}
        home.hangs = False
        await all_ready(triton, 2)
        await until(lambda: not home.sequences)


async def test_a_step_that_is_cancelled_or_fails_ends_its_sequence():
    async with fake_tritons(1, slots=9) as fakes, client(fakes) as triton:
        for number in (1, 2, 3):
            await step(triton, number, True)
        fakes[0].gate.clear()
        stepping = asyncio.create_task(step(triton, 1))
        await until(lambda: fakes[0].rows == 1)
        stepping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await stepping
        with pytest.raises(ModelUnavailableError, match="none in 0.1 s"):
            await step(triton, 2, timeout_s=0.1)
        fakes[0].gate.set()
        await until(lambda: fakes[0].sequences == {3})
        fakes[0].fault = BAD_INPUT
        with pytest.raises(ModelError, match="x: expected"):
            await step(triton, 3)
        fakes[0].fault = None
        with pytest.raises(SequenceLostError):
            await step(triton, 3)
        assert used(triton) == 0


async def test_an_end_is_told_until_it_is_heard(monkeypatch):
    monkeypatch.setattr(sequences, "_END_S", 0.05)
    options = {"infer_timeout_s": 0.3, "eject_after": 100}
    async with fake_tritons(1) as fakes, client(fakes, **options) as triton:
        for number in (1, 2):
            await step(triton, number, True, timeout_s=60)
        fakes[0].gate.clear()
        with pytest.raises(ModelUnavailableError):
            await step(triton, 1)
        await until(lambda: fakes[0].calls >= 5)  # two STARTs, the step, and an END in vain, twice
        fakes[0].gate.set()
        await until(lambda: fakes[0].sequences == {2})


async def test_an_end_that_its_replica_goes_down_with_is_told_once_it_is_back():
    async with fake_tritons(2) as fakes, client(fakes) as triton:
        await all_ready(triton, 2)
        await step(triton, 1, True)
        home = home_of(fakes, 1)
        home.gate.clear()
        with pytest.raises(ModelUnavailableError):
            await step(triton, 1, timeout_s=0.05)
        await until(lambda: home.calls == 3)  # START, the step, and the END
        home.hangs = True
        await until(lambda: states(triton)[READY] == 1)
        assert home.sequences == {1}
        home.hangs = False
        home.gate.set()
        await until(lambda: not home.sequences)


@pytest.mark.parametrize("is_full", [True, False])
async def test_an_end_that_finds_no_room_still_ends_its_sequence(is_full):
    options = {"batches_in_flight": 1, "max_queued": 2 if is_full else 9}
    async with fake_tritons(1, slots=9) as fakes, client(fakes, **options) as triton:
        for number in range(1, 7):
            await step(triton, number, True)
        fakes[0].gate.clear()
        steps = [asyncio.create_task(step(triton, number)) for number in range(1, 6)]
        await until(lambda: (fakes[0].rows, triton.snapshot()[0].queued) == (4, 1))
        with pytest.raises(ModelOverloadedError):
            await end(triton, 6, deadline=math.inf if is_full else time.monotonic() + 0.05)
        assert used(triton) == 5
        fakes[0].gate.set()
        assert await asyncio.gather(*steps) == [1, 2, 3, 4, 5]
        await until(lambda: fakes[0].sequences == {1, 2, 3, 4, 5})


async def test_a_step_too_late_to_be_sent_leaves_its_sequence_alone():
    async with fake_tritons(1) as fakes, client(fakes) as triton:
        await step(triton, 1, True)
        with pytest.raises(DeadlinePassedError):
            await step(triton, 1, deadline=time.monotonic() - 1)
        # Once sent it is not cut off either: the state would be lost for the sake of one frame.
        fakes[0].gate.clear()
        late = asyncio.create_task(step(triton, 1, deadline=time.monotonic() + 0.1))
        await asyncio.sleep(0.3)
        fakes[0].gate.set()
        assert await late == 1


class Places:
    """Endpoints that a test changes."""

    def __init__(self, *tritons):
        self.heard = asyncio.Queue()
        self.tell(*tritons)

    def tell(self, *tritons, terminating=()):
        self.heard.put_nowait(frozenset(Endpoint(t.address, t in terminating) for t in tritons))

    async def snapshots(self):
        while True:
            yield await self.heard.get()


@contextlib.asynccontextmanager
async def placed(monkeypatch, *tritons):
    places = Places(*tritons)
    monkeypatch.setattr("orchestrator.triton.client.endpoints", lambda *_, **__: places.snapshots())
    async with TritonClient(TritonSettings(**QUICK), (FOLLOWER,)) as triton:
        await all_ready(triton, len(tritons))
        yield places, triton


async def test_a_draining_replica_hands_its_sequences_over_and_is_empty_then(monkeypatch):
    async with fake_tritons(2) as fakes, placed(monkeypatch, *fakes) as (places, triton):
        await step(triton, 1, True)
        old = home_of(fakes, 1)
        places.tell(*fakes, terminating=[old])
        await until(lambda: states(triton)[ReplicaState.DRAINING] == 1)
        with pytest.raises(SequenceLostError):
            await step(triton, 1)
        await step(triton, 2, True)
        await until(lambda: not old.sequences)
        assert home_of(fakes, 2) is not old
        places.tell(home_of(fakes, 2))
        await until(lambda: states(triton) == {READY: 1})
        assert await step(triton, 2) == 2


async def test_a_draining_replica_keeps_its_sequences_while_no_other_has_room(monkeypatch):
    async with (
        fake_tritons(1) as (old,),
        fake_tritons(1, slots=0) as (full,),
        placed(monkeypatch, old) as (places, triton),
    ):
        await step(triton, 1, True)
        places.tell(old, terminating=[old])
        await until(lambda: states(triton)[ReplicaState.DRAINING] == 1)
        assert await step(triton, 1) == 1
        assert await step(triton, 2, True) == 2  # better than nowhere
        places.tell(old, full, terminating=[old])
        await until(lambda: states(triton)[READY] == 1)
        with pytest.raises(SlotsExhaustedError):
            await step(triton, 3, True)
        assert await step(triton, 1) == 1


async def test_replicas_that_come_and_go_move_nobody_else(monkeypatch):
    async with fake_tritons(3, slots=9) as fakes, placed(monkeypatch, *fakes[:2]) as scene:
        places, triton = scene
        for number in range(1, 9):
            await step(triton, number, True)
        stay = fakes[0].sequences.copy()
        places.tell(fakes[0], fakes[2])
        await until(
            lambda: (
                [r.endpoint for r in triton.snapshot()[0].replicas]
                == [fakes[0].address, fakes[2].address]
            )
        )
        lost = set()
        for number in range(1, 9):
            try:
                await step(triton, number)
            except SequenceLostError:
                lost.add(number)
        assert lost == set(range(1, 9)) - stay
        assert fakes[0].sequences == stay


async def test_a_server_that_died_and_came_back_knows_no_old_sequence():
    async with contextlib.AsyncExitStack() as stack:
        first = FakeTriton()
        async with serving(first):
            port = int(first.address.rpartition(":")[2])
            triton = await stack.enter_async_context(client([first], patience_s=20))
            await step(triton, 1, True)
        second = await stack.enter_async_context(serving(FakeTriton(), port))
        with pytest.raises(SequenceLostError):
            await step(triton, 1)
        assert await step(triton, 2, True) == 2
        assert second.sequences == {2}
