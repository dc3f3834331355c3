"""What must hold within each pod. A rule yields what is wrong."""

import math
import re
from collections.abc import Iterator

from tests.deploy.manifests import ROOT, Cluster, Object, Workload, quantity

_GPU = re.compile(r"nvidia\.com/(gpu|mig-.+)")
_SLACK_S = 5
_LONGEST_LOSS_S = 60
_SCRIPTS = "/opt/touchline/"
_POD = ROOT / "deploy" / "docker" / "pod"
"""What the images have there; see triton.Dockerfile."""


def images_are_pinned_and_agree(cluster: Cluster) -> Iterator[str]:
    for workload in cluster.workloads:
        images = {container["image"] for container in workload.containers}
        if len(images) > 1:
            yield f"{workload.name}: init container and server run different images: {images}"
        for image in images:
            name, _, tag = image.rpartition(":")
            if not name or tag == "latest" or name.endswith("/model"):
                yield f"{workload.name}: image {image} has no fixed version"


def pods_are_restricted(cluster: Cluster) -> Iterator[str]:
    """Source: Kubernetes, Pod Security Standards, restricted; and a read-only root file system."""
    for workload in cluster.workloads:
        pod = workload.pod
        security = pod.get("securityContext", {})
        if security.get("runAsNonRoot") is not True or not security.get("runAsUser"):
            yield f"{workload.name}: may run as root"
        if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{workload.name}: no seccomp profile"
        if any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
            yield f"{workload.name}: shares the host's namespaces"
        if any("hostPath" in volume for volume in pod.get("volumes", [])):
            yield f"{workload.name}: mounts the host's files"
        for container in workload.containers:
            yield from _unrestricted(workload, container)


def the_namespace_enforces_that(cluster: Cluster) -> Iterator[str]:
    for namespace in cluster.of("Namespace"):
        labels = namespace["metadata"].get("labels", {})
        if labels.get("pod-security.kubernetes.io/enforce") != "restricted":
            yield "the namespace does not enforce the restricted standard"


def _unrestricted(workload: Workload, container: Object) -> Iterator[str]:
    expected = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}
    security = container.get("securityContext", {})
    for key, value in expected.items():
        if security.get(key) is not value:
            yield f"{workload.name}/{container['name']}: expected {key}: {value}"
    if security.get("capabilities", {}).get("drop") != ["ALL"]:
        yield f"{workload.name}/{container['name']}: keeps capabilities"


def resources_are_guaranteed(cluster: Cluster) -> Iterator[str]:
    """Memory and GPUs are never shared beyond what was asked for; processors may be."""
    for workload in cluster.workloads:
        for container in workload.containers:
            place = f"{workload.name}/{container['name']}"
            resources = container.get("resources", {})
            requests, limits = resources.get("requests", {}), resources.get("limits", {})
            if "cpu" not in requests:
                yield f"{place}: requests no processor"
            if "memory" not in limits or limits["memory"] != requests.get("memory"):
                yield f"{place}: memory requested is not the limit"
            for name in requests.keys() | limits.keys():
                if _GPU.fullmatch(name) and requests.get(name) != limits.get(name):
                    yield f"{place}: {name} requested is not the limit"
            yield from _foreign_gpus(workload, container)


def _foreign_gpus(workload: Workload, container: Object) -> Iterator[str]:
    """An init container that takes another kind of GPU would make the pod need both."""
    own = {n for n in container.get("resources", {}).get("limits", {}) if _GPU.fullmatch(n)}
    served = {n for n in workload.main.get("resources", {}).get("limits", {}) if _GPU.fullmatch(n)}
    if not own <= served:
        yield f"{workload.name}/{container['name']}: takes {own - served}, the server does not"


def shared_memory_fits(cluster: Cluster) -> Iterator[str]:
    for workload in cluster.workloads:
        volumes = [v for v in workload.pod.get("volumes", []) if "emptyDir" in v]
        in_memory = [v["emptyDir"] for v in volumes if v["emptyDir"].get("medium") == "Memory"]
        if any("sizeLimit" not in volume["emptyDir"] for volume in volumes):
            yield f"{workload.name}: an emptyDir without a limit"
            continue
        limit = quantity(workload.main["resources"]["limits"].get("memory", 0))
        if sum(quantity(volume["sizeLimit"]) for volume in in_memory) > limit / 2:
            yield f"{workload.name}: shared memory takes over half of the memory limit"
    for workload in cluster.models:
        mounts = {m["mountPath"]: m["name"] for m in workload.main.get("volumeMounts", [])}
        volume = workload.volume(mounts.get("/dev/shm", "")) or {}
        if volume.get("emptyDir", {}).get("medium") != "Memory":
            yield f"{workload.name}: /dev/shm is the container runtime's 64 MiB"


def volumes_and_mounts_agree(cluster: Cluster) -> Iterator[str]:
    for workload in cluster.workloads:
        volumes = {volume["name"] for volume in workload.pod.get("volumes", [])}
        mounts = {m["name"] for c in workload.containers for m in c.get("volumeMounts", [])}
        if volumes != mounts:
            yield f"{workload.name}: volumes and mounts differ in {sorted(volumes ^ mounts)}"


def probes_ask_what_is_there(cluster: Cluster) -> Iterator[str]:
    for workload in cluster.workloads:
        if not workload.is_server:
            continue
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = workload.main.get(kind)
            if probe is None:
                yield f"{workload.name}: no {kind}"
                continue
            port = probe.get("httpGet", {}).get("port")
            if port is not None and port not in workload.ports:
                yield f"{workload.name}: {kind} asks port {port}, which the container has not"
            if port == "http" and workload.argument("http-address") == "127.0.0.1":
                yield f"{workload.name}: {kind} asks a port that is open inside the pod alone"


