"""Autoscalers and monitors of production: whole by our rules, and every rule proves itself."""

import copy
from collections.abc import Callable

import pytest

from tests.deploy.manifests import KUBERNETES, Cluster, production_with, render
from tests.deploy.scaling_rules import RULES, scalers
from tests.deploy.test_overlays import problems, schema_errors

Fault = Callable[[Cluster], None]

FAULTS: list[tuple[str, Fault]] = []


@pytest.fixture(scope="module")
def production():
    return render(KUBERNETES / "overlays" / "production")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return render(production_with(tmp_path_factory.mktemp("hpa"), "hpa", instead_of="keda"))


def fault(rule: str) -> Callable[[Fault], Fault]:
    def register(seed: Fault) -> Fault:
        FAULTS.append((rule, seed))
        return seed

    return register


def scaler(cluster: Cluster, name: str):
    return cluster.find("ScaledObject", name)["spec"]


def trigger(cluster: Cluster, name: str):
    return scaler(cluster, name)["triggers"][0]["metadata"]


def behavior(cluster: Cluster, name: str):
    return scaler(cluster, name)["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]


@fault("every_server_has_one_scaler")
def scaler_of_a_deployment_that_is_not_there(c):
    scaler(c, "triton-sam2")["scaleTargetRef"]["name"] = "triton-sam3"


@fault("every_server_has_one_scaler")
def two_scalers(c):
    scaler(c, "triton-resnet")["scaleTargetRef"]["name"] = "triton-rfdetr"


@fault("every_server_has_one_scaler")
def model_without_scaler(c):
    c.objects.remove(c.find("ScaledObject", "triton-siglip"))


@fault("replicas_are_left_to_the_scaler")
def replicas_set_by_hand(c):
    next(one for one in c.workloads if one.name == "triton-sam2").spec["replicas"] = 2


@fault("replicas_have_bounds")
def scale_to_zero(c):
    scaler(c, "triton-rfdetr")["minReplicaCount"] = 0


@fault("replicas_have_bounds")
def least_is_most(c):
    scaler(c, "triton-rfdetr")["maxReplicaCount"] = 2


@fault("replicas_come_fast_and_go_slowly")
def hesitant(c):
    behavior(c, "triton-sam2")["scaleUp"]["stabilizationWindowSeconds"] = 60


@fault("replicas_come_fast_and_go_slowly")
def forgetful(c):
    behavior(c, "triton-sam2")["scaleDown"]["stabilizationWindowSeconds"] = 30


@fault("replicas_come_fast_and_go_slowly")
def policy_that_was_not_simulated(c):
    scaler(c, "orchestrator")["pollingInterval"] = 300


@fault("missing_data_takes_no_replica")
def no_data_is_no_demand(c):
    trigger(c, "triton-sam2")["ignoreNullValues"] = "true"


@fault("missing_data_takes_no_replica")
def fallback_that_drops_replicas(c):
    del scaler(c, "triton-sam2")["fallback"]["behavior"]


@fault("missing_data_takes_no_replica")
def no_fallback(c):
    del scaler(c, "orchestrator")["fallback"]


@fault("missing_data_takes_no_replica")
def value_instead_of_average(c):
    scaler(c, "triton-resnet")["triggers"][0]["metricType"] = "Value"


@fault("targets_fit_the_models")
def more_streams_than_slots(c):
    trigger(c, "triton-sam2")["threshold"] = "4"


@fault("targets_fit_the_models")
def more_requests_than_may_be_under_way(c):
    trigger(c, "triton-rfdetr")["threshold"] = "64"


@fault("targets_fit_the_models")
def nothing_to_do(c):
    trigger(c, "triton-rfdetr")["threshold"] = "0"


@fault("queries_ask_for_what_there_is")
def metric_misspelt(c):
    query = trigger(c, "triton-sam2")
    query["query"] = query["query"].replace("sam2_active_sequences", "sam2_sequences_active")


@fault("queries_ask_for_what_there_is")
def utilisation_of_gpus(c):
    trigger(c, "triton-rfdetr")["query"] = 'avg(DCGM_FI_DEV_GPU_UTIL{namespace="touchline"})'


@fault("queries_ask_for_what_there_is")
def demand_for_another_model(c):
    query = trigger(c, "triton-resnet")
    query["query"] = query["query"].replace("resnet_jersey", "rfdetr_detector")


@fault("queries_ask_for_what_there_is")
def demand_of_all_namespaces(c):
    query = trigger(c, "orchestrator")
    query["query"] = query["query"].replace('{namespace="touchline"}', "")


@fault("monitors_reach_ports")
def monitor_of_nothing(c):
    c.find("PodMonitor", "models")["spec"]["selector"]["matchLabels"] = {"app": "triton"}


@fault("monitors_reach_ports")
def monitor_of_a_port_that_is_not_there(c):
    c.find("PodMonitor", "models")["spec"]["podMetricsEndpoints"][0]["port"] = "http-metrics"


@fault("every_process_is_scraped_once")
def server_without_monitor(c):
    c.objects.remove(c.find("PodMonitor", "models"))


@fault("every_process_is_scraped_once")
def proxy_without_monitor(c):
    c.objects.remove(c.find("PodMonitor", "envoy"))


@fault("every_process_is_scraped_once")
def workers_that_nobody_scrapes(c):
    c.orchestrator.main.setdefault("env", []).append(
        {"name": "TOUCHLINE_SERVER__WORKERS", "value": "3"}
    )


@pytest.mark.parametrize(("rule", "seed"), FAULTS, ids=[seed.__name__ for _, seed in FAULTS])
def test_a_seeded_fault_is_found(production, rule, seed):
    cluster = Cluster(copy.deepcopy(production))
    seed(cluster)
    assert any(found.startswith(f"{rule}: ") for found in problems(cluster, RULES))


def test_every_rule_has_found_a_fault():
    assert {rule.__name__ for rule in RULES} == {rule for rule, _ in FAULTS}


def test_production_scales_and_is_scraped(production):
    assert problems(Cluster(production), RULES) == []
    assert len(scalers(Cluster(production))) == 5


def test_plain_autoscalers_do_the_same(production, plain, tmp_path):
    assert problems(Cluster(plain), RULES) == []
    assert schema_errors(plain, tmp_path / "all.yaml") == ""
    by_name = [
        {s.name: (s.bounds, s.targets, s.behavior) for s in scalers(Cluster(objects))}
        for objects in (production, plain)
    ]
    assert by_name[0] == by_name[1]


def test_targets_are_read_but_not_applied(production):
    assert Cluster(production).find("ConfigMap", "targets") is None


def test_a_canary_is_scraped_but_not_scaled(production):
    cluster = Cluster(copy.deepcopy(production))
    canary = copy.deepcopy(next(one for one in cluster.models if one.name == "triton-rfdetr"))
    canary.object["metadata"]["name"] = "triton-rfdetr-canary"
    canary.labels["touchline.io/track"] = "canary"
    cluster.objects.append(canary.object)
    assert problems(cluster, RULES) == []
