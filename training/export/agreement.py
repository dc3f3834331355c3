"""How far a model's answers are from those of its reference, as a few figures with limits.

A graph of lower precision, or a TensorRT engine, is held against the fp32 model on the same
pictures. No truth is needed: the reference's own answers stand for it, so that the figures show
the harm of the conversion alone, on a build machine without labelled footage, and are near 1 for
any sound conversion however good or bad the weights are.

Figures of a detector are taken on matched boxes, not on rows: RF-DETR picks its queries by a top-k,
so a rounding error may swap two rows without any harm.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.special import expit

from orchestrator.imaging import iou, to_source
from orchestrator.types.pictures import Boxes
from training.coco_scores import evaluated
from training.errors import InputError

Tensors = Mapping[str, NDArray[np.float32]]
"""A model's outputs by name, each with a leading batch dimension."""

Runner = Callable[[NDArray[np.uint8]], Tensors]
"""A model, whatever runs it: pixels `(n, height, width, 3)` to its outputs."""

Figures = dict[str, float]
"""Figures by name; of several heads as `head.figure`."""

Limits = Mapping[str, float]
"""The least, or for the `errors` the most, that each figure may be."""

SCORE_FLOOR = 0.1
"""Least score of a detection that counts: below every threshold that is served."""

_MATCH_IOU = 0.75
_UNIT_TILE = np.array([0, 0, 1, 1], np.float32)


@dataclass(frozen=True, slots=True)
class _Found:
    """One picture's queries above a score; boxes are xyxy as shares of the side."""

    xyxy: Boxes
    label: NDArray[np.int64]
    score: NDArray[np.float32]
    logits: NDArray[np.float32]


def violations(figures: Figures, limits: Limits) -> list[str]:
    """Say which figures break their limit; empty if none does.

    Raises:
        KeyError: A figure has no limit.
    """
    broken = []
    for name, value in figures.items():
        kind = name.rpartition(".")[2]
        limit, is_error = limits[kind], kind.endswith("error")
        # Written so that NaN is a violation.
        if not (value <= limit if is_error else value >= limit):
            broken.append(f"{name} {value:.4g}, {'at most' if is_error else 'at least'} {limit:g}")
    return broken


def detector_agreement(reference: Tensors, candidate: Tensors) -> Figures:
    """Compare the detections of two runs on the same pictures.

    Args:
        reference: `boxes` `(n, queries, 4)` cxcywh and `logits` `(n, queries, labels + 1)`.
        candidate: The same of the other model.

    Returns:
        `finite`: share of finite numbers. `matched`: share of the detections that have a
        counterpart of the same label with IoU of 0.75 or more, one to one, of either side's, the
        lesser. `overlap`: mean IoU of these pairs. `logit_error`: 95th percentile of the absolute
        difference of their logits; the rest are duplicates of one person, of which RF-DETR mutes
        one or the other by a hair. `ap`: COCO AP (IoU 0.5 to 0.95) with the reference as truth.

    Raises:
        InputError: The reference finds nothing, so nothing can be compared.
    """
    finite = _finite_share(candidate)
    candidate = {name: _finite(values) for name, values in candidate.items()}
    ours, theirs = _detections(reference), _detections(candidate)
    if not any(len(found.score) for found in ours):
        raise InputError(
            f"the fp32 model finds nothing above {SCORE_FLOOR} in the pictures: "
            "expected pictures of matches, and trained weights"
        )
    counterparts = _detections(candidate, SCORE_FLOOR / 2)
    overlaps, errors, forward = _pairs(ours, counterparts)
    _, _, backward = _pairs(theirs, _detections(reference, SCORE_FLOOR / 2))
    return {
        "finite": finite,
        "matched": min(forward, backward),
        "overlap": float(overlaps.mean()) if len(overlaps) else 0.0,
        "logit_error": float(np.percentile(errors, 95)) if len(errors) else float("inf"),
        "ap": _average_precision(ours, counterparts),
    }


