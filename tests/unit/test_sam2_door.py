"""Triton's door to the tracker, without Triton: what one batch of requests may do to the others."""

import importlib
import sys
import threading
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
from sam2_streaming.requests import InvalidRequestError, StepResult
from sam2_streaming.slots import Slots, SlotsExhaustedError, UnknownSequenceError

START, END = 1, 2
BOUND_TO_TRITON = ("sam2_streaming.serving", "sam2_streaming.meters")
PATIENCE_S = 60.0
"""Bound on waiting for a thread, not a measure of it."""


class Number:
    """A metric, whose changes can be waited for."""

    def __init__(self):
        self.value, self.changed = 0.0, threading.Condition()

    def set(self, value):
        with self.changed:
            self.value = value
            self.changed.notify_all()

    def increment(self, count):
        self.set(self.value + count)

    def becomes(self, value):
        with self.changed:
            return self.changed.wait_for(lambda: self.value == value, PATIENCE_S)


class Page:
    """Triton's metrics page, and what else a Python model is given by it."""

    def __init__(self):
        self.numbers, self.log = {}, []

    def module(self):
        def family(name, description, kind):
            assert description
            assert kind
            number = self.numbers.setdefault(name, Number())
            return SimpleNamespace(Metric=lambda labels: number)

        family.GAUGE, family.COUNTER = "gauge", "counter"
        codes = ("INVALID_ARG", "UNAVAILABLE", "CANCELLED", "INTERNAL")

        class TritonError:
            def __init__(self, text, code):
                self.text, self.code = text, code

        for code in codes:
            setattr(TritonError, code, code)
        return SimpleNamespace(
            MetricFamily=family,
            TritonError=TritonError,
            Logger=SimpleNamespace(log_error=self.log.append),
            Tensor=lambda name, value: (name, value),
            InferenceResponse=lambda tensors=(), error=None: SimpleNamespace(
                error=error, tensors=dict(tensors)
            ),
            get_input_tensor_by_name=lambda request, name: request.tensor(name),
        )


@pytest.fixture
def page(monkeypatch):
    page = Page()
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", page.module())
    for name in BOUND_TO_TRITON:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield page
    for name in BOUND_TO_TRITON:
        sys.modules.pop(name, None)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class State:
    object_count, nbytes = 1, 10


class Following:
    """A tracker that finds nobody, in real slots.

    Attributes:
        poison: Sequences whose step breaks with an error that nobody has thought of.
        batches: The sequences of each call that succeeded.
    """

    def __init__(self, slots=2, ttl_s=60.0):
        self.clock, self.poison, self.batches = Clock(), set(), []
        self._live = Slots(slots, ttl_s, self.clock)

    def usage(self):
        return self._live.usage()

    def start(self, sequence_id):
        self._live.start(sequence_id, State())

    def end(self, sequence_id):
        self._live.end(sequence_id)

    def step_many(self, requests):
        ids = [request.sequence_id for request in requests]
        if self.poison.intersection(ids):
            raise MemoryError("no memory left")
        if ids:
            self.batches.append(ids)
        return [self._step(k) for k in ids]

    def _step(self, sequence_id):
        try:
            self._live.use(sequence_id)
        except UnknownSequenceError as error:
            return error
        nobody = np.empty(0)
        return StepResult(nobody, np.empty((0, 4)), nobody, [], nobody.astype(bool))


class Request:
    def __init__(self, sequence_id, flags=0, is_cancelled=False, **tensors):
        self._id, self._flags, self._is_cancelled = sequence_id, flags, is_cancelled
        self._tensors = tensors or {"frame": np.zeros((20, 20, 3), np.uint8)}

    def flags(self):
        return self._flags

    def correlation_id(self):
        return self._id

    def is_cancelled(self):
        return self._is_cancelled

    def tensor(self, name):
        if name not in self._tensors:
            return None
        return SimpleNamespace(as_numpy=lambda: np.asarray(self._tensors[name])[None])


def jpeg(data):
    return {"frame_jpeg": np.array([data], np.object_)}


def decode(data):
    if data == b"damaged":
        raise InvalidRequestError("frame_jpeg: expected a JPEG picture")
    if data == b"too much":
        raise RuntimeError("CUDA out of memory")
    return np.zeros((20, 20, 3), np.uint8)


@pytest.fixture
def tracker():
    return Following()


@pytest.fixture
def door(page, tracker):
    door = importlib.import_module("sam2_streaming.serving").Door(tracker, decode, "sam2_0")
    yield door
    door.close()


def codes(responses):
    return [response.error and response.error.code for response in responses]


def live(page):
    return page.numbers["sam2_active_sequences"].value


def test_a_picture_that_cannot_be_decoded_does_not_fail_the_others(door, page, tracker):
    answers = door.execute(
        [Request(1, START, **jpeg(b"fine")), Request(2, START, **jpeg(b"too much"))]
    )
    assert codes(answers) == [None, "INTERNAL"]
    assert "out of memory" not in answers[1].error.text
    assert any("out of memory" in line for line in page.log)
    # The slot of a START that failed is free again.
    assert live(page) == 1
    answers = door.execute([Request(3, START, **jpeg(b"damaged")), Request(1, **jpeg(b"fine"))])
    assert codes(answers) == ["INVALID_ARG", None]
    assert codes(door.execute([Request(2, START)])) == [None]


