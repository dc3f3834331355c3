"""The init container copies what is right for the pod, and stops its start otherwise."""

import functools
import hashlib
import http.server
import json
import os
import shutil
import threading
from pathlib import Path

import pytest

from deploy.docker.pod.fetch_artefact import (
    ArtefactError,
    Machine,
    fetch_engine,
    fetch_weights,
    main,
    this_machine,
)
from training.engine import store, toolchain

H200 = Machine("11.4.0", "90")
ONNX = "ab" * 32
PLAN = b"a plan"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def weights(tmp_path):
    """A store with weights of one file and of two, and their registry."""
    files = {"sam2": {"sam2.pt": b"a"}, "siglip": {"config.json": b"{}", "model.bin": b"b" * 3000}}
    entries = []
    for name, contents in files.items():
        folder = tmp_path / "store" / name
        folder.mkdir(parents=True)
        for path, data in contents.items():
            (folder / path).write_bytes(data)
        described = [{"path": path, "sha256": sha256(data)} for path, data in contents.items()]
        entries.append({"name": name, "files": described})
    registry = tmp_path / "registry.json"
    registry.write_text(json.dumps({"entries": entries}))
    return tmp_path / "store", registry


@pytest.fixture
def engines(tmp_path):
    """Engines as `touchline engine build` publishes them, for three kinds of machine."""
    machines = (("11.4.0.106", "90"), ("11.4.0.106", "89"), ("10.13.3.9", "90"))
    for version, capability in machines:
        built_on = toolchain.Machine(tensorrt=version, gpu="GPU", capability=capability)
        manifest = store.Manifest(
            model="rfdetr_detector",
            onnx_sha256=ONNX,
            plan_sha256=sha256(PLAN),
            machine=built_on,
            precision="fp16",
            profile={"min": 1, "opt": 8, "max": 32},
            options={},
            build_s=1.0,
            figures={},
            thresholds={},
            compared_inputs=1,
            built_at="2026-01-01T00:00:00+00:00",
            touchline="0.1.0",
        )
        store.publish(PLAN, manifest, tmp_path / "engines")
    return tmp_path / "engines"


def test_one_file_lands_in_the_folder_of_weights_and_several_in_one_of_their_own(weights, tmp_path):
    source, registry = weights
    fetch_weights("sam2", str(source), tmp_path / "out", registry)
    fetch_weights("siglip", str(source), tmp_path / "out", registry)
    assert (tmp_path / "out/sam2.pt").read_bytes() == b"a"
    assert (tmp_path / "out/siglip/model.bin").read_bytes() == b"b" * 3000


def test_the_production_configs_name_what_the_init_container_brings():
    text = (Path(__file__).parents[2] / "training/weights/registry.json").read_text()
    entries = {
        entry["name"]: [file["path"] for file in entry["files"]]
        for entry in json.loads(text)["entries"]
    }
    assert entries["sam2.1-hiera-base-plus"] == ["sam2.1_hiera_base_plus.pt"]
    assert len(entries["siglip-base-patch16-224"]) > 1  # so it lands in a folder of this name


def test_weights_come_from_a_web_address_too(weights, tmp_path):
    source, registry = weights
    handler = functools.partial(QuietHandler, directory=str(source))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        (file,) = fetch_weights("sam2", url, tmp_path / "out", registry)
        (source / "sam2/sam2.pt").unlink()
        with pytest.raises(ArtefactError, match=r"/sam2/sam2\.pt: cannot be copied .*404"):
            fetch_weights("sam2", url, tmp_path / "out", registry)
        server.shutdown()
    assert file.read_bytes() == b"a"


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class BreakingHandler(QuietHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"100\r\nless than that")
        self.close_connection = True


def test_a_connection_that_breaks_is_told_with_its_file(weights, tmp_path):
    _, registry = weights
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), BreakingHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(ArtefactError, match=r"/sam2/sam2\.pt: cannot be copied .*Incomplete"):
            fetch_weights("sam2", url, tmp_path / "out", registry)
        server.shutdown()
    assert list((tmp_path / "out").iterdir()) == []


def test_changed_weights_are_refused_and_not_left_behind(weights, tmp_path):
    source, registry = weights
    (source / "sam2/sam2.pt").write_bytes(b"another")
    with pytest.raises(ArtefactError, match=rf"expected sha256 {sha256(b'a')}, found"):
        fetch_weights("sam2", str(source), tmp_path / "out", registry)
    assert list((tmp_path / "out").iterdir()) == []


def test_unknown_weights_are_refused_with_the_known_ones(weights, tmp_path):
    source, registry = weights
    with pytest.raises(ArtefactError, match="weights 'sam3': expected one of sam2, siglip"):
        fetch_weights("sam3", str(source), tmp_path / "out", registry)


