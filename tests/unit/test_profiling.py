import os
import signal
import threading
import time

import pytest

from orchestrator import profiling
from orchestrator.profiling import Profiler, profiling_on_signal
from orchestrator.settings import ProfilingSettings


def _spin_here(ending: threading.Event) -> None:
    while not ending.is_set():
        sum(range(1000))


@pytest.fixture(name="busy_thread")
def _busy_thread():
    ending = threading.Event()
    thread = threading.Thread(target=_spin_here, args=(ending,))
    thread.start()
    yield
    ending.set()
    thread.join()


def _await(condition) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_second_signal_ends_the_profile_that_the_first_started(tmp_path, busy_thread):
    with profiling_on_signal(ProfilingSettings(directory=tmp_path / "profiles")):
        os.kill(os.getpid(), signal.SIGUSR2)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGUSR2)
        _await(lambda: list(tmp_path.glob("profiles/profile-*.txt")))
    (path,) = tmp_path.glob("profiles/*")
    stacks = [line.rsplit(" ", 1) for line in path.read_text().splitlines()]
    assert any("test_profiling._spin_here" in stack and int(count) > 3 for stack, count in stacks)


def test_a_profile_ends_by_itself_and_the_oldest_file_goes(tmp_path):
    (tmp_path / "profile-1-1.txt").touch()
    (tmp_path / "profile-2-1.txt").touch()
    profiler = Profiler(ProfilingSettings(directory=tmp_path, duration_s=0.05, max_files=2))
    profiler.toggle()
    _await(lambda: not (tmp_path / "profile-1-1.txt").exists())
    assert (tmp_path / "profile-2-1.txt").exists()
    assert len(list(tmp_path.iterdir())) == 2
    profiler.stop()


def test_the_number_of_stacks_is_bounded(tmp_path, monkeypatch, busy_thread):
    monkeypatch.setattr(profiling, "_MAX_STACKS", 1)
    profiler = Profiler(ProfilingSettings(directory=tmp_path, duration_s=0.3))
    profiler.toggle()
    _await(lambda: list(tmp_path.iterdir()))
    profiler.stop()
    (path,) = tmp_path.iterdir()
    assert len(path.read_text().splitlines()) == 2
    assert "(other stacks)" in path.read_text()


def test_without_a_directory_the_signal_is_ignored():
    with profiling_on_signal(ProfilingSettings()):
        os.kill(os.getpid(), signal.SIGUSR2)
        time.sleep(0.01)
    assert all(thread.name != "profiler" for thread in threading.enumerate())


def test_a_directory_that_cannot_be_written_ends_nothing(tmp_path, caplog):
    (tmp_path / "file").touch()
    profiler = Profiler(ProfilingSettings(directory=tmp_path / "file", duration_s=0.01))
    profiler.toggle()
    profiler.stop()
    assert "profiling.directory: cannot write" in caplog.text
