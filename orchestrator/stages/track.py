"""SAM2: detections of frame after frame become tracks with masks.

Each frame, detections are first matched with the motion of live tracks: what matches nobody is born
and prompts SAM2 in the very call that follows everybody else. SAM2's masks then say who is where,
and detections confirm them. Everything that SAM2 holds can be rebuilt from the boxes kept here: a
lost sequence is started anew with them, and ids go on. A camera cut ends every track, since places
mean nothing after it.
"""

import asyncio
import secrets
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.contracts import SAM2_TRACKER
from orchestrator.errors import ModelError
from orchestrator.imaging import iou
from orchestrator.settings import TrackSettings
from orchestrator.stages.appearance import Shirts, likeness, shirts
from orchestrator.stages.camera import CameraMotion
from orchestrator.stages.matching import match, near
from orchestrator.stages.tracklet import VELOCITY_BLEND, Tracklet
from orchestrator.triton.client import SequenceStep, TritonClient
from orchestrator.types import Boxes, Detections, Frame, Mask, Track, Tracks, TrackState

_SUPPORT_SCORE = 0.5
"""Least SAM2 score for a mask alone to vouch for a person."""
_SUPPORT_HEIGHT = 0.5
"""A mask lower than this share of the person shows a foot or an arm, not where the person is."""
_CORRECTION_PAUSE_FRAMES = 12
_DUPLICATE_FRAMES = 8
"""Longer than two people usually cover each other nearly wholly."""
_SENIORITY = 0.2
"""What a well-founded track is preferred by where two claim one detection, in units of overlap."""
_SHIRT_WEIGHT = 0.5
"""What overlap loses in the match where the shirts differ wholly: rivals cross in other colours."""
_AGREEMENT_IOU = 0.5
"""Where detection and mask overlap this much they show the same body, and both boxes count."""
_CUT_PEOPLE = 5
"""Fewer well-founded tracks cannot tell a cut from people who left."""
_CUT_SHARE = 0.35
"""After a cut, at most this share of tracks lies on somebody, by chance."""
_CUT_LIKENESS = 0.5
"""Pictures more alike than this go on, whatever became of the people."""


@dataclass(frozen=True, slots=True)
class _Segment:
    """SAM2's answer for one object."""

    xyxy: Boxes
    score: float
    mask: Mask


