"""What an autoscaler adds and takes away reaches the streams.

Two real tritonservers are the pods of a service, whose EndpointSlices the test tells.
"""

import contextlib

import numpy as np
import pytest
from aiohttp import web
from kubernetes_asyncio.client import Configuration

from deploy.local.cluster import LocalCluster
from orchestrator.contracts import SAM2_TRACKER
from orchestrator.errors import SlotsExhaustedError
from orchestrator.settings import TritonSettings
from orchestrator.triton import endpoint_slices
from orchestrator.triton.client import SequenceStep, TritonClient
from orchestrator.triton.snapshot import ReplicaState
from tests.load.pictures import MatchPictures
from tests.patience import until
from tests.unit.test_endpoints import DRAINING, UP, FakeApiServer, slice_of

pytestmark = pytest.mark.triton

_PATH = "/apis/discovery.k8s.io/v1/namespaces/touchline/endpointslices"


@pytest.fixture
async def api(monkeypatch):
    """An API server that the orchestrator takes for its own cluster's."""
    server = FakeApiServer()
    app = web.Application()
    app.router.add_get(_PATH, server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    configuration = Configuration(host=f"http://127.0.0.1:{port}")
    monkeypatch.setattr(endpoint_slices, "_of_this_pod", lambda: configuration)
    yield server
    for events in server.watches:
        events.put_nowait(None)
    await runner.cleanup()


def pod(endpoint, conditions=UP):
    """A slice of one replica on this machine, with the port that it has here."""
    host, _, port = endpoint.rpartition(":")
    piece = slice_of(f"triton-sam2-{port}", (host, *conditions))
    for one in piece["ports"]:
        one["port"] = int(port) if one["name"] == "grpc" else one["port"]
    return piece


async def step(client, sequence, **flags):
    frame = {"frame": np.ascontiguousarray(MatchPictures().rgb(0))[None]}
    return await client.infer(SAM2_TRACKER, frame, step=SequenceStep(sequence, **flags))


def replicas(client):
    (pool,) = client.snapshot()
    return {replica.endpoint: replica for replica in pool.replicas}


@contextlib.asynccontextmanager
async def two_trackers():
    """Two servers of one slot each; which of them are pods is for the test to say."""
    cluster = LocalCluster(
        "sim",
        models=["sam2_tracker"],
        replicas={"sam2_tracker": 2},
        overrides={"sam2_tracker": {"slots": "1"}},
    )
    async with cluster:
        yield cluster.replica_endpoints["sam2_tracker"]


async def test_a_new_replica_takes_the_stream_that_found_no_slot(api):
    target = "k8s:///touchline/triton-sam2:grpc"
    async with two_trackers() as (first, second):
        api.slices = {"first": pod(first)}
        async with TritonClient(TritonSettings(url=target), (SAM2_TRACKER,)) as client:
            await step(client, 1, is_start=True)
            with pytest.raises(SlotsExhaustedError):
                await step(client, 2, is_start=True)

            await api.tell("ADDED", pod(second))
            await until(lambda: second in replicas(client))
            await until(lambda: replicas(client)[second].state is ReplicaState.READY)
            await step(client, 2, is_start=True)
            assert [one.slots_used for one in replicas(client).values()] == [1, 1]

            await step(client, 1)  # the first stream has not noticed anything
            await step(client, 2, is_end=True)
            await api.tell("MODIFIED", pod(second, DRAINING))
            await until(lambda: replicas(client)[second].state is ReplicaState.DRAINING)
            with pytest.raises(SlotsExhaustedError):
                await step(client, 3, is_start=True)  # nothing starts on a replica that goes
            await api.tell("DELETED", pod(second, DRAINING))
            await until(lambda: second not in replicas(client))
            await step(client, 1, is_end=True)
