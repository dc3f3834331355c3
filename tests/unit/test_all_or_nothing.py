"""What a command leaves in a folder when it ends, or fails."""

from pathlib import Path

import pytest

from orchestrator.cli.outputs import all_or_nothing
from orchestrator.errors import TouchlineError
from tests.unit.test_command_line import names


def test_files_come_together_or_not_at_all(tmp_path):
    folder = tmp_path / "a" / "b"
    with all_or_nothing(folder) as draft:
        (draft / "one").write_text("1")
        assert not (folder / "one").exists()
    with pytest.raises(KeyError), all_or_nothing(folder) as draft:
        _ = {(draft / "one").write_text("2"): "written"}["not found"]
    assert (folder / "one").read_text() == "1"
    assert names(folder) == {"one"}


def test_a_full_disk_is_named_with_the_folder_and_leaves_nothing(tmp_path):
    full = pytest.raises(TouchlineError, match=f"--output: expected room .*{tmp_path}: No space")
    with full, all_or_nothing(tmp_path) as draft, (draft / "begun").open("w"):
        Path("/dev/full").write_text("results")
    assert not names(tmp_path)


def test_another_failure_while_writing_stays_itself(tmp_path):
    with pytest.raises(FileNotFoundError), all_or_nothing(tmp_path):
        (tmp_path / "absent").read_text()
