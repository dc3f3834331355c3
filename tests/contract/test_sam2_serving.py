"""What the real server makes of every input of the tracker's contract."""

import asyncio
import gzip
import json
import re
import urllib.request

import cv2
import numpy as np
import pytest
import pytest_asyncio
from pycocotools import mask as coco_mask

from orchestrator.contracts import SAM2_TRACKER
from orchestrator.errors import ModelError
from orchestrator.settings import TritonSettings
from orchestrator.triton.client import SequenceStep, TritonClient

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]


@pytest.fixture(scope="module")
def match(clip):
    """Two frames of a match as RGB, and the boxes of three people in the first."""
    capture = cv2.VideoCapture(str(clip))
    frames = [cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB) for _ in range(2)]
    truth = json.loads(gzip.decompress(clip.with_suffix(".gt.json.gz").read_bytes()))
    people = [
        seen["box_visible"]
        for seen in truth["frames"][0]["objects"]
        if seen["id"] <= 23 and seen["box_visible"]
    ]
    return frames, np.array(people[:3], np.float32)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def triton(served):
    endpoint = served.cluster.endpoints[SAM2_TRACKER.name]
    async with TritonClient(TritonSettings(url=endpoint), (SAM2_TRACKER,)) as client:
        yield client


def ellipse(box, shape):
    mask = np.zeros(shape, np.uint8)
    centre, axes = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    cv2.ellipse(mask, centre.astype(int).tolist(), axes.astype(int).tolist(), 0, 0, 360, 1, -1)
    return mask


def counts(mask):
    return coco_mask.encode(np.asfortranarray(mask))["counts"]


def prompts(ids, boxes, masks=None):
    inputs = {
        "prompt_object_ids": np.array([ids], np.int64),
        "prompt_boxes": boxes[None, : len(ids)],
    }
    return inputs if masks is None else inputs | {"prompt_masks": np.array([masks], np.object_)}


async def ask(triton, frame, step, **inputs):
    pixels = {} if frame is None else {"frame": frame[None]}
    reply = await triton.infer(SAM2_TRACKER, pixels | inputs, step=step)
    return {name: value[0] for name, value in reply.items()}


def metrics(served):
    url = f"http://{served.cluster.metrics_endpoints[SAM2_TRACKER.name]}/metrics"
    with urllib.request.urlopen(url) as page:
        found = re.findall(r"^(sam2_\w+)\{.*\} (\S+)$", page.read().decode(), re.MULTILINE)
    return {name: float(value) for name, value in found}


async def test_masks_clicks_and_a_budget_reach_the_tracker(triton, served, match):
    (first, second), boxes = match
    before = metrics(served)
    mask = ellipse(boxes[0], first.shape[:2])
    masks = [counts(mask), b"", b""]
    start = await ask(
        triton, first, SequenceStep(11, is_start=True), **prompts([1, 2, 3], boxes, masks)
    )
    assert start["object_ids"].tolist() == [1, 2, 3]
    assert start["observed"].tolist() == [True] * 3
    shown = coco_mask.decode({"size": list(first.shape[:2]), "counts": start["masks"][0]})
    assert (shown & mask).sum() > 0.8 * (shown | mask).sum()
    held = metrics(served)
    assert held["sam2_tracked_objects"] == before["sam2_tracked_objects"] + 3
    assert held["sam2_memory_bytes"] > before["sam2_memory_bytes"]
    x, y = (start["boxes"][1, :2] + start["boxes"][1, 2:]) / 2
    clicked = {
        "click_object_ids": np.array([[2]], np.int64),
        "clicks": np.array([[[x, y, 1]]], np.float32),
        "max_observed": np.array([[1]], np.int32),
    }
    end = await ask(triton, second, SequenceStep(11, is_end=True), **clicked)
    assert end["observed"].tolist() == [False, True, False]
    assert end["boxes"].any(axis=1).all()
    after = metrics(served)
    assert after["sam2_tracked_objects"] == before["sam2_tracked_objects"]
    assert after["sam2_memory_bytes"] == before["sam2_memory_bytes"]
    grown = {name: after[name] - before[name] for name in after}
    assert grown["sam2_observed_object_frames"] == 4
    assert grown["sam2_predicted_object_frames"] == 2


async def test_sequences_side_by_side_may_send_different_inputs(triton, match):
    (first, _), boxes = match
    masks = [counts(ellipse(box, first.shape[:2])) for box in boxes]
    together = await asyncio.gather(
        *(
            ask(
                triton,
                first,
                SequenceStep(20 + count, is_start=True, is_end=True),
                **prompts(list(range(1, count + 1)), boxes, masks[:count]),
            )
            for count in (1, 2, 3)
        )
    )
    assert [len(reply["object_ids"]) for reply in together] == [1, 2, 3]
    assert len({reply["masks"][0] for reply in together}) == 1


@pytest.mark.parametrize(
    ("tensor", "inputs"),
    [
        ("prompt_masks", {"prompt_masks": np.array([[b"PP"]], np.object_)}),
        ("max_observed", {"max_observed": np.array([[-1]], np.int32)}),
        (
            "click_object_ids",
            {
                "click_object_ids": np.array([[9]], np.int64),
                "clicks": np.array([[[5, 5, 1]]], np.float32),
            },
        ),
    ],
)
async def test_a_refused_start_names_its_tensor_and_keeps_no_slot(
    triton, served, match, tensor, inputs
):
    (first, _), boxes = match
    before = metrics(served)
    with pytest.raises(ModelError, match=f"{tensor}: expected"):
        await ask(triton, first, SequenceStep(31, is_start=True), **prompts([1], boxes), **inputs)
    assert metrics(served)["sam2_active_sequences"] == before["sam2_active_sequences"]


async def test_jpeg_frames_are_read_and_bombs_are_not(triton, match):
    (first, _), boxes = match
    encoded = cv2.imencode(".jpg", cv2.cvtColor(first, cv2.COLOR_RGB2BGR))[1].tobytes()
    both = SequenceStep(41, is_start=True, is_end=True)
    picture = np.array([[encoded]], np.object_)
    reply = await ask(triton, None, both, frame_jpeg=picture, **prompts([1, 2], boxes))
    assert reply["boxes"].any(axis=1).all()
    at = encoded.index(b"\xff\xc0") + 5
    bomb = np.array([[encoded[:at] + b"\xff\xff\xff\xff" + encoded[at + 4 :]]], np.object_)
    with pytest.raises(ModelError, match="frame_jpeg: expected 16 to 8192 px a side"):
        await ask(triton, None, both, frame_jpeg=bomb, **prompts([1], boxes))
