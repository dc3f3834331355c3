"""The whole walk: real video through the real API, the real tritonserver and four real models."""

import asyncio
import gzip
import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from soccer.v1 import player_recognition_pb2 as pb

from orchestrator.client import RecognitionClient
from orchestrator.imaging import iou
from tests.conftest import DATA
from tests.stream.streams import (
    answered,
    boxes,
    coded_stream,
    encode,
    gaps,
    kinds,
    picture_stream,
    pictures,
    play,
    recognitions,
    stored_stream,
)

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]

FRAMES = 20


@pytest.fixture(scope="module")
def truth():
    """Visible boxes of the people of each frame of the demo clip, at least 24 px high."""
    content = json.loads(gzip.decompress((DATA / "demo_01.gt.json.gz").read_bytes()))
    return [
        np.array(
            [
                o["box_visible"]
                for o in frame["objects"]
                if o["id"] < 30
                and o["box_visible"]
                and o["box_visible"][3] - o["box_visible"][1] > 24
            ],
            np.float32,
        )
        for frame in content["frames"]
    ]


async def test_people_of_a_clip_are_found_tracked_and_masked(served, clip, truth):
    config, messages = stored_stream(clip, FRAMES)
    responses = await play(served.target, config, messages)
    found = recognitions(responses)
    assert kinds(responses)[0] == "started"
    assert kinds(responses)[-1] == "summary"
    # sent in decoding order, answered in presentation order
    assert [r.frame_index for r in found] == sorted(m.frame_index for m in messages)
    recall = [(iou(truth[r.frame_index], boxes(r)).max(axis=1) > 0.5).mean() for r in found]
    assert np.mean(recall) > 0.7
    precision = [(iou(boxes(r), truth[r.frame_index]).max(axis=1) > 0.5).mean() for r in found]
    assert np.mean(precision) > 0.7
    # most people keep one id from the fifth frame to the last
    early, late = ({p.track_id for p in found[i].players} for i in (5, FRAMES - 1))
    assert len(early & late) >= 0.7 * len(early)
    masks = [p for p in found[-1].players if p.HasField("mask")]
    assert len(masks) > 0.7 * len(found[-1].players)
    for player in masks:
        rle = {"size": [720, 1280], "counts": player.mask.rle_counts.encode()}
        x, y, w, h = coco_mask.toBbox(rle)
        mask_box = np.array([[x, y, x + w, y + h]], np.float32)
        box = np.array(
            [[getattr(player.box, side) for side in ("x_min", "y_min", "x_max", "y_max")]]
        )
        assert iou(mask_box, box.astype(np.float32))[0, 0] > 0.1


async def test_models_and_weights_are_named(served, clip):
    responses = await play(served.target, *stored_stream(clip, 1))
    models = {m.name: m for m in responses[0].started.models}
    assert set(models) == {
        "rfdetr_detector",
        "sam2_tracker",
        "siglip_embedder",
        "siglip_text",
        "resnet_jersey",
    }
    assert not any(m.untrained for m in models.values())
    assert all("demo" in m.weights for m in models.values())


async def test_stage_timings_cover_the_walk(served, clip):
    responses = await play(served.target, *stored_stream(clip, 6))
    timings = recognitions(responses)[0].stage_timings
    for stage in ("queue", "decode", "detect", "track", "identify", "number", "total"):
        assert timings.HasField(stage), stage
    summary = {s.stage: s.p50.ToNanoseconds() for s in responses[-1].summary.stage_latencies}
    assert summary["total"] >= summary["track"] > 0


@pytest.mark.parametrize("form", ["JPEG", "PNG", "RGB24", "h264", "hevc"])
async def test_every_encoding_shows_the_same_people(served, clip, form):
    images = pictures(clip, 4)
    if form in {"h264", "hevc"}:
        config, messages = coded_stream(images, form)
    else:
        config, messages = picture_stream(images, pb.FrameEncoding.Value(f"FRAME_ENCODING_{form}"))
    responses = await play(served.target, config, messages)
    reference = await play(served.target, *picture_stream(images, pb.FRAME_ENCODING_RGB24))
    assert gaps(responses) == []
    assert answered(responses) == list(range(4))
    for got, expected in zip(recognitions(responses), recognitions(reference), strict=True):
        overlap = iou(boxes(expected), boxes(got))
        assert (overlap.max(axis=1) > 0.7).mean() > 0.8


async def test_a_single_image_is_recognised(served, clip, truth):
    data = encode(pictures(clip, 1)[0], pb.FRAME_ENCODING_JPEG)
    request = pb.RecognizeFrameRequest(
        encoding=pb.FRAME_ENCODING_JPEG,
        data=data,
        result_options=pb.ResultOptions(include_masks=True),
    )
    async with RecognitionClient(served.target) as client:
        response = await client.recognize_frame(request)
    found = response.recognition
    assert (iou(truth[0], boxes(found)).max(axis=1) > 0.5).mean() > 0.7
    assert [p.track_id for p in found.players] == list(range(1, len(found.players) + 1))
    assert all(p.HasField("mask") for p in found.players)
    assert {p.team for p in found.players} >= {pb.TEAM_A, pb.TEAM_B}
    assert sum(p.role == pb.ROLE_PLAYER for p in found.players) > 5


def essence(responses):
    """What must not depend on other streams: ids, teams, numbers, roles, and boxes apart."""
    found = recognitions(responses)
    ids = [[(p.track_id, p.role, p.team, p.jersey_number) for p in r.players] for r in found]
    return ids, [boxes(r) for r in found]


@pytest.mark.parametrize("count", [2, 8])
async def test_concurrent_streams_get_what_each_gets_alone(served, clip, count):
    config, messages = stored_stream(clip, 16)
    alone_ids, alone_boxes = essence(await play(served.target, config, messages))
    together = await asyncio.gather(*(play(served.target, config, messages) for _ in range(count)))
    for responses in together:
        ids, found = essence(responses)
        assert ids == alone_ids
        for got, expected in zip(found, alone_boxes, strict=True):
            assert np.abs(got - expected).max(initial=0) < 1
