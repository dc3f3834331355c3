"""Average precision by COCO's rules, for people, each role and the ball."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray

from training.data.clips import Box, Clip
from training.evaluation.matching import MatchedRun
from training.evaluation.ratios import share
from training.evaluation.truth import has_ball, role_of

_ROLES = ("player", "goalkeeper", "referee")
CATEGORIES = ("person", *_ROLES, "ball")
"""Every person is asked for twice: as a person, and, where labels know roles, under the role."""


@dataclass
class Detections:
    """What one clip adds to the figures; boxes in COCO's form, image ids from 0 on."""

    image_count: int = 0
    truth: list[dict[str, Any]] = field(default_factory=list)
    found: list[dict[str, Any]] = field(default_factory=list)
    people: int = 0
    players: int = 0
    overlaps: list[float] = field(default_factory=list)


def measure(matched: MatchedRun) -> Detections:
    """Collect the boxes of one clip."""
    part = Detections(image_count=len(matched.frames))
    known = _known(matched.clip)
    for image, frame in enumerate(matched.frames):
        for seen in frame.people:
            role = role_of(matched.clip.people[seen.object_id])
            part.truth += _entries(image, seen.box_visible, ("person", role))
        for player in frame.players:
            labels = ("person", player.identity.role)
            told = [label for label in labels if label in known]
            part.found += _entries(image, player.box, told, score=player.confidence)
        if frame.true_ball is not None:
            part.truth += _entries(image, frame.true_ball, ("ball",))
        if frame.ball is not None and "ball" in known:
            part.found += _entries(image, frame.ball.box, ("ball",), score=frame.ball.confidence)
        part.people += len(frame.people)
        part.players += len(frame.players)
        part.overlaps += [float(frame.overlap[pair]) for pair in frame.pairs]
    return part


def figures(parts: Sequence[Detections]) -> dict[str, Any]:
    """Return the figures of clips taken together.

    Returns:
        For each of `CATEGORIES` `ap50` and `ap` (mean over IoU 0.50 to 0.95), in `[0, 1]`; people's
        `recall`, `precision` and `mean_iou` of those that match at IoU 0.5; `pr_curve` of people at
        IoU 0.5, `precision` at 101 values of `recall`. None where there is nothing to find.
    """
    precision = _precision(parts)
    matched = [overlap for part in parts for overlap in part.overlaps]
    return {
        **{
            name: {"ap50": _mean(precision[0, :, k]), "ap": _mean(precision[:, :, k])}
            for k, name in enumerate(CATEGORIES)
        },
        "recall": share(len(matched), sum(part.people for part in parts)),
        "precision": share(len(matched), sum(part.players for part in parts)),
        "mean_iou": share(sum(matched), len(matched)),
        "pr_curve": {
            "recall": np.linspace(0, 1, 101).tolist(),
            "precision": precision[0, :, 0].clip(0).tolist(),
        },
    }


def _known(clip: Clip) -> set[str]:
    """Return the categories that a clip's labels tell; a run is not judged by the others."""
    roles = set(map(role_of, clip.people.values())) & set(_ROLES)
    return {"person", *(_ROLES if roles else ()), *(("ball",) if has_ball(clip) else ())}


def _entries(
    image: int, box: Box | None, labels: Sequence[str], **more: float
) -> list[dict[str, Any]]:
    assert box is not None
    xywh = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
    return [
        {"image_id": image, "category_id": CATEGORIES.index(label), "bbox": xywh, **more}
        for label in dict.fromkeys(labels)  # where labels know no roles, a role is `person`, too
        if label in CATEGORIES
    ]


def _precision(parts: Sequence[Detections]) -> NDArray[np.float64]:
    """Return precision by IoU (10), recall (101) and category; -1 where nothing is asked for."""
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    first = 0
    for part in parts:
        truth += [entry | {"image_id": first + entry["image_id"]} for entry in part.truth]
        found += [entry | {"image_id": first + entry["image_id"]} for entry in part.found]
        first += part.image_count
    for number, entry in enumerate(truth, 1):
        entry |= {"id": number, "iscrowd": 0, "area": entry["bbox"][2] * entry["bbox"][3]}
    coco = COCO(
        {
            "images": [{"id": image} for image in range(first)],
            "categories": [{"id": k, "name": name} for k, name in enumerate(CATEGORIES)],
            "annotations": truth,
        }
    )
    evaluation = COCOeval_faster(coco, coco.loadRes(found), "bbox")
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluation.evaluate()
    evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"][:, :, :, 0, -1], np.float64)


def _mean(precision: NDArray[np.float64]) -> float | None:
    return None if precision.min() < 0 else float(precision.mean())
