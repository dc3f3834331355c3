"""Streams that share a tracker: kept apart, bounded in memory, and lapsing when idle."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sam2_streaming.effort import Effort
from sam2_streaming.engine import StreamingEngine
from sam2_streaming.slots import SlotsExhaustedError, UnknownSequenceError, Usage

from tests.unit.tiny_tracker import (
    BOXES,
    BYTES_PER_OBJECT,
    HEIGHT,
    SLOTS,
    WIDTH,
    assert_same,
    clicks,
    counts_of,
    frame,
    new_tracker,
    request,
)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


ids = st.lists(st.sampled_from(sorted(BOXES)), unique=True, max_size=3)
sequences = st.integers(1, 3)
shown = st.fixed_dictionaries(
    {key: st.lists(st.booleans(), min_size=3, max_size=3) for key in ("masked", "clicked")}
    | {"max_observed": st.sampled_from([None, 0, 1, 2])}
)
steps = st.tuples(st.just("step"), sequences, ids, ids, shown)
commands = st.one_of(
    st.tuples(st.just("start"), sequences),
    st.tuples(st.just("end"), sequences),
    st.tuples(st.just("idle"), st.sampled_from([25.0, 45.0])),
    steps,
    steps,
    steps,
)
TTL_S = 60.0


def told(sequence_id, number, prompts, forget, how):
    """A request whose prompts come as boxes, masks and clicks."""
    masks = [
        counts_of(BOXES[k]) if m else b"" for k, m in zip(prompts, how["masked"], strict=False)
    ]
    rows = [
        (k, (BOXES[k][0] + BOXES[k][2]) / 2, (BOXES[k][1] + BOXES[k][3]) / 2, 1)
        for k, mask, is_clicked in zip(prompts, masks, how["clicked"], strict=False)
        if is_clicked and not mask
    ]
    changes = {"prompt_masks": tuple(masks), "max_observed": how["max_observed"]}
    return request(
        sequence_id, number, prompts, forget, **changes, **(clicks(*rows) if rows else {})
    )


class Shadow:
    """A tracker beside a plain account of what it should hold."""

    def __init__(self, **options):
        self.options, self.clock = options, Clock()
        self.tracker = new_tracker(**options, clock=self.clock, ttl_s=TTL_S)
        self.steps, self.objects, self.last, self.used = {}, {}, {}, {}

    def start(self, number, sequence_id):
        if len(self.steps.keys() | {sequence_id}) > SLOTS:
            with pytest.raises(SlotsExhaustedError):
                self.tracker.start(sequence_id)
            return
        self.end(number, sequence_id)
        self.tracker.start(sequence_id)
        self.steps[sequence_id], self.objects[sequence_id] = [], set()
        self.used[sequence_id] = self.clock.now

    def end(self, number, sequence_id):
        self.tracker.end(sequence_id)
        self.drop(sequence_id)

    def idle(self, number, seconds):
        self.clock.now += seconds
        for sequence_id in [k for k, at in self.used.items() if at + TTL_S < self.clock.now]:
            self.drop(sequence_id)

    def drop(self, sequence_id):
        for account in (self.steps, self.objects, self.last, self.used):
            account.pop(sequence_id, None)

    def step(self, number, sequence_id, prompts, forget, how):
        step = told(sequence_id, number, prompts, forget, how)
        if sequence_id not in self.steps:
            with pytest.raises(UnknownSequenceError, match="send START"):
                self.tracker.step(step)
            return
        self.last[sequence_id] = result = self.tracker.step(step)
        self.used[sequence_id] = self.clock.now
        self.steps[sequence_id].append(step)
        self.objects[sequence_id] = (self.objects[sequence_id] - set(forget)) | set(prompts)
        assert result.object_ids.tolist() == sorted(self.objects[sequence_id])
        assert set(prompts) <= set(result.object_ids[result.observed].tolist())
        assert result.observed.sum() <= max(len(prompts), how["max_observed"] or math.inf)

    def check_bounds(self):
        usage, objects = self.tracker.usage(), sum(map(len, self.objects.values()))
        assert (usage.slots, usage.sequences, usage.objects) == (SLOTS, len(self.steps), objects)
        assert usage.nbytes <= BYTES_PER_OBJECT * objects

    def check_against_streams_alone(self):
        for sequence_id, result in self.last.items():
            alone = new_tracker(**self.options, ttl_s=math.inf)
            alone.start(sequence_id)
            assert_same(result, [alone.step(step) for step in self.steps[sequence_id]][-1])


@given(
    st.lists(commands, max_size=16),
    st.sampled_from(["window", "frame"]),
    st.sampled_from([Effort(), Effort(3), Effort(2, 1)]),
)
@settings(max_examples=80, deadline=None, derandomize=True)
def test_any_order_of_calls_keeps_streams_apart_and_memory_bounded(calls, mode, effort):
    shadow = Shadow(mode=mode, effort=effort)
    for number, (kind, *arguments) in enumerate(calls):
        getattr(shadow, kind)(number, *arguments)
        shadow.check_bounds()
    shadow.check_against_streams_alone()
    for sequence_id in list(shadow.steps):
        shadow.end(len(calls), sequence_id)
    assert shadow.tracker.usage() == Usage(SLOTS, sequences=0, objects=0, nbytes=0)


def test_a_start_beyond_the_slots_says_how_many_there_are():
    tracker = new_tracker()
    tracker.start(1)
    tracker.start(2)
    with pytest.raises(SlotsExhaustedError, match="all 2 sequence slots"):
        tracker.start(3)
    tracker.end(1)
    tracker.start(3)


def test_idle_sequences_lapse_and_free_their_slot():
    clock = Clock()
    tracker = new_tracker(clock=clock)
    tracker.start(1)
    tracker.start(2)
    clock.now = 50
    tracker.step(request(2, 0, [1]))
    clock.now = 70
    assert tracker.usage().sequences == 1
    with pytest.raises(UnknownSequenceError, match="sequence 1 is not known"):
        tracker.step(request(1, 0))
    tracker.start(3)
    assert tracker.step(request(2, 1)).object_ids.tolist() == [1]


def test_start_on_a_live_id_begins_afresh():
    tracker = new_tracker()
    tracker.start(1)
    tracker.step(request(1, 0, [1]))
    tracker.start(1)
    other_size = frame(1, (HEIGHT // 2, WIDTH, 3))
    assert len(tracker.step(request(1, 1, frame=other_size)).object_ids) == 0


@pytest.mark.parametrize("mode", ["window", "frame"])
def test_batching_sequences_changes_results_by_rounding_only(mode):
    batched = new_tracker(mode, batches_sequences=True)
    alone = new_tracker(mode)
    for tracker in (batched, alone):
        tracker.start(1)
        tracker.start(2)
    for number in range(4):
        first = request(1, number, [1, 3] if number == 0 else [])
        second = request(2, number + 50, [2] if number == 1 else [])
        results = batched.step_many([second, first])
        for result, expected in zip(results, alone.step_many([second, first]), strict=True):
            np.testing.assert_array_equal(result.object_ids, expected.object_ids)
            np.testing.assert_allclose(result.boxes, expected.boxes, atol=1)
            np.testing.assert_allclose(result.scores, expected.scores, atol=1e-3)


@pytest.mark.parametrize("batches_sequences", [False, True])
def test_a_failing_step_leaves_every_sequence_as_it_was(monkeypatch, batches_sequences):
    tracker, untouched = (new_tracker(batches_sequences=batches_sequences) for _ in range(2))
    first = [request(1, 0, [1, 2]), request(2, 50, [3])]
    for one in (tracker, untouched):
        one.start(1)
        one.start(2)
        one.step_many(first)
    calls = []
    whole_step = StreamingEngine.step

    def failing_at_last(self, *arguments):
        calls.append(1)
        if len(calls) == (1 if batches_sequences else 2):
            raise MemoryError
        return whole_step(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(StreamingEngine, "step", failing_at_last)
        with pytest.raises(MemoryError):
            tracker.step_many([request(1, 1, [3]), request(2, 51, [1])])
    following = [request(1, 2), request(2, 52)]
    for result, expected in zip(
        tracker.step_many(following), untouched.step_many(following), strict=True
    ):
        assert_same(result, expected)
