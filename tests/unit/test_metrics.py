import asyncio
import re
import socket

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.errors import SettingError
from orchestrator.metrics_server import serving_metrics
from orchestrator.settings import MetricsSettings
from orchestrator.telemetry import StreamStats
from orchestrator.triton.snapshot import PoolSnapshot, ReplicaSnapshot, ReplicaState
from orchestrator.types.frames import FrameHeader, GapReason
from orchestrator.types.people import Identity
from orchestrator.types.results import Degradation, IdentityUpdate, Recognition

AGREED = {
    "touchline_model_in_flight": {"model"},
    "touchline_model_queued": {"model"},
    "touchline_model_requests_total": {"model", "outcome"},
    "touchline_model_queue_seconds": {"model"},
    "touchline_model_service_seconds": {"model"},
    "touchline_model_replicas": {"model", "state"},
    "touchline_model_rows_per_second": {"model"},
    "touchline_model_capacity_rows_per_second": {"model"},
    "touchline_model_ejections_total": {"model", "reason"},
    "touchline_model_repairs_total": {"model", "outcome"},
    "touchline_tracker_slots": set(),
    "touchline_tracker_slots_used": set(),
    "touchline_tracker_starts_refused_total": set(),
    "touchline_tracker_rebuilds_total": set(),
    "touchline_streams": {"tenant"},
    "touchline_stream_starts_total": {"tenant", "outcome"},
    "touchline_streams_resumed_total": set(),
    "touchline_frames_received_total": {"tenant"},
    "touchline_frames_recognized_total": {"tenant"},
    "touchline_frames_lost_total": {"tenant", "reason"},
    "touchline_bytes_received_total": {"tenant"},
    "touchline_stage_seconds": {"stage"},
    "touchline_deadline_misses_total": set(),
    "touchline_degradation_level": set(),
    "touchline_degraded_frames_total": {"degradation"},
    "touchline_tracks": set(),
    "touchline_identity_updates_total": {"field"},
}
"""What dashboards, alerts and scaling rest on: a name may be added, none changed."""


