"""The registry says what weights are, and notices every file that is another one."""

import json
from pathlib import Path

import pytest

from training.__main__ import main
from training.checksum import sha256_of
from training.errors import InputError
from training.weights.registry import (
    MANIFEST,
    MODEL_REPOSITORY,
    Entry,
    File,
    Registry,
    differences,
    read_registry,
    record,
    state,
)

OURS = [entry for entry in read_registry().entries if entry.is_ours]


def of_bytes(path: str, data: bytes, folder: Path) -> File:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return File(path=path, size=len(data), sha256=sha256_of(file))


def published(name: str, files: list[File]) -> Entry:
    return Entry(
        name=name,
        models=("sam2_tracker",),
        role="serve",
        licence="Apache-2.0",
        publisher="Meta",
        source=f"hub:facebook/{name}",
        revision="main",
        files=tuple(files),
    )


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def entry(store: Path) -> Entry:
    files = [of_bytes("a.pt", b"weights", store / "net"), of_bytes("b.json", b"{}", store / "net")]
    return published("net", files)


@pytest.mark.parametrize("ours", OURS, ids=lambda entry: entry.name)
def test_the_committed_weights_are_the_registered_ones(ours: Entry):
    """After training: `touchline weights record`."""
    assert list(differences(ours, MODEL_REPOSITORY)) == []
    assert ours.card is not None
    assert (MODEL_REPOSITORY / ours.card).is_file()


def test_every_model_has_demo_weights_of_at_most_32_mb_together():
    assert {model for entry in OURS for model in entry.models} == {
        config.parent.name for config in MODEL_REPOSITORY.glob("*/config.pbtxt")
    }
    assert sum(file.size for entry in OURS for file in entry.files) <= 32e6


def test_torchvision_file_names_carry_the_registered_hash():
    files = [
        entry.files[0]
        for entry in read_registry().entries
        if entry.source.startswith("torchvision:")
    ]
    assert len(files) == 3
    assert all(file.sha256.startswith(file.path[-12:-4]) for file in files)


def test_a_changed_byte_is_found_only_by_reading(entry: Entry, store: Path):
    assert state(entry, store / "net", hashing=True) == "verified"
    (store / "net" / "a.pt").write_bytes(b"weightz")
    assert state(entry, store / "net", hashing=False) == "present"
    assert state(entry, store / "net", hashing=True) == "changed"


def test_missing_and_incomplete_are_told_apart(entry: Entry, store: Path):
    (store / "net" / "b.json").unlink()
    assert state(entry, store / "net", hashing=False) == "incomplete"
    assert state(entry, store / "other", hashing=False) == "missing"


def test_a_difference_names_both_hashes(entry: Entry, store: Path):
    (store / "net" / "a.pt").write_bytes(b"short")
    (line,) = differences(entry, store / "net")
    assert entry.files[0].sha256 in line
    assert sha256_of(store / "net" / "a.pt") in line


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"sha256": "33b3"}, "files.0.sha256"),
        ({"size": 0}, "files.0.size"),
        ({"path": "../../etc/passwd"}, "expected one inside the entry's folder"),
        ({"md5": "0" * 32}, "files.0.md5"),
    ],
)
def test_a_wrong_manifest_is_refused_naming_file_and_field(tmp_path, change, complaint):
    manifest = json.loads(MANIFEST.read_text())
    manifest["entries"][0]["files"][0].update(change)
    path = tmp_path / "registry.json"
    path.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=f"registry.json: (.|\n)*{complaint}"):
        read_registry(path)


def test_two_entries_of_one_name_are_refused(entry: Entry):
    with pytest.raises(ValueError, match="unique names, repeated: \\['net'\\]"):
        Registry(entries=(entry, entry))


def test_recording_renews_our_hashes_and_nobody_elses(entry: Entry, tmp_path: Path):
    repository = tmp_path / "repository"
    ours = published("demo", [of_bytes("m/weights/demo.onnx", b"old", repository)]).model_copy(
        update={"source": "repository"}
    )
    (repository / "m/weights/demo.onnx").write_bytes(b"trained anew")
    renewed = record(Registry(entries=(entry, ours)), [], repository)
    assert renewed.entries[0] == entry
    assert renewed.entries[1].files[0].size == len(b"trained anew")
    assert not list(differences(renewed.entries[1], repository))
    with pytest.raises(InputError, match="only weights of this repository"):
        record(Registry(entries=(entry,)), ["net"])


def test_the_commands_list_and_verify(entry: Entry, store: Path, tmp_path: Path, capsys):
    manifest = tmp_path / "registry.json"
    manifest.write_text(
        Registry(entries=(entry, published("far", list(entry.files)))).model_dump_json()
    )
    places = ["--registry", str(manifest), "--store", str(store)]
    assert main(["weights", "list", *places]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert any("net" in row and "present" in row and "Apache-2.0" in row for row in rows)
    assert any("far" in row and "missing" in row for row in rows)

    assert main(["weights", "verify", *places]) == 0
    assert capsys.readouterr().out.splitlines() == ["net: verified", "far: missing"]
    assert main(["weights", "verify", "far", *places]) == 1
    (store / "net" / "a.pt").write_bytes(b"tampered")
    assert main(["weights", "verify", *places]) == 1
    assert entry.files[0].sha256 in capsys.readouterr().out
    assert main(["weights", "verify", "nett", *places]) == 1
    assert "weights 'nett': expected one of net, far" in capsys.readouterr().err
