"""Every overlay, rendered: valid by the schemas, and whole by our own rules."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from deploy.local.repository import DEFAULT_REPOSITORY, read_config
from tests.deploy import model_rules, pod_rules, traffic_rules, wiring_rules
from tests.deploy.manifests import IS_REQUIRED, KUBERNETES, Cluster, production_with, render, tool

OVERLAYS = ("overlays/local", "overlays/production", "overlays/cpu")
EXAMPLES = ("example/cluster", "example/canary")
BEFORE = (
    *("store/base", "store/one-node", "example/store"),
    *("engine-job/rfdetr", "engine-job/resnet", "example/engines"),
)
"""What is applied before an overlay."""

COMPONENTS = {"mig": None, "gateway": "envoy"}
"""Those that no overlay has, and what each replaces in production."""

POD_RULES = (*pod_rules.RULES, wiring_rules.everything_is_in_one_namespace)
RULES = (*pod_rules.RULES, *wiring_rules.RULES, *model_rules.RULES, *traffic_rules.RULES)

_KUBERNETES_VERSION = "1.37.0"
FOREIGN = {"cert-manager.io", "gateway.networking.k8s.io", "keda.sh", "monitoring.coreos.com"}
"""Groups of operators, whose types are not part of Kubernetes: see test_operators_kinds."""

_ACCEPTED = {
    "CKV_K8S_11": "no CPU limit: throttling a loop that serves live video adds latency to all",
    "CKV_K8S_15": "IfNotPresent: tags are fixed, and a laptop's cluster has no registry",
    "CKV_K8S_38": "the orchestrator needs its token: it follows EndpointSlices",
    "CKV_K8S_40": "user 1000 is the one that Triton's image has; pods share no host files",
    "CKV_K8S_43": "digests are known once the operator has pushed the images; see the README",
}

_ACCEPTED_OF_THE_STORE = dict.fromkeys(
    ("CKV_K8S_8", "CKV_K8S_9"), "it sleeps, and serves nobody that a probe could speak for"
)
_ACCEPTED_WITHOUT_POLICIES = {"CKV2_K8S_6": "`local` and `cpu` have their network to themselves"}


def problems(cluster: Cluster, rules=RULES) -> list[str]:
    return [f"{rule.__name__}: {text}" for rule in rules for text in rule(cluster)]


def schema_errors(objects, path: Path) -> str:
    """What the strict schemas of Kubernetes say against objects; other kinds are left out."""
    known = [one for one in objects if one["apiVersion"].partition("/")[0] not in FOREIGN]
    path.write_text(yaml.safe_dump_all(known))
    command = [tool("kubernetes-validate"), "--strict", "-k", _KUBERNETES_VERSION, str(path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    warned = "WARN" in run.stdout + run.stderr
    return run.stdout + run.stderr if run.returncode or warned else ""


@pytest.mark.parametrize("overlay", [*OVERLAYS, *EXAMPLES])
def test_an_overlay_is_whole(overlay, tmp_path):
    objects = render(KUBERNETES / overlay)
    assert problems(Cluster(objects)) == []
    assert schema_errors(objects, tmp_path / "all.yaml") == ""


@pytest.mark.parametrize(("component", "instead_of"), COMPONENTS.items())
def test_a_component_fits_into_production(component, instead_of, tmp_path):
    objects = render(production_with(tmp_path, component, instead_of))
    assert problems(Cluster(objects)) == []
    assert schema_errors(objects, tmp_path / "all.yaml") == ""


@pytest.mark.parametrize("folder", BEFORE)
def test_what_comes_before_is_whole(folder, tmp_path):
    objects = render(KUBERNETES / folder)
    assert problems(Cluster(objects), POD_RULES) == []
    assert schema_errors(objects, tmp_path / "all.yaml") == ""


def test_mig_puts_small_models_on_slices_and_leaves_the_others(tmp_path):
    cluster = Cluster(render(production_with(tmp_path, "mig")))
    taken = {
        workload.name: [n for n in workload.main["resources"]["limits"] if "nvidia" in n]
        for workload in cluster.models
    }
    assert taken["triton-siglip"] == taken["triton-resnet"] == ["nvidia.com/mig-1g.18gb"]
    assert taken["triton-sam2"] == taken["triton-rfdetr"] == ["nvidia.com/gpu"]


def test_a_canary_gets_its_share_of_the_same_service():
    cluster = Cluster(render(KUBERNETES / "example" / "canary"))
    service = cluster.find("Service", "triton-rfdetr")
    behind = cluster.selected({"matchLabels": service["spec"]["selector"]})
    assert {one.name for one in behind} == {"triton-rfdetr", "triton-rfdetr-canary"}
    versions = {one.main["image"].rpartition(":")[2] for one in behind}
    assert versions == {"0.1.0", "0.2.0"}


def test_the_text_model_without_gpu_is_the_one_with_gpu_but_for_the_processor():
    folder = DEFAULT_REPOSITORY / "siglip_text"
    gpu = read_config(folder / "config.pbtxt")
    cpu = read_config(folder / "configs" / "without_gpu.pbtxt")
    for config in (gpu, cpu):
        config.ClearField("instance_group")
        del config.parameters["threads"]
    assert cpu == gpu


def test_a_changed_setting_rolls_the_pods(tmp_path):
    changed = tmp_path / "changed"
    changed.mkdir()
    literal = {"name": "orchestrator", "behavior": "merge", "literals": ["TOUCHLINE_X=1"]}
    content = {
        "resources": [os.path.relpath(KUBERNETES / "overlays/cpu", changed)],
        "namespace": "touchline",
        "configMapGenerator": [literal],
    }
    (changed / "kustomization.yaml").write_text(yaml.safe_dump(content))
    names = [
        Cluster(render(path)).orchestrator.main["envFrom"][0]["configMapRef"]["name"]
        for path in (KUBERNETES / "overlays/cpu", changed)
    ]
    assert names[0] != names[1]


@pytest.mark.parametrize("folder", [*OVERLAYS, "store/base", "engine-job/rfdetr"])
def test_a_scanner_finds_nothing_but_what_was_accepted(folder, tmp_path):
    if not IS_REQUIRED:
        pytest.skip("checkov takes long: make test-deploy")
    manifest = tmp_path / "all.yaml"
    manifest.write_text(yaml.safe_dump_all(render(KUBERNETES / folder)))
    command = [tool("checkov"), "-f", str(manifest), "--framework", "kubernetes", "--compact"]
    accepted = {*_ACCEPTED}
    accepted |= set() if folder.endswith("production") else {*_ACCEPTED_WITHOUT_POLICIES}
    accepted |= {*_ACCEPTED_OF_THE_STORE} if folder == "store/base" else set()
    skipped = ["--quiet", "--skip-download", "--skip-check", ",".join(sorted(accepted))]
    run = subprocess.run([*command, *skipped], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