async def scrape(port: int) -> dict[tuple, float]:
    """Samples by name and sorted label values, as Prometheus would store them."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/metrics") as response,
    ):
        assert response.status == 200
        text = await response.text()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def status(port: int, path: str) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/{path}") as response,
    ):
        return response.status


def pool(*states: ReplicaState, **values) -> PoolSnapshot:
    replicas = tuple(
        ReplicaSnapshot(f"10.0.0.{i}:8001", state, in_flight=1, slots_used=3, slots=8)
        for i, state in enumerate(states)
    )
    return PoolSnapshot(
        **{
            "name": "sam2_tracker",
            "in_flight": 5,
            "queued": 7,
            "rows_per_s": 50.0,
            "capacity_rows_per_s": None,
            "is_available": True,
            "replicas": replicas,
        }
        | values
    )


def test_the_exposed_names_and_labels_are_those_agreed():
    from orchestrator import metrics

    exposed = {}
    for metric in vars(metrics).values():
        if hasattr(metric, "_labelnames"):
            suffix = "_total" * (metric._type == "counter")
            exposed[metric._name + suffix] = set(metric._labelnames)
    assert exposed == AGREED


async def test_a_scrape_mirrors_the_pools_as_they_are_at_that_moment():
    ready, ejected = ReplicaState.READY, ReplicaState.EJECTED
    pools = [pool(ready, ready, ejected)]
    async with serving_metrics(MetricsSettings(port=0), pools=lambda: pools) as port:
        before = await scrape(port)
        pools[0] = pool(ready, queued=0, capacity_rows_per_s=90.0)
        after = await scrape(port)
    model = "sam2_tracker"
    assert before["touchline_model_queued", model] == 7
    assert before["touchline_model_in_flight", model] == 5
    assert before["touchline_model_rows_per_second", model] == 50
    assert before["touchline_model_replicas", model, "ready"] == 2
    assert before["touchline_model_replicas", model, "ejected"] == 1
    assert before["touchline_model_replicas", model, "draining"] == 0
    assert before["touchline_tracker_slots",] == 16
    assert before["touchline_tracker_slots_used",] == 6
    assert after["touchline_model_queued", model] == 0
    assert after["touchline_model_replicas", model, "ejected"] == 0
    assert after["touchline_model_capacity_rows_per_second", model] == 90
    assert after["touchline_tracker_slots",] == 8


async def test_what_a_stream_counts_is_exposed_under_its_tenant():
    stats = StreamStats("arena")
    async with serving_metrics(MetricsSettings(port=0)) as port:
        empty = await scrape(port)
        for _ in range(3):
            stats.count_received(1000)
        stats.count_lost(GapReason.OVERLOADED)
        degradations = frozenset({Degradation.BOXES_ONLY})
        stats.count_recognized(
            Recognition(FrameHeader(0), 64, 64, (), None, degradations, {"total": 0.03})
        )
        stats.count_updates([IdentityUpdate(1, 0, Identity(), ("jersey_number",), 2)])
        full = await scrape(port)

    def added(*key: str) -> float:
        return full[key] - empty.get(key, 0)

    assert added("touchline_frames_received_total", "arena") == 3
    assert added("touchline_bytes_received_total", "arena") == 3000
    assert added("touchline_frames_lost_total", "overloaded", "arena") == 1
    assert added("touchline_frames_recognized_total", "arena") == 1
    assert added("touchline_degraded_frames_total", "boxes_only") == 1
    assert added("touchline_stage_seconds_bucket", "0.03", "total") == 1
    assert added("touchline_stage_seconds_bucket", "0.02", "total") == 0
    assert added("touchline_identity_updates_total", "jersey_number") == 1
    assert added("touchline_identity_updates_total", "merged") == 1


async def test_rare_events_are_exposed_before_the_first_one():
    StreamStats("quiet")
    pools = [pool(ReplicaState.READY, name="quiet_model")]
    async with serving_metrics(MetricsSettings(port=0), pools=lambda: pools) as port:
        samples = await scrape(port)
    assert samples["touchline_model_ejections_total", "quiet_model", "stub_died"] == 0
    assert samples["touchline_model_repairs_total", "quiet_model", "failed"] == 0
    assert samples["touchline_frames_lost_total", "model_unavailable", "quiet"] == 0


async def test_readiness_follows_the_process_and_liveness_does_not():
    is_ready = False
    async with serving_metrics(MetricsSettings(port=0), is_ready=lambda: is_ready) as port:
        assert await status(port, "readyz") == 503
        assert await status(port, "healthz") == 200
        is_ready = True
        assert await status(port, "readyz") == 200
        assert await status(port, "secrets") == 404


async def test_each_worker_process_has_the_port_of_its_index():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        first = held.getsockname()[1] - 2
    async with serving_metrics(MetricsSettings(port=first), worker=2) as port:
        assert port == first + 2
        assert await status(port, "healthz") == 200


async def test_without_a_port_nothing_listens():
    async with serving_metrics(MetricsSettings()) as port:
        assert port is None


async def test_a_taken_port_is_named():
    async with serving_metrics(MetricsSettings(port=0)) as port:
        with pytest.raises(
            SettingError, match=re.escape(f"metrics.port: cannot listen on 127.0.0.1:{port}")
        ):
            async with serving_metrics(MetricsSettings(port=port)):
                raise AssertionError


async def test_a_client_that_sends_nothing_holds_nobody_up():
    async with serving_metrics(MetricsSettings(port=0)) as port:
        _, silent = await asyncio.open_connection("127.0.0.1", port)
        silent.write(b"GET /metrics HTTP/1.1\r\n")
        assert await status(port, "healthz") == 200
        silent.close()
