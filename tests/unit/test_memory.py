"""What streams took is given back when they end, without waiting for the garbage collector."""

import asyncio
import contextlib
import gc
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.unit.scripted_server import PERSON, scripted_server
from tests.unit.scripted_triton import ScriptedTriton
from tests.unit.stream_calls import call, finish, is_free, send

pytestmark = pytest.mark.asyncio(loop_scope="session")

_ALLOCATE = """
import ctypes, threading
from orchestrator.__main__ import share_heaps

share_heaps()
at_once = threading.Barrier(16)
threads = [threading.Thread(target=at_once.wait) for _ in range(16)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
ctypes.CDLL(None).malloc_stats()
"""


class NoCalls(list):
    """Keeps no request, as a real client of the models."""

    def append(self, call):
        pass


@contextlib.contextmanager
def without_collector():
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def pictures_mapped() -> int:
    """Count the streams whose pictures take memory of this process."""
    return Path("/proc/self/maps").read_text().count("touchline-pictures")


async def no_pictures_mapped():
    while pictures_mapped():  # noqa: ASYNC110  # nobody tells when memory is given back
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("does_finish", [True, False])
async def test_streams_that_finish_or_vanish_leave_no_pictures_behind(does_finish):
    triton = ScriptedTriton(scene=lambda call: [PERSON], labels="player,referee", calls=NoCalls())
    async with scripted_server(triton=triton, isolation="process") as running:
        with without_collector():
            for _ in range(3):
                async with call(running.target) as (stream, _):
                    await send(stream, range(4))
                    assert pictures_mapped() > 0
                    if does_finish:
                        await finish(stream)
                await is_free(running)
            await asyncio.wait_for(no_pictures_mapped(), 10)


async def test_a_resumed_stream_goes_on_from_a_picture_of_its_own():
    triton = ScriptedTriton(scene=lambda call: [PERSON], labels="player,referee")
    async with scripted_server(triton=triton, isolation="process") as running:
        async with call(running.target) as (stream, started):
            await send(stream, range(3))
        await is_free(running)
        last = triton.seen("sam2_tracker")[-2][0]["frame"].copy()
        async with call(running.target, resume_token=started.resume_token) as (stream, _):
            await send(stream, [3])
            await finish(stream)
    rebuilt = next(inputs for inputs, _ in triton.seen("sam2_tracker") if "prompt_masks" in inputs)
    assert np.array_equal(rebuilt["frame"], last)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
async def test_many_threads_allocate_from_two_heaps():
    ran = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", _ALLOCATE],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.stderr.count("Arena ") == 2
