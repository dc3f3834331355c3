r"""Judge the tracker online, as it serves, on clips with exact masks.

    PYTHONPATH=model_repository/sam2_tracker \
        python -m training.tracker.evaluate --footage DIR --weights FILE [--clips dev_05 …]

Every person is prompted once, with a slightly wrong box, when first wholly in the picture; from
then on the tracker is alone. A person who leaves the picture is forgotten.
"""

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from sam2_streaming.architecture import load
from sam2_streaming.engine import StreamingEngine
from sam2_streaming.requests import StepRequest
from sam2_streaming.tracker import Tracker

from training.data.footage import BALL_ID, Clip, Sighting, read_clip

JUDGED_CLIPS = ("dev_05", "dev_13", "dev_14:82", "dev_18:72", "dev_22")
"""Held-out clips, up to the frame before a camera cut: across it, a tracker must be re-prompted."""
MIN_HEIGHT_PX = 24
PROMPT_NOISE = 0.03
AGES = ((1, 1), (8, 12), (25, 35), (55, 65), (90, 110), (140, 160))


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
        seen = {s.object_id: s for s in clip.sightings[frame_index] if s.object_id != BALL_ID}
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
        for k, score, counts in zip(result.object_ids, result.scores, result.masks, strict=True):
            yield _judge(int(k), frame_index - born[int(k)], float(score), counts, truth, seen)
    tracker.end(1)


def _judge(
    object_id: int,
    age: int,
    score: float,
    rle_counts: str,
    truth: dict[int, NDArray[np.uint8]],
    seen: dict[int, Sighting],
) -> Judgement:
    people = [k for k in truth if k != BALL_ID]
    encoded = [coco_mask.encode(np.asfortranarray(truth[k])) for k in people]
    size = list(next(iter(truth.values())).shape)
    overlap = coco_mask.iou([{"size": size, "counts": rle_counts}], encoded, [0] * len(encoded))[0]
    iou = dict(zip(people, overlap.tolist(), strict=True))
    own = iou.pop(object_id, 0.0)
    x0, y0, x1, y1 = seen[object_id].box_full
    is_visible = seen[object_id].visible_px > max(30, 0.1 * (x1 - x0) * (y1 - y0))
    return Judgement(object_id, age, is_visible, own, max(iou.values(), default=0.0), score)


def _is_inside(person: Sighting, shape: tuple[int, ...], margin: float) -> bool:
    """Whether the whole body, shrunk by `-margin` of its size on each side, is in the picture."""
    x0, y0, x1, y1 = person.box_full
    dx, dy = margin * (x1 - x0), margin * (y1 - y0)
    return x0 >= dx and y0 >= dy and x1 <= shape[1] - dx and y1 <= shape[0] - dy


def _is_clear(person: Sighting, shape: tuple[int, ...]) -> bool:
    x0, y0, x1, y1 = person.box_full
    large = y1 - y0 > MIN_HEIGHT_PX and person.visible_px > 0.22 * (x1 - x0) * (y1 - y0)
    return large and person.box_visible is not None and _is_inside(person, shape, 0.0)


def _noisy(person: Sighting, rng: np.random.Generator) -> NDArray[np.float64]:
    box = np.array(person.box_visible)
    noisy: NDArray[np.float64] = box + rng.normal(0, PROMPT_NOISE, 4) * np.tile(
        box[2:] - box[:2], 2
    )
    return noisy


def report(judgements: list[Judgement]) -> list[str]:
    """Lines of a table: mean IoU and share on the right person by age, then presence."""
    visible = [j for j in judgements if j.is_visible]
    lines = ["| age (frames) | n | mean IoU | on the right person |", "|---|---|---|---|"]
    for low, high in AGES:
        rows = [j for j in visible if low <= j.age <= high]
        if rows:
            iou, right = np.mean([j.own_iou for j in rows]), np.mean([j.is_right for j in rows])
            lines.append(f"| {low}-{high} | {len(rows)} | {iou:.3f} | {right:.3f} |")
    right_scores = [j.score for j in visible if j.is_right]
    wrong_scores = [j.score for j in judgements if not j.is_right]
    lines.append(
        f"score: median {np.median(right_scores):.2f} when right, "
        f"{np.median(wrong_scores or [np.nan]):.2f} when wrong or hidden (n={len(wrong_scores)})"
    )
    return lines


def main() -> None:
    """Print the report over all clips."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--footage", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--clips", nargs="+", default=JUDGED_CLIPS, help="NAME or NAME:FRAMES")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    engine = StreamingEngine(load(arguments.weights), "cpu", torch.bfloat16)
    judgements, started = [], time.process_time()
    for spec in arguments.clips:
        name, _, frames = spec.partition(":")
        clip = read_clip(arguments.footage, name)
        tracker = Tracker(engine, "window", slots=1, ttl_s=math.inf)
        judgements += list(follow(tracker, clip, int(frames or len(clip.sightings))))
    seconds = time.process_time() - started
    print("\n".join(report(judgements)))  # noqa: T201
    print(f"{1e3 * seconds / len(judgements):.1f} CPU-ms per object and frame, judging included")  # noqa: T201


if __name__ == "__main__":
    main()