def classifier_agreement(reference: Tensors, candidate: Tensors) -> Figures:
    """Compare the logits of two runs on the same crops, head by head.

    Returns:
        For each head: `finite`: share of finite numbers. `top1`: share of rows with the same
        class; of a single logit, the same sign. `cosine`: mean cosine of the rows, left out for a
        single logit. `logit_error`: largest absolute difference.
    """
    figures = {}
    for head, ours in reference.items():
        theirs = _finite(candidate[head])
        figures[f"{head}.finite"] = _finite_share({head: candidate[head]})
        figures[f"{head}.top1"] = float((_choice(ours) == _choice(theirs)).mean())
        figures[f"{head}.logit_error"] = float(np.abs(ours - theirs).max())
        if ours.shape[1] > 1:
            norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
            cosines = (ours * theirs).sum(1) / np.maximum(norms, 1e-12)
            figures[f"{head}.cosine"] = float(cosines.mean())
    return figures


def _choice(logits: NDArray[np.float32]) -> NDArray[Any]:
    return logits[:, 0] > 0 if logits.shape[1] == 1 else logits.argmax(1)


def _finite_share(tensors: Tensors) -> float:
    return float(np.mean([np.isfinite(values).mean() for values in tensors.values()]))


def _finite(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def _detections(tensors: Tensors, floor: float = SCORE_FLOOR) -> list[_Found]:
    found = []
    for boxes, logits in zip(tensors["boxes"], tensors["logits"], strict=True):
        scores = expit(logits[:, :-1])  # the last column is background
        keep = scores.max(1) >= floor
        xyxy = to_source(boxes[keep], _UNIT_TILE)
        found.append(_Found(xyxy, scores[keep].argmax(1), scores[keep].max(1), logits[keep]))
    return found


def _pairs(
    ours: list[_Found], theirs: list[_Found]
) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """Match each of our detections; return the pairs' IoU, logit errors, and our share matched."""
    overlaps, errors = [], []
    for one, other in zip(ours, theirs, strict=True):
        overlap = iou(one.xyxy, other.xyxy) * (one.label[:, None] == other.label)
        # Of pairs that overlap alike, as duplicates do, the one that scores alike.
        gap = np.abs(one.score[:, None] - other.score)
        rows, columns = linear_sum_assignment(0.1 * gap - overlap)
        good = overlap[rows, columns] >= _MATCH_IOU
        overlaps.append(overlap[rows, columns][good])
        errors.append(np.abs(one.logits[rows] - other.logits[columns])[good].ravel())
    matched = np.concatenate(overlaps)
    total = sum(len(one.score) for one in ours)
    return matched, np.concatenate(errors), len(matched) / max(total, 1)


def _average_precision(truth: list[_Found], found: list[_Found]) -> float:
    rows = [row for image, one in enumerate(found) for row in _coco_rows(image, one)]
    if not rows:
        return 0.0
    annotations = [row for image, one in enumerate(truth) for row in _coco_rows(image, one)]
    labels = {row["category_id"] for row in (*annotations, *rows)}
    reference = {
        "images": [{"id": image} for image in range(len(truth))],
        "annotations": [{**row, "id": i + 1, "iscrowd": 0} for i, row in enumerate(annotations)],
        "categories": [{"id": int(label)} for label in sorted(labels)],
    }
    return float(evaluated(reference, rows).stats[0])


def _coco_rows(image: int, found: _Found) -> list[dict[str, Any]]:
    extent = found.xyxy[:, 2:] - found.xyxy[:, :2]
    return [
        {
            "image_id": image,
            "category_id": int(label),
            "bbox": [float(x), float(y), float(width), float(height)],
            "area": float(width * height),
            "score": float(score),
        }
        for (x, y), (width, height), label, score in zip(
            found.xyxy[:, :2], extent, found.label, found.score, strict=True
        )
    ]
