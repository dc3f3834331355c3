"""A replica that hangs is left soon, and one that is merely slow is not, whatever makes it slow."""

import asyncio
import contextlib

import pytest

from orchestrator.errors import SequenceLostError
from orchestrator.settings import TritonSettings
from orchestrator.triton.client import TritonClient
from tests.patience import until
from tests.unit.fake_triton import ECHO, FOLLOWER, fake_tritons
from tests.unit.relay import Relay
from tests.unit.test_pool import EJECTED, QUICK, READY, states
from tests.unit.test_sequences import all_ready, client, home_of, placed, step

UNPROBED = {"probe_interval_s": 600, "infer_timeout_s": 60, "probe_timeout_s": 0.4}
"""So that nothing but the silence itself tells that a replica hangs."""


@contextlib.asynccontextmanager
async def two_homes():
    """Two replicas, the first of which holds sequence 1."""
    async with fake_tritons(2) as fakes, client(fakes, **UNPROBED) as triton:
        await all_ready(triton, 2)
        await step(triton, 1, True)
        home = home_of(fakes, 1)
        (other,) = (fake for fake in fakes if fake is not home)
        yield triton, home, other


async def test_a_request_at_a_hung_replica_is_told_and_its_stream_lives_on_elsewhere_only():
    async with two_homes() as (triton, home, other):
        home.hangs = True
        with pytest.raises(SequenceLostError, match="answers neither probes nor requests"):
            await step(triton, 1)
        assert await step(triton, 2, True) == 2
        home.hangs = False
        await until(lambda: not home.sequences)
        await all_ready(triton, 2)
        assert await step(triton, 2) == 2
        assert (home.sequences, other.sequences) == (set(), {2})


async def test_a_witness_that_leaves_while_it_is_asked_is_replaced_by_another(monkeypatch):
    quick = QUICK | UNPROBED | {"probe_timeout_s": 2.0}
    monkeypatch.setattr("tests.unit.test_sequences.QUICK", quick)
    async with fake_tritons(3) as fakes, placed(monkeypatch, *fakes[:2]) as (places, triton):
        await step(triton, 1, True)
        home = home_of(fakes, 1)
        (witness,) = (fake for fake in fakes[:2] if fake is not home)
        home.hangs = witness.hangs = True
        stepping = asyncio.create_task(step(triton, 1))
        await until(lambda: witness.questions == 1)
        places.tell(home, fakes[2])  # which closes the witness's channel under the question
        with pytest.raises(SequenceLostError, match="answers neither probes nor requests"):
            await asyncio.wait_for(stepping, 20)


@pytest.mark.parametrize("is_ending", [False, True])
async def test_a_model_that_takes_long_keeps_its_sequences(is_ending):
    async with two_homes() as (triton, home, _):
        home.is_ending = is_ending
        home.gate.clear()
        stepping = asyncio.create_task(step(triton, 1))
        await until(lambda: home.questions >= 4)
        home.gate.set()
        assert await stepping == 1
        assert states(triton) == {READY: 2}


async def test_silence_of_all_replicas_is_laid_to_the_machine_or_to_ourselves():
    async with two_homes() as (triton, home, other):
        home.hangs = other.hangs = True
        stepping = asyncio.create_task(step(triton, 1))
        await until(lambda: min(home.questions, other.questions) >= 3)
        home.hangs = other.hangs = False
        assert await stepping == 1
        assert states(triton) == {READY: 2}


async def test_a_replica_without_another_is_not_given_up_for_being_silent():
    async with fake_tritons(1) as (only,), client([only], **UNPROBED) as triton:
        await step(triton, 1, True)
        only.hangs = True
        stepping = asyncio.create_task(step(triton, 1))
        await asyncio.sleep(1.5)  # far beyond what a hung one of several would be given
        only.hangs = False
        assert await stepping == 1


@contextlib.asynccontextmanager
async def two_models():
    """One server of the model that follows sequences, holding sequence 1, and one of another."""
    async with fake_tritons(2) as (sole, other):
        urls = {"follower": sole.address, "echo": other.address}
        settings = TritonSettings(urls=urls, **(QUICK | UNPROBED))
        async with TritonClient(settings, (FOLLOWER, ECHO)) as triton:
            await step(triton, 1, True)
            yield triton, sole, other


async def test_a_sole_replica_that_hangs_is_left_while_another_models_server_speaks():
    async with two_models() as (triton, sole, _):
        sole.hangs = True
        with pytest.raises(SequenceLostError, match="answers neither probes nor requests"):
            await asyncio.wait_for(step(triton, 1), 30)  # of the minute that a request may take
        sole.hangs = False
        await all_ready(triton, 1)
        assert await step(triton, 2, True) == 2


async def test_a_sole_replica_that_takes_long_keeps_its_sequences():
    async with two_models() as (triton, sole, other):
        sole.gate.clear()
        stepping = asyncio.create_task(step(triton, 1))
        await until(lambda: min(sole.questions, other.questions) >= 4)
        sole.gate.set()
        assert await stepping == 1


async def test_a_sole_replica_is_kept_when_the_other_models_are_silent_too():
    async with two_models() as (triton, sole, other):
        sole.hangs = other.hangs = True
        stepping = asyncio.create_task(step(triton, 1))
        await until(lambda: min(sole.questions, other.questions) >= 4)
        sole.hangs = other.hangs = False
        assert await stepping == 1


async def test_a_connection_that_is_dead_without_knowing_is_replaced_even_if_it_is_new(monkeypatch):
    monkeypatch.setattr("orchestrator.triton.connection._RENEW_S", 2.0)
    options = {"infer_timeout_s": 0.5, "probe_timeout_s": 0.2}
    async with fake_tritons(1) as (fake,), Relay(fake.address) as relay:
        fake.address = relay.target
        async with client([fake], **options) as triton:
            relay.fall_silent()
            await until(lambda: states(triton) == {EJECTED: 1})
            relay.forward_newcomers()
            await until(lambda: states(triton) == {READY: 1}, seconds=30)
