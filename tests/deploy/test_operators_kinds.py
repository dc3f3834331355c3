"""Objects of operators: every field is one that the operator knows, of a type that it takes."""

import copy
import json
import subprocess

import pytest
import yaml

from tests.deploy.manifests import KUBERNETES, ROOT, TOOLS, production_with, render, tool
from tests.deploy.test_overlays import FOREIGN

GATEWAY = ROOT / "tests" / "deploy" / "schemas" / "gateway.yaml"

_NEWER = {"behavior"}
"""Keys of KEDA's fallback that came after the types at hand (2.16)."""

_ROUND_TRIP = """
import importlib, sys, yaml
MODULES = {
    "cert-manager.io/v1": "cloudcoil.models.cert_manager.v1",
    "keda.sh/v1alpha1": "cloudcoil.models.keda.v1alpha1",
    "monitoring.coreos.com/v1": "cloudcoil.models.prometheus_operator.v1",
}
for one in yaml.safe_load_all(sys.stdin):
    model = getattr(importlib.import_module(MODULES[one["apiVersion"]]), one["kind"])
    parsed = model.model_validate(one)
    print("---")
    print(yaml.safe_dump(parsed.model_dump(mode="json", by_alias=True, exclude_unset=True)))
"""

_SCHEMA = """
import json, sys
import jsonschema
schema, objects = json.load(sys.stdin)
checker = jsonschema.Draft202012Validator(schema)
for one in objects:
    error = jsonschema.exceptions.best_match(checker.iter_errors(one))
    if error is not None:
        print(one["kind"], error.json_path, error.message)
"""


def in_tools(program: str, text: str) -> str:
    """Run a program in the environment of the tools; return what it prints."""
    tool("kubectl")  # the types live in the same environment
    command = [TOOLS / "python", "-c", program]
    run = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def as_operators_read_it(objects):
    """Parse objects with the operators' own types; what these do not know is gone."""
    return list(yaml.safe_load_all(in_tools(_ROUND_TRIP, yaml.safe_dump_all(objects))))


def gateway_errors(objects) -> list[str]:
    schema = yaml.safe_load(GATEWAY.read_text())
    return in_tools(_SCHEMA, json.dumps([schema, objects])).splitlines()


def group(one) -> str:
    return one["apiVersion"].partition("/")[0]


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """All objects of production and the gateway that are not of Kubernetes itself."""
    rendered = render(production_with(tmp_path_factory.mktemp("gateway"), "gateway"))
    return [one for one in rendered if group(one) in FOREIGN]


@pytest.fixture(scope="module")
def typed(objects):
    """Those that are read with types, without what is newer than these."""
    found = copy.deepcopy([one for one in objects if not group(one).startswith("gateway")])
    for one in found:
        for key in _NEWER & one["spec"].get("fallback", {}).keys():
            del one["spec"]["fallback"][key]
    return found


@pytest.fixture(scope="module")
def gateways(objects):
    return [one for one in objects if group(one).startswith("gateway")]


@pytest.fixture(scope="module")
def misspelt(typed):
    wrong = copy.deepcopy(typed)
    for one in wrong:
        one["spec"]["pollingIntervall"] = 15
    return wrong


@pytest.fixture(scope="module")
def as_read(typed, misspelt):
    """What operators read of both, asked at once: their types take seconds to import."""
    found = as_operators_read_it([*typed, *misspelt])
    return found[: len(typed)], found[len(typed) :]


def test_operators_know_every_field_that_is_used(typed, as_read):
    assert {one["kind"] for one in typed} == {
        *("Certificate", "Issuer", "PodMonitor", "PrometheusRule", "ScaledObject")
    }
    assert as_read[0] == typed


def test_a_field_that_an_operator_does_not_know_is_found(misspelt, as_read):
    assert all(a != b for a, b in zip(as_read[1], misspelt, strict=True))


def test_gateways_are_valid(gateways):
    assert {one["kind"] for one in gateways} == {"Gateway", "GRPCRoute", "BackendTLSPolicy"}
    assert gateway_errors(gateways) == []


def misspell(one):
    one["spec"]["hostname"] = "recognition.example.com"


def leave_out(one):
    wanted = {"Gateway": "listeners", "GRPCRoute": "rules", "BackendTLSPolicy": "validation"}
    one["spec"][wanted[one["kind"]]] = None


def age(one):
    one["apiVersion"] = "gateway.networking.k8s.io/v1alpha2"


@pytest.mark.parametrize("seed", [misspell, leave_out, age], ids=lambda seed: seed.__name__)
def test_a_fault_in_a_gateway_is_found(gateways, seed):
    wrong = copy.deepcopy(gateways)
    for one in wrong:
        seed(one)
    assert len(gateway_errors(wrong)) == len(wrong)


@pytest.mark.parametrize(
    "overlay", sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
)
def test_no_foreign_kind_is_left_unchecked(overlay, objects):
    rendered = render(KUBERNETES / "overlays" / overlay)
    foreign = {one["kind"] for one in rendered if group(one) in FOREIGN}
    assert foreign <= {one["kind"] for one in objects}
