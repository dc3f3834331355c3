"""A real Prometheus scrapes real tritonservers and a real orchestrator.

It answers every query that autoscalers, alerts and dashboard ask.
"""

import asyncio
import json
import math

import pytest
import pytest_asyncio
import yaml
from soccer.v1 import player_recognition_pb2 as pb

from deploy.local.cluster import LocalCluster
from deploy.local.orchestrator import OrchestratorProcess
from deploy.local.ports import HOST, free_ports
from deploy.observability import dashboard
from deploy.observability.__main__ import RULES
from tests.deploy.manifests import KUBERNETES
from tests.deploy.prometheus import debian_tool, scraping
from tests.deploy.promql import TRITON, metric_names, orchestrator_metrics
from tests.load.pictures import MatchPictures
from tests.stream.streams import play, recognitions

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="module")]

KEDA = KUBERNETES / "components" / "keda" / "scaledobjects.yaml"
HPA = KUBERNETES / "components" / "hpa"

_RARE = {
    "touchline_model_capacity_rows_per_second",  # until a replica was saturated
    "touchline_degraded_frames_total",  # until something was left out
    "touchline_identity_updates_total",  # until something was revised
}
"""Series that a healthy, short stream does not begin."""


def scaled_objects():
    return {one["metadata"]["name"]: one for one in yaml.safe_load_all(KEDA.read_text())}


def keda_queries():
    return {
        name: one["spec"]["triggers"][0]["metadata"]["query"]
        for name, one in scaled_objects().items()
    }


def adapter_queries():
    """What the Prometheus adapter asks on behalf of each HorizontalPodAutoscaler."""
    rules = yaml.safe_load((HPA / "adapter-values.yaml").read_text())["rules"]["external"]
    templates = {rule["name"]["as"]: rule["metricsQuery"] for rule in rules}
    found = {}
    for one in yaml.safe_load_all((HPA / "autoscalers.yaml").read_text()):
        metric = one["spec"]["metrics"][0]["external"]["metric"]
        labels = metric.get("selector", {}).get("matchLabels", {})
        matchers = [
            f'{key}="{value}"' for key, value in {"namespace": "touchline", **labels}.items()
        ]
        query = templates[metric["name"]].replace("<<.LabelMatchers>>", ", ".join(matchers))
        found[one["metadata"]["name"]] = query
    return found


def alerts():
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def match_stream(frames: int) -> tuple[pb.StreamConfig, list[pb.Frame]]:
    match = MatchPictures()
    config = pb.StreamConfig(encoding=pb.FRAME_ENCODING_JPEG, frame_rate=25)
    return config, [pb.Frame(frame_index=i, data=match.jpeg(i)) for i in range(frames)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def prometheus(tmp_path_factory):
    """A Prometheus that has seen two trackers, an orchestrator, and a stream through them."""
    debian_tool("prometheus")
    port = free_ports().metrics
    settings = {"TOUCHLINE_METRICS__PORT": str(port)}
    fast = RULES.read_text().replace("interval: 15s", "interval: 1s")
    async with (
        LocalCluster("sim", replicas={"sam2_tracker": 2}) as cluster,
        OrchestratorProcess(cluster.replica_endpoints, settings=settings) as orchestrator,
    ):
        targets = {
            server.metrics_endpoint: {"namespace": "touchline", "pod": f"triton-{number}"}
            for number, server in enumerate(cluster.servers)
        }
        targets[f"{HOST}:{port}"] = {"namespace": "touchline", "pod": "orchestrator-0"}
        with scraping(tmp_path_factory.mktemp("prometheus"), targets, fast) as server:
            await asyncio.to_thread(server.wait_for, f"count(up == 1) == {len(targets)}")
            responses = await play(orchestrator.target, *match_stream(60))
            assert len(recognitions(responses)) == 60
            await asyncio.to_thread(server.wait_for, "touchline:stage_seconds:p99_5m > 0")
            yield server


@pytest.mark.parametrize("name", keda_queries())
async def test_a_scaled_object_gets_one_number(prometheus, name):
    ((labels, value),) = prometheus.query(keda_queries()[name])
    assert labels == {}
    assert math.isfinite(value)
    assert value >= 0


@pytest.mark.parametrize("name", keda_queries())
async def test_plain_autoscalers_get_the_same_number(prometheus, name):
    both = f"({keda_queries()[name]}) - ({adapter_queries()[name]})"
    assert prometheus.query(both) == [({}, 0.0)]


async def test_an_idle_cluster_is_nothing_and_a_missing_orchestrator_is_an_error(prometheus):
    query = keda_queries()["orchestrator"]
    without_streams = query.replace("touchline_streams", "touchline_streams_that_never_were")
    assert prometheus.query(without_streams) == [({}, 0.0)]
    assert prometheus.query(without_streams.replace("touchline_tracks", "nobody")) == []


@pytest.mark.parametrize("name", [n for n in keda_queries() if n != "orchestrator"])
async def test_without_data_a_model_has_no_number(prometheus, name):
    elsewhere = keda_queries()[name].replace('"touchline"', '"elsewhere"')
    assert prometheus.query(elsewhere) == []


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
async def test_an_alert_is_evaluated_and_silent_on_a_healthy_cluster(prometheus, alert):
    assert prometheus.query(alert["expr"]) == []


async def test_prometheus_found_no_fault_in_any_rule(prometheus):
    groups = prometheus.ask("rules")["groups"]
    health = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
    assert set(health.values()) == {"ok"}, health


async def test_every_query_of_the_dashboard_is_answered(prometheus):
    for query in dashboard.queries():
        prometheus.query(query.replace("$namespace", "touchline"))


async def test_every_metric_that_queries_name_exists_in_the_scrape(prometheus):
    names = prometheus.names()
    assert names >= TRITON
    ours = {name for name in orchestrator_metrics() if not name.startswith(tuple(_RARE))}
    assert ours <= names
    asked = [*keda_queries().values(), *adapter_queries().values()]
    assert {name for query in asked for name in metric_names(query)} <= names


async def test_triton_and_orchestrators_count_the_same_slots(prometheus):
    by_triton = prometheus.query("sum(sam2_sequence_slots)")
    by_orchestrator = prometheus.query("max(touchline_tracker_slots)")
    assert by_triton == by_orchestrator
    assert by_triton[0][1] > 0


async def test_the_sides_of_the_alert_for_hung_replicas_can_be_joined(prometheus):
    """The alert's two sides carry the same labels in a real scrape, so that `and` can join them."""
    pending, executed = (
        {json.dumps(labels, sort_keys=True) for labels, _ in prometheus.query(query)}
        for query in (
            "min by (namespace, pod, model) (nv_inference_pending_request_count)",
            "sum by (namespace, pod, model) (nv_inference_exec_count)",
        )
    )
    assert pending == executed
    assert {json.loads(labels)["model"] for labels in pending} >= {"sam2_tracker", "resnet_jersey"}
