"""The images, as far as they can be tried without their official bases: what goes in is there, is
pinned, and is enough."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from google.protobuf import json_format
from packaging.requirements import Requirement

from deploy.local.repository import DEFAULT_REPOSITORY, model_names, read_config
from tests.deploy.manifests import IS_REQUIRED, ROOT, tool

DOCKER = ROOT / "deploy" / "docker"
FILES = sorted(DOCKER.glob("*.Dockerfile"))
MODELS = model_names(DEFAULT_REPOSITORY)

INITIALIZE = """
import json, sys
from unittest.mock import MagicMock

sys.modules["triton_python_backend_utils"] = MagicMock()
import model

model.TritonPythonModel().initialize(json.loads(sys.argv[1]))
"""


def copied(dockerfile: Path) -> set[str]:
    """Sources that a Dockerfile copies from the repository, for every model."""
    text = dockerfile.read_text().replace("\\\n", " ")
    found = set()
    for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            found |= {source.replace("${MODEL}", model) for model in MODELS}
    return found


def pins(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and line[0] not in "#-"]
    return {
        name.lower().replace("_", "-"): version
        for name, version in (
            line.split(";")[0].strip().split("==") for line in lines if "==" in line
        )
    }


def closure(names: set[str]) -> set[str]:
    """Distributions and all that they require here."""
    found: set[str] = set()
    waiting = set(names)
    while waiting:
        name = waiting.pop()
        try:
            required = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # such as CUDA libraries on a machine without
            continue
        found.add(name)
        wanted = map(Requirement, required)
        needed = {
            re.sub(r"[-_.]+", "-", one.name).lower()
            for one in wanted
            if one.marker is None or one.marker.evaluate({"extra": ""})
        }
        waiting |= needed - found
    return found


def link_environment(names: set[str], folder: Path) -> None:
    """Link nothing but these distributions into a folder, as an image's environment has them."""
    for name in names:
        distribution = metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or ()}:
            source = Path(str(distribution.locate_file(top)))
            if source.exists() and top not in {"..", "__pycache__"} and not (folder / top).exists():
                (folder / top).symlink_to(source)


def run_in(folder: Path, *arguments: str, paths: tuple[Path, ...] = ()) -> str:
    """Run Python with an environment's folder and paths alone; return what it says in anger."""
    places = [str(path) for path in (*paths, folder)]
    prepared = f"import sys; sys.path[:0] = {places!r}\n{arguments[0]}"
    command = [sys.executable, "-I", "-S", "-c", prepared, *arguments[1:]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return run.stderr if run.returncode else ""


@pytest.mark.parametrize("dockerfile", FILES, ids=lambda path: path.stem)
def test_a_dockerfile_is_clean(dockerfile):
    run = subprocess.run(
        [tool("hadolint"), str(dockerfile)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("dockerfile", FILES, ids=lambda path: path.stem)
def test_what_is_copied_is_there_and_reaches_the_builder(dockerfile):
    ignored = dockerfile.with_name(dockerfile.name + ".dockerignore").read_text().splitlines()
    sent = [line[1:] for line in ignored if line.startswith("!")]
    assert ignored[0] == "*"
    sources = copied(dockerfile)
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(Path(source).is_relative_to(path) for path in sent), f"{source} is ignored"


def test_bases_have_fixed_versions_and_engines_are_built_with_the_servers_release():
    bases = {
        path.stem: re.search(r"^ARG BASE=(\S+):(\S+)$", path.read_text(), re.MULTILINE)
        for path in FILES
    }
    assert all(base and base[2] != "latest" for base in bases.values())
    assert bases["triton"][2] == bases["engine"][2]


def test_images_run_as_a_user_without_rights():
    for path in FILES:
        users = re.findall(r"^USER (\S+)$", path.read_text(), re.MULTILINE)
        assert users[-1:] == ["1000:1000"], path


@pytest.mark.parametrize("model", MODELS)
def test_every_model_has_its_requirements_as_they_were_tested(model):
    locked = pins(ROOT / "requirements.lock")
    chosen = pins(DOCKER / "requirements" / f"{model}.txt")
    assert chosen.items() <= locked.items()
    assert chosen["numpy"].startswith("1.")  # Triton's Python backend loses outputs under numpy 2


def test_the_engine_builder_has_its_requirements_as_they_were_tested():
    locked = pins(ROOT / "requirements.lock")
    assert pins(DOCKER / "requirements" / "engine.txt").items() <= locked.items()


@pytest.mark.parametrize("model", MODELS)
def test_a_models_environment_is_enough_to_load_it(model, tmp_path):
    if not IS_REQUIRED:
        pytest.skip("imports torch in several processes: make test-deploy")
    installed = closure(set(pins(DOCKER / "requirements" / f"{model}.txt")))
    source = DOCKER / "requirements" / f"{model}.source.txt"  # installed without dependencies
    link_environment(installed | set(pins(source) if source.exists() else ()), tmp_path)
    folder = DEFAULT_REPOSITORY / model
    config = json_format.MessageToJson(
        read_config(folder / "configs" / "cpu.pbtxt"), preserving_proto_field_name=True
    )
    arguments = {
        "model_config": config,
        "model_repository": str(folder),
        "model_instance_kind": "CPU",
        "model_instance_device_id": "0",
        "model_instance_name": f"{model}_0_0",
    }
    paths = (folder / "1", folder)
    assert run_in(tmp_path, INITIALIZE, json.dumps(arguments), paths=paths) == ""


def test_the_engine_builders_environment_is_enough_for_its_command(tmp_path):
    if not IS_REQUIRED:
        pytest.skip("imports torch in a process of its own: make test-deploy")
    environment = tmp_path / "environment"
    environment.mkdir()
    link_environment(closure(set(pins(DOCKER / "requirements" / "engine.txt"))), environment)
    program = "import torch, training.engine.publication, training.engine.toolchain\n"
    program += "import training.engine.command, training.export.inputs, training.__main__"
    assert run_in(environment, program, paths=(ROOT, ROOT / "protos")) == ""


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """What the orchestrator's Dockerfile copies, and nothing else."""
    folder = tmp_path_factory.mktemp("context")
    for source in copied(DOCKER / "orchestrator.Dockerfile"):
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, folder / source)
        else:
            shutil.copy(ROOT / source, folder)
    return folder


def test_the_orchestrators_image_holds_the_orchestrator_and_no_training(context, tmp_path):
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(tmp_path)]
    subprocess.run([*command, str(context)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"orchestrator/server.py", "soccer/v1/player_recognition_pb2.py"} <= set(names)
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"orchestrator", "soccer"}


def test_the_orchestrators_requirements_can_be_had_together(context):
    if not IS_REQUIRED:
        pytest.skip("asks the package index: make test-deploy")
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
    constraint = ["--constraint", str(context / "requirements.lock")]
    run = subprocess.run(
        [*command, *constraint, str(context)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "Would install" in run.stdout
    assert "torch" not in run.stdout.rpartition("Would install")[2]
