"""One stream under load: what is left out, that it comes back, and what may never change."""

import asyncio
import time
import types

import numpy as np
import pytest

from orchestrator.errors import DeadlinePassedError, ModelOverloadedError, SlotsExhaustedError
from orchestrator.overload.control import LoadControl
from orchestrator.overload.ladder import Level
from orchestrator.session import StreamSession
from orchestrator.settings import Settings
from orchestrator.types.frames import Encoding, GapReason, LostFrame
from orchestrator.types.results import Degradation, Recognition
from orchestrator.types.streams import StreamConfig
from tests.patience import until
from tests.unit.scripted_triton import ScriptedTriton
from tests.unit.test_session import PERSON, answers, encoded

LIVE = StreamConfig("live", Encoding.JPEG, is_live=True, latency_budget_s=30)
STORED = StreamConfig("stored", Encoding.JPEG)


class Play:
    """A session fed frame by frame."""

    def __init__(self, triton, config=LIVE, *, settings=None, state=None, first=0):
        self.triton, self.config, self.state = triton, config, state
        self.settings = settings or Settings()
        self.control = LoadControl(self.settings)
        self.outcomes, self.next = [], first
        self.wanted, self.answered = asyncio.Semaphore(0), asyncio.Condition()

    async def __aenter__(self):
        self.session = await StreamSession.open(
            self.config, self.triton, self.settings, control=self.control, state=self.state
        )
        self.is_over = False
        self.running = asyncio.create_task(self.session.run(self.frames(), self.emit))
        return self

    async def __aexit__(self, *_):
        self.is_over = True
        self.wanted.release()
        await self.running
        await self.session.close()

    async def frames(self):
        while True:
            await self.wanted.acquire()
            if self.is_over:
                return
            yield encoded(self.next)
            self.next += 1

    async def emit(self, outcome):
        async with self.answered:
            self.outcomes.append(outcome)
            self.answered.notify_all()

    async def frame(self, level=None):
        """Send a frame, at a level of the ladder, and wait for its answer."""
        if level is not None:
            self.control.ladder._enter(level)
        before = len(answers(self.outcomes))
        self.wanted.release()
        async with asyncio.timeout(20), self.answered:
            await self.answered.wait_for(lambda: len(answers(self.outcomes)) > before)
        return answers(self.outcomes)[-1]


def scripted(**options):
    return ScriptedTriton(scene=lambda call: [PERSON], labels="player,referee", **options)


async def test_boxes_only_keeps_the_ids_and_masks_come_back_afterwards():
    triton = scripted()
    async with Play(triton) as play:
        levels = [Level.NORMAL] * 4 + [Level.BOXES_ONLY] * 5 + [Level.NORMAL] * 4
        found = [await play.frame(level) for level in levels]
    assert [p.track_id for r in found for p in r.players] == [1] * len(levels)
    masked = [bool(r.players[0].track.mask) for r in found]
    assert masked == [level is Level.NORMAL for level in levels]
    assert [Degradation.BOXES_ONLY in r.degradations for r in found] == [not m for m in masked]
    assert not any(Degradation.TRACKER_UNAVAILABLE in r.degradations for r in found)
    steps = triton.seen("sam2_tracker")[:-1]  # the last one ends the sequence
    assert len(steps) == 8
    assert len({step.sequence_id for _, step in steps}) == 1
    returning, _ = steps[4]  # what SAM2 remembered is too old by now: it is told anew
    assert returning["forget_object_ids"].tolist() == [[1]]
    assert returning["prompt_object_ids"].tolist() == [[1]]


async def test_segmenting_less_asks_sam2_for_some_people_only():
    triton = scripted()
    async with Play(triton) as play:
        await play.frame(Level.NORMAL)
        result = await play.frame(Level.SEGMENT_LESS)
    asked = [inputs.get("max_observed") for inputs, _ in triton.seen("sam2_tracker")]
    assert asked[0] is None
    assert asked[1].tolist() == [[Settings().overload.max_observed]]
    assert Degradation.SEGMENTED_LESS_OFTEN in result.degradations