class Tracker:
    """Follows the people of one stream."""

    def __init__(self, triton: TritonClient, settings: TrackSettings, *, frame_rate: float) -> None:
        self._triton = triton
        self._settings = settings
        self._coast_frames = max(1, round(settings.coast_s * frame_rate))
        self._mask_only_frames = round(settings.mask_only_s * frame_rate)
        self._tracklets: list[Tracklet] = []
        self._next_object_id = 1
        self._forget: list[int] = []
        self._sequence_id: int | None = None
        self._camera = CameraMotion(blend=VELOCITY_BLEND)

    async def track(self, frame: Frame, people: Detections) -> Tracks:
        """Advance by one frame.

        Args:
            frame: The next frame of the stream.
            people: Detections of that frame, without the ball.

        Returns:
            Tracks in source-frame pixels. Without SAM2 they rest on detections and motion alone.
        """
        known = {tracklet.object_id for tracklet in self._tracklets}
        await asyncio.to_thread(self._camera.advance, frame.pixels)
        cut_off = self._cut_off(people)
        prompts = self._prompts(people)
        is_degraded = False
        try:
            segments = await self._segment(frame, prompts)
        except ModelError:
            segments, is_degraded = {}, True
            self._lose_sequence()
        self._observe(people, segments, shirts(frame.pixels, people.xyxy))
        ended = cut_off + self._bury(frame)
        return Tracks(tuple(self._seen(known)), ended, is_degraded, is_cut=bool(cut_off))

    async def close(self) -> None:
        """End the SAM2 sequence; its slot is free afterwards. Errors are moot by then."""
        if self._sequence_id is None:
            return
        step = SequenceStep(self._sequence_id, is_end=True)
        self._sequence_id = None
        try:
            nobody = np.zeros((1, 1), np.int64)
            await self._triton.infer(
                SAM2_TRACKER, {"forget_object_ids": nobody}, step=step, timeout_s=2.0
            )
        except ModelError:
            pass  # the slot's time-to-live frees it

    def _cut_off(self, people: Detections) -> tuple[int, ...]:
        """End every track where nearly nobody is where somebody should be; return who ended."""
        founded = [t for t in self._tracklets if not t.misses and self._is_confirmed(t)]
        if len(founded) < _CUT_PEOPLE or self._camera.likeness > _CUT_LIKENESS:
            return ()
        expected = _stack([tracklet.predicted(self._camera.jerk) for tracklet in founded])
        is_met = (iou(expected, people.xyxy) >= self._settings.match_iou).any(axis=1)
        if not len(people) or is_met.mean() > _CUT_SHARE:
            return ()
        ended = tuple(tracklet.object_id for tracklet in self._tracklets)
        self._tracklets = []
        self._forget.extend(ended)
        return ended

    def _prompts(self, people: Detections) -> dict[int, Boxes]:
        """Give birth to unmatched detections; return the boxes that SAM2 must be told."""
        predicted = self._predicted()
        overlap = iou(people.xyxy, predicted)
        matched = match(overlap, near(people.xyxy, predicted), self._settings.match_iou)
        prompts = {
            self._tracklets[column].object_id: people.xyxy[row]
            for row, column in matched
            if self._tracklets[column].needs_prompt
        }
        taken = {row for row, _ in matched}
        for row in range(len(people)):
            is_apart = not overlap.shape[1] or (
                overlap[row].max() < self._settings.birth_overlap_iou
            )
            if (
                row not in taken
                and is_apart
                and people.confidence[row] >= self._settings.birth_confidence
                and len(self._tracklets) < self._settings.max_objects
            ):
                born = self._bear(people, row)
                prompts[born.object_id] = born.xyxy
        for tracklet in self._tracklets:
            tracklet.prompted_frames_ago += 1
            if tracklet.object_id in prompts:
                tracklet.prompted_frames_ago, tracklet.needs_prompt = 0, False
        return prompts

    def _bear(self, people: Detections, row: int) -> Tracklet:
        born = Tracklet(
            self._next_object_id,
            people.xyxy[row].copy(),
            people.label[row],
            float(people.confidence[row]),
            self._camera.pan.copy(),
        )
        self._next_object_id += 1
        self._tracklets.append(born)
        return born

    def _predicted(self) -> Boxes:
        return _stack([tracklet.predicted(self._camera.jerk) for tracklet in self._tracklets])

    async def _segment(self, frame: Frame, prompts: dict[int, Boxes]) -> dict[int, _Segment]:
        """Ask SAM2 where everybody is, telling it who joined and who left."""
        if self._sequence_id is None and not prompts:
            return {}
        is_start = self._sequence_id is None
        if self._sequence_id is None:
            self._sequence_id = secrets.randbits(62) + 1
        inputs: dict[str, NDArray[np.generic]] = {"frame": frame.pixels[None]}
        if prompts:
            inputs["prompt_object_ids"] = np.array([list(prompts)], np.int64)
            inputs["prompt_boxes"] = np.stack(list(prompts.values()))[None].astype(np.float32)
        if self._forget and not is_start:
            inputs["forget_object_ids"] = np.array([self._forget], np.int64)
        reply = await self._triton.infer(
            SAM2_TRACKER, inputs, step=SequenceStep(self._sequence_id, is_start)
        )
        self._forget = []
        return {
            int(object_id): _Segment(
                box, float(score), Mask(frame.height, frame.width, bytes(counts).decode())
            )
            for object_id, box, score, counts in zip(
                *(reply[name][0] for name in ("object_ids", "boxes", "scores", "masks")),
                strict=True,
            )
        }

    def _lose_sequence(self) -> None:
        """Forget the SAM2 sequence; the next call starts one and prompts everybody again."""
        self._sequence_id = None
        self._forget = []
        for tracklet in self._tracklets:
            tracklet.needs_prompt = True

    def _observe(self, people: Detections, segments: dict[int, _Segment], worn: Shirts) -> None:
        """Settle every tracklet's box from its mask, its motion and the detections."""
        for tracklet in self._tracklets:
            segment = segments.get(tracklet.object_id)
            if segment is None or segment.xyxy[2] <= segment.xyxy[0]:
                tracklet.support, tracklet.mask = 0.0, None
                continue
            is_whole = _height(segment.xyxy) >= _SUPPORT_HEIGHT * _height(tracklet.xyxy)
            tracklet.support, tracklet.mask = segment.score * is_whole, segment.mask
        predicted = self._predicted()
        affinity = iou(people.xyxy, predicted)
        for column, tracklet in enumerate(self._tracklets):
            if tracklet.mask is not None:
                masked = iou(people.xyxy, segments[tracklet.object_id].xyxy[None])[:, 0]
                affinity[:, column] += tracklet.support * (masked - affinity[:, column])
        affinity *= 1 - _SHIRT_WEIGHT * (1 - self._likeness(worn))
        # A detection that an older track's mask explains after all is no birth.
        is_newborn = np.array([not tracklet.hits for tracklet in self._tracklets], np.bool_)
        affinity[:, is_newborn] = np.minimum(affinity[:, is_newborn], self._settings.match_iou)
        # Without this, two tracks on one person take turns.
        seniority = np.array([tracklet.seniority for tracklet in self._tracklets], np.float32)
        affinity += _SENIORITY * seniority * (affinity >= self._settings.match_iou)
        pairs = match(affinity, near(people.xyxy, predicted), self._settings.match_iou)
        matched = {column: row for row, column in pairs}
        for column, tracklet in enumerate(self._tracklets):
            if column in matched:
                self._confirm(tracklet, people, matched[column], segments)
                tracklet.wear(worn[matched[column]])
            else:
                self._coast(tracklet, segments)

    def _likeness(self, worn: Shirts) -> NDArray[np.float32]:
        """How alike the shirts of detections and tracks are, `(detections, tracks)`, 0 to 1."""
        alike = np.ones((len(worn), len(self._tracklets)), np.float32)
        for column, tracklet in enumerate(self._tracklets):
            if tracklet.shirt is not None:
                alike[:, column] = likeness(worn, tracklet.shirt[None])[:, 0]
        return alike

    def _confirm(
        self,
        tracklet: Tracklet,
        people: Detections,
        row: int,
        segments: dict[int, _Segment],
    ) -> None:
        box = people.xyxy[row]
        segment = segments.get(tracklet.object_id)
        overlap = float(iou(box[None], segment.xyxy[None])[0, 0]) if segment else 0.0
        # Both miss a foot or an arm more often than they invent one: what either shows is body.
        both = _union(box, segment.xyxy) if segment and overlap >= _AGREEMENT_IOU else box.copy()
        if tracklet.hits:
            tracklet.move(both)
        else:
            tracklet.xyxy = both
        tracklet.hits += 1
        tracklet.misses = 0
        tracklet.label = people.label[row]
        tracklet.confidence = float(people.confidence[row])
        if tracklet.prompted_frames_ago >= _CORRECTION_PAUSE_FRAMES and segments:
            tracklet.needs_prompt |= overlap < self._settings.correct_iou

    def _coast(self, tracklet: Tracklet, segments: dict[int, _Segment]) -> None:
        tracklet.misses += 1
        if tracklet.support >= _SUPPORT_SCORE:
            tracklet.move(segments[tracklet.object_id].xyxy.copy())
            tracklet.confidence = tracklet.support
        else:
            tracklet.xyxy = tracklet.predicted(self._camera.jerk)
            tracklet.velocity *= 0.9

    def _bury(self, frame: Frame) -> tuple[int, ...]:
        """End tracklets that are lost, gone from the picture, or on somebody else."""
        ended = {t.object_id for t in self._tracklets if self._is_lost(t, frame)}
        ended |= self._duplicates()
        self._tracklets = [t for t in self._tracklets if t.object_id not in ended]
        self._forget.extend(sorted(ended))
        return tuple(sorted(ended))

    def _is_lost(self, tracklet: Tracklet, frame: Frame) -> bool:
        if not tracklet.misses:
            return False
        patience = self._coast_frames
        if not self._is_confirmed(tracklet):
            patience = min(tracklet.hits, 1)
        x, y = (tracklet.xyxy[:2] + tracklet.xyxy[2:]) / 2
        is_outside = not (0 <= x < frame.width and 0 <= y < frame.height)
        return is_outside or tracklet.misses > patience

    def _duplicates(self) -> set[int]:
        """Find tracks that lay under a senior one for too long to be somebody else."""
        boxes = _stack([tracklet.xyxy for tracklet in self._tracklets])
        # Ties in seniority go to the earlier object, so that exactly one of a pair is junior.
        rank = [(-tracklet.hits, tracklet.object_id) for tracklet in self._tracklets]
        is_covering = iou(boxes, boxes) > self._settings.duplicate_iou
        for row, tracklet in enumerate(self._tracklets):
            is_covered = any(
                is_covering[row, column] and rank[column] < rank[row] for column in range(len(rank))
            )
            tracklet.covered = tracklet.covered + 1 if is_covered else 0
        return {t.object_id for t in self._tracklets if t.covered >= _DUPLICATE_FRAMES}

    def _seen(self, known: set[int]) -> list[Track]:
        return [
            Track(
                object_id=tracklet.object_id,
                xyxy=tracklet.xyxy.copy(),
                confidence=tracklet.confidence,
                state=self._state(tracklet),
                label=None if tracklet.misses else tracklet.label,
                mask=tracklet.mask,
                is_new=tracklet.object_id not in known,
            )
            for tracklet in self._tracklets
            if self._is_supported(tracklet)
        ]

    def _is_supported(self, tracklet: Tracklet) -> bool:
        if tracklet.misses > self._mask_only_frames:
            return False
        return not tracklet.misses or tracklet.support >= _SUPPORT_SCORE

    def _state(self, tracklet: Tracklet) -> TrackState:
        if not self._is_confirmed(tracklet):
            return TrackState.TENTATIVE
        return TrackState.COASTING if tracklet.misses else TrackState.CONFIRMED

    def _is_confirmed(self, tracklet: Tracklet) -> bool:
        return tracklet.hits >= self._settings.confirm_frames


def _union(a: Boxes, b: Boxes) -> Boxes:
    return np.concatenate([np.minimum(a[:2], b[:2]), np.maximum(a[2:], b[2:])])


def _height(xyxy: Boxes) -> float:
    return float(xyxy[3] - xyxy[1])


def _stack(boxes: list[Boxes]) -> Boxes:
    return np.stack(boxes) if boxes else np.zeros((0, 4), np.float32)
