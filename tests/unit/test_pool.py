"""Replicas of a stateless model: shared evenly, left when they fail, taken back once well."""

import asyncio
import time
from collections import Counter

import numpy as np
import pytest

from orchestrator.errors import (
    DeadlinePassedError,
    ModelError,
    ModelUnavailableError,
    SettingError,
    TensorContractError,
)
from orchestrator.settings import TritonSettings
from orchestrator.triton import repair
from orchestrator.triton.client import TritonClient
from orchestrator.triton.replica import Replica
from orchestrator.triton.snapshot import ReplicaState
from orchestrator.types.streams import Caller
from tests.patience import until
from tests.unit.fake_triton import (
    BAD_INPUT,
    BROKEN,
    ECHO,
    GOING,
    STUB_DIED,
    FakeTriton,
    fake_tritons,
    numbers,
    serving,
)

READY, EJECTED = ReplicaState.READY, ReplicaState.EJECTED
QUICK = {
    "transport": "grpc",
    "probe_interval_s": 0.1,
    "probe_timeout_s": 0.3,
    "ejection_s": 0.2,
    "max_ejection_s": 0.8,
    "patience_s": 0.3,
    "connect_timeout_s": 20,
}


def client(tritons, **options):
    addresses = [triton.address for triton in tritons]
    return TritonClient(TritonSettings(urls={"echo": addresses}, **(QUICK | options)), (ECHO,))


def states(triton):
    return Counter(replica.state for replica in triton.snapshot()[0].replicas)


async def ask(triton, *values, **options):
    return (await triton.infer(ECHO, numbers(*values), **options))["y"][:, 0].tolist()


async def test_answers_keep_their_order_when_a_batch_is_split():
    async with fake_tritons(2) as fakes, client(fakes) as triton:
        assert await ask(triton, *range(11)) == list(range(11))
        assert sorted(fakes[0].served + fakes[1].served) == [3, 4, 4]


async def test_a_batch_that_is_split_fails_as_one_and_leaves_nothing_under_way():
    async with fake_tritons(2) as fakes, client(fakes) as triton:
        await until(lambda: states(triton) == {READY: 2})
        fakes[0].fault = BAD_INPUT
        fakes[1].gate.clear()
        for _ in range(10):  # either half is the one that fails
            with pytest.raises(ModelError, match=BAD_INPUT[1].split(":")[0]):
                await ask(triton, *range(8))
            assert triton.snapshot()[0].in_flight == 0


async def test_the_load_is_shared_and_no_replica_gets_more_than_its_batches():
    async with fake_tritons(3) as fakes, client(fakes, batches_in_flight=2) as triton:
        for fake in fakes:
            fake.gate.clear()
        asking = [asyncio.create_task(ask(triton, i, i + 1)) for i in range(30)]
        await until(lambda: sum(fake.rows for fake in fakes) == 24)
        snapshot = triton.snapshot()[0]
        assert (snapshot.in_flight, snapshot.queued) == (12, 18)
        for fake in fakes:
            fake.gate.set()
        assert [a[0] for a in await asyncio.gather(*asking)] == list(range(30))
        assert [fake.most_rows for fake in fakes] == [8, 8, 8]
        assert triton.snapshot()[0].rows_per_s > 0


async def test_callers_in_a_hurry_find_out_a_dead_process_that_is_told_of_late():
    async with fake_tritons(1) as fakes, client(fakes) as triton:
        fakes[0].fault = STUB_DIED
        fakes[0].gate.clear()
        for _ in range(8):  # the first calls are simply dropped: any replica may be slow for once
            with pytest.raises(DeadlinePassedError):
                await ask(triton, 1, deadline=time.monotonic() + 0.1)
        fakes[0].gate.set()
        await until(lambda: "load" in fakes[0].reloads)
        await until(lambda: states(triton)[READY] == 1)
        assert await ask(triton, 1) == [1]


async def test_a_suspect_replica_gets_no_call_while_another_answers(monkeypatch):
    async with fake_tritons(2) as fakes, client(fakes) as triton:
        await until(lambda: states(triton)[READY] == 2)
        suspect = property(lambda replica: replica.address == fakes[0].address)
        monkeypatch.setattr(Replica, "is_suspect", suspect)
        asking = (ask(triton, i) for i in range(8))
        assert [answer[0] for answer in await asyncio.gather(*asking)] == list(range(8))
        assert fakes[0].served == []
        fakes[1].gate.clear()
        held = [asyncio.create_task(ask(triton, i)) for i in range(9)]
        await until(lambda: fakes[0].served == [1])  # suspect, but the last one with room
        fakes[1].gate.set()
        await asyncio.gather(*held)


async def test_a_call_in_a_hurry_is_answered_elsewhere_when_its_replica_falls_silent():
    async with fake_tritons(2) as fakes, client(fakes) as triton:
        await until(lambda: states(triton)[READY] == 2)
        fakes[0].gate.clear()
        patience = time.monotonic() + 60
        asking = (ask(triton, i, deadline=patience) for i in range(8))
        assert [answer[0] for answer in await asyncio.gather(*asking)] == list(range(8))
        assert sum(fakes[0].served) == 0
        snapshot = triton.snapshot()[0]
        assert (snapshot.in_flight, snapshot.queued) == (0, 0)


