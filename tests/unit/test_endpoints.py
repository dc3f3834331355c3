"""Replicas are found by list, by name and by Kubernetes service, and followed as they change."""

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
from aiohttp import web
from kubernetes_asyncio.client import Configuration

from orchestrator.errors import SettingError
from orchestrator.triton import endpoint_slices
from orchestrator.triton.endpoints import endpoints, resolved
from tests.patience import until


async def next_of(snapshots):
    async with asyncio.timeout(20):
        return {(e.address, e.is_terminating) for e in await anext(snapshots)}


@contextlib.asynccontextmanager
async def following(snapshots):
    async with contextlib.aclosing(snapshots):
        yield snapshots


async def test_a_list_is_given_once():
    async with following(endpoints(["a:1", "[::1]:2"], resolve_interval_s=1)) as snapshots:
        assert await next_of(snapshots) == {("a:1", False), ("[::1]:2", False)}
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(snapshots), 0.05)


@pytest.mark.parametrize(
    "addresses",
    [
        "a",
        "a:0",
        "a:70000",
        "a:b",
        ":1",
        "http://a:1/x",
        "dns:///a",
        "dns:///a..b:1",
        [],
        ["a:1", "dns:///b:1"],
    ],
)
def test_an_address_that_is_none_is_refused_by_name(addresses):
    with pytest.raises(SettingError, match=r"triton.urls: expected .*address|HOST:PORT"):
        endpoints(addresses, resolve_interval_s=1)


@pytest.mark.parametrize("target", ["a:1", "a/b", "a/b/c:grpc", "/b:grpc", "a/:grpc", "a/b:"])
def test_a_kubernetes_target_that_is_none_is_refused(target):
    with pytest.raises(SettingError, match="expected k8s:///NAMESPACE/SERVICE:PORT-NAME"):
        endpoints(f"k8s:///{target}", resolve_interval_s=1)


def test_kubernetes_outside_of_a_pod_is_refused(monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(SettingError, match="k8s:/// needs a pod's service account"):
        endpoints("k8s:///a/b:grpc", resolve_interval_s=1)


def test_the_kubernetes_client_is_loaded_only_where_it_is_used():
    script = "import sys, orchestrator.triton.client; sys.exit('kubernetes_asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


async def test_a_name_is_resolved_again_and_again(monkeypatch):
    answers = iter([["10.0.0.1", "10.0.0.2"], OSError("no server"), ["10.0.0.2"], ["fd00::7"]])

    async def look_up(*_, **__):
        found = next(answers)
        if isinstance(found, OSError):
            raise found
        return [(socket.AF_INET, 0, 0, "", (address, 8001)) for address in found]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)
    async with following(resolved("triton", 8001, 0.01)) as snapshots:
        assert await next_of(snapshots) == {("10.0.0.1:8001", False), ("10.0.0.2:8001", False)}
        assert await next_of(snapshots) == {("10.0.0.2:8001", False)}  # not empty in between
        assert await next_of(snapshots) == {("[fd00::7]:8001", False)}


async def test_a_real_name_is_resolved():
    snapshots = endpoints("dns:///localhost:8001", resolve_interval_s=1)
    async with following(snapshots):
        assert await next_of(snapshots) & {("127.0.0.1:8001", False), ("[::1]:8001", False)}


class FakeApiServer:
    """The list and watch of EndpointSlices, as a Kubernetes API server speaks it over HTTP."""

    def __init__(self):
        self.slices = {}
        self.version = 100
        self.lists = 0
        self.failures = []
        self.selectors = set()
        self.watches = []

    async def answer(self, request):
        self.selectors.add(request.query["labelSelector"])
        if "watch" in request.query:
            return await self._watch(request)
        self.lists += 1
        if self.failures:
            return web.json_response({"kind": "Status"}, status=self.failures.pop(0))
        metadata = {"resourceVersion": str(self.version)}
        items = list(self.slices.values())
        kind = {"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1"}
        return web.json_response(kind | {"metadata": metadata, "items": items})

    async def _watch(self, request):
        assert request.query["resourceVersion"] == str(self.version)
        assert int(request.query["timeoutSeconds"]) > 0
        response = web.StreamResponse()
        await response.prepare(request)
        events = asyncio.Queue()
        self.watches.append(events)
        while (event := await events.get()) is not None:
            await response.write(json.dumps(event).encode() + b"\n")
        return response

    async def tell(self, kind, piece):
        """Send an event down the only open watch, once it is open."""
        await self.is_watched()
        self.version += 1
        if kind in {"ADDED", "MODIFIED", "DELETED"}:
            name = piece["metadata"]["name"]
            self.slices[name] = piece
            if kind == "DELETED":
                del self.slices[name]
        self.watches[-1].put_nowait({"type": kind, "object": piece})

    async def end_watch(self):
        await self.is_watched()
        self.watches.pop().put_nowait(None)

    async def is_watched(self):
        async with asyncio.timeout(20):
            while not self.watches:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


def slice_of(name, *pods, port_name="grpc"):
    """A slice with pods given as (address, ready, serving, terminating)."""
    conditions = ("ready", "serving", "terminating")
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "addressType": "IPv4",
        "metadata": {"name": name, "resourceVersion": "100"},
        "ports": [
            {"name": "metrics", "port": 8002, "protocol": "TCP"},
            {"name": port_name, "port": 8001, "protocol": "TCP"},
        ],
        "endpoints": [
            {"addresses": [address], "conditions": dict(zip(conditions, told, strict=False))}
            for address, *told in pods
        ],
    }


