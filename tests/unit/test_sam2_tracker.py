import math
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from sam2_streaming.architecture import CompactConfig, random_compact
from sam2_streaming.effort import Effort
from sam2_streaming.engine import StreamingEngine
from sam2_streaming.requests import InvalidRequestError, StepRequest
from sam2_streaming.slots import SlotsExhaustedError, UnknownSequenceError, Usage
from sam2_streaming.tracker import Tracker

CONFIG = CompactConfig(image_size=64, channels=64, embed_dim=8, memory_frames=3, pointers=4)
HEIGHT, WIDTH = 90, 120
SLOTS = 2
BOXES = {1: (10, 10, 40, 60), 2: (30, 15, 60, 70), 3: (70, 5, 110, 50)}
# Three maps of 4x4x64 bf16 and four pointers of 64 fp32; and a mask of the whole frame at most.
BYTES_PER_MEMORY = 3 * 4 * 4 * 64 * 2 + 4 * 64 * 4
BYTES_PER_OBJECT = BYTES_PER_MEMORY + HEIGHT * WIDTH


@cache
def tiny_engine(presence=5.0):
    """An engine whose random network always says "in sight" (5) or "absent" (-50)."""
    torch.manual_seed(0)
    network = random_compact(CONFIG)
    network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.data.fill_(presence)
    return StreamingEngine(network, "cpu", torch.float32)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def new_tracker(mode="window", **options):
    return Tracker(tiny_engine(), mode, **{"slots": SLOTS, "ttl_s": 60.0, **options})


def frame(number, shape=(HEIGHT, WIDTH, 3)):
    return np.random.default_rng(number).integers(0, 256, shape, np.uint8)


def request(sequence_id, number, prompts=(), forget=(), **changes):
    fields = {
        "frame": frame(number),
        "prompt_object_ids": np.array(prompts, np.int64),
        "prompt_boxes": np.array([BOXES[k] for k in prompts], np.float32).reshape(-1, 4),
        "forget_object_ids": np.array(forget, np.int64),
    }
    return StepRequest(sequence_id, **(fields | changes))


def counts_of(box, shape=(HEIGHT, WIDTH)):
    """COCO run lengths of a mask that fills a box."""
    mask = np.zeros(shape, np.uint8, order="F")
    mask[box[1] : box[3], box[0] : box[2]] = 1
    return coco_mask.encode(mask)["counts"]


def clicks(*rows):
    """Fields of a request with clicks, told as (object, x, y, label)."""
    table = np.array(rows, np.float32)
    return {"click_object_ids": table[:, 0].astype(np.int64), "clicks": table[:, 1:]}


def assert_same(a, b):
    np.testing.assert_array_equal(a.object_ids, b.object_ids)
    np.testing.assert_array_equal(a.boxes, b.boxes)
    np.testing.assert_array_equal(a.scores, b.scores)
    np.testing.assert_array_equal(a.observed, b.observed)
    assert a.masks == b.masks


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


def boxes(*rows):
    return np.array(rows, np.float32)


SMALL = boxes((10, 10, 20, 30))
BAD_REQUESTS = {
    "nan": ("prompt_boxes", {"prompt_boxes": boxes((np.nan, 5, 20, 30))}),
    "infinite": ("prompt_boxes", {"prompt_boxes": boxes((0, 5, np.inf, 30))}),
    "empty box": ("prompt_boxes", {"prompt_boxes": boxes((20, 5, 20, 30))}),
    "inverted box": ("prompt_boxes", {"prompt_boxes": boxes((40, 5, 20, 30))}),
    "outside": ("prompt_boxes", {"prompt_boxes": boxes((500, 5, 520, 30))}),
    "row count": ("prompt_boxes", {"prompt_boxes": boxes((5, 5, 20, 30), (5, 5, 20, 30))}),
    "duplicate": (
        "prompt_object_ids",
        {"prompt_object_ids": np.array([2, 2]), "prompt_boxes": boxes(BOXES[2], BOXES[2])},
    ),
    "zero id": ("prompt_object_ids", {"prompt_object_ids": np.array([0])}),
    "other size": ("frame", {"frame": frame(0, (HEIGHT, WIDTH + 1, 3))}),
    "grey": ("frame", {"frame": frame(0, (HEIGHT, WIDTH, 1))}),
    "float": ("frame", {"frame": frame(0).astype(np.float32)}),
    "sliver": ("frame", {"frame": frame(0, (2, WIDTH, 3))}),
    "mask count": ("prompt_masks", {"prompt_masks": (b"", b"")}),
    "damaged mask": ("prompt_masks", {"prompt_masks": (b"PP",)}),
    "mask of another size": (
        "prompt_masks",
        {"prompt_masks": (counts_of(BOXES[2], (HEIGHT, WIDTH + 1)),)},
    ),
    "empty mask": ("prompt_masks", {"prompt_masks": (counts_of((0, 0, 0, 0)),)}),
    "click beside a mask": (
        "click_object_ids",
        {"prompt_masks": (counts_of(BOXES[2]),), **clicks((2, 40, 40, 1))},
    ),
    "click on a stranger": ("click_object_ids", clicks((3, 40, 40, 1))),
    "click on a forgotten object": ("click_object_ids", clicks((1, 25, 35, 1))),
    "click outside the frame": ("clicks", clicks((2, WIDTH, 40, 1))),
    "click that is no number": ("clicks", clicks((2, np.nan, 40, 1))),
    "click outside the window": ("clicks", clicks((2, 119, 89, 0)) | {"prompt_boxes": SMALL}),
    "click of a third kind": ("clicks", clicks((2, 40, 40, 2))),
    "too many clicks": ("clicks", clicks(*[(2, 40, 40, 1)] * 17)),
    "click rows": ("clicks", {"click_object_ids": np.array([2])}),
    "negative budget": ("max_observed", {"max_observed": -1}),
}


