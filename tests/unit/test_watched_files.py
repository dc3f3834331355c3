"""Files that are read again when they change, however they changed."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from orchestrator.security.files import WatchedFiles


@pytest.fixture
def path(tmp_path) -> Path:
    path = tmp_path / "secret"
    path.write_text("old")
    return path


@pytest.fixture
def clock(path, monkeypatch) -> SimpleNamespace:
    """The time, and how long ago the file was changed, as a test sets them."""
    clock = SimpleNamespace(now_s=0.0, change_age_s=1.0)
    clock.monotonic = lambda: clock.now_s
    clock.time_ns = lambda: path.stat().st_ctime_ns + round(1e9 * clock.change_age_s)
    monkeypatch.setattr("orchestrator.security.files.time", clock)
    return clock


def watched(path: Path, reload_s: float = 0) -> WatchedFiles[bytes]:
    parse = itemgetter("a.file")
    return WatchedFiles({"a.file": path}, parse, reload_s=reload_s)


def outlast_a_tick() -> None:
    """Wait until a change of a file has another time than the last one."""
    time.sleep(0.05)


@contextmanager
def failing_reads(monkeypatch, error: OSError) -> Iterator[None]:
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(Path, "read_bytes", Mock(side_effect=error))
        yield


def test_a_file_is_read_once_its_rights_allow_it(path, monkeypatch, caplog):
    files = watched(path)
    outlast_a_tick()
    path.write_text("new")
    with failing_reads(monkeypatch, PermissionError(13, "Permission denied")):
        assert files.current() == b"old"
    assert "a.file: cannot read" in caplog.text
    outlast_a_tick()
    path.chmod(0o600)
    assert files.current() == b"new"


def test_a_file_is_read_once_the_process_can_again(path, monkeypatch, caplog):
    files = watched(path)
    outlast_a_tick()
    path.write_text("new")
    with failing_reads(monkeypatch, OSError(24, "Too many open files")):
        assert [files.current() for _ in range(3)] == [b"old"] * 3
    assert caplog.text.count("a.file: cannot read") == 1
    assert files.current() == b"new"


def test_a_change_that_hides_its_time_is_seen(path):
    files, before = watched(path), path.stat()
    outlast_a_tick()
    path.write_text("new")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert files.current() == b"new"


def test_a_file_that_is_being_written_is_not_read_yet(path, clock):
    files = watched(path, reload_s=5)
    outlast_a_tick()
    path.write_bytes(b"")
    clock.now_s, clock.change_age_s = 5, 0.01
    assert files.current() == b"old"
    path.write_text("new")
    clock.change_age_s = 0.11
    assert files.current() == b"new"


def test_files_are_looked_at_only_as_often_as_they_are_to_be(path, clock):
    files = watched(path, reload_s=5)
    clock.now_s = 5
    assert files.current() == b"old"
    outlast_a_tick()
    path.write_text("new")
    clock.now_s = 9.9
    assert files.current() == b"old"
    clock.now_s = 10
    assert files.current() == b"new"
