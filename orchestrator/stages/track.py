"""SAM2: detections of frame after frame become tracks with masks.

Each frame, tracks go to where camera and motion lead them, and detections are matched with that:
what matches nobody is born and prompts SAM2 in the very call that follows everybody else. SAM2's
masks then say who is where, and detections confirm them. A camera cut ends every track, since
places mean nothing after it.
"""

import asyncio

import numpy as np

from orchestrator.errors import ModelError
from orchestrator.imaging import inside_share, iou, is_cut_off, stacked, union
from orchestrator.settings import TrackSettings
from orchestrator.stages.appearance import Clothes, dressed, unknown
from orchestrator.stages.association import associate, expected_rows, on_rivals, shown_alike
from orchestrator.stages.camera import CameraMotion
from orchestrator.stages.cuts import is_cut
from orchestrator.stages.duplicates import duplicates
from orchestrator.stages.segmenting import Segment, Segmenter
from orchestrator.stages.tracklet import Tracklet
from orchestrator.triton.client import TritonClient
from orchestrator.types.detections import Detections
from orchestrator.types.frames import Frame
from orchestrator.types.pictures import Boxes
from orchestrator.types.tracks import Track, Tracks, TrackState

_SUPPORT_HEIGHT = 0.5
"""A mask lower than this share of the person shows a foot or an arm, not where the person is."""
_CORRECTION_PAUSE_FRAMES = 12
_AGREEMENT_IOU = 0.5
"""Where detection and mask overlap this much they show the same body, and both boxes count."""
_MASK_WEIGHT = 0.25
"""Of the mask's box against that of both. Mean IoU with true boxes, six clips: 0.846 by detection,
0.849 by mask, 0.875 by both, 0.878 so weighted; nothing fitted to edges or motion does better."""
_BIRTH_INSIDE = 0.7
"""A detection of which this share lies on somebody is likelier a part of that body than a birth."""
_PATIENCE = 3
"""Frames that a track is awaited for every frame in which it was detected."""
_HIDDEN_PATIENCE = 2
"""How much longer somebody is awaited whom another hides."""
_HIDDEN_INSIDE = 0.5
"""Who should be with this share of the body where somebody is seen is hidden by that one."""
_LONGEST_GAP_S = 5.0
"""Where frames are missing for longer, whoever is where somebody was may be anybody."""
_LEAST_COVER_FRAMES = 8
_COVER_S = 0.32
"""Two people who both are detected cover each other nearly wholly for less."""


