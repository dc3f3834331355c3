"""What must hold between objects: names, selectors, references, rights. A rule yields what is
wrong."""

from collections.abc import Iterator
from itertools import permutations

from tests.deploy.manifests import Cluster, Object, Workload, selects

OPERATORS_SECRETS = {"touchline-api-keys"}
"""Secrets that people make; see deploy/README.md."""

STORE = {"touchline-artefacts"}
"""The claim that is there before any overlay: deploy/kubernetes/store."""

_PRIORITIES = ("touchline-stream", "touchline-tracker", "touchline-model", "touchline-batch")
_RIGHTS = {
    "apiGroups": ["discovery.k8s.io"],
    "resources": ["endpointslices"],
    "verbs": ["get", "list", "watch"],
}


def everything_is_in_one_namespace(cluster: Cluster) -> Iterator[str]:
    names = {one["metadata"]["name"] for one in cluster.of("Namespace")} or {"touchline"}
    for one in cluster.namespaced:
        if one["metadata"].get("namespace") not in names:
            yield f"{one['kind']} {one['metadata']['name']} is outside of {names}"


def selectors_find_their_own_pods_alone(cluster: Cluster) -> Iterator[str]:
    deployments = [one for one in cluster.workloads if one.is_server]
    for one in deployments:
        if not selects(one.spec["selector"], one.labels):
            yield f"{one.name}: the selector does not match its own pods"
    for one, other in permutations(deployments, 2):
        if selects(one.spec["selector"], other.labels):
            yield f"{one.name}: the selector also takes pods of {other.name}"


def pods_are_spread(cluster: Cluster) -> Iterator[str]:
    for workload in cluster.workloads:
        if not workload.is_server:
            continue
        spreads = workload.pod.get("topologySpreadConstraints", [])
        hosts = [s for s in spreads if s["topologyKey"] == "kubernetes.io/hostname"]
        if not any(selects(s.get("labelSelector"), workload.labels) for s in hosts):
            yield f"{workload.name}: its replicas may all land on one node"


def services_reach_ports(cluster: Cluster) -> Iterator[str]:
    for service in cluster.of("Service"):
        name = service["metadata"]["name"]
        workloads = cluster.selected({"matchLabels": service["spec"]["selector"]})
        if not workloads:
            yield f"service {name} selects nothing"
        for workload in workloads:
            for port in service["spec"]["ports"]:
                if port["targetPort"] not in workload.ports:
                    yield f"service {name}: {workload.name} has no port {port['targetPort']}"


def budgets_protect_every_server(cluster: Cluster) -> Iterator[str]:
    budgets = list(cluster.of("PodDisruptionBudget"))
    for budget in budgets:
        if not cluster.selected(budget["spec"].get("selector")):
            yield f"disruption budget {budget['metadata']['name']} selects nothing"
    for workload in cluster.workloads:
        mine = [b for b in budgets if selects(b["spec"].get("selector"), workload.labels)]
        if workload.is_server and len(mine) != 1:
            yield f"{workload.name}: {len(mine)} disruption budgets, evictions need exactly one"


def rollouts_can_proceed(cluster: Cluster) -> Iterator[str]:
    for workload in cluster.workloads:
        if not workload.is_server:
            continue
        update = workload.spec.get("strategy", {}).get("rollingUpdate", {})
        if not (update.get("maxSurge") or update.get("maxUnavailable")):
            yield f"{workload.name}: a rollout may neither add nor remove a pod"
        if workload.spec.get("replicas", 1) < 1:
            yield f"{workload.name}: no replica"
        is_scaled = workload.model is not None and "replicas" not in workload.spec
        if is_scaled and not str(update.get("maxSurge")).endswith("%"):
            yield f"{workload.name}: the more replicas there are, the longer a rollout takes"


def accounts_have_least_rights(cluster: Cluster) -> Iterator[str]:
    for workload in cluster.workloads:
        account = workload.pod.get("serviceAccountName", "default")
        if cluster.find("ServiceAccount", account) is None:
            yield f"{workload.name}: service account {account} does not exist"
        needs_token = workload.name == "orchestrator"
        if workload.pod.get("automountServiceAccountToken", True) is not needs_token:
            yield f"{workload.name}: automountServiceAccountToken should be {needs_token}"
    for role in cluster.of("Role", "ClusterRole"):
        if role["kind"] == "ClusterRole" or role["rules"] != [_RIGHTS]:
            yield f"{role['kind']} {role['metadata']['name']}: more rights than to follow replicas"
    yield from _bindings(cluster)


def _bindings(cluster: Cluster) -> Iterator[str]:
    account = cluster.orchestrator.pod.get("serviceAccountName") if cluster.models else None
    bound = set()
    for binding in cluster.of("RoleBinding"):
        if cluster.find("Role", binding["roleRef"]["name"]) is None:
            yield f"role binding {binding['metadata']['name']}: no such role"
        bound |= {subject["name"] for subject in binding["subjects"]}
    if account is not None and bound != {account}:
        yield f"expected rights for {account} alone, found {sorted(bound)}"


def references_exist(cluster: Cluster) -> Iterator[str]:
    certified = {one["spec"]["secretName"] for one in cluster.of("Certificate")}
    known = {
        "ConfigMap": {one["metadata"]["name"] for one in cluster.of("ConfigMap")},
        "Secret": certified | OPERATORS_SECRETS,
        "PersistentVolumeClaim": STORE,
        "PriorityClass": {one["metadata"]["name"] for one in cluster.of("PriorityClass")},
    }
    for workload in cluster.workloads:
        for kind, name in references(workload):
            if name not in known[kind]:
                yield f"{workload.name}: {kind} {name} does not exist"


def references(workload: Workload) -> Iterator[tuple[str, str]]:
    """Kind and name of all that a pod needs in order to start."""
    yield "PriorityClass", workload.pod.get("priorityClassName", "")
    for volume in workload.pod.get("volumes", []):
        yield from _source(volume)
    for container in workload.containers:
        for source in container.get("envFrom", []):
            yield "ConfigMap", source["configMapRef"]["name"]


def _source(volume: Object) -> Iterator[tuple[str, str]]:
    if "configMap" in volume:
        yield "ConfigMap", volume["configMap"]["name"]
    if "secret" in volume:
        yield "Secret", volume["secret"]["secretName"]
    if "persistentVolumeClaim" in volume:
        yield "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]


def who_holds_more_goes_later(cluster: Cluster) -> Iterator[str]:
    values = {one["metadata"]["name"]: one["value"] for one in cluster.of("PriorityClass")}
    ranking = [values.get(name, 0) for name in _PRIORITIES]
    if ranking != sorted(ranking, reverse=True) or len(set(ranking)) != len(ranking):
        yield f"priorities {dict(zip(_PRIORITIES, ranking, strict=True))} are not in order"
    expected = {"orchestrator": "touchline-stream", "triton-sam2": "touchline-tracker"}
    for workload in cluster.workloads:
        if workload.name in expected:
            found = workload.pod.get("priorityClassName")
            if found != expected[workload.name]:
                yield f"{workload.name}: expected priority {expected[workload.name]}, got {found}"


RULES = (
    everything_is_in_one_namespace,
    selectors_find_their_own_pods_alone,
    pods_are_spread,
    services_reach_ports,
    budgets_protect_every_server,
    rollouts_can_proceed,
    accounts_have_least_rights,
    references_exist,
    who_holds_more_goes_later,
)