@pytest.mark.parametrize(("tensor", "changes"), BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
def test_a_bad_request_names_its_tensor_and_leaves_no_trace(tensor, changes):
    tracker, untouched = new_tracker(), new_tracker()
    for one in (tracker, untouched):
        one.start(1)
        one.step(request(1, 0, [1]))
    with pytest.raises(InvalidRequestError, match=tensor):
        tracker.step(request(1, 1, [2], [1], **changes))
    assert_same(tracker.step(request(1, 2)), untouched.step(request(1, 2)))


def test_a_bad_request_does_not_harm_its_batch():
    tracker = new_tracker()
    tracker.start(1)
    tracker.start(2)
    outcomes = tracker.step_many(
        [
            request(1, 0, [1]),
            request(2, 0, [1], prompt_boxes=boxes((9, 9, 9, 9))),
            request(3, 0, [1]),
        ]
    )
    assert outcomes[0].object_ids.tolist() == [1]
    assert isinstance(outcomes[1], InvalidRequestError)
    assert isinstance(outcomes[2], UnknownSequenceError)


def test_too_many_objects_are_refused_with_the_limit():
    tracker = new_tracker(max_objects=2)
    tracker.start(1)
    with pytest.raises(InvalidRequestError, match="prompt_object_ids: expected at most 2"):
        tracker.step(request(1, 0, [1, 2, 3]))
    assert len(tracker.step(request(1, 0, [1, 2])).object_ids) == 2
    assert tracker.step(request(1, 1, [3], forget=[1])).object_ids.tolist() == [2, 3]


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
def test_results_describe_the_same_mask(mode):
    tracker = new_tracker(mode)
    tracker.start(1)
    result = tracker.step(request(1, 0, [1, 2, 3]))
    assert result.boxes.dtype == result.scores.dtype == np.float32
    assert ((result.scores >= 0) & (result.scores <= 1)).all()
    seen = 0
    for box, counts in zip(result.boxes, result.masks, strict=True):
        x, y, w, h = coco_mask.toBbox({"size": [HEIGHT, WIDTH], "counts": counts})
        np.testing.assert_array_equal(box, [x, y, x + w, y + h])
        seen += bool(w)
    assert seen > 0


@pytest.mark.parametrize("mode", ["window", "frame"])
def test_masks_of_one_stream_never_overlap(mode):
    tracker = new_tracker(mode)
    tracker.start(1)
    for number in range(3):
        result = tracker.step(request(1, number, [1, 2, 3] if number == 0 else []))
        masks = [
            coco_mask.decode({"size": [HEIGHT, WIDTH], "counts": counts.encode()})
            for counts in result.masks
        ]
        overlap = (np.sum(masks, axis=0) > 1).sum()
        assert overlap <= 0.02 * np.sum(masks)


def test_objects_out_of_sight_stay_with_zero_box_and_score():
    tracker = Tracker(tiny_engine(presence=-50.0), "window", slots=1, ttl_s=60)
    tracker.start(1)
    for number in range(35):
        result = tracker.step(request(1, number, [1, 2] if number == 0 else []))
        assert result.object_ids.tolist() == [1, 2]
        assert not result.boxes.any()
        assert not result.scores.any()
    assert tracker.usage().nbytes == 2 * BYTES_PER_MEMORY


def test_forgetting_and_prompting_in_one_step_starts_anew():
    tracker, fresh = new_tracker(), new_tracker()
    for one in (tracker, fresh):
        one.start(1)
    tracker.step(request(1, 0, [1]))
    again = tracker.step(request(1, 1, [1], forget=[1, 999]))
    assert_same(again, fresh.step(request(1, 1, [1])))


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


@pytest.mark.parametrize("mode", ["window", "frame"])
def test_a_mask_prompt_is_the_answer_of_its_frame(mode):
    tracker = new_tracker(mode)
    tracker.start(1)
    masks = (counts_of((20, 20, 38, 50)), b"")
    result = tracker.step(request(1, 0, [1, 3], prompt_masks=masks))
    decoded = coco_mask.decode({"size": [HEIGHT, WIDTH], "counts": result.masks[0].encode()})
    prompted = coco_mask.decode({"size": [HEIGHT, WIDTH], "counts": masks[0]})
    assert (decoded & prompted).sum() >= 0.8 * (decoded | prompted).sum()


def test_clicks_correct_a_tracked_object():
    corrected, followed = new_tracker(), new_tracker()
    for tracker in (corrected, followed):
        tracker.start(1)
        before = tracker.step(request(1, 0, [1, 3]))
    x, y = (before.boxes[0, :2] + before.boxes[0, 2:]) / 2
    result = corrected.step(request(1, 1, **clicks((1, x, y, 1), (1, x, y + 3, 0))))
    assert result.object_ids.tolist() == [1, 3]
    assert result.masks[0] != followed.step(request(1, 1)).masks[0]


def test_a_box_for_a_tracked_object_corrects_it_where_forgetting_starts_it_anew():
    masks = []
    for prompts, forget in (([1], []), ([1], [1]), ([], [])):
        tracker = new_tracker("frame")
        tracker.start(1)
        tracker.step(request(1, 0, [1]))
        masks.append(tracker.step(request(1, 1, prompts, forget)).masks[0])
    assert len(set(masks)) == 3


def test_objects_out_of_the_budget_move_on_by_themselves():
    tracker = new_tracker()
    tracker.start(1)
    for number in range(3):
        before = tracker.step(request(1, number, [1, 3] if number == 0 else []))
    result = tracker.step(request(1, 3, [1], max_observed=1))
    assert result.observed.tolist() == [True, False]
    assert 0 < result.scores[1] < before.scores[1]
    x, y, w, h = coco_mask.toBbox({"size": [HEIGHT, WIDTH], "counts": result.masks[1]})
    assert w
    np.testing.assert_array_equal(result.boxes[1], [x, y, x + w, y + h])
    assert tracker.step(request(1, 4, max_observed=0)).observed.all()


def test_a_frame_that_nobody_looked_at_is_not_remembered():
    skipping, ignorant = new_tracker("frame"), new_tracker("frame")
    for tracker in (skipping, ignorant):
        tracker.start(1)
        tracker.step(request(1, 0, [3]))
    assert skipping.step(request(1, 1, [1], max_observed=1)).observed.tolist() == [True, False]
    result, expected = skipping.step(request(1, 2, forget=[1])), ignorant.step(request(1, 2))
    assert_same(result, expected)


def test_large_objects_see_the_whole_frame_in_window_mode():
    whole, framed = new_tracker("window"), new_tracker("frame")
    box = boxes((5, 5, 100, 85), (3, 2, 80, 88))
    for number in range(3):
        prompts = {"prompt_boxes": box} if number == 0 else {}
        results = []
        for tracker in (whole, framed):
            if number == 0:
                tracker.start(1)
            results.append(tracker.step(request(1, number, [1, 2][: 2 - 2 * number], **prompts)))
        assert_same(*results)


def test_frames_may_be_tensors():
    arrays, tensors = new_tracker(), new_tracker()
    for tracker in (arrays, tensors):
        tracker.start(1)
    as_tensor = request(1, 0, [1], frame=torch.from_numpy(frame(0)))
    assert_same(tensors.step(as_tensor), arrays.step(request(1, 0, [1])))


def test_frames_may_lie_on_memory_that_must_not_be_written():
    tracker, plain = new_tracker(), new_tracker()
    for one in (tracker, plain):
        one.start(1)
    shared = frame(0)
    shared.flags.writeable = False
    assert_same(tracker.step(request(1, 0, [1], frame=shared)), plain.step(request(1, 0, [1])))