def temporary_files_have_a_place(cluster: Cluster) -> Iterator[str]:
    """The root is read-only, and HOME is /tmp."""
    for workload in cluster.workloads:
        mounts = {m["mountPath"]: m["name"] for m in workload.main.get("volumeMounts", [])}
        volume = workload.volume(mounts.get("/tmp", "")) or {}
        if workload.object["kind"] != "Pod" and "emptyDir" not in volume:
            yield f"{workload.name}: nothing can be written at /tmp"


def scripts_are_in_the_image(cluster: Cluster) -> Iterator[str]:
    for workload in cluster.workloads:
        for container in workload.containers:
            for word in _commands(container):
                if word.startswith(_SCRIPTS) and not (_POD / word[len(_SCRIPTS) :]).is_file():
                    yield f"{workload.name}/{container['name']}: no {word} in its image"


def _commands(container: Object) -> Iterator[str]:
    """All words that are run in a container: its command, its probes, its hook."""
    probes = [container.get(f"{kind}Probe", {}) for kind in ("startup", "readiness", "liveness")]
    hook = container.get("lifecycle", {}).get("preStop", {})
    for one in (container, *(place.get("exec", {}) for place in (*probes, hook))):
        yield from map(str, one.get("command", []))


def a_dead_model_is_restarted(cluster: Cluster) -> Iterator[str]:
    """Triton's own health pages never tell of a dead model process."""
    for workload in cluster.models:
        probe = workload.main.get("livenessProbe", {})
        command = [str(word) for word in probe.get("exec", {}).get("command", [])]
        if "/opt/touchline/model_alive.py" not in command or "--ready" in command:
            yield f"{workload.name}: livenessProbe does not ask the model itself"
            continue
        seconds = float(command[command.index("--seconds") + 1])
        if probe.get("timeoutSeconds", 1) < 4 * seconds + _SLACK_S:
            yield f"{workload.name}: the kubelet gives up before the check, of up to four waits"
        if workload.argument("model-control-mode") != "none":
            yield f"{workload.name}: models can be unloaded behind the kubelet's back"


def there_is_time_to_end(cluster: Cluster) -> Iterator[str]:
    for workload in cluster.workloads:
        if not workload.is_server:
            continue
        grace = workload.pod.get("terminationGracePeriodSeconds", 30)
        needed = hook_seconds(workload) + _own_end(cluster, workload) + _SLACK_S
        if grace < needed:
            yield f"{workload.name}: {grace} s of grace, its hook and its end need {needed:g} s"


def hook_seconds(workload: Workload) -> float:
    """Longest time of the preStop hook."""
    words = _hook(workload)
    if "--seconds" in words:
        return float(words[words.index("--seconds") + 1]) + _SLACK_S  # its last look at the page
    loop = re.search(r"seq (\d+)\); do\s+sleep (\d+)", words[-1] if words else "")
    return least_hook_seconds(workload) + (float(loop[1]) * float(loop[2]) if loop else 0.0)


def least_hook_seconds(workload: Workload) -> float:
    """Time of the preStop hook where nothing is under way."""
    words = _hook(workload)
    if "--settle" in words:
        return float(words[words.index("--settle") + 1])
    before_a_loop = " ".join(words).partition("for ")[0]
    return sum(map(float, re.findall(r"\bsleep (\d+)", before_a_loop)))


def _hook(workload: Workload) -> list[str]:
    hook = workload.main.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
    return [str(word) for word in hook]


def _own_end(cluster: Cluster, workload: Workload) -> float:
    """Longest time from SIGTERM to the end of the process."""
    if workload.model is not None:
        return float(workload.argument("exit-timeout-secs") or 30)
    if workload.name == "orchestrator":
        return float(cluster.settings.get("TOUCHLINE_SERVER__DRAIN_S", 30))
    return 0.0


def endpoints_are_left_before_the_end(cluster: Cluster) -> Iterator[str]:
    for workload in cluster.workloads:
        if workload.is_server and least_hook_seconds(workload) < _SLACK_S:
            yield f"{workload.name}: SIGTERM comes before anybody knows that its endpoint goes"


def a_lost_node_is_given_up_soon(cluster: Cluster) -> Iterator[str]:
    """Kubernetes itself waits for five minutes more before it replaces the pods of a lost node."""
    for workload in (one for one in cluster.workloads if one.is_server):
        seconds = {one["key"]: one.get("tolerationSeconds") for one in _evictions(workload)}
        for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
            if (seconds.get(key) or math.inf) > _LONGEST_LOSS_S:
                yield f"{workload.name}: stays for long on a node that is {key.partition('/')[2]}"


def _evictions(workload: Workload) -> Iterator[Object]:
    return (one for one in workload.pod.get("tolerations", []) if one["effect"] == "NoExecute")


RULES = (
    images_are_pinned_and_agree,
    pods_are_restricted,
    the_namespace_enforces_that,
    resources_are_guaranteed,
    shared_memory_fits,
    volumes_and_mounts_agree,
    probes_ask_what_is_there,
    temporary_files_have_a_place,
    scripts_are_in_the_image,
    a_dead_model_is_restarted,
    there_is_time_to_end,
    endpoints_are_left_before_the_end,
    a_lost_node_is_given_up_soon,
)
