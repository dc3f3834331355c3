"""What a decoding process may do, know and outlive."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.unit.guarded_decoding import is_running, one


def test_the_nursery_ends_with_its_owner():
    program = (
        "from orchestrator.decode_guard.nursery import Nursery\n"
        "nursery = Nursery(); nursery.prepare(); print(nursery.pid, flush=True)\n"
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    )
    owner = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    pid = int(owner.stdout)
    for _ in range(3000):
        if not is_running(pid) or b"Z" in Path(f"/proc/{pid}/stat").read_bytes():
            break
        time.sleep(0.01)
    else:
        pytest.fail("the nursery outlived its owner by half a minute")


def test_the_nursery_has_one_thread_and_no_secrets(guarded, nursery, monkeypatch):
    monkeypatch.setenv("TOUCHLINE_SECRET", "hunter2")
    nursery.close()
    one(guarded())
    process = Path("/proc", str(nursery.pid))
    assert len(list((process / "task").iterdir())) == 1
    assert b"hunter2" not in (process / "environ").read_bytes()


CONFINED = """
import ctypes, os, resource, socket, sys, numpy as np
from orchestrator.decode_guard.confinement import confine
own, score = open(sys.argv[1], "wb", buffering=0), open("/proc/self/oom_score_adj")
confine(64 << 20)
refused = 0
for forbidden in (
    lambda: open("/etc/hostname"), socket.socket, os.pipe, lambda: os.dup(0),
    lambda: np.ones(100 << 20, np.uint8), lambda: own.write(b"frames"),
):
    try:
        forbidden()
    except (OSError, MemoryError):
        refused += 1
np.ones(10 << 20, np.uint8)
os.write(1, b"frames")
assert ctypes.CDLL(None).prctl(39, 0, 0, 0, 0) == 1  # PR_GET_NO_NEW_PRIVS
assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
assert score.read() == "1000\\n"
os._exit(refused)
"""


def test_a_confined_process_opens_and_tells_nothing_and_takes_bounded_memory(tmp_path):
    command = [sys.executable, "-c", CONFINED, tmp_path / "own"]
    ended = subprocess.run(command, stdout=subprocess.PIPE)
    assert (ended.returncode, ended.stdout) == (6, b"")
