"""What must hold between manifests, the models' configs and the orchestrator's settings. A rule
yields what is wrong."""

import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any
from unittest import mock

from pydantic import ValidationError

from deploy.local.repository import DEFAULT_REPOSITORY, read_config
from orchestrator.contracts import CONTRACTS
from orchestrator.settings import Settings
from tests.deploy.manifests import ROOT, Cluster, Workload, quantity
from training.export.files import file_name
from training.export.precision import Precision

_TARGET = re.compile(r"k8s:///(?P<namespace>[^/]+)/(?P<service>[^/:]+):(?P<port>\S+)")
_ITEM_BYTES = {"UINT8": 1, "BOOL": 1, "FP16": 2, "FP32": 4, "INT32": 4, "INT64": 8, "STRING": 64}
_EXPORTED = {file_name(contract.name, Precision.FP32): contract.name for contract in CONTRACTS}
"""Models by the file that `touchline export` writes for them."""
_LEAST_START_S = 600
"""TensorRT engines and SAM2 load, and warm up, in minutes."""


def config_of(workload: Workload) -> Any:
    """The config that a model is served with; a missing one is a rule of its own."""
    folder = DEFAULT_REPOSITORY / (workload.model or "")
    variant = workload.variables.get("MODEL_CONFIG", "default")
    named = folder / "configs" / f"{variant}.pbtxt"
    return read_config(named if named.is_file() else folder / "config.pbtxt")


def models_have_their_configs(cluster: Cluster) -> Iterator[str]:
    for workload in cluster.models:
        folder = DEFAULT_REPOSITORY / (workload.model or "")
        variant = workload.variables.get("MODEL_CONFIG")
        if not (folder / "config.pbtxt").is_file():
            yield f"{workload.name}: no model {workload.model} in the repository"
        elif variant != "default" and not (folder / "configs" / f"{variant}.pbtxt").is_file():
            yield f"{workload.name}: no config {variant} of {workload.model}"


def models_have_the_processor_of_their_config(cluster: Cluster) -> Iterator[str]:
    for workload in cluster.models:
        config = config_of(workload)
        kinds = {_name(group, "kind") for group in config.instance_group}
        limits = workload.main.get("resources", {}).get("limits", {})
        has_gpu = any(name.startswith("nvidia.com/") for name in limits)
        if kinds != {"KIND_GPU" if has_gpu else "KIND_CPU"}:
            yield f"{workload.name}: config says {kinds}, the pod has_gpu={has_gpu}"
        if [group.count for group in config.instance_group] != [1]:
            yield f"{workload.name}: several instances, of which the liveness check asks only one"


def shared_memory_holds_the_largest_batch(cluster: Cluster) -> Iterator[str]:
    pixels = int(Settings.model_fields["server"].default.max_frame_pixels)
    for workload in cluster.models:
        config = config_of(workload)
        volume = workload.volume("shm")
        if config.platform == "tensorrt_plan" or volume is None:
            continue
        tensors = [*config.input, *config.output]
        row = sum(_row_bytes(tensor, pixels) for tensor in tensors)
        # A laptop is spared 8K frames, of which it could not serve one.
        largest = row / (16 if workload.variables["MODEL_CONFIG"] == "cpu" else 1)
        if quantity(volume["emptyDir"].get("sizeLimit", 0)) < largest * config.max_batch_size:
            yield f"{workload.name}: /dev/shm is smaller than one batch of {config.max_batch_size}"


def _row_bytes(tensor: Any, pixels: int) -> float:
    name = _name(tensor, "data_type").removeprefix("TYPE_")
    if list(tensor.dims) == [-1, -1, 3]:
        return pixels * 3
    return _ITEM_BYTES[name] * math.prod(64 if dim < 0 else dim for dim in tensor.dims)


def _name(message: Any, field: str) -> str:
    """Name of the value of an enum field."""
    values = message.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number
    return values[getattr(message, field)].name


def sequences_move_before_the_end(cluster: Cluster) -> Iterator[str]:
    for workload in cluster.models:
        if not config_of(workload).HasField("sequence_batching"):
            continue
        hook = workload.main.get("lifecycle", {}).get("preStop", {}).get("exec", {})
        if "/opt/touchline/drain_sequences.py" not in hook.get("command", []):
            yield f"{workload.name}: does not wait for its sequences before SIGTERM"


def artefacts_are_what_configs_name(cluster: Cluster) -> Iterator[str]:
    """The init container brings the very file that the config names, to where it is looked for."""
    for workload in cluster.models:
        config, folder = config_of(workload), f"/models/{workload.model}"
        init = next(iter(workload.pod.get("initContainers", [])), None)
        if init is None:
            if workload.variables["MODEL_CONFIG"] != "cpu":
                yield f"{workload.name}: nobody brings its weights"
            continue
        expected = _artefact_words(config, folder)
        words = [_expanded(cluster, init, str(word)) for word in init["args"]]
        if [words[0], words[-1]] != [expected[0], expected[-1]]:
            yield f"{workload.name}: init container brings {words}, the config needs {expected}"
        elif expected[0] == "weights" and not _is_brought(words[1], expected[1]):
            yield f"{workload.name}: {words[1]} brings no {expected[1]}"
        for container in (init, workload.main):
            mounts = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
            if mounts.get(expected[-1]) != "artefact":
                yield f"{workload.name}/{container['name']}: no artefact at {expected[-1]}"


def _artefact_words(config: Any, folder: str) -> list[str]:
    if config.platform == "tensorrt_plan":
        return ["engine", config.name, f"{folder}/1"]
    return ["weights", config.parameters["weights"].string_value, f"{folder}/weights"]


