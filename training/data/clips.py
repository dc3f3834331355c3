"""Labelled footage in memory: clips, who is in them, and where each frame shows whom.

Every reader fills this one form. What a format cannot know is None, never a guess. Boxes are xyxy
in pixels of the picture, `max` exclusive; pitch positions are metres from the centre spot, x along
the pitch towards the right-hand goal, y across it towards the far touchline.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from orchestrator.types.pictures import Pixels
from training.data.pictures import ImageFiles, VideoFile
from training.errors import InputError

Box = tuple[float, float, float, float]

MaskRuns = Sequence[Mapping[int, str]]
"""Per frame, the visible mask of an object by its id, as COCO's compressed run lengths."""

BALL = "ball"
PEOPLE = ("player", "goalkeeper", "referee", "assistant_referee", "other", "person")
"""Kinds of people; `person` where the labels do not tell the role."""
KINDS = (*PEOPLE, BALL, "object")
"""All kinds; `object` where the labels have no classes at all."""


def role_of_kind(kind: str) -> str:
    """Return the role that a kind of people stands for: assistants are referees."""
    return "referee" if kind == "assistant_referee" else kind


@dataclass(frozen=True, slots=True)
class Person:
    """One person of a clip.

    Attributes:
        person_id: The id that the person's sightings carry.
        kind: One of `KINDS`, the ball left out.
        team: `left` or `right`; None for officials and where it is unknown.
        jersey_number: 0 to 99; None if there is none or it is unknown.
    """

    person_id: int
    kind: str
    team: str | None
    jersey_number: int | None


@dataclass(frozen=True, slots=True)
class Sighting:
    """One person or the ball in one frame.

    Attributes:
        object_id: Names the object in all frames if the clip `is_tracked`, else in its frame only.
        kind: One of `KINDS`.
        box_visible: Tight box of the visible pixels; None if fully hidden.
        box_full: Box of the whole body, hidden and off-image parts included; the same as
            `box_visible` where a format has one box for both.
        visible_px: Number of visible pixels; None if unknown.
        number_box: Box of the visible pixels of the back number; None if none is visible, or if
            that is unknown.
        number_px: Number of visible pixels of the back number; None if unknown.
        number_span: Share of the number's width that is seen, in `[0, 1]`; None if unknown.
        pitch: Where the object touches, or is above, the pitch, `(x, y)` in metres; None if
            unknown.
    """

    object_id: int
    kind: str
    box_visible: Box | None
    box_full: Box
    visible_px: int | None = None
    number_box: Box | None = None
    number_px: int | None = None
    number_span: float | None = None
    pitch: tuple[float, float] | None = None

    @property
    def is_ball(self) -> bool:
        """Whether this is the ball."""
        return self.kind == BALL

    @property
    def is_number_readable(self) -> bool:
        """Whether a person could read the back number: nearly all of it seen, and large enough.

        False where the format does not tell.
        """
        return (self.number_span or 0.0) > 0.85 and (self.number_px or 0) >= 60

    @property
    def visible_px_at_most(self) -> float:
        """`visible_px`; where that is unknown, the area of the visible box, its upper bound."""
        if self.visible_px is not None:
            return self.visible_px
        if self.box_visible is None:
            return 0.0
        x0, y0, x1, y1 = self.box_visible
        return (x1 - x0) * (y1 - y0)


@dataclass(frozen=True)
class Clip:
    """A video, or stills from one source, with its truth.

    Attributes:
        name: Unique within a data set.
        width: Width of every picture in pixels.
        height: Height of every picture in pixels.
        frame_rate: Frames per second; None for stills.
        people: Who is in the clip, by id; empty for stills whose labels know no identities.
        sightings: Per frame, what the labels tell.
        pictures: Where the pictures come from; nothing is opened before `frames` is called.
        is_tracked: Whether an object keeps its id from frame to frame.
        source: Match or recording; clips of one source never lie on both sides of a split.
        kits: Outfield shirts worn, one string per shirt, equal for equal ones; empty if unknown.
        load_masks: Reads the masks of all frames; None if the labels have none.
        homographies: Per frame, pitch metres to pixels, float64 `(3, 3)`, None where unknown; None
            if the format has none.
        header: What else the format tells, as it stands in the file.
    """

    name: str
    width: int
    height: int
    frame_rate: float | None
    people: dict[int, Person]
    sightings: tuple[tuple[Sighting, ...], ...]
    pictures: VideoFile | ImageFiles
    is_tracked: bool
    source: str
    kits: frozenset[str] = frozenset()
    load_masks: Callable[[], MaskRuns] | None = None
    homographies: tuple[NDArray[np.float64] | None, ...] | None = None
    header: Mapping[str, Any] = field(default_factory=dict)

    @property
    def video(self) -> Path | None:
        """The video file; None for pictures in files of their own."""
        return self.pictures.path if isinstance(self.pictures, VideoFile) else None

    @property
    def has_masks(self) -> bool:
        """Whether the labels have masks."""
        return self.load_masks is not None

    @cached_property
    def mask_runs(self) -> MaskRuns:
        """The masks of all frames, read at first use; no masks at all if the labels have none.

        Raises:
            InputError: The file of masks is not as expected.
        """
        return [{}] * len(self.sightings) if self.load_masks is None else self.load_masks()

    def masks(self, frame_index: int) -> dict[int, NDArray[np.uint8]]:
        """Return the visible masks of a frame by object id, uint8 0/1 `(height, width)`."""
        size = [self.height, self.width]
        return {
            object_id: coco_mask.decode({"size": size, "counts": counts.encode()})
            for object_id, counts in self.mask_runs[frame_index].items()
        }

    def frames(self, indices: Iterable[int] | None = None) -> Iterator[Pixels]:
        """Yield the pictures in order, or those of the rising `indices`, RGB uint8 `(h, w, 3)`.

        Raises:
            InputError: A picture cannot be decoded, or there is none for a frame.
        """
        wanted = list(range(len(self.sightings)) if indices is None else indices)
        for index, picture in zip_longest(wanted, self.pictures.frames(wanted)):
            if picture is None:
                raise InputError(f"{self.name}: expected a picture for frame {index}, found none")
            yield picture

    def every(self, step: int) -> Iterator[tuple[int, Pixels]]:
        """Yield index and picture of every `step`-th frame, as `frames` does."""
        indices = range(0, len(self.sightings), step)
        return zip(indices, self.frames(indices), strict=True)