def test_the_engine_of_this_tensorrt_and_gpu_is_chosen(engines, tmp_path):
    plan, manifest = fetch_engine("rfdetr_detector", ONNX[:16], engines, tmp_path / "1", H200)
    assert plan.read_bytes() == PLAN
    assert plan.name == "model.plan"
    machine = json.loads(manifest.read_text())["machine"]
    assert (machine["tensorrt"], machine["capability"]) == ("11.4.0.106", "90")


def test_an_engine_that_is_being_written_is_not_seen(engines, tmp_path):
    (published,) = (
        path for path in engines.iterdir() if "sm90" in path.name and "11.4" in path.name
    )
    shutil.copytree(published, engines / ".partial-1")
    plan, _ = fetch_engine("rfdetr_detector", ONNX[:16], engines, tmp_path / "1", H200)
    assert plan.read_bytes() == PLAN


@pytest.mark.parametrize(
    "machine", [Machine("11.4.0", "80"), Machine("11.5.0", "90"), Machine("10.13.4.1", "90")]
)
def test_an_engine_for_another_machine_ends_the_start_and_says_what_there_is(
    engines, tmp_path, machine
):
    with pytest.raises(ArtefactError) as refusal:
        fetch_engine("rfdetr_detector", ONNX, engines, tmp_path / "1", machine)
    text = str(refusal.value)
    assert f"TensorRT {machine.tensorrt} on compute capability {machine.capability}" in text
    assert f"{ONNX[:16]}-trt11.4.0.106-sm90" in text
    assert not (tmp_path / "1").exists()


@pytest.mark.parametrize(
    ("model", "onnx"), [("resnet_jersey", ONNX), ("rfdetr_detector", "cd" * 32)]
)
def test_an_engine_of_another_model_or_graph_is_not_taken(engines, tmp_path, model, onnx):
    with pytest.raises(ArtefactError, match="built from that file: none"):
        fetch_engine(model, onnx, engines, tmp_path / "1", H200)


def test_a_changed_plan_is_refused(engines, tmp_path):
    (engines / f"{ONNX[:16]}-trt11.4.0.106-sm90" / "model.plan").write_bytes(b"a plot")
    with pytest.raises(ArtefactError, match="expected sha256"):
        fetch_engine("rfdetr_detector", ONNX, engines, tmp_path / "1", H200)


def test_a_graph_that_was_never_chosen_is_said_so(engines, tmp_path):
    with pytest.raises(ArtefactError, match="onnx 'unset': expected the ONNX file's sha256"):
        fetch_engine("rfdetr_detector", "unset", engines, tmp_path / "1", H200)


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "{}", '{"model": "m", "onnx_sha256": "", "plan_sha256": "", "machine": {}}'],
)
def test_a_broken_manifest_of_another_engine_stops_no_pod(engines, tmp_path, content):
    (engines / "other").mkdir()
    (engines / "other" / "manifest.json").write_text(content)
    plan, _ = fetch_engine("rfdetr_detector", ONNX[:16], engines, tmp_path / "1", H200)
    assert plan.read_bytes() == PLAN
    with pytest.raises(ArtefactError, match=r"one engine .*other/manifest\.json: expected"):
        fetch_engine("rfdetr_detector", "0" * 16, engines, tmp_path / "1", H200)


def test_a_broken_manifest_is_named(engines, tmp_path):
    (engines / f"{ONNX[:16]}-trt11.4.0.106-sm90" / "manifest.json").write_text("{}")
    with pytest.raises(ArtefactError, match=r"manifest\.json: expected the fields machine, model"):
        fetch_engine("rfdetr_detector", ONNX, engines, tmp_path / "1", H200)


@pytest.fixture
def gpu(tmp_path, monkeypatch):
    """An `nvidia-smi` that knows one GPU."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 9.0\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("TRT_VERSION", "11.4.0.106+cuda13.4")


def test_the_machine_is_what_image_and_driver_say(gpu):
    assert this_machine() == Machine("11.4.0.106", "90")


def test_a_pod_without_gpu_or_tensorrt_says_so(gpu, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ArtefactError, match="expected a GPU in this container"):
        this_machine()
    monkeypatch.delenv("TRT_VERSION")
    with pytest.raises(ArtefactError, match="TRT_VERSION: expected the TensorRT version"):
        this_machine()


def test_the_command_line_copies_an_engine_and_fails_with_a_sentence(
    gpu, engines, tmp_path, capsys
):
    command = ["engine", "rfdetr_detector", f"--source={engines}", f"--output={tmp_path / '1'}"]
    assert main([*command, f"--onnx={ONNX}"]) == 0
    assert "verified" in capsys.readouterr().out
    shutil.rmtree(engines)
    assert main([*command, f"--onnx={ONNX}"]) == 1
    assert "Run the engine job on this GPU type first" in capsys.readouterr().err


def test_the_command_line_copies_weights(weights, tmp_path):
    source, registry = weights
    places = [f"--source={source}/", f"--output={tmp_path / 'out'}", f"--registry={registry}"]
    assert main(["weights", "sam2", *places]) == 0
    assert (tmp_path / "out/sam2.pt").exists()