def _expanded(cluster: Cluster, container: dict[str, Any], word: str) -> str:
    """Replace `$(NAME)` as the kubelet does."""
    config = cluster.find("ConfigMap", container["envFrom"][0]["configMapRef"]["name"]) or {}
    data = config.get("data", {})
    return re.sub(r"\$\((\w+)\)", lambda match: data.get(match[1], match[0]), word)


def _is_brought(entry_name: str, path: str) -> bool:
    registry = json.loads((ROOT / "training" / "weights" / "registry.json").read_text())
    files = next((e["files"] for e in registry["entries"] if e["name"] == entry_name), [])
    brought = files[0]["path"] if len(files) == 1 else entry_name
    return f"weights/{brought}" == path


def engines_are_built_for_their_models(cluster: Cluster) -> Iterator[str]:
    """What a Job publishes is looked for by the model, and takes its largest batch."""
    for job in (one for one in cluster.workloads if one.object["kind"] == "Job"):
        exported = PurePath(str(job.main["args"][1])).name
        if exported not in _EXPORTED:
            yield f"{job.name}: starts from {exported}, which no export writes"
            continue
        config = read_config(DEFAULT_REPOSITORY / _EXPORTED[exported] / "config.pbtxt")
        if int(job.argument("max-batch") or 0) < config.max_batch_size:
            yield f"{job.name}: {config.name} asks for batches of {config.max_batch_size}"
        for model in (one for one in cluster.models if one.model == config.name):
            words = [str(word) for word in model.pod["initContainers"][0]["args"]]
            if words[words.index("--source") + 1] != job.argument("output"):
                yield f"{job.name}: publishes where {model.name} does not look"


def settings_are_known(cluster: Cluster) -> Iterator[str]:
    """Within a group a wrong name is refused; a variable of no group is never read."""
    for name in cluster.settings:
        group = name.removeprefix("TOUCHLINE_").partition("__")[0].lower()
        if group not in Settings.model_fields:
            yield f"nobody reads {name}"


def settings_are_valid(cluster: Cluster) -> Iterator[str]:
    with mock.patch.dict(os.environ, cluster.settings, clear=True):
        try:
            settings = Settings()
        except ValidationError as error:
            yield f"the orchestrator would refuse its settings: {error}"
            return
    limit = quantity(cluster.orchestrator.main["resources"]["limits"].get("memory", 0))
    if settings.overload.memory_bytes > limit / 2:
        yield "overload.memory_bytes: over half of the orchestrator's memory limit"
    if settings.server.host != "0.0.0.0" or settings.metrics.host != "0.0.0.0":
        yield "the orchestrator listens inside its pod alone"
    served = {"grpc": settings.server.port, "metrics": settings.metrics.port}
    if cluster.orchestrator.ports != served:
        yield f"the orchestrator listens on {served}, its pod says {cluster.orchestrator.ports}"
    if settings.triton.repair_attempts:
        yield "triton.repair_attempts: the models' servers allow no model control"
    if settings.triton.transport != "grpc":
        yield "triton.transport: pods share no memory"


def pools_find_their_models(cluster: Cluster) -> Iterator[str]:
    if cluster.pools.keys() != {contract.name for contract in CONTRACTS}:
        yield f"triton.urls: expected all models, got {sorted(cluster.pools)}"
    for model, url in cluster.pools.items():
        target = _TARGET.fullmatch(url)
        service = cluster.find("Service", target["service"]) if target else None
        if target is None or service is None:
            yield f"triton.urls: {model}: no service {url}"
            continue
        if service["metadata"]["namespace"] != target["namespace"]:
            yield f"triton.urls: {model}: {url} is another namespace"
        if target["port"] not in [port["name"] for port in service["spec"]["ports"]]:
            yield f"triton.urls: {model}: no port {target['port']}"
        if service["spec"].get("clusterIP") != "None":
            yield f"service {target['service']}: not headless, so connections are balanced twice"
        served = {w.model for w in cluster.selected({"matchLabels": service["spec"]["selector"]})}
        if served != {model}:
            yield f"triton.urls: behind {url} are {served}, expected {model}"


def there_is_time_to_start(cluster: Cluster) -> Iterator[str]:
    waits = float(cluster.settings.get("TOUCHLINE_TRITON__CONNECT_TIMEOUT_S", 60))
    for workload in (*cluster.models, cluster.orchestrator):
        probe = workload.main.get("startupProbe", {})
        budget = probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3)
        needed = waits if workload.model is None else _LEAST_START_S
        if budget < needed:
            yield f"{workload.name}: killed after {budget} s of starting, it may take {needed:g} s"


def trackers_have_room_for_the_streams(cluster: Cluster) -> Iterator[str]:
    """More places for streams than slots is fine, streams are refused; fewer wastes GPUs."""
    places = int(cluster.settings.get("TOUCHLINE_SERVER__MAX_STREAMS", 16))
    places *= cluster.orchestrator.spec.get("replicas", 1)
    trackers = [one for one in cluster.models if one.model == "sam2_tracker"]
    slots = sum(
        int(config_of(one).parameters["slots"].string_value) * one.spec.get("replicas", 1)
        for one in trackers
    )
    if places * 2 < slots:
        yield f"{places} places for streams, but {slots} slots of trackers"


RULES = (
    models_have_their_configs,
    models_have_the_processor_of_their_config,
    shared_memory_holds_the_largest_batch,
    sequences_move_before_the_end,
    artefacts_are_what_configs_name,
    engines_are_built_for_their_models,
    settings_are_known,
    settings_are_valid,
    pools_find_their_models,
    there_is_time_to_start,
    trackers_have_room_for_the_streams,
)
