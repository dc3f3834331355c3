"""Scores of an exported detector by itself, over whole frames merged from tiles as in serving.

People are scored by COCO average precision, the ball by the distance of its best candidate from the
truth. Roles count as people: a detector that tells them apart is measured by the same figures.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from orchestrator.imaging import merge_tiles, square_tiles, stacked, to_source
from orchestrator.types.detections import Detections
from orchestrator.types.pictures import Pixels
from training.coco_scores import evaluated
from training.data.footage import Clip, Sighting, read_clips
from training.detector.tiles import frame_targets
from training.errors import InputError
from training.evaluation.ratios import share
from training.onnx_file import open_onnx

WATCHED_CLIPS = ("dev_05", "dev_13", "dev_14")
"""Clips on which thresholds are chosen where they are among those asked for; else on all."""

FRAME_STEP = 5
"""Every so many frames one is scored."""

TILES = 2
"""Squares that a frame is cut into, as for training."""

BALL_REACH_PX = 8.0
"""A ball is found if its centre is no farther than this from the true one, in source pixels."""

Floats = NDArray[np.float32]


def evaluate(weights: Path, footage: Path, clips: Sequence[str]) -> dict[str, Any]:
    """Score an ONNX file of the detector.

    Args:
        weights: The file; its input says the resolution, its metadata the labels.
        footage: Labelled footage in any format of `touchline data`; of stills every one is
            scored, of videos one frame in `FRAME_STEP`.
        clips: Names of clips that were not trained on; none for all that there are.

    Returns:
        `clips`: by name, `frames`, `person_ap50`, `person_ap` (over IoU 0.5 to 0.95),
        `ball_recall`, `ball_precision`; `pooled`: the same over all; `thresholds`: those with the
        best F1 for `person` and `ball`, and the clips they were `chosen_on`. None where there is
        nothing to be found, or for the precision nothing is said.

    Raises:
        InputError: The file is no detector, or a clip is not as expected.
    """
    detector = TiledDetector(weights)
    results = {
        clip.name: score_clip(detector, clip, FRAME_STEP if clip.frame_rate else 1)
        for clip in read_clips(footage, clips)
    }
    chosen_on = [name for name in results if name in WATCHED_CLIPS] or list(results)
    watched = [result for name in chosen_on for result in results[name]]
    threshold = best_ball_threshold(watched)
    pooled = [result for found in results.values() for result in found]
    return {
        "clips": {name: _figures(found, threshold) for name, found in results.items()},
        "pooled": _figures(pooled, threshold),
        "thresholds": {
            "person": person_scores(watched).best_threshold,
            "ball": threshold,
            "chosen_on": chosen_on,
        },
    }


def _figures(
    results: Sequence["FrameResult"], ball_threshold: float | None
) -> dict[str, float | None]:
    people, ball = person_scores(results), ball_scores(results, ball_threshold)
    return {
        "frames": len(results),
        "person_ap50": people.ap50,
        "person_ap": people.ap,
        "ball_recall": ball.recall,
        "ball_precision": ball.precision,
    }


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
    """Average precision at IoU 0.5 and over 0.5 to 0.95, and the score with the best F1 at 0.5.

    All are None where nobody is to be found.
    """

    ap50: float | None
    ap: float | None
    best_threshold: float | None


@dataclass(frozen=True, slots=True)
class BallScores:
    """Share of visible balls found, and share of claimed balls that are right; None of nothing."""

    recall: float | None
    precision: float | None


class TiledDetector:
    """An exported detector run on a picture in tiles, with the cuts and the merging of serving.

    Raises:
        InputError: The file cannot be read, is no detector, or does not tell its labels.
    """

    def __init__(self, path: Path) -> None:
        self._session = open_onnx(path)
        inputs = {tensor.name: tensor.shape for tensor in self._session.get_inputs()}
        labels = self._session.get_modelmeta().custom_metadata_map.get("labels")
        if list(inputs) != ["image"] or labels is None:
            raise InputError(f"{path}: expected a detector with the input `image` and its labels")
        self._side = inputs["image"][1]
        self._labels = [label.strip() for label in labels.split(",")]

    def detect(self, picture: Pixels) -> Detections:
        """Return every query of every tile with its likelier label, without any threshold."""
        tiles, regions = square_tiles(picture, TILES, self._side)
        boxes, logits = self._session.run(["boxes", "logits"], {"image": tiles})
        scores = expit(logits[..., : len(self._labels)])
        found = [self._decode(*tile) for tile in zip(boxes, scores, regions, strict=True)]
        return merge_tiles(found, regions)

    def _decode(self, cxcywh: Floats, scores: Floats, region: Floats) -> Detections:
        best = [self._labels[column] for column in scores.argmax(axis=1)]
        labels = tuple("ball" if label == "ball" else "person" for label in best)
        return Detections(to_source(cxcywh, region), scores.max(axis=1), labels)


def score_clip(detector: TiledDetector, clip: Clip, step: int) -> list[FrameResult]:
    """Run the detector on every `step`-th frame of a clip."""
    return [
        _frame_result(clip.sightings[index], detector.detect(picture))
        for index, picture in clip.every(step)
    ]


def person_scores(results: Sequence[FrameResult]) -> PersonScores:
    """Return the people's average precision by pycocotools."""
    found = _coco_found(results)
    if all(result.is_ignored.all() for result in results):
        return PersonScores(None, None, None)
    if not found:  # which pycocotools does not take
        return PersonScores(0.0, 0.0, 1.0)
    evaluation = evaluated(_coco_truth(results), found)
    # Axes: IoU, recall, class, area, detections per frame; here 0.5, all, person, all, 100.
    precision = evaluation.eval["precision"][0, :, 0, 0, -1]
    recall = evaluation.params.recThrs
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
    threshold = evaluation.eval["scores"][0, int(f1.argmax()), 0, 0, -1]
    return PersonScores(float(evaluation.stats[1]), float(evaluation.stats[0]), float(threshold))


