"""Worker processes on one port: started, watched, started again, and ended together.

The kernel spreads the connections over them (SO_REUSEPORT); each is a whole orchestrator with
memory, metrics and a Triton client of its own. What tenants use they count together, in files of a
directory that ends with the supervisor (`orchestrator.ledger`). A worker whose supervisor died
notices that its standard input ended, and drains.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import Iterator, Sequence

from orchestrator.errors import ClusterError, SettingError
from orchestrator.settings import ServerSettings

_WORKER = (sys.executable, "-m", "orchestrator")
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_STEADY_S = 60.0
"""A worker that lived this long has its next crash forgiven like a first one."""
_END_S = 10.0
"""What a worker may take to end, on top of its drain."""

log = logging.getLogger(__name__)


class Supervisor:
    """Runs the workers of one server.

    Args:
        settings: Address and number of workers.
        command: Starts one worker.
    """

    def __init__(self, settings: ServerSettings, command: Sequence[str] = _WORKER) -> None:
        self._settings = settings
        self._command = tuple(command)
        self._stopping = asyncio.Event()
        self._processes: dict[int, Process] = {}
        self._listening: set[int] = set()

    def stop(self) -> None:
        """Have all workers drain and end; those that do not are killed."""
        self._stopping.set()
        self._signal_all(signal.SIGTERM)
        patience_s = self._settings.drain_s + _END_S
        asyncio.get_running_loop().call_later(patience_s, self._signal_all, signal.SIGKILL)

    def profile(self) -> None:
        """Have all workers begin a profile, or end the one that they take.

        One that does not listen yet may not obey the signal yet, and would die of it.
        """
        for number in self._listening:
            _signal(self._processes[number], signal.SIGUSR2)

    async def run(self) -> None:
        """Run until `stop`; says `listening HOST:PORT` once all workers do.

        Raises:
            ClusterError: A worker could not be started at first.
            SettingError: The port cannot be had.
        """
        with (
            reserved(self._settings.host, self._settings.port) as port,
            tempfile.TemporaryDirectory() as directory,
        ):
            common = {
                "TOUCHLINE_SERVER__PORT": str(port),
                "TOUCHLINE_SERVER__WORKER_DIRECTORY": directory,
            }
            environments = [
                {**os.environ, **common, "TOUCHLINE_SERVER__WORKER": str(number)}
                for number in range(self._settings.workers)
            ]
            try:
                await self._run_all(environments, f"{self._settings.host}:{port}")
            except* ClusterError as errors:
                raise errors.exceptions[0] from errors
            finally:
                self.stop()
                await asyncio.gather(*(process.wait() for process in self._processes.values()))

    async def _run_all(self, environments: list[dict[str, str]], target: str) -> None:
        async with asyncio.TaskGroup() as tasks:
            starts = [self._start(number, env) for number, env in enumerate(environments)]
            started = await asyncio.gather(*map(tasks.create_task, starts))
            if not self._stopping.is_set():
                if not all(started):
                    raise ClusterError("a worker did not start; its log says why")
                sys.stdout.write(f"listening {target}\n")
                sys.stdout.flush()
            for number, env in enumerate(environments):
                tasks.create_task(self._keep_running(number, env))

    async def _start(self, number: int, environment: dict[str, str]) -> bool:
        """Start a worker and return whether it listens; False if it ended instead.

        Raises:
            ClusterError: The host has no process to spare.
        """
        self._listening.discard(number)
        try:
            process = self._processes[number] = await asyncio.create_subprocess_exec(
                *self._command,
                env=environment,
                stdin=asyncio.subprocess.PIPE,  # held open for as long as this process lives
                stdout=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise ClusterError(f"worker {number} cannot be started: {error}") from error
        if self._stopping.is_set():
            _signal(process, signal.SIGTERM)
        assert process.stdout is not None
        line = await process.stdout.readline()
        if line.startswith(b"listening "):
            self._listening.add(number)
        return number in self._listening

    async def _keep_running(self, number: int, environment: dict[str, str]) -> None:
        """Start a worker again whenever it ends, ever more slowly while it keeps ending."""
        pause_s, begun = _FIRST_PAUSE_S, time.monotonic()
        while True:
            code = await self._processes[number].wait()
            if self._stopping.is_set():
                return
            if time.monotonic() - begun >= _STEADY_S:
                pause_s = _FIRST_PAUSE_S
            log.warning("worker %d ended with code %s; again in %.1f s", number, code, pause_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)
                return
            pause_s, begun = min(2 * pause_s, _LONGEST_PAUSE_S), time.monotonic()
            try:
                await self._start(number, environment)
            except ClusterError as error:  # later, perhaps
                log.warning("%s", error)

    def _signal_all(self, number: signal.Signals) -> None:
        for process in self._processes.values():
            _signal(process, number)


async def supervise(settings: ServerSettings) -> None:
    """Run the workers until SIGTERM or SIGINT; SIGUSR2 is for them. Raises as `Supervisor.run`."""
    supervisor, loop = Supervisor(settings), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.stop)
    loop.add_signal_handler(signal.SIGUSR2, supervisor.profile)
    await supervisor.run()


@contextlib.contextmanager
def reserved(host: str, port: int, *, is_shared: bool = True) -> Iterator[int]:
    """Hold a port without listening; gives its number, which is a free one's for port 0.

    Args:
        host: To listen on.
        port: The port.
        is_shared: Whether other sockets that share it, too, may listen there meanwhile.

    Raises:
        SettingError: The port cannot be had.
    """
    sharing = socket.SO_REUSEPORT if is_shared else socket.SO_REUSEADDR
    with contextlib.ExitStack() as held:
        try:
            family, kind, _, _, address = socket.getaddrinfo(
                host.strip("[]"), port, type=socket.SOCK_STREAM
            )[0]
            reservation = held.enter_context(socket.socket(family, kind))
            reservation.setsockopt(socket.SOL_SOCKET, sharing, 1)
            reservation.bind(address)
        except OSError as error:
            problem = f"cannot listen on {host}:{port}: {error.strerror}"
            raise SettingError("server.port", problem) from error
        yield reservation.getsockname()[1]


def _signal(process: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended
        process.send_signal(number)
