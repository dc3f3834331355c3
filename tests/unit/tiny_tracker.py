"""SAM2's tracker on a tiny random network, and requests to it."""

from functools import cache

import numpy as np
import torch
from pycocotools import mask as coco_mask
from sam2_streaming.architecture import CompactConfig, random_compact
from sam2_streaming.engine import StreamingEngine
from sam2_streaming.requests import StepRequest
from sam2_streaming.tracker import Tracker

CONFIG = CompactConfig(image_size=64, channels=64, embed_dim=8, memory_frames=3, pointers=4)
HEIGHT, WIDTH = 90, 120
SLOTS = 2
BOXES = {1: (10, 10, 40, 60), 2: (30, 15, 60, 70), 3: (70, 5, 110, 50)}
# Three maps of 4x4x64 bf16 and four pointers of 64 fp32; and a mask of the whole frame at most.
BYTES_PER_MEMORY = 3 * 4 * 4 * 64 * 2 + 4 * 64 * 4
BYTES_PER_OBJECT = BYTES_PER_MEMORY + HEIGHT * WIDTH


@cache
def tiny_engine(presence=5.0):
    """An engine whose random network always says "in sight" (5) or "absent" (-50)."""
    torch.manual_seed(0)
    network = random_compact(CONFIG)
    network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.data.fill_(presence)
    return StreamingEngine(network, "cpu", torch.float32)


def new_tracker(mode="window", **options):
    return Tracker(tiny_engine(), mode, **{"slots": SLOTS, "ttl_s": 60.0, **options})


def frame(number, shape=(HEIGHT, WIDTH, 3)):
    return np.random.default_rng(number).integers(0, 256, shape, np.uint8)


def request(sequence_id, number, prompts=(), forget=(), **changes):
    fields = {
        "frame": frame(number),
        "prompt_object_ids": np.array(prompts, np.int64),
        "prompt_boxes": np.array([BOXES[k] for k in prompts], np.float32).reshape(-1, 4),
        "forget_object_ids": np.array(forget, np.int64),
    }
    return StepRequest(sequence_id, **(fields | changes))


def counts_of(box, shape=(HEIGHT, WIDTH)):
    """COCO run lengths of a mask that fills a box."""
    mask = np.zeros(shape, np.uint8, order="F")
    mask[box[1] : box[3], box[0] : box[2]] = 1
    return coco_mask.encode(mask)["counts"]


def clicks(*rows):
    """Fields of a request with clicks, told as (object, x, y, label)."""
    table = np.array(rows, np.float32)
    return {"click_object_ids": table[:, 0].astype(np.int64), "clicks": table[:, 1:]}


def assert_same(a, b):
    np.testing.assert_array_equal(a.object_ids, b.object_ids)
    np.testing.assert_array_equal(a.boxes, b.boxes)
    np.testing.assert_array_equal(a.scores, b.scores)
    np.testing.assert_array_equal(a.observed, b.observed)
    assert a.masks == b.masks


def boxes(*rows):
    return np.array(rows, np.float32)