@pytest.mark.parametrize(
    ("level", "model"),
    [(Level.IDENTIFY_LESS, "siglip_embedder"), (Level.NUMBER_LESS, "resnet_jersey")],
)
async def test_people_are_looked_at_less_often(level, model):
    looks = {}
    for at in (Level.NORMAL, level):
        triton = scripted()
        async with Play(triton) as play:
            for _ in range(40):
                await play.frame(at)
        looks[at] = len(triton.seen(model))
    assert 0 < looks[level] < 0.5 * looks[Level.NORMAL]


async def test_stored_streams_are_never_degraded_whatever_the_level():
    results = []
    for level in (Level.NORMAL, Level.THIN_FRAMES):
        async with Play(scripted(), STORED) as play:
            found = [await play.frame(level) for _ in range(12)]
        assert not any(r.degradations for r in found)
        results.append([[(p.track_id, p.track.xyxy.tolist()) for p in r.players] for r in found])
    assert results[0] == results[1]


async def test_the_next_frame_is_tracked_while_people_of_the_last_one_are_looked_at():
    gate = asyncio.Event()
    triton = scripted()
    infer = triton.infer

    async def slow(contract, inputs, **options):
        if contract.name == "siglip_embedder" and not gate.is_set():
            await gate.wait()
        return await infer(contract, inputs, **options)

    triton.infer = slow
    async with Play(triton, STORED) as play:
        for _ in range(3):
            play.wanted.release()
        await until(lambda: len(triton.seen("sam2_tracker")) == 3)
        assert play.outcomes == []
        gate.set()
    found = answers(play.outcomes)
    assert [r.header.frame_index for r in found] == [0, 1, 2]
    assert all(p.track_id == 1 for r in found for p in r.players)


async def test_a_frame_that_sam2_had_no_time_for_does_not_cost_its_memory():
    late = DeadlinePassedError("sam2_tracker", "no replica had room before the deadline")
    triton = scripted(faults={"sam2_tracker": [None, None, late, None]})
    async with Play(triton) as play:
        found = [await play.frame() for _ in range(5)]
    lacking = [Degradation.TRACKER_UNAVAILABLE in r.degradations for r in found]
    assert lacking == [False, False, True, False, False]
    steps = [step for _, step in triton.seen("sam2_tracker")]
    assert [step.is_start for step in steps[:-1]] == [True, False, False, False, False]
    assert [p.track_id for r in found for p in r.players] == [1] * 5


async def test_a_frame_whose_time_is_over_when_its_turn_at_the_tracker_comes_is_not_tracked(
    monkeypatch,
):
    gate, late_s = asyncio.Event(), 0.0
    clock = types.SimpleNamespace(monotonic=lambda: time.monotonic() + late_s)
    monkeypatch.setattr("orchestrator.overload.control.time", clock)
    triton = scripted()
    infer = triton.infer

    async def slow(contract, inputs, **options):
        if contract.name == "sam2_tracker" and not gate.is_set():
            await gate.wait()
        return await infer(contract, inputs, **options)

    triton.infer = slow
    async with Play(triton) as play:
        for _ in range(2):
            play.wanted.release()
        await until(lambda: len(triton.seen("rfdetr_detector")) == 2)
        await asyncio.sleep(0.05)  # the second frame stands behind the first by now
        late_s = 2 * LIVE.latency_budget_s
        gate.set()
        await until(lambda: len(answers(play.outcomes)) == 2)
        late_s = 0.0
        last = await play.frame()
    first, second = answers(play.outcomes)[:2]
    assert isinstance(first, Recognition)
    assert (second.reason, type(last)) == (GapReason.OVERLOADED, Recognition)
    assert len(triton.seen("sam2_tracker")[:-1]) == 2  # the last one ends the sequence
    assert [p.track_id for r in (first, last) for p in r.players] == [1, 1]


async def test_what_the_detector_has_no_time_for_is_lost_as_overload_if_live():
    late = DeadlinePassedError("rfdetr_detector", "no replica had room before the deadline")
    triton = scripted(faults={"rfdetr_detector": [None, late]})
    async with Play(triton) as play:
        found = [await play.frame() for _ in range(3)]
    assert [type(r) for r in found] == [Recognition, LostFrame, Recognition]
    assert found[1].reason is GapReason.OVERLOADED
    triton = scripted(faults={"rfdetr_detector": [None, late]})
    async with Play(triton, STORED) as play:
        found = [await play.frame() for _ in range(3)]
    assert all(isinstance(r, Recognition) for r in found)


@pytest.mark.parametrize(
    "model", ["rfdetr_detector", "sam2_tracker", "siglip_embedder", "resnet_jersey"]
)
async def test_stored_streams_lose_no_frame_whichever_model_is_overloaded(model):
    kinds = (ModelOverloadedError, SlotsExhaustedError, DeadlinePassedError)
    faults = [kind(model, "no room") for kind in (*kinds, *kinds)]
    triton = ScriptedTriton(scene=lambda call: [PERSON], faults={model: faults})  # and the ball's
    async with Play(triton, STORED) as play:
        found = []
        while faults:
            found.append(await play.frame())
    assert all(isinstance(answer, Recognition) for answer in found)


async def test_each_model_is_told_until_when_its_answer_is_worth_something():
    deadlines = {}
    triton = scripted()
    infer = triton.infer

    async def noted(contract, inputs, **options):
        deadlines.setdefault(contract.name, []).append(options.get("deadline"))
        return await infer(contract, inputs, **options)

    triton.infer = noted
    async with Play(triton) as play:
        await play.frame()
    asked = {name: found[0] for name, found in deadlines.items()}
    assert asked.keys() == {"rfdetr_detector", "sam2_tracker", "siglip_embedder", "resnet_jersey"}
    assert all(0 < deadline - time.monotonic() <= 30 for deadline in asked.values())
    deadlines.clear()
    async with Play(triton, STORED) as play:
        await play.frame()
    assert all(found[0] == np.inf for found in deadlines.values())
    # The END: who closes a stream waits for a moment only, and the pool tells the replica later.
    assert deadlines["sam2_tracker"][-1] <= time.monotonic() + 2


async def test_a_successor_goes_on_with_ids_and_people():
    triton = scripted()
    async with Play(triton, STORED) as play:
        for _ in range(5):
            await play.frame()
    state = play.session.state
    assert state.size_bytes > 0
    moved = ScriptedTriton(scene=lambda call: [PERSON], labels="player,referee")
    state.tracker._segmenter._triton = moved
    async with Play(triton, STORED, state=state, first=5) as play:
        found = [await play.frame() for _ in range(3)]
    assert [p.track_id for r in found for p in r.players] == [1] * 3
    assert (state.count, state.stats.recognized, state.stats.received) == (8, 8, 8)
    first = moved.seen("sam2_tracker")[0][0]
    assert first["prompt_masks"].tolist() == [[b"RLE"]]  # rebuilt from the last masks


async def test_a_client_that_vanishes_leaves_a_whole_state():
    entered, gate = asyncio.Event(), asyncio.Event()
    triton = scripted()
    infer = triton.infer

    async def slow(contract, inputs, **options):
        if contract.name == "sam2_tracker" and not gate.is_set():
            entered.set()
            await gate.wait()
        return await infer(contract, inputs, **options)

    triton.infer = slow
    play = Play(triton, STORED)
    await play.__aenter__()
    play.wanted.release()
    await entered.wait()
    play.running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await play.running
    closing = asyncio.create_task(play.session.close())
    await asyncio.sleep(0)
    assert not closing.done()
    gate.set()
    await closing
    assert play.session.state.count == 1
    steps = [step for _, step in triton.seen("sam2_tracker")]
    assert [step.is_end for step in steps] == [False, True]
    assert play.session.stats.received == 0  # it was not answered: it will be sent again

    async with Play(triton, STORED, state=play.session.state) as again:
        recognition = await again.frame()
        assert [len(again.session.people), again.session.state.count] == [1, 1]
        assert [p.track_id for p in recognition.players] == [1]
        assert set(recognition.stage_seconds) == {"queue", "decode", "detect", "total"}
        assert not again.session.state.unanswered
        await again.frame()
        assert again.session.state.count == 2
    assert [person.frame_count for person in again.session.people] == [2]
    assert again.session.stats.received == 2
