"""The doctor's findings and remedies."""

import os
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import pytest

from deploy.local import doctor
from deploy.local.doctor import Check


class DiskUsage(NamedTuple):
    total: int
    used: int
    free: int


def write_model(root: Path, name: str, config: str) -> None:
    (root / name / "configs").mkdir(parents=True)
    (root / name / "configs" / "cpu.pbtxt").write_text(config)


def with_weights(value: str) -> str:
    return f'parameters {{ key: "weights" value {{ string_value: "{value}" }} }}\n'


def test_this_environment_passes_and_only_failures_have_remedies(tmp_path: Path) -> None:
    write_model(tmp_path, "tracker", with_weights("random"))
    found = {check.name: check for check in doctor.checks(tmp_path)}
    expected = ("Python", "numpy", "protobuf", "tritonserver", "Python stub", "video codecs")
    assert [name for name in expected if not found[name].ok] == []
    assert found["import torch"].ok
    assert found["import sam2.build_sam"].ok
    assert all(check.ok == (check.remedy == "") for check in found.values())


@pytest.mark.parametrize(("version", "ok"), [("1.26.4", True), ("1.25.2", False), ("2.0.0", False)])
def test_numpy_must_be_older_than_2(
    version: str, ok: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "version", lambda _: version)
    check = doctor.check_package("numpy", (1, 26), (2,))
    remedy = "" if ok else "pip install 'numpy>=1.26,<2'"
    assert check == Check("numpy", ok, version, remedy)


def test_a_missing_package_is_a_finding() -> None:
    check = doctor.check_package("no-such-package-here", (1,), (2,))
    assert (check.ok, check.detail) == (False, "not installed")


def test_an_old_glibc_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "confstr", lambda _: "glibc 2.31")
    check = doctor.check_glibc()
    assert (check.ok, check.detail) == (False, "glibc 2.31")
    assert "Debian 12" in check.remedy


def test_a_missing_wheel_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.local.triton_wheel.DISTRIBUTION", "no-such-package-here")
    (check,) = doctor.check_tritonserver()
    assert not check.ok
    assert "no-such-package-here" in check.detail
    assert check.remedy == "pip install 'touchline[serving]'"


def test_a_missing_library_of_the_stub_comes_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ldd = tmp_path / "ldd"
    ldd.write_text("#!/bin/sh\nprintf '\\tlibpython3.11.so.1.0 => not found\\n'\n")
    ldd.chmod(0o755)
    monkeypatch.setattr(sys, "prefix", "/nowhere")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    _, stub = doctor.check_tritonserver()
    assert not stub.ok
    assert "lacks libpython3.11.so.1.0" in stub.detail
    assert stub.remedy == "apt-get install libpython3.11"


def test_a_module_that_does_not_import_is_a_finding() -> None:
    good, bad = doctor.check_imports(("json", "no_such_module_here"))
    assert good == Check("import json", ok=True, detail="ok")
    assert not bad.ok
    assert "ModuleNotFoundError" in bad.detail


def test_a_module_that_crashes_the_interpreter_is_a_finding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    (check,) = doctor.check_imports(("torch",))
    assert (check.ok, check.detail) == (False, "the interpreter ended with exit code 1")


def test_the_shared_memory_of_a_plain_container_is_too_small(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: DiskUsage(64 << 20, 0, 64 << 20))
    check = doctor.check_shared_memory()
    assert (check.ok, check.detail) == (False, "64 MiB free of 64 MiB")
    assert "--shm-size" in check.remedy


def test_one_core_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert not doctor.check_cores().ok


def test_weights_are_looked_for_where_the_config_says(tmp_path: Path) -> None:
    write_model(tmp_path, "a_present", with_weights("weights/demo.onnx"))
    (tmp_path / "a_present" / "weights").mkdir()
    (tmp_path / "a_present" / "weights" / "demo.onnx").write_bytes(b"onnx")
    write_model(tmp_path, "b_missing", with_weights("weights/demo.onnx"))
    write_model(tmp_path, "c_none", "")
    write_model(tmp_path, "d_invalid", "max_batch_size: many")
    found = list(doctor.check_weights(tmp_path, "cpu"))
    assert [check.ok for check in found] == [True, False, True, False]
    assert "b_missing/weights/demo.onnx is missing" in found[1].detail
    assert "d_invalid/configs/cpu.pbtxt" in found[3].detail


def test_a_missing_repository_is_a_finding(tmp_path: Path) -> None:
    (check,) = doctor.check_weights(tmp_path / "nowhere", "cpu")
    assert (check.name, check.ok) == ("models", False)