@pytest.mark.parametrize("fault", [GOING, STUB_DIED])
async def test_a_request_that_a_replica_goes_down_with_is_answered_by_another(fault):
    options = {"repair_attempts": 0, "ejection_s": 60, "max_ejection_s": 60}
    async with fake_tritons(2) as fakes, client(fakes, **options) as triton:
        await until(lambda: states(triton) == {READY: 2})
        fakes[0].fault = fault
        answers = await asyncio.gather(*(ask(triton, i) for i in range(20)))
        assert answers == [[i] for i in range(20)]
        assert states(triton) == {READY: 1, EJECTED: 1}
        assert triton.snapshot()[0].is_available


async def test_a_lost_server_costs_no_request_and_is_taken_back():
    async with fake_tritons(1) as (stays,):
        goes = FakeTriton()
        async with serving(goes):
            port = int(goes.address.rpartition(":")[2])
            triton = await client([stays, goes]).__aenter__()
            await until(lambda: states(triton) == {READY: 2})
            goes.gate.clear()
            asking = [asyncio.create_task(ask(triton, i)) for i in range(12)]
            await until(lambda: goes.rows > 0)
        assert await asyncio.gather(*asking) == [[i] for i in range(12)]
        assert states(triton) == {READY: 1, EJECTED: 1}
        async with serving(FakeTriton(), port):
            await until(lambda: states(triton) == {READY: 2})
            await triton.__aexit__()


async def test_a_hanging_server_is_left_with_its_calls_and_taken_back():
    async with fake_tritons(2) as fakes, client(fakes) as triton:
        await until(lambda: states(triton) == {READY: 2})
        fakes[0].hangs = True
        answers = await asyncio.gather(*(ask(triton, i) for i in range(8)))
        assert answers == [[i] for i in range(8)]
        assert states(triton) == {READY: 1, EJECTED: 1}
        fakes[0].hangs = False
        await until(lambda: states(triton) == {READY: 2})


async def test_a_replica_that_keeps_failing_is_ejected_and_one_that_refuses_bad_input_is_not():
    async with fake_tritons(1) as fakes, client(fakes, eject_after=3, ejection_s=0.8) as triton:
        for fault, expected in ((BAD_INPUT, READY), (BROKEN, EJECTED)):
            fakes[0].fault = fault
            for _ in range(3):
                with pytest.raises(ModelError, match=fault[1].split(":")[0]):
                    await ask(triton, 1)
            assert states(triton) == {expected: 1}


@pytest.mark.parametrize("spoil", [{"fault": BROKEN}, {"answer_width": 2}])
async def test_a_replica_that_answers_badly_costs_no_request_and_is_ejected(spoil):
    options = {"ejection_s": 60, "max_ejection_s": 60}
    async with fake_tritons(2) as fakes, client(fakes, **options) as triton:
        await until(lambda: states(triton) == {READY: 2})
        for name, value in spoil.items():
            setattr(fakes[0], name, value)
        for i in range(40):
            assert await ask(triton, i, deadline=time.monotonic() + 60 * (i % 2 + 1)) == [i]
        assert states(triton) == {READY: 1, EJECTED: 1}


async def test_a_dead_stub_is_repaired_by_unloading_and_loading():
    async with fake_tritons(1) as fakes, client(fakes, patience_s=20) as triton:
        fakes[0].fault = STUB_DIED
        assert await ask(triton, 5) == [5]  # waits for the repair
        assert fakes[0].reloads == ["unload", "load"]


async def test_a_repair_whose_load_fails_is_tried_again():
    async with fake_tritons(1, failing_loads=2) as fakes, client(fakes, patience_s=20) as triton:
        fakes[0].fault = STUB_DIED
        assert await ask(triton, 5) == [5]
        assert fakes[0].reloads == ["unload", "load"]


async def test_a_repair_that_somebody_else_began_and_never_ended_is_taken_over(monkeypatch):
    monkeypatch.setattr(repair, "RELOAD_S", 1.0)
    async with fake_tritons(1) as fakes, client(fakes, patience_s=20) as triton:
        fakes[0].is_ready, fakes[0].fault = False, STUB_DIED
        assert await ask(triton, 5) == [5]
        assert fakes[0].reloads == ["load"]


async def test_a_repair_that_somebody_else_has_begun_is_left_to_them():
    async with fake_tritons(1) as fakes, client(fakes, patience_s=20) as triton:
        fakes[0].is_ready, fakes[0].fault = False, STUB_DIED
        asking = asyncio.create_task(ask(triton, 5))
        await until(lambda: states(triton)[ReplicaState.REPAIRING] == 1)
        await asyncio.sleep(repair._SPREAD_S + 0.2)
        fakes[0].is_ready, fakes[0].fault = True, None
        assert await asking == [5]
        assert fakes[0].reloads == []