@contextlib.asynccontextmanager
async def api_server(*slices):
    api = FakeApiServer()
    api.slices = {piece["metadata"]["name"]: piece for piece in slices}
    app = web.Application()
    app.router.add_get("/apis/discovery.k8s.io/v1/namespaces/models/endpointslices", api.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    snapshots = endpoint_slices.watched(
        "models/sam2:grpc", Configuration(host=f"http://127.0.0.1:{port}")
    )
    try:
        async with following(snapshots):
            yield api, snapshots
    finally:
        for events in api.watches:
            events.put_nowait(None)
        await runner.cleanup()


UP, STARTING, DRAINING, DOWN = (
    (True, True, False),
    (False, False, False),
    (False, True, True),
    (False, False, True),
)


async def test_pods_are_told_by_their_conditions():
    pods = slice_of(
        "one",
        ("10.0.0.1", *UP),
        ("10.0.0.2", *STARTING),
        ("10.0.0.3", *DRAINING),
        ("10.0.0.4", *DOWN),
        ("10.0.0.5",),  # no conditions: older API servers; means ready
    )
    other_port = slice_of("two", ("10.0.0.9", *UP), port_name="http")
    async with api_server(pods, other_port) as (api, snapshots):
        assert await next_of(snapshots) == {
            ("10.0.0.1:8001", False),
            ("10.0.0.3:8001", True),
            ("10.0.0.5:8001", False),
        }
        assert api.selectors == {"kubernetes.io/service-name=sam2"}


async def test_changes_are_heard_as_they_happen():
    async with api_server(slice_of("one", ("10.0.0.1", *UP))) as (api, snapshots):
        assert await next_of(snapshots) == {("10.0.0.1:8001", False)}
        hearing = asyncio.create_task(next_of(snapshots))
        await api.tell("ADDED", slice_of("two", ("10.0.0.2", *UP)))
        assert await hearing == {("10.0.0.1:8001", False), ("10.0.0.2:8001", False)}
        hearing = asyncio.create_task(next_of(snapshots))
        await api.tell("BOOKMARK", {"metadata": {"resourceVersion": "102"}})
        await api.tell("MODIFIED", slice_of("one", ("10.0.0.1", *DRAINING)))
        assert await hearing == {("10.0.0.1:8001", True), ("10.0.0.2:8001", False)}
        # While a pod moves between slices it is in both; the live one counts.
        hearing = asyncio.create_task(next_of(snapshots))
        await api.tell("MODIFIED", slice_of("two", ("10.0.0.1", *UP)))
        assert await hearing == {("10.0.0.1:8001", False)}
        hearing = asyncio.create_task(next_of(snapshots))
        await api.tell("DELETED", slice_of("two"))
        assert await hearing == {("10.0.0.1:8001", True)}
        assert api.lists == 1


@pytest.mark.parametrize("how", ["410", "ended"])
async def test_after_a_watch_everything_is_listed_anew(how):
    async with api_server(slice_of("one", ("10.0.0.1", *UP))) as (api, snapshots):
        await next_of(snapshots)
        hearing = asyncio.create_task(next_of(snapshots))
        await api.is_watched()
        api.slices = {"new": slice_of("new", ("10.0.0.7", *UP))}
        if how == "410":
            gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
            await api.tell("ERROR", gone)
        else:
            await api.end_watch()
        assert await hearing == {("10.0.0.7:8001", False)}
        assert api.lists == 2


async def test_an_api_server_in_trouble_changes_nothing_until_it_is_well(monkeypatch):
    async with api_server(slice_of("one", ("10.0.0.1", *UP))) as (api, snapshots):
        await next_of(snapshots)
        hearing = asyncio.create_task(next_of(snapshots))
        api.failures = [503, 403, 500]
        await api.is_watched()
        api.slices = {"new": slice_of("new", ("10.0.0.7", *UP))}
        await api.end_watch()
        assert await hearing == {("10.0.0.7:8001", False)}
        assert api.lists == 5


@pytest.mark.parametrize("status", [403, 410])
async def test_an_api_server_that_lists_but_refuses_to_watch_is_asked_ever_more_slowly(
    monkeypatch, status
):
    pauses = []

    async def sleep(seconds):
        pauses.append(seconds)
        await (asyncio.Event().wait() if len(pauses) == 6 else real_sleep(0))

    async def refuse(_):
        return web.json_response({"kind": "Status"}, status=status)

    async with api_server(slice_of("one", ("10.0.0.1", *UP))) as (api, snapshots):
        await next_of(snapshots)
        real_sleep, clock = asyncio.sleep, SimpleNamespace(sleep=sleep)
        monkeypatch.setattr(endpoint_slices, "asyncio", clock)
        monkeypatch.setattr(api, "_watch", refuse)
        hearing = asyncio.create_task(anext(snapshots))
        await until(lambda: len(pauses) == 6)
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)
    assert api.lists == 6
    assert pauses[-1] > 4 * pauses[0]


def test_the_back_off_is_bounded():
    waits = [endpoint_slices._back_off(failures) for failures in range(64)]
    assert max(waits) <= 15
    assert min(waits) > 0
    assert min(waits[8:]) > max(waits[:2])
