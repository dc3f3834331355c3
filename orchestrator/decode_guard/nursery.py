"""The process from which decode workers are forked.

The serving process, full of threads, must not fork; a fresh interpreter per stream would cost a
fifth of a second. The nursery is one such interpreter, with all codecs loaded and nothing else,
whose forks take milliseconds and share its memory.
"""

import atexit
import contextlib
import os
import socket
import subprocess
import sys
import threading
from typing import TypeVar

from pydantic import BaseModel

from orchestrator.decode_guard.orders import Born, End, Ended, Fork

_WORKER_MODULE = "orchestrator.decode_guard.worker"
_ANSWER_TIMEOUT_S = 20.0
"""A fork takes milliseconds, the nursery's start a second on a busy machine."""
_MOST_ANSWER_BYTES = 4096
_ENVIRONMENT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "TZ")
"""Settings, some of them secret, are not for a process that reads strangers' bytes."""
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""A process with threads cannot be forked safely."""

_Reply = TypeVar("_Reply", bound=BaseModel)


class Nursery:
    """Forks workers and ends them; started when first needed, and anew if it dies. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the nursery; None while there is none."""
        return self._process.pid if self._process else None

    def prepare(self) -> None:
        """Start now rather than with the first stream; returns while the nursery loads."""
        with self._lock:
            if self._control is None:
                self._start()

    def fork(self, order: Fork, channel: int, memory: int) -> int:
        """Make a worker and return its process id.

        Args:
            order: What it is for.
            channel: Descriptor of its side of the channel; stays the caller's.
            memory: Descriptor of the ring's memory; likewise.

        Raises:
            OSError: No process could be made.
        """
        with self._lock:
            try:
                pid = self._ask(order, Born, [channel, memory]).pid
            except OSError:
                self._stop()  # it was killed, or hangs: a new one is tried once
                pid = self._ask(order, Born, [channel, memory]).pid
        if pid is None:
            raise OSError("the host has no process to spare")
        return pid

    def end(self, pid: int) -> int | None:
        """Kill a worker and return its exit code, negative for a signal.

        Returns:
            None if the nursery that knew it is gone, too.
        """
        with self._lock:
            if self._process is None:
                return None
            try:
                return self._ask(End(pid=pid), Ended).exit_code
            except OSError:
                self._stop()
                return None

    def close(self) -> None:
        """End the nursery. Its workers end when their channels are closed."""
        with self._lock:
            self._stop()

    def _ask(
        self, order: BaseModel, reply: type[_Reply], descriptors: list[int] | None = None
    ) -> _Reply:
        control = self._control or self._start()
        socket.send_fds(control, [order.model_dump_json().encode()], descriptors or [])
        answer = control.recv(_MOST_ANSWER_BYTES)
        if not answer:
            raise ConnectionError("the decode nursery is gone")
        return reply.model_validate_json(answer)

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            inherited = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
            self._process = subprocess.Popen(
                [sys.executable, "-m", _WORKER_MODULE, str(theirs.fileno())],
                env=inherited | _ONE_THREAD,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # ^C in a terminal is for the server, which then closes
            )
        ours.settimeout(_ANSWER_TIMEOUT_S)
        self._control = ours
        return ours

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_ANSWER_TIMEOUT_S)
        self._control = self._process = None


NURSERY = Nursery()
"""The one nursery of this process."""
atexit.register(NURSERY.close)
