"""One stream of the tracker: plans each step from what it knows, then commits what came of it."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam2_streaming.effort import Candidate, Effort, chosen
from sam2_streaming.engine import Target
from sam2_streaming.looks import settled, unknown_look
from sam2_streaming.masks import place
from sam2_streaming.memory import ObjectMemory
from sam2_streaming.pictures import as_tensor
from sam2_streaming.prompts import Prompt
from sam2_streaming.requests import InvalidRequestError, StepRequest, StepResult
from sam2_streaming.shown import Shown, read_shown
from sam2_streaming.tracked import Tracked
from sam2_streaming.windows import Follower, Window, cut, exclusive

Mode = Literal["window", "frame"]


@dataclass(frozen=True, slots=True)
class ViewSettings:
    """How a stream looks at its frames.

    Attributes:
        mode: `window` gives each object a square window that follows it; `frame` gives all objects
            the whole frame, as upstream does.
        image_size: Side of the cut pictures in pixels.
        device: Where the pictures are cut.
        max_objects: Most objects in a stream.
        cover: Side of a window in heights of its object.
        effort: How many objects are looked at.
    """

    mode: Mode
    image_size: int
    device: torch.device
    max_objects: int
    cover: float
    effort: Effort


@dataclass(frozen=True, slots=True)
class Sought:
    """One object that is looked for in a step: where it is expected, what the network is given."""

    object_id: int
    follower: Follower
    look: Tensor
    window: Window
    memory: ObjectMemory | None
    prompt: Prompt | None
    age: int


@dataclass(frozen=True, slots=True)
class Plan:
    """One valid step of a stream.

    Attributes:
        frame_shape: Height and width in pixels.
        sought: The objects to look for, ids ascending.
        resting: The other objects, as they will be in this frame.
        windows: The `m` places that are looked at; objects that see the whole frame share one.
        images: What is seen there, uint8 `(m, image_size, image_size, 3)`.
        is_whole_frame: Whether objects are given the whole frame, as upstream does.
    """

    frame_shape: tuple[int, int]
    sought: tuple[Sought, ...]
    resting: Mapping[int, Tracked]
    windows: tuple[Window, ...]
    images: Tensor
    is_whole_frame: bool

    def settled(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Settle who is where by shirts, see `looks.settled`, then pixel by pixel."""
        if not self.sought:
            return logits, logits.new_empty(0, 3)
        looks = torch.stack([one.look for one in self.sought])
        windows = [one.window for one in self.sought]
        if not self.is_whole_frame:
            pictures = self.images[[self.windows.index(window) for window in windows]]
            followers = [one.follower for one in self.sought]
            shown = [one.prompt is not None for one in self.sought]
            is_prompted = torch.tensor(shown, device=logits.device)
            logits, looks = settled(logits, pictures, windows, followers, looks, is_prompted)
        return exclusive(logits, windows), looks

    def targets(self, first_image: int) -> list[Target]:
        """What to ask the network, if the images of this plan begin there in its batch."""
        return [
            Target(first_image + self.windows.index(one.window), one.memory, one.prompt)
            for one in self.sought
        ]


