"""Calls whose caller, or whose replica, leaves halfway: nobody waits in vain, nothing is left."""

import asyncio
import contextlib
import time

import pytest

from orchestrator.errors import DeadlinePassedError, ModelUnavailableError, SlotsExhaustedError
from orchestrator.triton import connection
from orchestrator.triton.calls import Calls
from orchestrator.triton.repair import RELOAD_S
from orchestrator.triton.wire import Wire
from tests.patience import until
from tests.unit import test_sequences as sequences
from tests.unit.fake_triton import fake_tritons
from tests.unit.test_pool import EJECTED, READY, ask, client, states
from tests.unit.test_sequences import home_of, placed, step

LATER_S = 60.0


def later():
    return time.monotonic() + LATER_S


async def fall_quiet():
    """Let so much time pass that the next call in a hurry is heard out."""
    await asyncio.sleep(0.6)


async def heard_out(triton, fake):
    """Leave a call behind that its server holds."""
    await fall_quiet()
    fake.gate.clear()
    with pytest.raises(DeadlinePassedError):
        await ask(triton, 1, deadline=time.monotonic() + 0.1)
    await until(lambda: fake.rows == 1)


def heard_out_now():
    names = [task.get_coro().__qualname__ for task in asyncio.all_tasks()]
    return names.count("Calls._bounded")


async def test_room_of_callers_who_leave_together_goes_to_those_who_wait():
    async with fake_tritons(2) as fakes, client(fakes) as triton:
        await until(lambda: states(triton) == {READY: 2})
        for fake in fakes:
            fake.gate.clear()
        leaving = [asyncio.create_task(ask(triton, *range(4), deadline=later())) for _ in range(4)]
        await until(lambda: sum(fake.rows for fake in fakes) == 16)
        waiting = asyncio.create_task(ask(triton, 7))
        await until(lambda: triton.snapshot()[0].queued == 1)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        await until(lambda: sum(fake.rows for fake in fakes) == 1, seconds=20)
        for fake in fakes:
            fake.gate.set()
        assert await waiting == [7]


async def test_a_call_under_way_is_answered_although_its_replica_leaves(monkeypatch):
    async with fake_tritons(2) as fakes, placed(monkeypatch, *fakes) as (places, triton):
        await step(triton, 1, True)
        home = home_of(fakes, 1)
        (other,) = (fake for fake in fakes if fake is not home)
        await fall_quiet()
        home.gate.clear()
        stepping = asyncio.create_task(step(triton, 1, deadline=later()))
        await until(lambda: home.rows == 1)
        places.tell(other)
        await until(lambda: states(triton) == {READY: 1})
        home.gate.set()
        assert await stepping == 1


async def test_a_start_is_not_sent_to_a_replica_that_left_while_others_refused_it(monkeypatch):
    async with fake_tritons(2, slots=0) as fakes, placed(monkeypatch, *fakes) as (places, triton):
        for fake in fakes:
            fake.gate.clear()
        starting = asyncio.create_task(step(triton, 1, True))
        await until(lambda: sum(fake.rows for fake in fakes) == 1)
        (first,) = (fake for fake in fakes if fake.rows)
        places.tell(first)
        await until(lambda: states(triton) == {READY: 1})
        first.gate.set()
        with pytest.raises(SlotsExhaustedError):
            await asyncio.wait_for(starting, 20)


async def test_a_call_that_is_heard_out_ends_when_its_replica_is_given_up():
    async with fake_tritons(1) as (fake,), client([fake], infer_timeout_s=600) as triton:
        await heard_out(triton, fake)
        (replica,) = triton._pools["echo"].members.all
        replica.eject("hang", "as another replica's calls tell", drops_calls=True)
        await until(lambda: fake.rows == 0, seconds=20)
        fake.gate.set()
        await until(lambda: states(triton) == {READY: 1})
        assert await ask(triton, 2) == [2]


async def test_a_call_that_is_heard_out_ends_with_the_client():
    async with fake_tritons(1) as (fake,):
        async with client([fake]) as triton:
            await heard_out(triton, fake)
            assert heard_out_now() == 1
        assert heard_out_now() == 0


async def test_a_replica_that_was_idle_has_not_been_silent():
    options = {"infer_timeout_s": 0.3, "eject_after": 2, "probe_interval_s": 600}
    async with fake_tritons(1) as (fake,), client([fake], **options) as triton:
        assert await ask(triton, 1) == [1]
        await fall_quiet()
        fake.gate.clear()
        for _ in range(4):
            with pytest.raises(DeadlinePassedError):
                await ask(triton, 1, deadline=time.monotonic() + 0.02)
        assert states(triton) == {READY: 1}


async def test_a_replica_that_was_idle_gets_its_share_again():
    async with fake_tritons(2) as fakes, client(fakes) as triton:
        await until(lambda: states(triton) == {READY: 2})
        await fall_quiet()
        for i in range(30):
            await ask(triton, i)
        assert all(fake.served for fake in fakes)


