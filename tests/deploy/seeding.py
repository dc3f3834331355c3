"""How faults are seeded into good manifests, and the list of them."""

from collections.abc import Callable

from tests.deploy.manifests import Cluster, Workload

Fault = Callable[[Cluster], None]

FAULTS: list[tuple[str, str, Fault]] = []


def fault(rule: str) -> Callable[[Fault], Fault]:
    """Register a fault by its function's name, and the rule that must find it."""

    def register(seed: Fault) -> Fault:
        FAULTS.append((seed.__name__, rule, seed))
        return seed

    return register


def workload(cluster: Cluster, name: str) -> Workload:
    return next(one for one in cluster.workloads if one.name == name)


def set_variable(one: Workload, name: str, value: str) -> None:
    next(v for v in one.main["env"] if v["name"] == name)["value"] = value


def set_setting(cluster: Cluster, name: str, value: str) -> None:
    source = cluster.orchestrator.main["envFrom"][0]["configMapRef"]["name"]
    cluster.find("ConfigMap", source)["data"][f"TOUCHLINE_{name}"] = value


def volume(cluster: Cluster, name: str, kind: str):
    return workload(cluster, name).volume(kind)["emptyDir"]


def remove(cluster: Cluster, kind: str, name: str) -> None:
    cluster.objects.remove(cluster.find(kind, name))