def test_a_step_that_breaks_fails_its_own_sequence_alone(door, page, tracker):
    door.execute([Request(1, START), Request(2, START)])
    tracker.poison = {2}
    assert codes(door.execute([Request(1), Request(2)])) == [None, "INTERNAL"]
    tracker.poison = set()
    # It is as it was: the broken frame is lost, the sequence is not.
    assert codes(door.execute([Request(1), Request(2)])) == [None, None]
    assert tracker.batches == [[1, 2], [1], [1, 2]]
    assert any("no memory left" in line for line in page.log)


def test_what_a_broken_step_had_in_memory_is_free_before_the_next_try(door, tracker, monkeypatch):
    class Activations:
        pass

    whole_step, left = tracker.step_many, []

    def step_many(requests):
        activations = Activations()
        left.append(weakref.ref(activations))
        if len(requests) > 1:
            raise MemoryError
        assert left[0]() is None
        return whole_step(requests)

    door.execute([Request(1, START)])
    door.execute([Request(2, START)])
    monkeypatch.setattr(tracker, "step_many", step_many)
    assert codes(door.execute([Request(1), Request(2)])) == [None, None]
    assert len(left) == 3


def test_a_batch_of_broken_steps_is_answered_in_full(door, tracker):
    door.execute([Request(1, START), Request(2, START)])
    tracker.poison = {1, 2}
    assert codes(door.execute([Request(1), Request(2)])) == ["INTERNAL", "INTERNAL"]


def test_slots_lapse_while_nobody_asks(page, tracker):
    serving = importlib.import_module("sam2_streaming.serving")
    door = serving.Door(tracker, decode, "sam2_0", sweep_s=0.01)
    try:
        door.execute([Request(1, START), Request(2, START)])
        assert (live(page), page.numbers["sam2_memory_bytes"].value) == (2, 20)
        tracker.clock.now = 61.0
        assert page.numbers["sam2_active_sequences"].becomes(0)
        assert page.numbers["sam2_memory_bytes"].becomes(0)
    finally:
        door.close()


def test_a_closed_door_leaves_no_thread_behind(page, tracker):
    before = threading.active_count()
    door = importlib.import_module("sam2_streaming.serving").Door(tracker, decode, "sam2_0")
    door.close()
    assert threading.active_count() == before


def test_a_cancelled_frame_is_not_looked_at_and_a_cancelled_end_ends(door, page, tracker):
    door.execute([Request(1, START)])
    assert codes(door.execute([Request(1, is_cancelled=True)])) == ["CANCELLED"]
    assert (tracker.batches, live(page)) == ([[1]], 1)
    assert codes(door.execute([Request(1, END, is_cancelled=True)])) == ["CANCELLED"]
    assert live(page) == 0


def test_ends_and_starts_come_in_any_order(door, page):
    assert codes(door.execute([Request(7, END)])) == ["UNAVAILABLE"]
    bare = {"forget_object_ids": np.zeros(1, np.int64)}
    assert codes(door.execute([Request(7, END, **bare)])) == [None]
    assert codes(door.execute([Request(7, START), Request(8, START)])) == [None, None]
    assert codes(door.execute([Request(9, START)])) == ["UNAVAILABLE"]
    assert codes(door.execute([Request(7, START)])) == [None]  # in its own place
    assert live(page) == 2
    assert codes(door.execute([Request(7, START | END), Request(8, END)])) == [None, None]
    assert live(page) == 0


def test_a_slot_that_is_freed_in_a_batch_is_free_for_who_comes_after_it(door, page):
    bare = {"forget_object_ids": np.zeros(1, np.int64)}
    door.execute([Request(1, START), Request(2, START)])
    ends_first = [Request(1, END, **bare), Request(2), Request(3, START)]
    assert codes(door.execute(ends_first)) == [None, None, None]
    starts_first = [Request(4, START), Request(2, END, **bare)]
    assert codes(door.execute(starts_first)) == ["UNAVAILABLE", None]
    # Nor does a START that fails hold a place that somebody else could have.
    damaged = [Request(5, START, **jpeg(b"damaged")), Request(6, START)]
    assert codes(door.execute(damaged)) == ["INVALID_ARG", None]
    assert live(page) == 2


def test_a_frame_comes_in_exactly_one_form(door):
    pixels = np.zeros((20, 20, 3), np.uint8)
    for tensors in ({"clicks": np.zeros((0, 3))}, {"frame": pixels, **jpeg(b"fine")}):
        (answer,) = door.execute([Request(1, START, **tensors)])
        assert answer.error.code == "INVALID_ARG"
        assert answer.error.text.startswith("frame: expected exactly one of")


def test_the_text_of_an_error_fits_the_trailer_of_a_reply(door, tracker, monkeypatch):
    def refuse(requests):
        return [InvalidRequestError("clicks: expected other ones, got " + "[1, 2], " * 10_000)]

    monkeypatch.setattr(tracker, "step_many", refuse)
    (answer,) = door.execute([Request(1, START)])
    assert answer.error.text.startswith("clicks: expected other ones")
    assert len(answer.error.text) < 2000


def test_a_full_tracker_says_so(door):
    door.execute([Request(1, START), Request(2, START)])
    (answer,) = door.execute([Request(3, START)])
    assert answer.error.text == str(SlotsExhaustedError("all 2 sequence slots are in use"))