async def test_without_model_control_repairs_are_given_up_and_the_replica_stays_out():
    async with fake_tritons(2) as fakes, client(fakes, repair_attempts=2) as triton:
        await until(lambda: states(triton) == {READY: 2})
        fakes[0].has_model_control, fakes[0].fault = False, STUB_DIED
        await asyncio.gather(*(ask(triton, i) for i in range(8)))
        assert states(triton)[ReplicaState.REPAIRING] == 1
        await until(lambda: states(triton)[EJECTED] == 1)
        assert fakes[0].reloads == []


async def test_without_replicas_requests_wait_a_little_and_then_fail_at_once():
    async with fake_tritons(1) as fakes, client(fakes, patience_s=0.5) as triton:
        fakes[0].is_ready, fakes[0].fault = False, GOING
        begun = time.monotonic()
        with pytest.raises(ModelUnavailableError, match=r"no replica \(127.0.0.1:\d+: .*\)"):
            await ask(triton, 1)
        assert time.monotonic() - begun > 0.4
        assert triton.snapshot()[0].is_available is False
        with pytest.raises(ModelUnavailableError):
            await asyncio.wait_for(ask(triton, 1), 0.3)
        fakes[0].is_ready, fakes[0].fault = True, None
        await until(lambda: states(triton) == {READY: 1})
        assert await ask(triton, 2) == [2]


async def test_a_deadline_ends_a_call_and_says_nothing_against_its_replica():
    async with fake_tritons(1) as fakes, client(fakes) as triton:
        fakes[0].gate.clear()
        for _ in range(6):
            with pytest.raises(DeadlinePassedError):
                await ask(triton, 1, deadline=time.monotonic() + 0.02)
        assert states(triton) == {READY: 1}
        assert triton.snapshot()[0].in_flight == 0


async def test_the_timeout_counts_from_when_a_request_is_sent():
    async with fake_tritons(1) as fakes, client(fakes, batches_in_flight=1) as triton:
        fakes[0].gate.clear()
        slow = asyncio.create_task(ask(triton, 1, 2, 3, 4, timeout_s=20))
        await until(lambda: fakes[0].rows == 4)
        queued = asyncio.create_task(ask(triton, 5, timeout_s=1))
        await asyncio.sleep(1.2)
        assert not queued.done()
        fakes[0].gate.set()
        assert await queued == [5]
        await slow


async def test_callers_share_a_model_that_is_behind():
    async with fake_tritons(1, max_batch_size=1) as fakes, client(fakes) as triton:
        fakes[0].gate.clear()
        done = []

        async def one(name, weight):
            await triton.for_caller(Caller(name, name, weight)).infer(ECHO, numbers(1))
            done.append(name)

        many = [asyncio.create_task(one("small", 1)) for _ in range(60)]
        await until(lambda: fakes[0].rows == 2)
        many += [asyncio.create_task(one("large", 3)) for _ in range(60)]
        await until(lambda: triton.snapshot()[0].queued == 118)
        fakes[0].gate.set()
        await asyncio.gather(*many)
        assert 25 <= done[:40].count("large") <= 33


async def test_a_replica_that_differs_is_refused_and_the_others_serve(caplog):
    async with (
        fake_tritons(1) as fakes,
        fake_tritons(1, width=2) as wrong,
        client(fakes + wrong) as triton,
    ):
        await until(lambda: "input x: expected FP32 [-1, 1]" in caplog.text)
        assert states(triton) == {READY: 1, EJECTED: 1}
        assert await ask(triton, *range(8)) == list(range(8))
        assert wrong[0].served == []


async def test_a_sole_replica_that_differs_ends_the_start():
    async with fake_tritons(1, width=2) as fakes:
        with pytest.raises(TensorContractError, match=r"live server has FP32 \[-1, 2\]"):
            await client(fakes).__aenter__()


async def test_a_start_without_replicas_names_addresses_and_reasons():
    async with fake_tritons(1) as fakes:
        fakes[0].is_ready = False
        with pytest.raises(ModelUnavailableError, match=r"echo: not ready in time at 127.* ready"):
            await client(fakes, connect_timeout_s=0.5).__aenter__()
    with pytest.raises(SettingError, match="triton.urls: expected HOST:PORT"):
        await TritonClient(TritonSettings(url="http://a:1/"), (ECHO,)).__aenter__()


async def test_random_faults_lose_no_request_while_one_replica_is_well():
    rng = np.random.default_rng(0)
    async with fake_tritons(3) as fakes, client(fakes, repair_attempts=2) as triton:
        answers = []

        async def ask_on(first):
            for value in range(first, first + 60):
                answers.append(await ask(triton, value))
                await asyncio.sleep(0.002)

        async def spoil():
            for fault in rng.choice(5, 25):
                fakes[0].fault = (None, GOING, STUB_DIED, GOING, None)[fault]
                await asyncio.sleep(0.02)

        await asyncio.gather(spoil(), *(ask_on(1000 * i) for i in range(6)))
        expected = [[1000 * i + value] for i in range(6) for value in range(60)]
        assert sorted(answers) == expected
        assert triton.snapshot()[0].in_flight == 0
