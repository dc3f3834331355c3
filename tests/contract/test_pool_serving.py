"""Two real servers behind one client: each is stopped, broken and killed under load."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from touchline_sim.record import load_record

from deploy.local.cluster import LocalCluster
from orchestrator.contracts import SAM2_TRACKER, SIGLIP_TEXT
from orchestrator.settings import TritonSettings
from orchestrator.stages.segmenting import Segmenter
from orchestrator.triton.client import TritonClient
from orchestrator.triton.snapshot import ReplicaState
from orchestrator.types.frames import Frame, FrameHeader
from orchestrator.types.streams import Caller
from tests.load.pictures import MatchPictures
from tests.patience import until

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]

MODELS = (SIGLIP_TEXT, SAM2_TRACKER)
NAMES = [contract.name for contract in MODELS]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def servers():
    """Two servers with both models, in the variant that costs next to nothing."""
    async with (
        LocalCluster(variant="sim", models=NAMES) as one,
        LocalCluster(variant="sim", models=NAMES) as other,
    ):
        yield [one.servers[0], other.servers[0]]


@pytest_asyncio.fixture(loop_scope="session")
async def triton(servers):
    endpoints = [server.endpoint for server in servers]
    settings = TritonSettings(urls=dict.fromkeys(NAMES, endpoints), probe_interval_s=0.5)
    async with TritonClient(settings, MODELS) as client:
        await both_ready(client)
        yield client


def states(triton, model):
    (pool,) = (pool for pool in triton.snapshot() if pool.name == model.name)
    return {replica.endpoint: replica.state for replica in pool.replicas}


async def both_ready(triton):
    ready = [ReplicaState.READY] * 2
    await until(lambda: all(list(states(triton, model).values()) == ready for model in MODELS))


def stub_of(server, model):
    """Process id of the model process of one server."""
    (pid,) = (
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        for words in [path.read_bytes().split(b"\0")]
        if words[0].endswith(b"triton_python_backend_stub")
        if any(server.name.encode() in word for word in words)
        if any(f"/{model.name}/".encode() in word for word in words)
    )
    return pid


@contextlib.asynccontextmanager
async def load(triton, streams=6):
    """Embed texts all the time; at the end, not one request may have failed."""
    is_over = asyncio.Event()

    async def stream(name):
        answered, view = 0, triton.for_caller(Caller(name))
        while not is_over.is_set():
            text = np.array([[f"kit of {name}".encode()]] * 3, np.object_)
            reply = await view.infer(SIGLIP_TEXT, {"text": text})
            assert reply["embedding"].shape[0] == 3
            answered += 1
        return answered

    tasks = [asyncio.create_task(stream(str(number))) for number in range(streams)]
    try:
        yield
    finally:
        is_over.set()
        answered = await asyncio.gather(*tasks)
    assert min(answered) > 0


async def test_a_stopped_server_is_left_and_taken_back_and_no_request_is_lost(servers, triton):
    stopped = servers[0]
    async with load(triton):
        os.kill(stopped.pid, signal.SIGSTOP)
        try:
            await until(
                lambda: states(triton, SIGLIP_TEXT)[stopped.endpoint] is ReplicaState.EJECTED
            )
        finally:
            os.kill(stopped.pid, signal.SIGCONT)
        await both_ready(triton)


async def test_a_killed_model_process_is_repaired_and_no_request_is_lost(servers, triton):
    broken = servers[1]
    old = stub_of(broken, SIGLIP_TEXT)
    async with load(triton):
        os.kill(old, signal.SIGKILL)
        await until(lambda: states(triton, SIGLIP_TEXT)[broken.endpoint] is ReplicaState.REPAIRING)
        await both_ready(triton)
    assert stub_of(broken, SIGLIP_TEXT) != old


async def followed(segmenter, index, prompts):
    """Object ids that are in sight in a frame of the simulated match."""
    frame = Frame(FrameHeader(index), MatchPictures(640, 360).rgb(index))
    segments = await segmenter.segment(frame, prompts)
    return {object_id for object_id, segment in segments.items() if not segment.is_empty}


def home(triton):
    (pool,) = (pool for pool in triton.snapshot() if pool.name == SAM2_TRACKER.name)
    (found,) = (replica.endpoint for replica in pool.replicas if replica.slots_used)
    return found


async def test_a_killed_server_costs_no_request_and_no_object_and_is_taken_back(servers, triton):
    segmenter = Segmenter(triton.for_caller(Caller("stream")))
    places = load_record().scene(0).boxes[:3] * np.array([640, 360] * 2, np.float32)
    assert await followed(segmenter, 0, dict(enumerate(places, start=1))) == {1, 2, 3}
    (killed,) = (server for server in servers if server.endpoint == home(triton))
    async with load(triton):
        os.kill(killed.pid, signal.SIGKILL)
        assert await followed(segmenter, 1, {}) == {1, 2, 3}  # rebuilt within this very frame
        assert home(triton) != killed.endpoint
        await until(lambda: states(triton, SIGLIP_TEXT)[killed.endpoint] is ReplicaState.EJECTED)
        await killed.stop()
        await killed.start()
        await both_ready(triton)
    assert await followed(segmenter, 2, {}) == {1, 2, 3}
    await segmenter.close()
    assert sum(r.slots_used for r in triton.snapshot()[1].replicas) == 0