def ball_scores(results: Sequence[FrameResult], threshold: float | None) -> BallScores:
    """Return how well the best candidate of each frame finds the ball at a threshold.

    Of footage without a visible ball there is no threshold, and nothing is measured.
    """
    if threshold is None:
        return BallScores(None, None)
    claimed = np.array([r.ball_score >= threshold for r in results])
    right = claimed & np.array([r.ball_distance <= BALL_REACH_PX for r in results])
    visible = sum(r.has_ball for r in results)
    found = int(right.sum())
    return BallScores(share(found, visible), share(found, int(claimed.sum())))


def best_ball_threshold(results: Sequence[FrameResult]) -> float | None:
    """Return the threshold, in steps of 0.01, with the best F1; None if no ball is to be found."""
    if not any(result.has_ball for result in results):
        return None

    def f1(threshold: float) -> float:
        scores = ball_scores(results, threshold)
        recall, precision = scores.recall or 0.0, scores.precision or 0.0
        return 2 * recall * precision / max(recall + precision, 1e-9)

    return max((round(0.01 * step, 2) for step in range(1, 100)), key=f1)


def _frame_result(sightings: Iterable[Sighting], found: Detections) -> FrameResult:
    targets = frame_targets(sightings)
    people = [target for target in targets if not target.is_ball]
    balls = [target for target in targets if target.is_ball and target.is_seen]
    candidates = found.labelled("ball")
    # One ball a frame: the likeliest candidate stands for all.
    best = candidates.where(candidates.confidence == candidates.confidence.max(initial=0))
    distances = _centres(best.xyxy)[:, None] - _centres(stacked([ball.box for ball in balls]))
    return FrameResult(
        people=stacked([person.box for person in people]),
        is_ignored=np.array([not target.is_seen for target in people], bool),
        found=found.labelled("person"),
        has_ball=bool(balls),
        ball_score=float(best.confidence.max(initial=0)),
        ball_distance=float(np.linalg.norm(distances, axis=-1).min(initial=np.inf)),
    )


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
