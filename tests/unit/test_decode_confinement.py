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
import os, socket, numpy as np
from orchestrator.decode_guard.confinement import confine
confine(64 << 20)
refused = 0
for forbidden in (
    lambda: open("/etc/hostname"), socket.socket, os.pipe, lambda: os.dup(0),
    lambda: np.ones(100 << 20, np.uint8),
):
    try:
        forbidden()
    except (OSError, MemoryError):
        refused += 1
np.ones(10 << 20, np.uint8)
os._exit(refused)
"""


def test_a_confined_process_opens_nothing_and_takes_bounded_memory():
    assert subprocess.run([sys.executable, "-c", CONFINED]).returncode == 5
