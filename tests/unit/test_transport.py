"""Shared memory is reused, bounded, and never left behind."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.errors import ModelUnavailableError
from orchestrator.settings.triton import TritonTlsSettings
from orchestrator.triton.connection import Connections
from orchestrator.triton.transport import SharedMemoryPool
from tests.unit.fake_triton import fake_tritons
from tests.unit.test_pool import ask, client

SHM = Path("/dev/shm")


def mine() -> set[str]:
    return {path.name for path in SHM.glob(f"touchline-frames-{os.getpid()}-*")}


def test_regions_are_reused():
    pool = SharedMemoryPool(1 << 20)
    first = pool.acquire(100_000)
    assert first is not None
    assert first.byte_size == 1 << 17
    pool.release(first)
    assert pool.acquire(70_000) is first
    pool.close()


def test_what_is_written_is_seen_through_the_file():
    pool = SharedMemoryPool(1 << 20)
    region = pool.acquire(1 << 16)
    assert region is not None
    region.buffer[:5] = list(b"frame")
    assert (SHM / region.name).read_bytes()[:5] == b"frame"
    pool.close()


def test_the_bound_holds_and_closing_removes_everything():
    pool = SharedMemoryPool(300_000)
    regions = [pool.acquire(1 << 17) for _ in range(4)]
    assert [region is not None for region in regions] == [True, True, False, False]
    assert len(mine()) == 2
    pool.close()
    assert mine() == set()


def test_regions_of_a_killed_process_are_swept():
    script = (
        "import os, signal; from orchestrator.triton.transport import SharedMemoryPool\n"
        "SharedMemoryPool(1 << 20).acquire(1); os.kill(os.getpid(), signal.SIGKILL)"
    )
    process = subprocess.run([sys.executable, "-c", script], check=False)
    assert process.returncode == -9
    left = [p for p in SHM.glob("touchline-frames-*") if p.name.split("-")[2] != str(os.getpid())]
    SharedMemoryPool(1 << 20).close()
    assert left
    assert not any(
        path.exists() for path in left if not Path("/proc", path.name.split("-")[2]).exists()
    )


def test_what_others_left_does_not_keep_us_from_starting(monkeypatch):
    left = SHM / f"touchline-frames-{2**31 - 1}-0-0"
    left.touch()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", not_permitted)  # /dev/shm is sticky
            pool = SharedMemoryPool(1 << 20)
        assert pool.acquire(1) is not None
        pool.close()
    finally:
        left.unlink(missing_ok=True)


def not_permitted(path, missing_ok=False):
    raise PermissionError(path)


def test_without_room_for_a_file_tensors_travel_otherwise(monkeypatch):
    pool = SharedMemoryPool(1 << 20)
    with monkeypatch.context() as patch:
        patch.setattr("orchestrator.triton.transport._DIRECTORY", Path("/dev/null/shm"))
        assert pool.acquire(1) is None
    assert pool.acquire(1) is not None
    pool.close()


def test_a_region_of_another_size_serves_where_the_bound_leaves_no_better_one():
    pool = SharedMemoryPool(1 << 18)
    large = pool.acquire(1 << 18)
    assert large is not None
    assert pool.acquire(1) is None
    pool.release(large)
    assert pool.acquire(1) is large
    pool.close()


async def test_large_tensors_travel_by_it_also_once_their_server_was_restarted():
    async with fake_tritons(1, shares_memory=True, max_batch_size=1 << 15) as (fake,):
        async with client([fake], transport="shared_memory") as triton:
            assert triton.uses_shared_memory
            for _ in range(2):
                assert await ask(triton, *range(20_000)) == [*range(20_000)]
                known = len(fake.regions)
                fake.regions.clear()
            assert known == 1
            await ask(triton, *range(20_000))
        assert not fake.regions
    assert not mine()


async def test_nothing_is_left_behind_where_the_server_was_gone_first():
    async with (
        contextlib.AsyncExitStack() as held,
        fake_tritons(1, shares_memory=True) as fakes,
    ):
        await held.enter_async_context(client(fakes, transport="shared_memory"))
        assert mine()
    assert not mine()


async def test_a_server_that_cannot_share_memory_is_refused_where_it_must():
    async with fake_tritons(1) as fakes:
        async with client(fakes, transport="auto") as triton:
            assert not triton.uses_shared_memory
            assert await ask(triton, *range(20)) == [*range(20)]
        with pytest.raises(ModelUnavailableError, match="one IPC namespace"):
            async with client(fakes, transport="shared_memory", connect_timeout_s=1):
                pass


async def test_a_connection_is_shared_until_its_last_user_leaves():
    connections = Connections(TritonTlsSettings(), longest_call_s=1)
    first = connections.acquire("127.0.0.1:1")
    assert [connections.acquire("127.0.0.1:1") for _ in range(2)] == [first, first]
    for _ in range(2):
        await connections.release(first)
        assert connections.another(None) is first
    await connections.release(first)
    assert connections.another(None) is None
