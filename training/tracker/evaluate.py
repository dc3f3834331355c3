"""Judge the tracker online, as it serves, on clips with exact masks.

Every person is prompted once, with a slightly wrong box, when first wholly in the picture; from
then on the tracker is alone. A person who leaves the picture is forgotten.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from sam2_streaming.architecture import WeightsError, load
from sam2_streaming.engine import StreamingEngine
from sam2_streaming.requests import StepRequest
from sam2_streaming.tracker import Tracker

from orchestrator.imaging import inside_share
from training.data.crops import HELD_OUT_UNCUT
from training.data.footage import Clip, Sighting, read_clip
from training.errors import InputError

MIN_HEIGHT_PX = 24
PROMPT_NOISE = 0.03
AGES = ((1, 1), (8, 12), (25, 35), (55, 65), (90, 110), (140, 160), (190, 210))
_MOST_COVERED = 0.3
"""Of a person's box by what is drawn over the picture, which true masks do not subtract."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """One object in one frame.

    Attributes:
        age: Frames since the prompt.
        is_visible: Whether the person shows enough to be judged.
        own_iou: IoU of the mask with the person's.
        other_iou: Largest IoU with anybody else's.
        score: As the tracker reports it.
    """

    object_id: int
    age: int
    is_visible: bool
    own_iou: float
    other_iou: float
    score: float

    @property
    def is_right(self) -> bool:
        """Whether the mask is on the right person."""
        return self.own_iou > max(self.other_iou, 0.1)


def follow(tracker: Tracker, clip: Clip, frames: int) -> Iterator[Judgement]:
    """Run the first frames of a clip through a tracker; judge every object of every frame."""
    rng = np.random.default_rng(0)
    born: dict[int, int] = {}
    live: set[int] = set()
    tracker.start(1)
    for frame_index, frame in enumerate(islice(clip.frames(), frames)):
        seen = {s.object_id: s for s in clip.sightings[frame_index] if not s.is_ball}
        gone = {k for k in live if k not in seen or not _is_inside(seen[k], frame.shape, -0.5)}
        new = [k for k, s in seen.items() if k not in born and _is_clear(s, frame.shape)]
        born |= dict.fromkeys(new, frame_index)
        live = (live - gone) | set(new)
        result = tracker.step(
            StepRequest(
                1,
                frame,
                np.array(new, np.int64),
                np.array([_noisy(seen[k], rng) for k in new], np.float32).reshape(-1, 4),
                np.array(sorted(gone), np.int64),
            )
        )
        truth = clip.masks(frame_index)
        drawn = clip.header.get("overlay_boxes", ())
        for k, score, counts in zip(result.object_ids, result.scores, result.masks, strict=True):
            age = frame_index - born[int(k)]
            yield _judge(int(k), age, float(score), counts, truth, seen, drawn)
    tracker.end(1)


def _judge(
    object_id: int,
    age: int,
    score: float,
    rle_counts: str,
    truth: dict[int, NDArray[np.uint8]],
    seen: dict[int, Sighting],
    drawn: Sequence[Sequence[float]],
) -> Judgement:
    iou = {}
    for k in truth.keys() & seen.keys():
        true = coco_mask.encode(np.asfortranarray(truth[k]))
        found = {"size": true["size"], "counts": rle_counts}
        iou[k] = float(coco_mask.iou([found], [true], [0])[0, 0])
    own = iou.pop(object_id, 0.0)
    x0, y0, x1, y1 = seen[object_id].box_full
    is_shown = seen[object_id].visible_px_at_most > max(30, 0.1 * (x1 - x0) * (y1 - y0))
    is_visible = is_shown and not _is_covered(seen[object_id], drawn)
    return Judgement(object_id, age, is_visible, own, max(iou.values(), default=0.0), score)


def _is_covered(person: Sighting, drawn: Sequence[Sequence[float]]) -> bool:
    boards = np.array(drawn, np.float32).reshape(-1, 4)
    share = inside_share(np.array(person.box_full, np.float32), boards).sum()
    return bool(share > _MOST_COVERED)


def _is_inside(person: Sighting, shape: tuple[int, ...], margin: float) -> bool:
    """Whether the whole body, shrunk by `-margin` of its size on each side, is in the picture."""
    x0, y0, x1, y1 = person.box_full
    dx, dy = margin * (x1 - x0), margin * (y1 - y0)
    return x0 >= dx and y0 >= dy and x1 <= shape[1] - dx and y1 <= shape[0] - dy


def _is_clear(person: Sighting, shape: tuple[int, ...]) -> bool:
    x0, y0, x1, y1 = person.box_full
    large = y1 - y0 > MIN_HEIGHT_PX and person.visible_px_at_most > 0.22 * (x1 - x0) * (y1 - y0)
    return large and person.box_visible is not None and _is_inside(person, shape, 0.0)


def _noisy(person: Sighting, rng: np.random.Generator) -> NDArray[np.float64]:
    box = np.array(person.box_visible)
    noisy: NDArray[np.float64] = box + rng.normal(0, PROMPT_NOISE, 4) * np.tile(
        box[2:] - box[:2], 2
    )
    return noisy


def evaluate(weights: Path, footage: Path, clips: Sequence[str]) -> dict[str, Any]:
    """Follow every person of some clips; see `scores` for what is returned.

    Args:
        weights: Any that `sam2_streaming.architecture.load` takes.
        footage: Folder of rendered clips with masks.
        clips: `NAME`, or `NAME:FRAMES` for its first frames; none of them were learnt. Without
            any, `HELD_OUT_UNCUT`.

    Raises:
        InputError: The weights do not load, or a clip is not as expected.
    """
    stretches = [_stretch(clip) for clip in clips or HELD_OUT_UNCUT]
    try:
        network = load(weights)
    except WeightsError as error:
        raise InputError(str(error)) from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    engine = StreamingEngine(network, device, torch.bfloat16)
    judgements, started = [], time.process_time()
    for name, frames in stretches:
        clip = read_clip(footage, name)
        if not clip.has_masks:
            raise InputError(f"{footage}: expected masks of {clip.name}")
        tracker = Tracker(engine, "window", slots=1, ttl_s=math.inf)
        judgements += list(follow(tracker, clip, frames or len(clip.sightings)))
    seconds = time.process_time() - started
    return scores(judgements) | {"cpu_ms_per_object": 1e3 * seconds / max(len(judgements), 1)}


def _stretch(clip: str) -> tuple[str, int | None]:
    """Return the name and how many frames are asked for; None for all."""
    name, colon, frames = clip.partition(":")
    if colon and not (frames.isdecimal() and int(frames)):
        raise InputError(f"--clips {clip}: expected CLIP, or CLIP:FRAMES with 1 frame or more")
    return name, int(frames) if colon else None


def scores(judgements: Sequence[Judgement]) -> dict[str, Any]:
    """Return the table of the model card, and the tracker's score where it is right and not.

    Returns:
        `ages`: rows of `age` (`low-high` in frames), `objects`, `mean_iou`, `on_the_right_person`
        over the visible people; `median_score_right` and `median_score_wrong_or_hidden`, None
        without such an object.
    """
    visible = [j for j in judgements if j.is_visible]
    by_age = {(low, high): [j for j in visible if low <= j.age <= high] for low, high in AGES}
    return {
        "ages": [_row(low, high, rows) for (low, high), rows in by_age.items() if rows],
        "median_score_right": _median([j.score for j in visible if j.is_right]),
        "median_score_wrong_or_hidden": _median([j.score for j in judgements if not j.is_right]),
    }


def _row(low: int, high: int, rows: Sequence[Judgement]) -> dict[str, Any]:
    return {
        "age": f"{low}-{high}",
        "objects": len(rows),
        "mean_iou": float(np.mean([j.own_iou for j in rows])),
        "on_the_right_person": float(np.mean([j.is_right for j in rows])),
    }


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None
