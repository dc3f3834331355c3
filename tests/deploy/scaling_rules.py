"""What must hold between autoscalers, monitors and what they scale and scrape. A rule yields what
is wrong."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from deploy.capacity.profile import load
from orchestrator.settings import Settings
from tests.deploy.manifests import Cluster, Object, Workload, selects
from tests.deploy.model_rules import config_of
from tests.deploy.promql import FOREIGN, TRITON, metric_names, orchestrator_metrics

UNSCALED = {"siglip_text"}
"""Asked once per stream: two replicas suffice for any cluster."""

_KINDS = ("ScaledObject", "HorizontalPodAutoscaler")
_LEAST_DOWN_WINDOW_S = 300


@dataclass(frozen=True)
class Scaler:
    """A ScaledObject or a HorizontalPodAutoscaler, seen alike."""

    object: Object

    @property
    def name(self) -> str:
        return self.object["metadata"]["name"]

    @property
    def spec(self) -> Object:
        return self.object["spec"]

    @property
    def is_keda(self) -> bool:
        return self.object["kind"] == "ScaledObject"

    @property
    def bounds(self) -> tuple[int, int]:
        words = (
            ("minReplicaCount", "maxReplicaCount")
            if self.is_keda
            else ("minReplicas", "maxReplicas")
        )
        return self.spec.get(words[0], 0), self.spec[words[1]]

    @property
    def behavior(self) -> Object:
        if self.is_keda:
            return self.spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        return self.spec["behavior"]

    @property
    def targets(self) -> list[float]:
        """What a replica is given, by each metric."""
        if self.is_keda:
            return [float(one["metadata"]["threshold"]) for one in self.spec["triggers"]]
        return [float(m["external"]["target"]["averageValue"]) for m in self.spec["metrics"]]

    @property
    def queries(self) -> list[str]:
        """PromQL of a ScaledObject; a HorizontalPodAutoscaler's are the adapter's."""
        return [one["metadata"].get("query", "") for one in self.spec.get("triggers", [])]


@cache
def _profile() -> Any:
    return load()


def scalers(cluster: Cluster) -> list[Scaler]:
    return [Scaler(one) for one in cluster.of(*_KINDS)]


def scaled(cluster: Cluster, scaler: Scaler) -> Workload | None:
    name = scaler.spec["scaleTargetRef"]["name"]
    return next((one for one in cluster.workloads if one.name == name), None)


def every_server_has_one_scaler(cluster: Cluster) -> Iterator[str]:
    found = [scaled(cluster, scaler) for scaler in scalers(cluster)]
    for scaler, workload in zip(scalers(cluster), found, strict=True):
        if workload is None:
            yield f"{scaler.name}: there is no Deployment {scaler.spec['scaleTargetRef']['name']}"
    names = [one.name for one in found if one is not None]
    for workload in (*cluster.models, cluster.orchestrator):
        is_canary = workload.labels.get("touchline.io/track") == "canary"
        expected = 0 if workload.model in UNSCALED or is_canary else 1
        if names.count(workload.name) != expected:
            yield f"{workload.name}: {names.count(workload.name)} autoscalers, not {expected}"


def replicas_are_left_to_the_scaler(cluster: Cluster) -> Iterator[str]:
    for scaler in scalers(cluster):
        workload = scaled(cluster, scaler)
        if workload is not None and "replicas" in workload.spec:
            yield f"{workload.name}: every `kubectl apply` would undo what {scaler.name} decided"


def replicas_have_bounds(cluster: Cluster) -> Iterator[str]:
    for scaler in scalers(cluster):
        least, most = scaler.bounds
        if least < 1:
            yield f"{scaler.name}: may scale to nothing, and a replica needs minutes to start"
        if least >= most:
            yield f"{scaler.name}: has no room between {least} and {most}"


def replicas_come_fast_and_go_slowly(cluster: Cluster) -> Iterator[str]:
    for scaler in scalers(cluster):
        table = _profile().table["autoscaling"]
        if scaler.name == "orchestrator":
            table = table | _profile().table["orchestrator"]
        up, down = scaler.behavior["scaleUp"], scaler.behavior["scaleDown"]
        if up.get("stabilizationWindowSeconds", 0) != 0:
            yield f"{scaler.name}: waits before it scales up"
        if down.get("stabilizationWindowSeconds", 300) < _LEAST_DOWN_WINDOW_S:
            yield f"{scaler.name}: forgets demand faster than a replica can start"
        said = {
            "scale_down_window_s": down.get("stabilizationWindowSeconds"),
            "scale_down_period_s": down["policies"][0]["periodSeconds"],
            "scale_up_period_s": up["policies"][0]["periodSeconds"],
            "scale_up_pods": up["policies"][0]["value"],
        }
        if scaler.is_keda:
            said["poll_s"] = scaler.spec.get("pollingInterval", 30)
        for key, value in said.items():
            if value != table[key]:
                yield f"{scaler.name}: {key} is {value}, simulated was {table[key]}"


def missing_data_takes_no_replica(cluster: Cluster) -> Iterator[str]:
    for scaler in (one for one in scalers(cluster) if one.is_keda):
        fallback = scaler.spec.get("fallback", {})
        if fallback.get("behavior") != "currentReplicasIfHigher":
            yield f"{scaler.name}: would drop to the fallback's replicas without Prometheus"
        if fallback.get("replicas", 0) < scaler.bounds[0]:
            yield f"{scaler.name}: falls back to less than its least"
        for trigger in scaler.spec["triggers"]:
            if trigger["metadata"].get("ignoreNullValues", "true") != "false":
                yield f"{scaler.name}: takes no data for no demand"
            if trigger.get("metricType", "AverageValue") != "AverageValue":
                yield f"{scaler.name}: fallback needs the metric type AverageValue"


def targets_fit_the_models(cluster: Cluster) -> Iterator[str]:
    """A replica is given some work, and less than it takes."""
    batches = Settings.model_fields["triton"].default.batches_in_flight
    places = int(cluster.settings.get("TOUCHLINE_SERVER__MAX_STREAMS", 16))
    for scaler in scalers(cluster):
        workload = scaled(cluster, scaler)
        if workload is None:
            continue
        most: float = places
        if workload.model is not None:
            config = config_of(workload)
            slots = config.parameters["slots"].string_value if "slots" in config.parameters else ""
            instances = sum(group.count for group in config.instance_group)
            rows = batches * config.max_batch_size * instances
            most = float(slots) if slots else rows / _profile().rows_per_request[workload.model]
        for target in scaler.targets:
            if not 0 < target < most:
                yield f"{scaler.name}: target {target:g}, expected more than 0 and below {most:g}"


def queries_ask_for_what_there_is(cluster: Cluster) -> Iterator[str]:
    known = orchestrator_metrics() | TRITON | FOREIGN
    for scaler in (one for one in scalers(cluster) if one.is_keda):
        workload = scaled(cluster, scaler)
        for query in scaler.queries:
            for name in sorted(metric_names(query) - known):
                yield f"{scaler.name}: nobody exposes {name}"
            if not metric_names(query):
                yield f"{scaler.name}: asks for no metric"
            models = set(re.findall(r'model="([^"]*)"', query))
            if workload is not None and not models <= {workload.model}:
                yield f"{scaler.name}: asks for {models}, but scales {workload.model}"
            namespaces = set(re.findall(r'namespace="([^"]*)"', query))
            if namespaces != {scaler.object["metadata"]["namespace"]}:
                yield f"{scaler.name}: asks for the namespaces {namespaces}"


def monitors_reach_ports(cluster: Cluster) -> Iterator[str]:
    for monitor in cluster.of("PodMonitor"):
        workloads = cluster.selected(monitor["spec"]["selector"])
        if not workloads:
            yield f"monitor {monitor['metadata']['name']} selects nothing"
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            for workload in workloads:
                if endpoint["port"] not in workload.ports:
                    yield f"{workload.name}: has no port {endpoint['port']} to scrape"


def every_process_is_scraped_once(cluster: Cluster) -> Iterator[str]:
    monitors = [one["spec"] for one in cluster.of("PodMonitor")]
    workers = int(cluster.settings.get("TOUCHLINE_SERVER__WORKERS", 1))
    for workload in (one for one in cluster.workloads if one.is_server):
        mine = [spec for spec in monitors if selects(spec["selector"], workload.labels)]
        ports = sum(len(spec["podMetricsEndpoints"]) for spec in mine)
        expected = workers if workload.name == "orchestrator" else 1
        if ports != expected:
            yield f"{workload.name}: {ports} ports are scraped, {expected} processes tell metrics"


RULES = (
    every_server_has_one_scaler,
    replicas_are_left_to_the_scaler,
    replicas_have_bounds,
    replicas_come_fast_and_go_slowly,
    missing_data_takes_no_replica,
    targets_fit_the_models,
    queries_ask_for_what_there_is,
    monitors_reach_ports,
    every_process_is_scraped_once,
)
