"""SAM2 from the stream's side: one sequence of frames, rebuilt from its last masks.

The network's state lives in a replica that may be drained, crash or run out of time. Nothing in it
is needed for good: the last frame with its masks, replayed as prompts, gives a new sequence that
goes on with the same ids.
"""

import contextlib
import math
import secrets
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from orchestrator import metrics
from orchestrator.contracts import SAM2_TRACKER
from orchestrator.errors import ModelError, ModelOverloadedError, SequenceLostError
from orchestrator.triton.client import NO_OBJECTS, SequenceStep, TritonClient
from orchestrator.types.frames import Frame
from orchestrator.types.pictures import Boxes, Mask

_CLOSE_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Segment:
    """SAM2's answer for one object.

    Attributes:
        xyxy: Box of the mask, `(4,)`; all zero if the mask is empty, or where SAM2 gave no number.
        score: Belief that the object is in sight and the mask right, in `[0, 1]`; likewise.
    """

    xyxy: Boxes
    score: float
    mask: Mask

    @property
    def is_empty(self) -> bool:
        """Whether the object is out of sight."""
        return bool(self.xyxy[2] <= self.xyxy[0])


@dataclass(frozen=True, slots=True)
class _Answered:
    """A frame and what was found in it: all that a new sequence needs."""

    frame: Frame
    segments: Mapping[int, Segment]


class Segmenter:
    """Asks SAM2 frame by frame where the objects of one stream are."""

    def __init__(self, triton: TritonClient) -> None:
        self._triton = triton
        self._sequence_id: int | None = None
        self._last: _Answered | None = None
        self._known: set[int] = set()
        self._forgotten: set[int] = set()

    def knows(self, object_id: int) -> bool:
        """Whether SAM2 follows an object, or will once its sequence is rebuilt."""
        return object_id in self._known

    def forget(self, object_ids: Iterable[int]) -> None:
        """Drop objects before the next frame; unknown ones are ignored."""
        dropped = self._known.intersection(object_ids)
        self._known -= dropped
        self._forgotten |= dropped

    def rest(self) -> None:
        """Skip a frame: whoever was followed must be prompted anew when it goes on."""
        self.forget(self._known)
        self._last = None

    @property
    def size_bytes(self) -> int:
        """Roughly what is kept in memory."""
        return self._last.frame.pixels.nbytes if self._last else 0

    async def segment(
        self, frame: Frame, prompts: Mapping[int, Boxes], max_observed: int = 0
    ) -> dict[int, Segment]:
        """Find all objects in the next frame.

        A sequence that its replica no longer knows is rebuilt at once.

        Args:
            frame: The next frame.
            prompts: Boxes `(4,)` of objects to start, by object id. One that was forgotten before
                this frame starts anew, one that is followed is corrected.
            max_observed: Most objects to look for, motion carrying the others on; 0 for all.

        Returns:
            The objects by id; nobody where there is nobody to look for.

        Raises:
            ModelOverloadedError: SAM2 had no time for this frame; the sequence goes on after it.
            ModelError: There is no answer. The sequence is rebuilt with the next frame.
        """
        if not prompts and not self._known:
            return {}
        try:
            return await self._advance(frame, prompts, max_observed)
        except SequenceLostError:
            return await self._advance(frame, prompts, max_observed)

    async def close(self) -> None:
        """End the sequence, or soon have it ended where there is no room to tell its replica now.

        The last picture is copied: it may lie in memory shared with many others, which ends with
        the connection, while a stream that broke off is kept.
        """
        if self._last is not None:
            frame = self._last.frame
            owned = replace(frame, pixels=frame.pixels.copy())
            self._last = replace(self._last, frame=owned)
        if self._sequence_id is None:
            return
        step = SequenceStep(self._sequence_id, is_end=True)
        self._sequence_id = None
        deadline = time.monotonic() + _CLOSE_TIMEOUT_S
        with contextlib.suppress(ModelError):  # the pool goes on telling it
            await self._triton.infer(
                SAM2_TRACKER, NO_OBJECTS, step=step, timeout_s=_CLOSE_TIMEOUT_S, deadline=deadline
            )

    async def _advance(
        self, frame: Frame, prompts: Mapping[int, Boxes], max_observed: int
    ) -> dict[int, Segment]:
        if self._sequence_id is None:
            await self._rebuild(frame.deadline)
        inputs = _prompted_by_boxes(prompts)
        if max_observed:
            inputs["max_observed"] = np.array([[max_observed]], np.int32)
        if self._forgotten:
            inputs["forget_object_ids"] = np.array([sorted(self._forgotten)], np.int64)
        segments = await self._step(frame, inputs)
        self._forgotten.clear()
        self._known = set(segments)
        self._last = _Answered(frame, segments)
        return segments

    async def _rebuild(self, deadline: float) -> None:
        """Start a sequence with the last answered frame, its masks being the prompts."""
        last, self._last = self._last, None  # tried once: after a longer outage it would be stale
        known, self._known = self._known, set()
        self._forgotten.clear()
        shown = {
            object_id: segment
            for object_id, segment in (last.segments if last else {}).items()
            if object_id in known and not segment.is_empty
        }
        if last and shown:
            late = replace(last.frame, deadline=deadline)
            await self._step(late, _prompted_by_masks(shown))
            self._known = set(shown)
            metrics.TRACKER_REBUILDS.inc()

    async def _step(
        self, frame: Frame, inputs: dict[str, NDArray[np.generic]]
    ) -> dict[int, Segment]:
        is_start = self._sequence_id is None
        sequence_id = self._sequence_id or secrets.randbits(62) + 1
        self._sequence_id = None  # until there is an answer
        try:
            reply = await self._triton.infer(
                SAM2_TRACKER,
                {"frame": frame.pixels[None], **inputs},
                step=SequenceStep(sequence_id, is_start),
                deadline=frame.deadline,
            )
        except ModelOverloadedError:  # no replica saw the request
            self._sequence_id = None if is_start else sequence_id
            raise
        self._sequence_id = sequence_id
        ids, boxes, scores, masks, observed = (
            reply[name][0] for name in ("object_ids", "boxes", "scores", "masks", "observed")
        )
        is_sound = np.isfinite(boxes).all(axis=1, keepdims=True)
        return {
            int(object_id): Segment(
                box,
                float(score) if math.isfinite(score) else 0.0,
                Mask(frame.height, frame.width, bytes(counts).decode(), not is_observed),
            )
            for object_id, box, score, counts, is_observed in zip(
                ids, np.where(is_sound, boxes, np.float32(0)), scores, masks, observed, strict=True
            )
        }


def _prompted_by_boxes(prompts: Mapping[int, Boxes]) -> dict[str, NDArray[np.generic]]:
    return _prompted(prompts, prompts.values()) if prompts else {}


def _prompted_by_masks(segments: Mapping[int, Segment]) -> dict[str, NDArray[np.generic]]:
    masks = [segment.mask.rle_counts.encode() for segment in segments.values()]
    return {
        **_prompted(segments, [segment.xyxy for segment in segments.values()]),
        "prompt_masks": np.array([masks], np.object_),
    }


def _prompted(
    object_ids: Collection[int], boxes: Iterable[Boxes]
) -> dict[str, NDArray[np.generic]]:
    return {
        "prompt_object_ids": np.array([list(object_ids)], np.int64),
        "prompt_boxes": np.stack(list(boxes))[None].astype(np.float32),
    }
