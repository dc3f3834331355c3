"""The supervisor of worker processes, with small workers instead of orchestrators."""

import asyncio
import contextlib
import errno
import functools
import os
import signal
import socket
import sys

import pytest

from orchestrator.errors import ClusterError, SettingError
from orchestrator.server import _end_with_supervisor
from orchestrator.settings import ServerSettings
from orchestrator.supervisor import Supervisor, supervise
from tests.patience import until

# A worker that serves its own number, and ends as the real one does.
WORKER = """
import os, signal, socket, sys, threading
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
server.bind(("127.0.0.1", int(os.environ["TOUCHLINE_SERVER__PORT"])))
server.listen()
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(3)), daemon=True).start()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("listening there", flush=True)
while True:
    connection, _ = server.accept()
    connection.sendall(f"{os.environ['TOUCHLINE_SERVER__WORKER']} {os.getpid()}".encode())
    connection.close()
"""


# One that says it listens, and hangs: it obeys no signal that can be disobeyed.
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("listening there", flush=True)
while True:
    time.sleep(600)
"""


async def ask(target):
    host, port = target.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        number, pid = (await reader.read()).split()
        return int(number), int(pid)
    finally:
        writer.close()


async def ask_all(target, count):
    """Connect until each worker has answered; return their pids by number."""
    found = {}
    async with asyncio.timeout(60):
        while len(found) < count:
            try:
                number, pid = await ask(target)
                found[number] = pid
            except (OSError, ValueError):  # one is just ending
                await asyncio.sleep(0.02)
    return found


@contextlib.asynccontextmanager
async def supervising(supervisor, capsys):
    """Run a supervisor; gives its task, and the address that its workers listen on."""
    running = asyncio.create_task(supervisor.run())
    said = ""
    async with asyncio.timeout(60):
        while "\n" not in said and not running.done():
            await asyncio.sleep(0.02)
            said += capsys.readouterr().out
    try:
        yield running, said.split()[1]
    finally:
        supervisor.stop()
        await running


@pytest.fixture
async def supervised(capsys):
    settings = ServerSettings(port=0, workers=2, drain_s=1)
    supervisor = Supervisor(settings, (sys.executable, "-c", WORKER))
    async with supervising(supervisor, capsys) as (running, target):
        yield supervisor, running, target


async def test_workers_share_the_port_and_a_killed_one_is_started_again(supervised):
    _, running, target = supervised
    first = await ask_all(target, 2)
    os.kill(first[0], signal.SIGKILL)
    async with asyncio.timeout(60):
        while (again := await ask_all(target, 2))[0] == first[0]:
            pass
    assert again[1] == first[1]
    assert not running.done()


async def test_a_host_without_a_process_to_spare_costs_no_other_worker(supervised, monkeypatch):
    _, running, target = supervised
    first = await ask_all(target, 2)
    start, refused = asyncio.create_subprocess_exec, []

    async def refuse_once(*command, **options):
        if not refused:
            refused.append(command)
            raise BlockingIOError(errno.EAGAIN, "no process to spare")
        return await start(*command, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse_once)
    os.kill(first[0], signal.SIGKILL)
    async with asyncio.timeout(60):
        while not refused or (again := await ask_all(target, 2))[0] == first[0]:
            await asyncio.sleep(0.02)
            assert not running.done()
    assert again[1] == first[1]


async def test_told_to_stop_it_ends_all_workers(supervised):
    supervisor, running, target = supervised
    workers = await ask_all(target, 2)
    supervisor.stop()
    await asyncio.wait_for(running, 60)
    for pid in workers.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with pytest.raises(ConnectionRefusedError):
        await ask(target)


async def test_a_worker_that_hangs_does_not_keep_the_server_from_ending(monkeypatch, capsys):
    monkeypatch.setattr("orchestrator.supervisor._END_S", 0.2)
    settings = ServerSettings(port=0, workers=2, drain_s=0)
    supervisor = Supervisor(settings, (sys.executable, "-c", STUBBORN))
    async with supervising(supervisor, capsys) as (running, _):
        supervisor.stop()
        await asyncio.wait_for(asyncio.shield(running), 60)


# A worker that can be profiled only once it listens, and that says when it is.
PROFILED = """
import os, signal, sys, threading, time
time.sleep(0.2)
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(3)), daemon=True).start()
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
signal.signal(signal.SIGUSR2, lambda *_: open(f"{sys.argv[1]}/{os.getpid()}", "w").close())
print("listening there", flush=True)
while True:
    time.sleep(10)
"""


async def test_the_signal_for_a_profile_reaches_every_worker_and_ends_nobody(
    tmp_path, capsys, monkeypatch
):
    command = (sys.executable, "-c", PROFILED, str(tmp_path))
    profiled = functools.partial(Supervisor, command=command)
    monkeypatch.setattr("orchestrator.supervisor.Supervisor", profiled)
    running = asyncio.create_task(supervise(ServerSettings(port=0, workers=2, drain_s=1)))
    said = ""
    async with asyncio.timeout(60):
        while "listening" not in said:
            await asyncio.sleep(0.02)
            os.kill(os.getpid(), signal.SIGUSR2)  # those that do not listen yet are spared
            said += capsys.readouterr().out
        os.kill(os.getpid(), signal.SIGUSR2)
        await until(lambda: len(list(tmp_path.iterdir())) == 2)
    assert not running.done()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, 60)


async def test_a_worker_that_cannot_start_is_said_at_once():
    supervisor = Supervisor(ServerSettings(port=0, workers=2), (sys.executable, "-c", "exit(1)"))
    with pytest.raises(ClusterError, match="did not start"):
        await asyncio.wait_for(supervisor.run(), 60)


async def test_a_worker_for_which_the_host_has_no_process_is_said_with_the_reason():
    supervisor = Supervisor(ServerSettings(port=0, workers=2), ("/no/such/program",))
    with pytest.raises(ClusterError, match="cannot be started: .*No such file"):
        await asyncio.wait_for(supervisor.run(), 60)


async def test_a_port_that_is_taken_is_named():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SettingError, match=f"server.port: cannot listen on .*:{port}"):
            await Supervisor(ServerSettings(port=port, workers=2)).run()


async def test_a_worker_stops_when_its_supervisor_is_gone(monkeypatch):
    reading, writing = os.pipe()
    with open(reading) as stdin:  # noqa: ASYNC230, PTH123
        monkeypatch.setattr(sys, "stdin", stdin)
        stopping = asyncio.Event()
        _end_with_supervisor(stopping)
        await asyncio.sleep(0.05)
        assert not stopping.is_set()
        os.close(writing)  # as the kernel does for whoever dies
        await asyncio.wait_for(stopping.wait(), 20)
