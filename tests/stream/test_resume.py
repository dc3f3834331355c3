"""Streams that break off and are resumed, with the real models and real processes."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
from soccer.v1 import player_recognition_pb2 as pb

from deploy.local.orchestrator import OrchestratorProcess
from orchestrator.client import RecognitionClient
from orchestrator.imaging import iou
from tests.stream.streams import answered, boxes, kinds, picture_stream, pictures, recognitions
from tests.stream.test_protocol import gauge
from tests.unit.relay import Relay

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]


async def play_through(target, config, messages, events):
    """Play a stream; once frame i - 1 is answered and before frame i is sent, do `events[i]`."""
    responses, news = [], asyncio.Condition()

    async def source():
        for index, message in enumerate(messages):
            if index in events:
                async with news:
                    await news.wait_for(lambda: len(answered(responses)) == index)  # noqa: B023
                await events[index](responses)
            yield message

    async with RecognitionClient(target) as client:
        async for response in client.recognize_stream(config, source()):
            async with news:
                responses.append(response)
                news.notify_all()
    return responses


async def test_people_keep_their_ids_and_masks_over_a_broken_connection(served, clip):
    freed_s = []

    async def cut(_):
        relay.cut()
        begun = time.monotonic()
        while await asyncio.to_thread(gauge, served, "sam2_active_sequences"):
            assert time.monotonic() - begun < 60
            await asyncio.sleep(0.02)
        freed_s.append(time.monotonic() - begun)

    stream = picture_stream(pictures(clip, 12), pb.FRAME_ENCODING_JPEG)
    async with Relay(served.target) as relay:
        responses = await play_through(relay.target, *stream, {6: cut})
    assert min(freed_s) < 30  # of 60 of the model's own; in general far under one
    assert [r.started.is_resumed for r in responses if r.HasField("started")] == [False, True]
    assert answered(responses) == list(range(12))
    before, after, last = (recognitions(responses)[index] for index in (5, 6, 11))
    assert not after.degradations
    trusted = {p.track_id for p in before.players if p.state == pb.TRACK_STATE_CONFIRMED}
    for later in (after, last):
        assert len(trusted & {p.track_id for p in later.players}) >= 0.95 * len(trusted)
    assert sum(p.HasField("mask") for p in after.players) >= 0.9 * len(after.players)
    assert (iou(boxes(before), boxes(after)).max(axis=1) > 0.5).mean() > 0.9
    teams = [{p.track_id: p.team for p in r.players if p.team} for r in (before, after)]
    shared = teams[0].keys() & teams[1].keys()
    assert shared
    assert all(teams[0][i] == teams[1][i] for i in shared)
    summary = responses[-1].summary
    assert (summary.received_frame_count, summary.recognized_frame_count) == (12, 12)
    assert {t.track_id for t in summary.tracks} >= trusted


def workers_of(pid: int) -> list[int]:
    """Process ids of the workers under a supervisor, by number."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    environments = {int(c): Path(f"/proc/{c}/environ").read_bytes() for c in children}
    numbered = {
        int(env.split(b"TOUCHLINE_SERVER__WORKER=")[1].split(b"\0")[0]): child
        for child, env in environments.items()
        if b"TOUCHLINE_SERVER__WORKER=" in env
    }
    return [numbered[number] for number in sorted(numbered)]


async def test_workers_share_the_port_and_each_may_die(served, clip):
    options = {"TOUCHLINE_SERVER__WORKERS": "2"}
    stream = picture_stream(pictures(clip, 6), pb.FRAME_ENCODING_JPEG)
    async with (
        OrchestratorProcess(served.cluster.endpoints, settings=options) as orchestrator,
        Relay(orchestrator.target) as relay,
    ):
        log = orchestrator.log_text()
        assert log.count(f"serving on {orchestrator.target} by uvloop") == 2
        workers = workers_of(orchestrator.pid)
        assert len(workers) == 2

        async def cut(_):
            relay.cut()

        async def kill(responses):
            token = responses[0].started.resume_token
            os.kill(workers[int(token.split(".")[0])], signal.SIGKILL)

        seen = await play_through(relay.target, *stream, {2: cut, 4: cut})
        resumed = [r.started.is_resumed for r in seen if r.HasField("started")]
        assert resumed == [False, True, True]  # whichever worker the kernel chose
        assert answered(seen) == list(range(6))
        seen = await play_through(relay.target, *stream, {3: kill})
        assert answered(seen) == list(range(6))
        assert kinds(seen)[-1] == "summary"
        begun = time.monotonic()
        while len(workers_of(orchestrator.pid)) < 2:
            assert time.monotonic() - begun < 60
            await asyncio.sleep(0.05)
        os.kill(orchestrator.pid, signal.SIGTERM)
        assert await orchestrator.wait() == 0
