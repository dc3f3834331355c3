"""SAM2's stand-in: follows whom it is shown through the recording, in real sequence slots."""

import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from sam2_streaming import rle
from sam2_streaming.effort import Candidate, Effort, chosen
from sam2_streaming.requests import InvalidRequestError, StepRequest, StepResult
from sam2_streaming.shown import Shown, read_shown
from sam2_streaming.slots import Slots, UnknownSequenceError, Usage

from touchline_sim.marks import read_number
from touchline_sim.pace import Pace
from touchline_sim.record import Record

Box = NDArray[np.float32]

_SCORE = 0.95
_FADE = 0.9
"""Factor on the score of an object in a frame in which nobody looks for it."""
_LEAST_IOU = 0.1
"""A prompt that overlaps everybody less shows nobody."""
_BYTES_PER_OBJECT = 900_000
"""Memory of one object at 512 px, as in production."""


@dataclass(frozen=True, slots=True, eq=False)
class _Followed:
    """One object.

    Attributes:
        person_id: Whom it is; None if the prompt showed nobody.
        box: xyxy in frame pixels; all zero while out of sight.
        score: See `StepResult`.
        waited: Frames since it was looked at, 0 for this very frame.
        age: Frames since it was prompted.
    """

    person_id: int | None
    box: Box
    score: float = 0.0
    waited: int = 0
    age: int = 0

    def candidate(self, object_id: int, *, is_prompted: bool) -> Candidate:
        """What decides whether it is looked at in the next frame."""
        return Candidate(
            object_id,
            self.box,
            is_prompted=is_prompted,
            waited=self.waited + 1,
            age=self.age,
            score=self.score,
        )


@dataclass(slots=True)
class _Sequence:
    objects: dict[int, _Followed] = field(default_factory=dict)
    frame_index: int = 0

    @property
    def object_count(self) -> int:
        """Number of objects that are followed."""
        return len(self.objects)

    @property
    def nbytes(self) -> int:
        """Size of what SAM2 would remember of them, in bytes."""
        return len(self.objects) * _BYTES_PER_OBJECT


class RecordedTracker:
    """Follows the objects of several sequences; a stand-in for `sam2_streaming.tracker.Tracker`.

    Args:
        record: The match that all frames show.
        pace: Time of a step by the number of objects that are looked at.
        slots: Most sequences alive at a time.
        ttl_s: Seconds after which an idle sequence is dropped.
        effort: How many objects are looked at in a frame.
    """

    def __init__(
        self, record: Record, pace: Pace, slots: int, ttl_s: float, effort: Effort
    ) -> None:
        self._record = record
        self._pace = pace
        self._effort = effort
        self._live: Slots[_Sequence] = Slots(slots, ttl_s)

    def usage(self) -> Usage:
        """Return how many sequences and objects live, and what size SAM2's would have."""
        return self._live.usage()

    def start(self, sequence_id: int) -> None:
        """Open a sequence; SlotsExhaustedError if all slots are taken."""
        self._live.start(sequence_id, _Sequence())

    def end(self, sequence_id: int) -> None:
        """Free everything of a sequence; unknown ones are ignored."""
        self._live.end(sequence_id)

    def step_many(self, requests: Sequence[StepRequest]) -> list[StepResult | Exception]:
        """Step distinct sequences by one frame each, in the time of one batch on a GPU."""
        began = time.monotonic()
        answers = [self._step(request) for request in requests]
        looks = sum(int(one.observed.sum()) for one in answers if isinstance(one, StepResult))
        self._pace.wait(began, looks)
        return answers

    def _step(self, request: StepRequest) -> StepResult | Exception:
        frame = np.asarray(request.frame)
        shape = (frame.shape[0], frame.shape[1])
        try:
            sequence = self._live.use(request.sequence_id)
            kept = sequence.objects.keys() - set(request.forget_object_ids.tolist())
            shown = read_shown(request, shape, kept)
            effort = self._effort.limited(request.max_observed)
        except (InvalidRequestError, UnknownSequenceError) as error:
            return error
        people = self._people(frame)
        objects = _prompted(sequence.objects, kept, shown, people)
        looked_at = _looked_at(objects, shown, sequence.frame_index, effort)
        sequence.objects = {
            k: _seen(one, people) if k in looked_at else _rested(one)
            for k, one in sorted(objects.items())
        }
        sequence.frame_index += 1
        return _result(sequence.objects, shape)

    def _people(self, frame: NDArray[np.uint8]) -> dict[int, Box]:
        """Return the boxes of all people in a frame, in pixels; nobody in a foreign picture."""
        number = read_number(frame)
        if number is None:
            return {}
        scene = self._record.scene(number)
        size = np.array([frame.shape[1], frame.shape[0]] * 2, np.float32)
        return dict(zip(scene.person_ids.tolist(), scene.boxes * size, strict=True))


def _looked_at(
    objects: Mapping[int, _Followed], shown: Mapping[int, Shown], frame_index: int, effort: Effort
) -> set[int]:
    ids = sorted(objects)
    candidates = [objects[k].candidate(k, is_prompted=k in shown) for k in ids]
    return {ids[place] for place in chosen(candidates, frame_index, effort)}


def _prompted(
    tracked: Mapping[int, _Followed],
    kept: Set[int],
    shown: Mapping[int, Shown],
    people: Mapping[int, Box],
) -> dict[int, _Followed]:
    """Return the objects of a sequence, with those anew or corrected that are shown by a box."""
    objects = {k: tracked[k] for k in kept}
    for object_id, prompt in shown.items():
        if prompt.box is not None:
            objects[object_id] = _Followed(_whom(prompt.box, people), prompt.box)
    return objects


def _whom(box: Box, people: Mapping[int, Box]) -> int | None:
    overlaps = {person_id: _iou(box, other) for person_id, other in people.items()}
    best = max(overlaps, key=overlaps.__getitem__, default=None)
    return best if best is not None and overlaps[best] >= _LEAST_IOU else None


def _iou(a: Box, b: Box) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = float((high - low).clip(0).prod())
    return shared / (float((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod()) - shared)


def _seen(one: _Followed, people: Mapping[int, Box]) -> _Followed:
    box = None if one.person_id is None else people.get(one.person_id)
    if box is None:
        return replace(one, box=np.zeros(4, np.float32), score=0.0, waited=0, age=one.age + 1)
    return replace(one, box=box, score=_SCORE, waited=0, age=one.age + 1)


def _rested(one: _Followed) -> _Followed:
    return replace(one, score=one.score * _FADE, waited=one.waited + 1, age=one.age + 1)


def _result(objects: Mapping[int, _Followed], shape: tuple[int, int]) -> StepResult:
    whole = [one.box.round().astype(int) for one in objects.values()]
    return StepResult(
        object_ids=np.array(list(objects), np.int64),
        boxes=np.array(whole, np.float32).reshape(-1, 4),
        scores=np.array([one.score for one in objects.values()], np.float32),
        masks=[_mask(box, shape) for box in whole],
        observed=np.array([not one.waited for one in objects.values()], np.bool_),
    )


def _mask(box: NDArray[np.int64], shape: tuple[int, int]) -> str:
    """Return a full rectangle's run lengths."""
    x0, y0, x1, y1 = box.tolist()
    return rle.encode(np.ones((y1 - y0, x1 - x0), np.bool_), x0, y0, shape)
