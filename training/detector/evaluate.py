"""Scores of an exported detector on clips it was not trained on, over whole merged frames.

`python -m training.detector.evaluate MODEL.onnx --footage DIR` prints the table of the model card:
people by COCO average precision, the ball by the distance of its best candidate from the truth.
Thresholds are those with the best F1 on `VALID_CLIPS`; the other clips only report.
"""

import argparse
import contextlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.special import expit

from orchestrator.imaging import merge_tiles, square_tiles, to_source
from orchestrator.types import Detections, Pixels
from training.data.footage import Clip, Sighting, read_clip
from training.detector.tiles import (
    FRAME_STEP,
    LABELS,
    MIN_VISIBLE_PX,
    VALID_CLIPS,
    Target,
    frame_targets,
)

TEST_CLIPS = ("dev_18", "dev_22", "demo_01")
"""Held out and never used to choose anything."""

TILES = 2
"""Squares that a frame is cut into, as for training."""

BALL_REACH_PX = 8.0
"""A ball is found if its centre is no farther than this from the true one, in source pixels."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FrameResult:
    """Truth and detections of one frame.

    Attributes:
        people: True boxes, xyxy float32 `(n, 4)` in source pixels.
        is_ignored: Bool `(n,)`, true people of whom hardly anything is seen: neither asked for
            nor held against the detector.
        ball_distance: Pixels between the best ball candidate and the ball; infinite without ball.
    """

    people: Floats
    is_ignored: NDArray[np.bool_]
    found: Detections
    has_ball: bool
    ball_score: float
    ball_distance: float


@dataclass(frozen=True, slots=True)
class PersonScores:
    """Average precision at IoU 0.5 and over 0.5 to 0.95, and the score with the best F1 at 0.5."""

    ap50: float
    ap: float
    best_threshold: float


@dataclass(frozen=True, slots=True)
class BallScores:
    """Share of visible balls found, and share of claimed balls that are right."""

    recall: float
    precision: float


class TiledDetector:
    """An exported detector run on a picture in tiles, with the cuts and the merging of serving."""

    def __init__(self, path: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._side = self._session.get_inputs()[0].shape[1]

    def detect(self, picture: Pixels) -> Detections:
        """Return every query of every tile with its likelier label, without any threshold."""
        tiles, regions = square_tiles(picture, TILES, self._side)
        boxes, logits = self._session.run(["boxes", "logits"], {"image": tiles})
        scores = expit(logits[..., : len(LABELS)])
        return merge_tiles(
            [_decode(*tile) for tile in zip(boxes, scores, regions, strict=True)], regions
        )


def _decode(cxcywh: Floats, scores: Floats, region: Floats) -> Detections:
    labels = tuple(LABELS[best] for best in scores.argmax(axis=1))
    return Detections(to_source(cxcywh, region), scores.max(axis=1), labels)


def score_clip(detector: TiledDetector, clip: Clip, step: int) -> list[FrameResult]:
    """Run the detector on every `step`-th frame of a clip."""
    results = []
    for index, picture in zip(range(len(clip.sightings)), clip.frames(), strict=False):
        if index % step == 0:
            results.append(_frame_result(clip.sightings[index], detector.detect(picture)))
    return results


def person_scores(results: Sequence[FrameResult]) -> PersonScores:
    """Return the people's average precision by pycocotools."""
    truth, found = _coco_truth(results), _coco_found(results)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # Axes: IoU, recall, class, area, detections per frame; here 0.5, all, person, all, 100.
    precision = evaluation.eval["precision"][0, :, 0, 0, -1]
    recall = evaluation.params.recThrs
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
    threshold = evaluation.eval["scores"][0, int(f1.argmax()), 0, 0, -1]
    return PersonScores(float(evaluation.stats[1]), float(evaluation.stats[0]), float(threshold))


def ball_scores(results: Sequence[FrameResult], threshold: float) -> BallScores:
    """Return how well the best candidate of each frame finds the ball at a threshold."""
    claimed = np.array([r.ball_score >= threshold for r in results])
    right = claimed & np.array([r.ball_distance <= BALL_REACH_PX for r in results])
    visible = sum(r.has_ball for r in results)
    return BallScores(
        float(right.sum() / max(visible, 1)), float(right.sum() / max(claimed.sum(), 1))
    )