async def test_a_model_that_answers_nobody_is_left_however_hurried_its_callers():
    options = {"infer_timeout_s": 1, "probe_interval_s": 600, "max_ejection_s": 600}
    async with fake_tritons(1) as (fake,), client([fake], ejection_s=600, **options) as triton:
        fake.gate.clear()

        async def hurry():
            while True:
                with contextlib.suppress(DeadlinePassedError, ModelUnavailableError):
                    await ask(triton, 1, deadline=time.monotonic() + 0.05)
                await asyncio.sleep(0.01)

        hurrying = asyncio.create_task(hurry())
        await until(lambda: states(triton) == {EJECTED: 1})
        hurrying.cancel()


async def test_what_was_not_answered_while_it_was_prepared_is_no_answer(monkeypatch):
    async def prepare(wire, request):
        raise ModelUnavailableError("echo", "Deadline Exceeded")  # registering its shared memory

    async with fake_tritons(1) as (fake,), client([fake], eject_after=3, ejection_s=60) as triton:
        monkeypatch.setattr(Wire, "send", prepare)
        for _ in range(3):
            assert states(triton) == {READY: 1}
            with pytest.raises(ModelUnavailableError):
                await ask(triton, 1)
        assert states(triton) == {EJECTED: 1}


async def test_no_call_is_cut_off_by_a_new_channel(monkeypatch):
    graces = []

    async def close_later(client, seconds):
        graces.append(seconds)
        await client.close()

    monkeypatch.setattr(connection, "_close_later", close_later)
    monkeypatch.setattr(connection, "_RENEW_S", -1.0)
    for infer_timeout_s in (1, 1000):
        async with (
            fake_tritons(1) as fakes,
            client(fakes, infer_timeout_s=infer_timeout_s) as triton,
        ):
            (replica,) = triton._pools["echo"].members.all
            replica.connection.renew()
            assert await ask(triton, 1) == [1]
            # A reload is the longest call but for inferences of very patient settings.
            assert graces.pop() >= max(infer_timeout_s, RELOAD_S)


async def test_a_call_under_way_is_answered_over_the_channel_that_was_replaced(monkeypatch):
    monkeypatch.setattr(connection, "_RENEW_S", -1.0)
    async with fake_tritons(1) as fakes, client(fakes) as triton:
        fakes[0].gate.clear()
        asking = asyncio.create_task(ask(triton, 1))
        await until(lambda: fakes[0].rows == 1)
        (replica,) = triton._pools["echo"].members.all
        replica.connection.renew()
        await asyncio.sleep(0.05)
        fakes[0].gate.set()
        assert await asking == [1]


async def test_one_call_at_a_time_is_heard_out_and_then_another():
    under_way, heard, gate = set(), [], asyncio.Event()

    async def exchange(name):
        under_way.add(name)
        try:
            await gate.wait()
        finally:
            under_way.remove(name)

    async def send_and_leave(name):
        with pytest.raises(TimeoutError):
            await calls.send(name, 0.01, hear_out=True)

    calls = Calls(exchange, 60.0, heard.append)
    await send_and_leave("heard out")
    await send_and_leave("beside it")
    assert under_way == {"heard out"}
    gate.set()
    await until(lambda: heard == [None])
    gate.clear()
    await send_and_leave("after it")
    assert under_way == {"after it"}
    calls.close()
    await until(lambda: not under_way)


async def test_a_caller_who_waits_for_a_call_that_is_given_up_is_told():
    calls = Calls(lambda _: asyncio.sleep(60.0), 60.0, print)
    waiting = asyncio.create_task(calls.send(None, 60.0, hear_out=True))
    await asyncio.sleep(0.01)
    calls.close()
    with pytest.raises(TimeoutError):
        await waiting


class Pace:
    """A gate that lets everybody through after a while: the time that a model takes."""

    def __init__(self, seconds):
        self._seconds = seconds

    async def wait(self):
        await asyncio.sleep(self._seconds)


async def test_the_capacity_of_replicas_of_sequences_is_what_they_do_together():
    options = {"slots": 9, "max_batch_size": 1}
    async with (
        fake_tritons(2, **options) as fakes,
        sequences.client(fakes, batches_in_flight=1, probe_timeout_s=60) as triton,
    ):
        await sequences.all_ready(triton, 2)
        numbers = range(1, 13)
        for number in numbers:
            await step(triton, number, True)
        assert all(len(fake.sequences) > 2 for fake in fakes)
        for fake in fakes:
            fake.gate = Pace(0.02)

        async def go_on(number):
            for _ in range(14):
                await step(triton, number)

        begun = time.monotonic()
        await asyncio.gather(*(go_on(number) for number in numbers))
        done_per_s = 14 * len(numbers) / (time.monotonic() - begun)
        found = triton.snapshot()[0].capacity_rows_per_s
        assert 0.7 * done_per_s < found < 1.6 * done_per_s
