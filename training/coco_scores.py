"""COCO's average precision of boxes, by pycocotools."""

import contextlib
import io
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def evaluated(truth: dict[str, Any], found: list[dict[str, Any]]) -> Any:
    """Return COCO's evaluation of detections, with its `stats`, and without what it prints.

    Args:
        truth: What an annotation file holds.
        found: One detection or more, in COCO's form.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation
