"""An operator goes by deploy/README.md alone: what it says to type exists and is in order."""

import argparse
import importlib
import os
import re
import subprocess
from functools import cache

import pytest

from deploy.local.repository import DEFAULT_REPOSITORY, read_config
from orchestrator.cli import _parser as touchline_parser
from tests.deploy import manifests
from tests.deploy.empty_cluster import EmptyCluster
from tests.deploy.manifests import KUBERNETES, ROOT, Cluster, Workload, quantity, tool
from tests.deploy.readme import MINE, README, commands, folder, section
from tests.deploy.test_overlays import problems
from training.__main__ import COMMANDS as OFFLINE
from training.export.files import file_name
from training.export.precision import Precision

render = cache(manifests.render)  # nothing here changes what is rendered

_SYSTEM_BYTES = 1 << 30
"""What Kubernetes itself needs on a laptop, generously."""

ALL = commands(README.read_text())


def of(program: str) -> list[list[str]]:
    return [words for words in ALL if words[0] == program]


def joined(words: list[str]) -> str:
    return " ".join(words)


@cache
def kubectl_flags(verb: str) -> set[str]:
    pages = [["options"], [*verb.split(), "--help"]]
    texts = [
        subprocess.run([tool("kubectl"), *page], capture_output=True, text=True, check=True).stdout
        for page in pages
    ]
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", "".join(texts)))


@pytest.mark.parametrize("words", of("kubectl"), ids=joined)
def test_kubectl_knows_every_flag(words):
    first = 3 if words[1] == "-n" else 1
    verb = words[first]
    verb += f" {words[first + 1]}" if verb in {"rollout", "create"} else ""
    verb += f" {words[first + 2]}" if verb == "create secret" else ""
    used = {word.partition("=")[0] for word in words[1:] if word.startswith("-")}
    assert used <= kubectl_flags(verb)


@pytest.mark.parametrize("words", of("touchline"), ids=joined)
def test_touchline_takes_every_command(words):
    if words[1] not in OFFLINE:
        touchline_parser().parse_args(words[1:])
        return
    parser = argparse.ArgumentParser()
    importlib.import_module(OFFLINE[words[1]]).add_arguments(parser)
    parser.parse_args(words[2:])


def test_every_path_exists():
    paths = {word for words in ALL for word in words if re.match("(deploy|tests)/", word)}
    assert len(paths) > 5
    made = {MINE}
    assert [path for path in paths - made if not folder(path).exists()] == []
    links = re.findall(r"\]\(([^)#:]+)", README.read_text())
    assert [link for link in links if not (README.parent / link).exists()] == []


def test_exported_files_have_the_names_that_export_gives_them():
    settings = (KUBERNETES / "example" / "settings" / "kustomization.yaml").read_text()
    for text in (README.read_text(), settings):
        named = set(re.findall(r"[\w.-]+\.onnx", text))
        assert named == {file_name(m, Precision.FP32) for m in ("rfdetr_detector", "resnet_jersey")}


def test_the_detector_is_exported_at_the_size_that_is_served():
    from training.detector.checkpoints import SIZES  # imports torch and rfdetr

    (words,) = (words for words in of("touchline") if words[1:3] == ["export", "detector"])
    parser = argparse.ArgumentParser()
    importlib.import_module(OFFLINE["export"]).add_arguments(parser)
    kind = SIZES[parser.parse_args(words[2:]).size]
    network = kind.__new__(kind).get_model_config()  # as rfdetr asks before it builds a network
    served = read_config(DEFAULT_REPOSITORY / "rfdetr_detector" / "config.pbtxt")
    assert list(served.input[0].dims) == [network.resolution, network.resolution, 3]
    assert list(served.output[0].dims) == [network.num_queries, 4]


def walk(cluster: EmptyCluster, steps: list[list[str]]) -> list[str]:
    """What is missing at each step, on a cluster that has nothing of ours."""
    problems = []
    for words in steps:
        if words[:3] == ["kubectl", "apply", "-k"]:
            problems += cluster.apply(render(folder(words[3])))
        elif words[0] == "kubectl":
            problems += cluster.ask(words)
    return problems


@pytest.mark.parametrize("title", ["On a laptop", "In production"])
def test_on_an_empty_cluster_each_step_finds_what_it_needs(title):
    assert walk(EmptyCluster(), commands(section(title))) == []


def test_on_one_machine_with_gpus_too():
    cluster = EmptyCluster()
    steps = ("store/one-node", "engine-job/rfdetr", "engine-job/resnet", "overlays/local")
    assert [found for step in steps for found in cluster.apply(render(KUBERNETES / step))] == []


def without(name: str):
    """The way to production with one step forgotten."""
    return [words for words in commands(section("In production")) if name not in joined(words)]


@pytest.mark.parametrize(
    ("forgotten", "missing"),
    [
        ("mine/store", "Namespace touchline"),
        ("mine/engines", "no Job"),
        ("create secret", "Secret touchline-api-keys"),
        ("mine/cluster", "no Deployment orchestrator"),
    ],
)
def test_a_forgotten_step_is_found(forgotten, missing):
    assert missing in "; ".join(walk(EmptyCluster(), without(forgotten)))


def test_a_claim_cannot_be_changed_by_a_later_step():
    cluster = EmptyCluster()
    for step in ("base", "one-node"):
        found = cluster.apply(render(KUBERNETES / "store" / step))
    assert found == ["PersistentVolumeClaim touchline-artefacts: cannot be changed"]


def test_the_example_is_production_from_another_registry():
    production = {one["metadata"]["name"] for one in render(KUBERNETES / "overlays/production")}
    mine = render(KUBERNETES / "example" / "cluster")
    hashed = re.compile("-[a-z0-9]{10}$")
    names = {hashed.sub("", one["metadata"]["name"]) for one in mine}
    assert names == {hashed.sub("", name) for name in production}
    rendered = [
        *mine,
        *(one for k in ("store", "engines") for one in render(folder(f"{MINE}/{k}"))),
    ]
    images = {c["image"] for w in Cluster(rendered).workloads for c in w.containers}
    assert {image.partition("/")[0] for image in images} == {"registry.example.com"}


def test_the_canary_is_the_cluster_and_a_canary():
    canaried, plain = (Cluster(render(KUBERNETES / "example" / k)) for k in ("canary", "cluster"))
    assert problems(canaried) == []
    names = {(one["kind"], one["metadata"]["name"]) for one in canaried.objects}
    assert names - {(one["kind"], one["metadata"]["name"]) for one in plain.objects} == {
        ("Deployment", "triton-rfdetr-canary"),
        ("ServiceAccount", "triton-rfdetr-canary"),
    }
    shared = [one for one in canaried.objects if not one["metadata"]["name"].endswith("-canary")]
    assert sorted(map(str, shared)) == sorted(map(str, plain.objects))
    canary = next(one for one in canaried.workloads if one.name == "triton-rfdetr-canary")
    assert {c["image"] for c in canary.containers} == {
        "registry.example.com/touchline/rfdetr-detector:0.2.0"
    }


def built(tmp_path, *arguments: str, **variables: str) -> set[str]:
    """The images that build.sh asks docker for."""
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {tmp_path}/asked\n')
    docker.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **variables}
    script = ROOT / "deploy" / "docker" / "build.sh"
    subprocess.run(["bash", script, *arguments], env=environment, check=True)
    asked = (tmp_path / "asked").read_text().splitlines()
    assert all((ROOT / asked[i + 1]).is_file() for i, w in enumerate(asked) if w == "--file")
    return {asked[i + 1] for i, word in enumerate(asked) if word == "--tag"}


def images_of(*folders: str) -> set[str]:
    rendered = [one for path in folders for one in render(KUBERNETES / path)]
    return {c["image"] for w in Cluster(rendered).workloads for c in w.containers}


def test_what_is_built_and_loaded_is_what_a_laptop_runs(tmp_path):
    wanted = images_of("overlays/cpu")
    assert built(tmp_path, "0.1.0-demo", WEIGHTS="demo") == wanted
    assert set(next(words for words in of("kind") if "load" in words)[3:]) == wanted


def test_what_is_built_and_pushed_is_what_a_cluster_runs(tmp_path):
    wanted = images_of("example/store", "example/engines", "example/cluster")
    pushed = built(tmp_path, "0.1.0", "registry.example.com/touchline")
    assert wanted - pushed == {"registry.example.com/envoyproxy/envoy:v1.40.0"}
    assert pushed <= wanted


def test_what_is_saved_for_an_air_gapped_cluster_is_what_it_runs():
    wanted = images_of(
        "store/base", "engine-job/rfdetr", "engine-job/resnet", "overlays/production"
    )
    saved = next(words for words in of("docker") if words[1] == "save")
    assert set(saved[4:]) == wanted


def memory(workload: Workload) -> float:
    return quantity(workload.main["resources"]["requests"]["memory"])


def test_a_laptop_has_the_memory_that_it_is_said_to_need():
    said = re.search(r"a laptop cluster .* of (\d+) GiB", README.read_text())
    assert said is not None
    workloads = Cluster(render(KUBERNETES / "overlays" / "cpu")).workloads
    surge = sum(
        memory(one) * one.spec["strategy"]["rollingUpdate"]["maxSurge"] for one in workloads
    )
    needed = sum(map(memory, workloads)) + surge + _SYSTEM_BYTES
    assert needed <= int(said[1]) << 30