def best_ball_threshold(results: Sequence[FrameResult]) -> float:
    """Return the threshold, in steps of 0.01, with the best F1."""

    def f1(threshold: float) -> float:
        scores = ball_scores(results, threshold)
        return 2 * scores.recall * scores.precision / max(scores.recall + scores.precision, 1e-9)

    return max((round(0.01 * step, 2) for step in range(1, 100)), key=f1)


def _frame_result(sightings: Iterable[Sighting], found: Detections) -> FrameResult:
    targets = frame_targets(sightings)
    people = [t for t in targets if t.label == "person"]
    balls = [t for t in targets if t.label == "ball" and t.visible_px >= MIN_VISIBLE_PX["ball"]]
    candidates = _labelled(found, "ball")
    # One ball a frame: the likeliest candidate stands for all.
    best = candidates.where(candidates.confidence == candidates.confidence.max(initial=0))
    distances = _centres(best.xyxy)[:, None] - _centres(_boxes(balls))
    return FrameResult(
        people=_boxes(people),
        is_ignored=np.array([t.visible_px < MIN_VISIBLE_PX["person"] for t in people], bool),
        found=_labelled(found, "person"),
        has_ball=bool(balls),
        ball_score=float(best.confidence.max(initial=0)),
        ball_distance=float(np.linalg.norm(distances, axis=-1).min(initial=np.inf)),
    )


def _labelled(found: Detections, label: str) -> Detections:
    return found.where(np.array([name == label for name in found.label], bool))


def _boxes(targets: Sequence[Target]) -> Floats:
    return np.array([target.box for target in targets], np.float32).reshape(-1, 4)


def _centres(xyxy: Floats) -> Floats:
    return (xyxy[:, :2] + xyxy[:, 2:]) / 2


def _xywh(box: Floats) -> list[float]:
    return [float(v) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])]


def _coco_truth(results: Sequence[FrameResult]) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    for image_id, result in enumerate(results):
        for box, ignored in zip(result.people, result.is_ignored, strict=True):
            x, y, width, height = _xywh(box)
            annotations.append(
                {
                    "id": len(annotations) + 1,  # pycocotools takes id 0 for "no match"
                    "image_id": image_id,
                    "category_id": 1,
                    "bbox": [x, y, width, height],
                    "area": width * height,
                    "iscrowd": int(ignored),
                }
            )
    return {
        "images": [{"id": image_id} for image_id in range(len(results))],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}],
    }


def _coco_found(results: Sequence[FrameResult]) -> list[dict[str, Any]]:
    return [
        {"image_id": image_id, "category_id": 1, "bbox": _xywh(box), "score": float(score)}
        for image_id, result in enumerate(results)
        for box, score in zip(result.found.xyxy, result.found.confidence, strict=True)
    ]


def _table_row(name: str, results: Sequence[FrameResult], ball_threshold: float) -> str:
    people, ball = person_scores(results), ball_scores(results, ball_threshold)
    return (
        f"| {name} | {len(results)} | {people.ap50:.3f} | {people.ap:.3f} "
        f"| {ball.recall:.2f} | {ball.precision:.2f} |"
    )


def main() -> None:
    """Print the scores of every held-out clip and the recommended thresholds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--footage", type=Path, required=True, help="folder of rendered clips")
    arguments = parser.parse_args()
    detector = TiledDetector(arguments.model)
    results = {
        name: score_clip(detector, read_clip(arguments.footage, name), FRAME_STEP)
        for name in (*VALID_CLIPS, *TEST_CLIPS)
    }
    pooled = [result for name in VALID_CLIPS for result in results[name]]
    ball_threshold = best_ball_threshold(pooled)
    lines = [
        "| clip | frames | person AP50 | person AP50:95 | ball recall | ball precision |",
        "|---|---|---|---|---|---|",
        *(_table_row(name, found, ball_threshold) for name, found in results.items()),
        f"person threshold {person_scores(pooled).best_threshold:.2f}, "
        f"ball threshold {ball_threshold:.2f}",
    ]
    print("\n".join(lines))  # noqa: T201


if __name__ == "__main__":
    main()
