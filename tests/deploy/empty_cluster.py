"""A cluster that has its operators and nothing of ours, and what is missing when one applies."""

from collections.abc import Iterator

from tests.deploy.manifests import Cluster, Object, Workload
from tests.deploy.wiring_rules import references

_IMMUTABLE = {"PersistentVolumeClaim", "Job"}


class EmptyCluster:
    """Takes objects as they are applied, one `kubectl apply` after the other."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str], Object] = {}

    def apply(self, objects: list[Object]) -> list[str]:
        """Take objects; return what they need and is not there, and what cannot be changed."""
        changed = list(self._changed(objects))
        self._objects |= {(one["kind"], one["metadata"]["name"]): one for one in objects}
        return changed + list(self._missing(Cluster(objects)))

    def ask(self, words: list[str]) -> list[str]:
        """Run another `kubectl -n touchline …`; return what it needs and is not there."""
        if ("Namespace", words[2]) not in self._objects:
            return [f"{' '.join(words[3:5])}: no Namespace {words[2]}"]
        if words[3:5] == ["create", "secret"]:
            self._objects["Secret", words[6]] = {}
        return list(self._unknown(words))

    def _changed(self, objects: list[Object]) -> Iterator[str]:
        for one in objects:
            kind, name = one["kind"], one["metadata"]["name"]
            there = self._objects.get((kind, name), one)
            if kind in _IMMUTABLE and there["spec"] != one["spec"]:
                yield f"{kind} {name}: cannot be changed"

    def _missing(self, applied: Cluster) -> Iterator[str]:
        for one in applied.namespaced:
            namespace = one["metadata"].get("namespace", "default")
            if ("Namespace", namespace) not in self._objects:
                yield f"{one['kind']} {one['metadata']['name']}: no Namespace {namespace}"
        certified = {c["spec"]["secretName"] for c in applied.of("Certificate")}
        for workload in applied.workloads:
            for kind, name in self._needs(workload):
                if (kind, name) not in self._objects and (kind, name) not in {
                    ("Secret", secret) for secret in certified
                }:
                    yield f"{workload.name}: no {kind} {name}"

    @staticmethod
    def _needs(workload: Workload) -> Iterator[tuple[str, str]]:
        yield from references(workload)
        yield "ServiceAccount", workload.pod.get("serviceAccountName", "default")

    def _unknown(self, words: list[str]) -> Iterator[str]:
        """Names of objects that a command is about."""
        kinds = {kind.lower(): kind for kind, _ in self._objects}
        for word in words[4:]:
            kind, _, name = word.partition("/")
            is_object = name and kind in {"deployment", "pod", "service"}
            if is_object and (kinds.get(kind, ""), name) not in self._objects:
                yield f"{words[3]}: no {kind.capitalize()} {name}"
        if words[3] == "wait" and "job" in words and "job" not in kinds:
            yield "wait: no Job"
