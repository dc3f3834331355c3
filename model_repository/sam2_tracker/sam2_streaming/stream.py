"""One stream of the tracker: plans each step from what it knows, then commits what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sam2_streaming.engine import Target
from sam2_streaming.masks import place
from sam2_streaming.memory import ObjectMemory
from sam2_streaming.requests import InvalidRequestError, StepRequest, StepResult
from sam2_streaming.windows import Follower, Window

Mode = Literal["window", "frame"]


@dataclass(frozen=True, slots=True)
class ViewSettings:
    """How a stream looks at its frames.

    Attributes:
        mode: `window` gives each object a square window that follows it; `frame` gives all objects
            the whole frame, as upstream does.
        image_size: Side of the cut pictures in pixels.
        max_objects: Most objects in a stream.
    """

    mode: Mode
    image_size: int
    max_objects: int


@dataclass(frozen=True, slots=True)
class Sought:
    """One object in one step: where it is expected and what the network is given."""

    object_id: int
    follower: Follower
    window: Window
    target: Target


@dataclass(frozen=True, slots=True)
class Plan:
    """One valid step of a stream.

    Attributes:
        frame_shape: Height and width in pixels.
        sought: The objects, ids ascending.
        images: Cuts that the targets look at, uint8 `(m, image_size, image_size, 3)`.
    """

    frame_shape: tuple[int, int]
    sought: tuple[Sought, ...]
    images: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Found:
    """What the network returned for the objects of a plan, in their order.

    Attributes:
        logits: Mask logits of the cuts, float32 `(n, image_size, image_size)`.
        scores: float32 `(n,)` in `[0, 1]`.
        memories: One per object.
    """

    logits: NDArray[np.float32]
    scores: NDArray[np.float32]
    memories: Sequence[ObjectMemory]


@dataclass(frozen=True, slots=True)
class _Tracked:
    """One object between two frames."""

    memory: ObjectMemory
    follower: Follower


class Stream:
    """State of one stream. Only `commit` changes it, and only as a whole."""

    def __init__(self, settings: ViewSettings) -> None:
        self._settings = settings
        self._frame_shape: tuple[int, int] | None = None
        self._objects: dict[int, _Tracked] = {}

    @property
    def nbytes(self) -> int:
        """Size of all object memories in bytes."""
        return sum(tracked.memory.nbytes for tracked in self._objects.values())

    def plan(self, request: StepRequest) -> Plan:
        """Check a request against the stream and cut its pictures; changes nothing.

        Raises:
            InvalidRequestError: The request breaks a rule; names the tensor.
        """
        prompts = request.validated_prompts()
        shape = (request.frame.shape[0], request.frame.shape[1])
        if self._frame_shape not in (None, shape):
            raise InvalidRequestError(
                f"frame: expected {self._frame_shape} like the first frame, got {shape}"
            )
        kept = self._objects.keys() - set(request.forget_object_ids.tolist())
        object_ids = sorted(kept | prompts.keys())
        if len(object_ids) > self._settings.max_objects:
            raise InvalidRequestError(
                f"prompt_object_ids: expected at most {self._settings.max_objects} objects in a "
                f"sequence, got {len(object_ids)}"
            )
        sought = tuple(
            self._seek(shape, index, object_id, prompts.get(object_id))
            for index, object_id in enumerate(object_ids)
        )
        return Plan(shape, sought, self._cut(request.frame, sought))

    def commit(self, plan: Plan, found: Found) -> StepResult:
        """Make the outcome of a plan the state of the stream."""
        masks = [
            place(logits, sought.window, plan.frame_shape)
            for logits, sought in zip(found.logits, plan.sought, strict=True)
        ]
        self._frame_shape = plan.frame_shape
        self._objects = {
            sought.object_id: _Tracked(
                memory, sought.follower.after(None if mask.is_empty else mask.box)
            )
            for sought, memory, mask in zip(plan.sought, found.memories, masks, strict=True)
        }
        is_empty = np.array([mask.is_empty for mask in masks], bool)
        return StepResult(
            object_ids=np.array([sought.object_id for sought in plan.sought], np.int64),
            boxes=np.array([mask.box for mask in masks], np.float32).reshape(-1, 4),
            scores=np.where(is_empty, np.float32(0), found.scores),
            masks=[mask.rle_counts for mask in masks],
        )

    def _seek(
        self,
        frame_shape: tuple[int, int],
        index: int,
        object_id: int,
        box: NDArray[np.float32] | None,
    ) -> Sought:
        if box is None:
            tracked = self._objects[object_id]
            memory, follower = tracked.memory, tracked.follower
        else:
            memory, follower = None, Follower.at(box)
        is_whole = self._settings.mode == "frame"
        window = Window(0, 0, frame_shape[1], frame_shape[0]) if is_whole else follower.window()
        seen = None if box is None else window.to_window(box, self._settings.image_size)
        return Sought(object_id, follower, window, Target(0 if is_whole else index, memory, seen))

    def _cut(self, frame: NDArray[np.uint8], sought: Sequence[Sought]) -> NDArray[np.uint8]:
        size = self._settings.image_size
        looking = sought[:1] if self._settings.mode == "frame" else sought
        cuts = [one.window.cut(frame, size) for one in looking]
        return np.array(cuts, np.uint8).reshape(-1, size, size, 3)
