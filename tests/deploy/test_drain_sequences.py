"""The preStop hook of the tracker, also against a real tritonserver with open sequences."""

import asyncio
import itertools
import subprocess
import sys

import numpy as np
import pytest

from deploy.docker.pod import drain_sequences
from deploy.docker.pod.drain_sequences import active_sequences, wait_until_drained
from deploy.local.repository import DEFAULT_REPOSITORY
from deploy.local.tritonserver import TritonServer
from orchestrator.contracts import SAM2_TRACKER
from orchestrator.settings import TritonSettings
from orchestrator.triton.client import SequenceStep, TritonClient

FRAME = np.zeros((1, 64, 64, 3), np.uint8)


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def drained(readings, seconds=90.0, settle=5.0):
    """Wait on readings, one a poll, the last one for ever; an exception is raised."""
    clock = Clock()
    values = itertools.chain(readings, itertools.repeat(readings[-1]))

    def read():
        value = next(values)
        if isinstance(value, Exception):
            raise value
        return value

    end = wait_until_drained(read, seconds, settle, clock=clock, sleep=clock.sleep)
    return end, clock.now


def test_an_empty_server_still_waits_for_late_starts():
    assert drained([0]) == ("drained after 5 s", 5.0)


def test_a_late_start_begins_the_wait_anew():
    assert drained([0] * 8 + [1] * 4 + [0]) == ("drained after 10 s", 10.5)


def test_sequences_that_stay_are_left_after_the_time():
    assert drained([3]) == ("gave up after 90 s", 90.0)


def test_a_server_too_busy_to_answer_is_waited_for():
    assert drained([TimeoutError()] * 10 + [0])[0] == "drained after 10 s"


def test_a_server_that_is_gone_is_not_waited_for():
    assert drained([ConnectionRefusedError()]) == ("the server is gone", 0.0)


@pytest.mark.triton
async def test_the_hook_waits_for_open_sequences_and_returns_once_they_have_moved():
    async with TritonServer(DEFAULT_REPOSITORY, [SAM2_TRACKER.name], variant="sim") as server:
        metrics = f"http://{server.metrics_endpoint}/metrics"
        settings = TritonSettings(url=server.endpoint, transport="grpc")
        async with TritonClient(settings, (SAM2_TRACKER,)) as triton:

            async def step(number, **flags):
                at = SequenceStep(number, **flags)
                await triton.infer(SAM2_TRACKER, {"frame": FRAME}, step=at)

            await step(1, is_start=True)
            await step(2, is_start=True)
            assert await asyncio.to_thread(active_sequences, metrics) == 2
            command = [sys.executable, "-I", drain_sequences.__file__, "--metrics", metrics]
            hook = await asyncio.create_subprocess_exec(
                *(*command, "--seconds", "60", "--settle", "1"), stdout=subprocess.PIPE
            )
            ending = asyncio.create_task(hook.communicate())
            await step(1, is_end=True)
            await step(2)  # the pod serves what is left while its hook waits
            await asyncio.sleep(2.5)
            assert not ending.done()
            await step(2, is_end=True)
            out, _ = await asyncio.wait_for(ending, 30)
    assert out.startswith(b"drain: drained after ")
    assert hook.returncode == 0


@pytest.mark.triton
async def test_the_hook_gives_up_in_time_and_notices_a_server_that_ended():
    async with TritonServer(DEFAULT_REPOSITORY, [SAM2_TRACKER.name], variant="sim") as server:
        metrics = f"http://{server.metrics_endpoint}/metrics"
        settings = TritonSettings(url=server.endpoint, transport="grpc")
        async with TritonClient(settings, (SAM2_TRACKER,)) as triton:
            start = SequenceStep(7, is_start=True)
            await triton.infer(SAM2_TRACKER, {"frame": FRAME}, step=start)

            def read():
                return active_sequences(metrics)

            assert await asyncio.to_thread(wait_until_drained, read, 2, 1) == "gave up after 2 s"
    assert await asyncio.to_thread(wait_until_drained, read, 60, 1) == "the server is gone"