@dataclass(frozen=True, slots=True)
class Found:
    """What the network returned for the sought objects of a plan, in their order.

    Attributes:
        logits: Mask logits of the cuts, fp32 `(n, image_size, image_size)`.
        scores: float32 `(n,)` in `[0, 1]`.
        memories: One per object.
        looks: See `looks.settled`, `(n, 3)`.
    """

    logits: Tensor
    scores: NDArray[np.float32]
    memories: Sequence[ObjectMemory]
    looks: Tensor


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished step: what to answer, and the state to commit."""

    result: StepResult
    frame_shape: tuple[int, int]
    objects: Mapping[int, Tracked]


class Stream:
    """State of one stream. Only `commit` changes it, and only as a whole."""

    def __init__(self, settings: ViewSettings) -> None:
        self._settings = settings
        self._frame_shape: tuple[int, int] | None = None
        self._frame_index = 0
        self._objects: Mapping[int, Tracked] = {}

    @property
    def object_count(self) -> int:
        """Number of tracked objects."""
        return len(self._objects)

    @property
    def nbytes(self) -> int:
        """Size of what is remembered of all objects, in bytes."""
        return sum(tracked.nbytes for tracked in self._objects.values())

    def plan(self, request: StepRequest) -> Plan:
        """Check a request against the stream and cut its pictures; changes nothing.

        Raises:
            InvalidRequestError: The request breaks a rule; names the tensor.
        """
        frame = as_tensor(request.frame)
        shape = (frame.shape[0], frame.shape[1])
        if self._frame_shape not in (None, shape):
            raise InvalidRequestError(
                f"frame: expected {self._frame_shape} like the first frame, got {shape}"
            )
        kept = self._objects.keys() - set(request.forget_object_ids.tolist())
        shown = read_shown(request, shape, kept)
        self._check_count(len(kept | shown.keys()))
        tracked = {k: self._objects[k] for k in kept}
        sought = tuple(
            self._seek(k, tracked.pop(k, None), shown.get(k), shape)
            for k in self._chosen(kept, shown, request.max_observed)
        )
        windows = tuple(dict.fromkeys(one.window for one in sought))
        images = cut(frame.to(self._settings.device), windows, self._settings.image_size)
        resting = {k: one.coasted() for k, one in tracked.items()}
        is_whole = self._settings.mode == "frame"
        return Plan(shape, sought, resting, windows, images, is_whole)

    def conclude(self, plan: Plan, found: Found) -> Outcome:
        """Turn what the network found into an answer and the next state; changes nothing."""
        windows = [sought.window for sought in plan.sought]
        masks = place(found.logits, windows, plan.frame_shape)
        seen = {
            sought.object_id: Tracked.found(sought.follower, memory, mask, score, sought.age, look)
            for sought, memory, mask, score, look in zip(
                plan.sought, found.memories, masks, found.scores.tolist(), found.looks, strict=True
            )
        }
        objects = dict(sorted({**plan.resting, **seen}.items()))
        return Outcome(_result(objects, plan.frame_shape), plan.frame_shape, objects)

    def commit(self, outcome: Outcome) -> StepResult:
        """Make a finished step the state of the stream and return its answer."""
        self._frame_shape = outcome.frame_shape
        self._frame_index += 1
        self._objects = outcome.objects
        return outcome.result

    def _check_count(self, count: int) -> None:
        if count > self._settings.max_objects:
            raise InvalidRequestError(
                f"prompt_object_ids: expected at most {self._settings.max_objects} objects in a "
                f"sequence, got {count}"
            )

    def _chosen(
        self, kept: Set[int], shown: Mapping[int, Shown], max_observed: int | None
    ) -> list[int]:
        """Ids of the objects to look for in this frame, ascending."""
        candidates = [self._candidate(k, shown.get(k)) for k in sorted(kept | shown.keys())]
        effort = self._settings.effort.limited(max_observed)
        picked = chosen(candidates, self._frame_index, effort)
        return [candidates[k].object_id for k in picked]

    def _candidate(self, object_id: int, shown: Shown | None) -> Candidate:
        if shown is not None and shown.box is not None:
            return Candidate(object_id, shown.box, is_prompted=True)
        candidate = self._objects[object_id].candidate(object_id)
        return candidate if shown is None else replace(candidate, is_prompted=True)

    def _seek(
        self,
        object_id: int,
        tracked: Tracked | None,
        shown: Shown | None,
        frame_shape: tuple[int, int],
    ) -> Sought:
        box = None if shown is None else shown.box
        follower = _follower(tracked, box, self._settings.cover)
        if self._settings.mode == "frame":
            window = Window(0, 0, frame_shape[1], frame_shape[0])
        else:
            window = follower.window(frame_shape, self._settings.cover)
        return Sought(
            object_id,
            follower,
            unknown_look(self._settings.device) if tracked is None else tracked.look,
            window,
            memory=None if tracked is None else tracked.memory,
            prompt=None if shown is None else shown.through(window, self._settings.image_size),
            age=0 if tracked is None or shown is not None else tracked.age + 1,
        )


def _follower(tracked: Tracked | None, box: NDArray[np.float32] | None, cover: float) -> Follower:
    if tracked is None:
        if box is None:
            raise ValueError("expected an object that is tracked or shown by a box")
        return Follower.at(box, cover)
    return tracked.follower if box is None else tracked.follower.moved_to(box, cover)


def _result(objects: Mapping[int, Tracked], frame_shape: tuple[int, int]) -> StepResult:
    masks = [tracked.shown(frame_shape) for tracked in objects.values()]
    scores = [
        0.0 if mask.is_empty else tracked.score
        for tracked, mask in zip(objects.values(), masks, strict=True)
    ]
    return StepResult(
        object_ids=np.array(list(objects), np.int64),
        boxes=np.array([mask.box for mask in masks], np.float32).reshape(-1, 4),
        scores=np.array(scores, np.float32),
        masks=[mask.rle_counts(frame_shape) for mask in masks],
        observed=np.array([not one.follower.unseen for one in objects.values()], np.bool_),
    )
