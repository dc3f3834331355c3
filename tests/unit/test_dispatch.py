"""The queue in front of the replicas: bounded, in order, in time, and whole when callers leave."""

import asyncio
import math
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import (
    DeadlinePassedError,
    ModelOverloadedError,
    ModelUnavailableError,
)
from orchestrator.triton.dispatch import Dispatcher
from orchestrator.types.streams import Caller


class Server:
    """Room for some rows, counted."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.rows = 0
        self.highest = 0
        self.is_there = True

    def pick(self, rows):
        if not self.is_there or self.rows + rows > self.most:
            return None
        self.rows += rows
        self.highest = max(self.highest, self.rows)
        return self

    def release(self, rows):
        self.rows -= rows


def make(most=1, max_queued=100):
    server = Server(most)
    return server, Dispatcher("model", server.pick, max_queued)


SOMEBODY = Caller("s")


async def work(server, dispatcher, rows=1, caller=SOMEBODY, log=None, tag=None, **options):
    place = await dispatcher.turn(rows, caller, **options)
    try:
        if log is not None:
            log.append(tag)
        await asyncio.sleep(0)
    finally:
        place.release(rows)
        dispatcher.pump()


async def queue_up(*coroutines):
    """Start tasks one by one, each waiting before the next begins."""
    tasks = []
    for coroutine in coroutines:
        tasks.append(asyncio.create_task(coroutine))
        await asyncio.sleep(0)
    return tasks


async def test_a_stream_is_served_by_deadline():
    server, dispatcher = make()
    server.is_there = False
    now, log = time.monotonic(), []
    tasks = await queue_up(
        *(
            work(server, dispatcher, log=log, tag=seconds, deadline=now + seconds)
            for seconds in (300, 100, 200)
        )
    )
    server.is_there = True
    dispatcher.pump()
    await asyncio.gather(*tasks)
    assert log == [100, 200, 300]


async def test_live_requests_go_first_and_stored_ones_do_not_starve():
    server, dispatcher = make()
    server.is_there = False
    log, soon = [], time.monotonic() + 300
    stored = (work(server, dispatcher, log=log, tag="stored") for _ in range(4))
    live = (
        work(server, dispatcher, caller=Caller("l"), log=log, tag="live", deadline=soon)
        for _ in range(40)
    )
    tasks = await queue_up(*stored, *live)
    server.is_there = True
    dispatcher.pump()
    await asyncio.gather(*tasks)
    assert log[0] == "live"
    assert 1 <= log[:32].count("stored") <= 3


async def test_who_cannot_be_answered_in_time_leaves_unsent():
    server, dispatcher = make()
    place = await dispatcher.turn(1, Caller("s"))
    with pytest.raises(DeadlinePassedError, match="model: no replica had room"):
        await dispatcher.turn(1, Caller("s"), deadline=time.monotonic() + 0.02)
    # The answer takes half a minute, so there is no point in waiting for a place until the end.
    with pytest.raises(DeadlinePassedError):
        await dispatcher.turn(1, Caller("s"), deadline=time.monotonic() + 30, service_s=29.98)
    assert dispatcher.queued == 0
    place.release(1)
    with pytest.raises(DeadlinePassedError, match="had passed"):
        await dispatcher.turn(1, Caller("s"), deadline=time.monotonic() - 1)
    assert server.rows == 0


async def test_a_greedy_stream_leaves_room_in_the_queue_for_others():
    server, dispatcher = make(max_queued=16)
    server.is_there = False
    greedy = await queue_up(*(work(server, dispatcher, caller=Caller("g")) for _ in range(30)))
    assert dispatcher.queued == 8
    modest = await queue_up(*(work(server, dispatcher, caller=Caller("m")) for _ in range(3)))
    assert dispatcher.queued == 11
    server.is_there = True
    dispatcher.pump()
    outcomes = await asyncio.gather(*greedy, return_exceptions=True)
    assert sum(isinstance(o, ModelOverloadedError) for o in outcomes) == 22
    await asyncio.gather(*modest)


@pytest.mark.parametrize(
    ("ending", "outcome"),
    [
        ("turn", type(None)),
        ("deadline", DeadlinePassedError),
        ("cancelled", asyncio.CancelledError),
        ("refused", ModelUnavailableError),
    ],
)
async def test_a_wait_gives_its_room_in_the_queue_back_however_it_ends(ending, outcome):
    server, dispatcher = make(max_queued=2)
    for _ in range(4):
        server.is_there = False
        deadline = time.monotonic() + 0.02 if ending == "deadline" else math.inf
        waiting = asyncio.create_task(work(server, dispatcher, deadline=deadline))
        await asyncio.sleep(0)
        assert dispatcher.queued == 1
        if ending == "turn":
            server.is_there = True
            dispatcher.pump()
        elif ending == "cancelled":
            waiting.cancel()
        elif ending == "refused":
            dispatcher.refuse(ModelUnavailableError("model", "gone"))
        (ended,) = await asyncio.gather(waiting, return_exceptions=True)
        assert type(ended) is outcome


async def test_a_refusal_reaches_everybody_who_waits_and_nobody_else():
    server, dispatcher = make()
    place = await dispatcher.turn(1, Caller("s"))
    tasks = await queue_up(*(work(server, dispatcher) for _ in range(3)))
    dispatcher.refuse(ModelUnavailableError("model", "nobody is left"))
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(o, ModelUnavailableError) for o in outcomes)
    place.release(1)
    await work(server, dispatcher)


async def test_a_turn_that_comes_with_the_cancellation_is_given_back():
    server, dispatcher = make()
    place = await dispatcher.turn(1, Caller("s"))
    (leaving, staying) = await queue_up(*(work(server, dispatcher) for _ in range(2)))
    place.release(1)
    dispatcher.pump()  # `leaving` has its turn now, and is cancelled before it knows
    leaving.cancel()
    await asyncio.gather(staying)
    assert leaving.cancelled() or leaving.done()
    assert server.rows == 0


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    most=st.integers(8, 24),
    sizes=st.lists(st.integers(1, 8), min_size=1, max_size=60),
)
def test_whatever_happens_rooms_are_kept_and_every_request_ends_once(seed, most, sizes):
    async def scene():
        chance = random.Random(seed)
        server, dispatcher = make(most, max_queued=40)
        log = []

        async def one(tag, rows):
            caller = Caller(chance.choice("abc"), chance.choice("xy"), chance.choice((1.0, 3.0)))
            deadline = chance.choice((math.inf, time.monotonic() + chance.random() * 0.02))
            await work(server, dispatcher, rows, caller, log, tag, deadline=deadline)

        tasks = await queue_up(*(one(tag, rows) for tag, rows in enumerate(sizes)))
        for task in tasks:
            if chance.random() < 0.3:
                task.cancel()
            if chance.random() < 0.3:
                await asyncio.sleep(chance.random() * 0.005)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        kinds = ModelOverloadedError | asyncio.CancelledError | None
        assert all(isinstance(outcome, kinds) for outcome in outcomes)
        assert len(log) == len(set(log))
        assert {tag for tag, o in enumerate(outcomes) if o is None} <= set(log)
        assert server.highest <= most
        assert (server.rows, dispatcher.queued, dict(dispatcher._held)) == (0, 0, {})

    asyncio.run(scene())
