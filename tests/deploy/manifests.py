"""Rendered manifests, and how to find one's way in them."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
TOOLS = ROOT / ".tools" / "deploy" / "bin"

IS_REQUIRED = "TOUCHLINE_TEST_DEPLOY" in os.environ
"""Set by `make test-deploy`: a missing tool fails, and the slow checks run."""

Object = dict[str, Any]

_CLUSTER_SCOPED = {"Namespace", "PriorityClass", "ClusterRole", "ClusterRoleBinding"}
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def tool(name: str) -> str:
    """Return the path of an installed tool; without it skip, or fail where it is required."""
    return installed(name, shutil.which(TOOLS / name))


def installed(name: str, path: str | None) -> str:
    """Return the path of a tool; if it is None skip, or fail where the tool is required."""
    if path is None:
        missing = f"{name} is not installed: bash deploy/kubernetes/tools.sh, or make test-deploy"
        pytest.fail(missing) if IS_REQUIRED else pytest.skip(missing)
    return path


def render(directory: Path) -> list[Object]:
    """Return the objects of a kustomization."""
    command = [tool("kubectl"), "kustomize", str(directory)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "deprecated" not in run.stderr, run.stderr
    return list(yaml.safe_load_all(run.stdout))


def production_with(folder: Path, component: str, instead_of: str | None = None) -> Path:
    """Write a kustomization of production with one more component, or one instead of another."""
    production = KUBERNETES / "overlays" / "production"
    content = yaml.safe_load((production / "kustomization.yaml").read_text())
    content["components"].append(f"../../components/{component}")
    if instead_of is not None:
        content["components"].remove(f"../../components/{instead_of}")
    for key in ("resources", "components"):
        content[key] = [os.path.relpath(production / one, folder) for one in content[key]]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(content))
    return folder


def quantity(text: str | int) -> float:
    """Return a Kubernetes quantity such as `512Mi` as a number."""
    digits = str(text).rstrip("kMGi")
    return float(digits) * _UNITS[str(text)[len(digits) :]]


def selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether `matchLabels` hold; None selects nothing and an empty selector all."""
    if selector is None:
        return False
    return (selector.get("matchLabels") or {}).items() <= labels.items()


@dataclass(frozen=True)
class Workload:
    """A Deployment, a Job, or a pod by itself."""

    object: Object

    @property
    def name(self) -> str:
        return self.object["metadata"]["name"]

    @property
    def spec(self) -> Object:
        return self.object["spec"]

    @property
    def is_server(self) -> bool:
        """Whether it runs until it is told to end, and is followed by others."""
        return self.object["kind"] == "Deployment"

    @property
    def template(self) -> Object:
        return self.object if self.object["kind"] == "Pod" else self.spec["template"]

    @property
    def pod(self) -> Object:
        return self.template["spec"]

    @property
    def labels(self) -> dict[str, str]:
        return self.template["metadata"]["labels"]

    @property
    def main(self) -> Object:
        return self.pod["containers"][0]

    @property
    def containers(self) -> list[Object]:
        return [*self.pod.get("initContainers", []), *self.pod["containers"]]

    @property
    def ports(self) -> dict[str, int]:
        """Container ports by name."""
        return {
            port["name"]: port["containerPort"]
            for container in self.pod["containers"]
            for port in container.get("ports", [])
        }

    @property
    def variables(self) -> dict[str, str]:
        """Variables that the main container's manifest sets itself."""
        return {one["name"]: one["value"] for one in self.main.get("env", [])}

    @property
    def model(self) -> str | None:
        """The model that it serves."""
        return self.variables.get("MODEL")

    def argument(self, name: str) -> str | None:
        """Value of `--name=value` of the main container."""
        for argument in self.main.get("args", []):
            key, _, value = str(argument).partition("=")
            if key == f"--{name}":
                return value
        return None

    def volume(self, name: str) -> Object | None:
        return next((v for v in self.pod.get("volumes", []) if v["name"] == name), None)


@dataclass(frozen=True)
class Cluster:
    """All objects that belong together."""

    objects: list[Object]

    def of(self, *kinds: str) -> Iterator[Object]:
        return (one for one in self.objects if one["kind"] in kinds)

    def find(self, kind: str, name: str) -> Object | None:
        return next((o for o in self.of(kind) if o["metadata"]["name"] == name), None)

    @property
    def namespaced(self) -> Iterator[Object]:
        return (one for one in self.objects if one["kind"] not in _CLUSTER_SCOPED)

    @property
    def workloads(self) -> list[Workload]:
        return [Workload(one) for one in self.of("Deployment", "Job", "Pod")]

    @property
    def models(self) -> list[Workload]:
        return [one for one in self.workloads if one.model is not None]

    @property
    def orchestrator(self) -> Workload:
        return next(one for one in self.workloads if one.name == "orchestrator")

    def selected(self, selector: Mapping[str, Any] | None) -> list[Workload]:
        return [one for one in self.workloads if selects(selector, one.labels)]

    @property
    def settings(self) -> dict[str, str]:
        """`TOUCHLINE_*` variables that the orchestrator gets."""
        found: dict[str, str] = {}
        for source in self.orchestrator.main.get("envFrom", []):
            config = self.find("ConfigMap", source["configMapRef"]["name"])
            found |= (config or {}).get("data", {})
        return found | self.orchestrator.variables

    @property
    def pools(self) -> dict[str, str]:
        return json.loads(self.settings["TOUCHLINE_TRITON__URLS"])

    @property
    def has_policies(self) -> bool:
        return any(self.of("NetworkPolicy"))