class Tracker:
    """Follows the people of one stream."""

    def __init__(self, triton: TritonClient, settings: TrackSettings, *, frame_rate: float) -> None:
        self._settings = settings
        self._cover_frames = max(_LEAST_COVER_FRAMES, round(_COVER_S * frame_rate))
        self._gap_frames = _LONGEST_GAP_S * frame_rate
        self._coast_frames = max(1, round(settings.coast_s * frame_rate))
        self._mask_only_frames = round(settings.mask_only_s * frame_rate)
        self._tracklets: list[Tracklet] = []
        self._next_object_id = 1
        self._segmenter = Segmenter(triton)
        self._camera = CameraMotion()

    async def track(
        self, frame: Frame, people: Detections, *, max_observed: int | None = 0, elapsed: int = 1
    ) -> Tracks:
        """Advance by one frame.

        Args:
            frame: The next frame of the stream.
            people: Detections of that frame, without the ball.
            max_observed: Most people that SAM2 looks for, 0 for all; None does without SAM2.
            elapsed: By how many frames of the stream it follows the last one, 1 or more. Over a
                gap of more than 5 seconds nobody is followed.

        Returns:
            Tracks in source-frame pixels. Without SAM2 they rest on detections and motion alone.
        """
        known = {tracklet.object_id for tracklet in self._tracklets}
        ended = self._end_all() if elapsed > self._gap_frames else ()
        await asyncio.to_thread(self._camera.advance, frame.pixels, self._boxes())
        carried = self._camera.shift.moved(self._boxes())
        for tracklet, box in zip(self._tracklets, carried, strict=True):
            tracklet.advance(box, elapsed)
        has_cut = self._has_cut(people)
        ended += self._end_all() if has_cut else ()
        worn, gain = unknown(len(people)), 1.0
        if max_observed is None:  # time is short, so motion alone must do
            self._segmenter.rest()
        else:
            worn, gain = dressed(frame.pixels, people.xyxy)
        prompts = self._prompts(people, worn)
        is_degraded = False
        try:
            segments = await self._segments(frame, prompts, max_observed)
        except ModelError:
            segments, is_degraded = {}, True
        self._observe(frame, people, gain, worn, segments)
        ended += self._bury(frame)
        return Tracks(
            tuple(self._seen(known, frame)), ended, is_degraded, has_cut, self._camera.shift
        )

    async def close(self) -> None:
        """End the SAM2 sequence; its slot is free afterwards. `track` would begin another."""
        await self._segmenter.close()

    @property
    def size_bytes(self) -> int:
        """Roughly what is kept in memory."""
        return self._segmenter.size_bytes

    async def _segments(
        self, frame: Frame, prompts: dict[int, Boxes], max_observed: int | None
    ) -> dict[int, Segment]:
        if max_observed is None:
            return {}
        return await self._segmenter.segment(frame, prompts, max_observed)

    def _boxes(self) -> Boxes:
        return stacked([tracklet.xyxy for tracklet in self._tracklets])

    def _has_cut(self, people: Detections) -> bool:
        """Whether the camera cut; with nobody followed the picture alone tells."""
        if not self._tracklets:
            return not self._camera.goes_on
        founded = [t.xyxy for t in self._tracklets if not t.misses and self._is_confirmed(t)]
        least = self._settings.match_iou
        return is_cut(self._camera.likeness, stacked(founded), people.xyxy, least)

    def _end_all(self) -> tuple[int, ...]:
        """End every track; return who ended."""
        ended = tuple(tracklet.object_id for tracklet in self._tracklets)
        self._tracklets = []
        self._segmenter.forget(ended)
        return ended

    def _prompts(self, people: Detections, worn: Clothes) -> dict[int, Boxes]:
        """Give birth to unmatched detections; return the boxes that SAM2 must be told."""
        row_of = expected_rows(people, worn, self._tracklets, self._settings.match_iou)
        prompts = {}
        for column, tracklet in enumerate(self._tracklets):
            tracklet.prompted_frames_ago += 1
            if column in row_of and self._wants_prompt(tracklet):
                prompts[tracklet.object_id] = people.xyxy[row_of[column]]
                tracklet.prompted_frames_ago, tracklet.is_astray = 0, False
        for row in np.argsort(-people.confidence, kind="stable").tolist():
            if row not in row_of.values() and self._is_somebody_new(people, row):
                born = self._bear(people, row)
                prompts[born.object_id] = born.xyxy
        self._segmenter.forget(prompts)  # a prompt starts anew: the old memory was wrong
        return prompts

    def _is_somebody_new(self, people: Detections, row: int) -> bool:
        """Whether a detection is sure, and apart from everybody who is followed."""
        box, followed = people.xyxy[row], self._boxes()
        return (
            len(self._tracklets) < self._settings.max_objects
            and float(people.confidence[row]) >= self._settings.birth_confidence
            and iou(box[None], followed).max(initial=0.0) < self._settings.birth_overlap_iou
            and inside_share(box, followed).max(initial=0.0) < _BIRTH_INSIDE
        )

    def _wants_prompt(self, tracklet: Tracklet) -> bool:
        return tracklet.is_astray or not self._segmenter.knows(tracklet.object_id)

    def _bear(self, people: Detections, row: int) -> Tracklet:
        born = Tracklet(
            self._next_object_id,
            people.xyxy[row].copy(),
            people.label[row],
            float(people.confidence[row]),
        )
        self._next_object_id += 1
        self._tracklets.append(born)
        return born

    def _observe(
        self,
        frame: Frame,
        people: Detections,
        gain: float,
        worn: Clothes,
        segments: dict[int, Segment],
    ) -> None:
        """Settle every tracklet's box from its mask, its motion and the detections."""
        shown = [self._believed(tracklet, segments) for tracklet in self._tracklets]
        alike = shown_alike(frame.pixels, gain, self._tracklets, shown)
        for column in on_rivals(self._tracklets, shown, alike):
            self._call_off(self._tracklets[column])
            shown[column] = None
        least = self._settings.match_iou
        found = associate(people, worn, self._tracklets, shown, alike, least)
        for column, (tracklet, segment) in enumerate(zip(self._tracklets, shown, strict=True)):
            tracklet.is_shared = column in found.shared
            if column in found.row_of:
                row = found.row_of[column]
                overlap = float(found.overlap[row, column])
                self._confirm(tracklet, people, row, segment, overlap)
                if tracklet.clothes is None or not (found.crowded[row] or tracklet.is_shared):
                    tracklet.wear(worn[row])
                continue
            if column in found.strays:
                self._call_off(tracklet)
            tracklet.coast(segment)

    def _believed(self, tracklet: Tracklet, segments: dict[int, Segment]) -> Segment | None:
        """Note how far a tracklet's mask is believed; return it if there is one."""
        segment = segments.get(tracklet.object_id)
        if segment is None or segment.is_empty:
            tracklet.support, tracklet.mask = 0.0, None
            return None
        height = float(segment.xyxy[3] - segment.xyxy[1])
        is_whole = height >= _SUPPORT_HEIGHT * tracklet.height
        # A mask carried on by motion says nothing that motion does not.
        is_evidence = is_whole and not segment.mask.is_predicted
        tracklet.support, tracklet.mask = segment.score * is_evidence, segment.mask
        return segment

    def _confirm(
        self,
        tracklet: Tracklet,
        people: Detections,
        row: int,
        segment: Segment | None,
        overlap: float,
    ) -> None:
        """Take note of a tracklet's detection, and of its overlap with the mask."""
        box = people.xyxy[row]
        if tracklet.is_shared:
            settled = _own_part(tracklet, segment)
        elif segment is not None and overlap >= _AGREEMENT_IOU:
            # Both miss a foot or an arm more often than they invent one: what either shows is body.
            either = union(box, segment.xyxy)
            settled = either + _MASK_WEIGHT * (segment.xyxy - either)
        else:
            settled = box.copy()
        tracklet.confirm(settled, people.label[row], float(people.confidence[row]))
        if tracklet.prompted_frames_ago >= _CORRECTION_PAUSE_FRAMES and not tracklet.is_shared:
            tracklet.is_astray |= overlap < self._settings.correct_iou

    def _call_off(self, tracklet: Tracklet) -> None:
        """Let go of a mask that lies on somebody else; a detection may find the person again."""
        self._segmenter.forget([tracklet.object_id])
        tracklet.support, tracklet.mask = 0.0, None

    def _bury(self, frame: Frame) -> tuple[int, ...]:
        """End tracklets that are lost, gone from the picture, or on somebody else."""
        seen = stacked([t.xyxy for t in self._tracklets if not t.misses])
        ended = {t.object_id for t in self._tracklets if t.misses and self._is_lost(t, seen, frame)}
        ended |= duplicates(self._tracklets, self._settings.duplicate_iou, self._cover_frames)
        self._tracklets = [t for t in self._tracklets if t.object_id not in ended]
        self._segmenter.forget(ended)
        return tuple(sorted(ended))

    def _is_lost(self, tracklet: Tracklet, seen: Boxes, frame: Frame) -> bool:
        """Whether an undetected tracklet is given up; `seen` are the boxes of those detected."""
        patience = self._coast_frames if self._is_confirmed(tracklet) else 1
        if not tracklet.is_shared:  # who was seen for a moment is not awaited for long
            patience = min(patience, _PATIENCE * tracklet.hits)
        longest = self._coast_frames
        if inside_share(tracklet.xyxy, seen).max(initial=0.0) >= _HIDDEN_INSIDE:
            patience, longest = _HIDDEN_PATIENCE * patience, _HIDDEN_PATIENCE * longest
        x, y = (tracklet.xyxy[:2] + tracklet.xyxy[2:]) / 2
        is_outside = not (0 <= x < frame.width and 0 <= y < frame.height)
        return is_outside or tracklet.misses > patience or tracklet.away > longest

    def _seen(self, known: set[int], frame: Frame) -> list[Track]:
        cut_off = is_cut_off(self._boxes(), frame.pixels).tolist()
        return [
            Track(
                object_id=tracklet.object_id,
                xyxy=tracklet.xyxy.copy(),
                confidence=tracklet.confidence,
                state=self._state(tracklet),
                label=None if tracklet.misses else tracklet.label,
                mask=tracklet.mask,
                is_new=tracklet.object_id not in known,
                is_cut_off=is_cut,
            )
            for tracklet, is_cut in zip(self._tracklets, cut_off, strict=True)
            if self._is_supported(tracklet)
        ]

    def _is_supported(self, tracklet: Tracklet) -> bool:
        if not tracklet.misses or tracklet.is_shared:
            return True
        return tracklet.away <= self._mask_only_frames and tracklet.is_vouched

    def _state(self, tracklet: Tracklet) -> TrackState:
        if not self._is_confirmed(tracklet):
            return TrackState.TENTATIVE
        return TrackState.COASTING if tracklet.misses else TrackState.CONFIRMED

    def _is_confirmed(self, tracklet: Tracklet) -> bool:
        return tracklet.hits >= self._settings.confirm_frames


def _own_part(tracklet: Tracklet, segment: Segment | None) -> Boxes:
    """Where somebody is in a detection that shows two people."""
    if segment is not None and tracklet.is_vouched:
        return segment.xyxy.copy()
    return tracklet.xyxy
