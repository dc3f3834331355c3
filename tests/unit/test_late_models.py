"""Models that are not there when the orchestrator starts, and come later."""

import asyncio
import contextlib

import numpy as np
import pytest

from orchestrator.errors import ModelUnavailableError, TensorContractError
from orchestrator.session import StreamSession
from orchestrator.settings import IdentifySettings, Settings, TritonSettings
from orchestrator.stages.identify import embed_kits
from orchestrator.stages.teams import TeamBelief, TeamClusters
from orchestrator.triton.client import SequenceStep, TritonClient
from orchestrator.types.frames import Encoding
from orchestrator.types.people import Team, TeamSheet
from orchestrator.types.results import Degradation, Recognition
from orchestrator.types.streams import StreamConfig
from tests.patience import until
from tests.unit import scripted_triton
from tests.unit.fake_triton import (
    ECHO,
    FOLLOWER,
    GOING,
    FakeTriton,
    fake_tritons,
    numbers,
    serving,
)
from tests.unit.recorded_match import KIT, Match
from tests.unit.scripted_triton import ScriptedTriton
from tests.unit.test_pool import EJECTED, QUICK, READY, ask, client, states
from tests.unit.test_session import PERSON, encoded

UNIDENTIFIED = Degradation.IDENTIFICATION_UNAVAILABLE
OTHERS = {"sam2_tracker", "siglip_embedder", "siglip_text", "resnet_jersey"}
MISSING = {
    Degradation.TRACKER_UNAVAILABLE,
    UNIDENTIFIED,
    Degradation.NUMBERS_UNAVAILABLE,
}


@contextlib.asynccontextmanager
async def two_models(**options):
    """A client of two servers: one model is needed, the other one, at the second, may be late."""
    async with serving(FakeTriton()) as first, serving(FakeTriton(**options)) as second:
        urls = {ECHO.name: first.address, FOLLOWER.name: second.address}
        settings = TritonSettings(urls=urls, **QUICK)
        yield TritonClient(settings, (ECHO, FOLLOWER), optional=(FOLLOWER,)), first, second


async def follow(triton):
    answer = await triton.infer(FOLLOWER, numbers(1), step=SequenceStep(1, is_start=True))
    return answer["y"][0, 0]


def names(triton):
    return [model.contract.name for model in triton.models]


async def test_an_optional_model_that_comes_late_is_picked_up(caplog):
    async with two_models(is_ready=False) as (client, _, late), client as triton:
        assert names(triton) == ["echo"]
        assert (await triton.infer(ECHO, numbers(3)))["y"] == [[3]]
        with pytest.raises(ModelUnavailableError, match=r"follower: no replica \(127.*not ready"):
            await follow(triton)
        with pytest.raises(ModelUnavailableError, match="follower"):
            triton.model(FOLLOWER)
        assert [pool.is_available for pool in triton.snapshot()] == [True, False]
        assert "follower: not ready in time at 127" in caplog.text
        late.is_ready = True
        await until(lambda: len(names(triton)) == 2)
        assert await follow(triton) == 1


async def test_an_optional_model_that_is_there_is_waited_for():
    async with two_models() as (client, _, _), client as triton:
        assert names(triton) == ["echo", "follower"]


async def test_a_needed_model_is_waited_for_though_optional_ones_are_late():
    async with two_models(is_ready=False) as (client, first, _):
        first.is_ready = False
        opening = asyncio.create_task(client.__aenter__())
        await asyncio.sleep(3 * QUICK["patience_s"])
        assert not opening.done()
        first.is_ready = True
        triton = await opening
        assert names(triton) == ["echo"]
        await triton.__aexit__()


async def test_an_optional_model_that_differs_ends_the_start():
    async with two_models(width=2) as (client, _, _):
        with pytest.raises(TensorContractError, match=r"follower: .* has FP32 \[-1, 2\]"):
            await client.__aenter__()


async def test_a_late_model_that_differs_is_loudly_refused_and_never_asked(caplog):
    async with two_models(width=2, is_ready=False) as (client, _, late), client as triton:
        late.is_ready = True
        await until(lambda: "is refused: follower: input x: expected FP32" in caplog.text)
        with pytest.raises(ModelUnavailableError, match=r"live server has FP32 \[-1, 2\]"):
            await follow(triton)
        assert late.calls == 0
        late.width = 1
        await until(lambda: len(names(triton)) == 2)
        assert await follow(triton) == 1


async def degradations(session, count, before):
    """Play frames one by one to the end, each after `await before(index)`; what results lacked."""
    found = []

    async def keep(outcome):
        if isinstance(outcome, Recognition):
            found.append(outcome.degradations)

    async def frames():
        for index in range(count):
            await until(lambda: len(found) == index)  # noqa: B023
            await before(index)
            yield encoded(index)

    await session.run(frames(), keep)
    await session.close()
    return found


async def test_a_stream_begins_without_the_optional_models_and_is_whole_once_they_come():
    triton = ScriptedTriton(
        scene=lambda call: [PERSON], missing=set(OTHERS), weights={"resnet_jersey": "random"}
    )
    config = StreamConfig("late", Encoding.JPEG, frame_rate=10)
    session = await StreamSession.open(config, triton, Settings())

    async def come(index):
        if index == 10:
            triton.missing.clear()

    found = await degradations(session, 20, come)
    assert found[0] == MISSING
    assert set().union(*found[:10]) == MISSING, "models that are not there have no weights"
    assert set().union(*found[10:]) == {Degradation.UNTRAINED_WEIGHTS}


async def test_kits_that_cannot_be_read_at_first_are_read_beside_the_frames():
    triton = ScriptedTriton(scene=lambda call: [PERSON], missing={"siglip_text"})
    config = StreamConfig(
        "late", Encoding.JPEG, frame_rate=10, team_a=TeamSheet(kit_description="red")
    )
    options = Settings(identify=IdentifySettings(interval_s=0.01))
    session = await StreamSession.open(config, triton, options)

    async def come(index):
        if index == 3:
            triton.missing.clear()
            await until(lambda: not session.state.ledger.awaits_kits)

    found = await degradations(session, 6, come)
    assert [UNIDENTIFIED in each for each in found] == [True] * 3 + [False] * 3
    assert len(triton.seen("siglip_text")) == 1


async def test_kits_of_another_space_than_the_crops_are_refused_and_end_no_stream(
    caplog, monkeypatch
):
    monkeypatch.setitem(scripted_triton._SIZES, "siglip_text", {"D": 5})
    config = StreamConfig("late", Encoding.JPEG, team_a=TeamSheet(kit_description="red"))
    session = await StreamSession.open(config, ScriptedTriton(), Settings())
    assert "siglip_text: embedding: expected 4 dimensions, as of siglip_embedder, got 5" in (
        caplog.text
    )
    assert session.state.ledger.awaits_kits
    await session.close()


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("red", "blue"), [[1, 0, 0, 0], [0, 1, 0, 0]]),
        (("red", ""), [[1, 0, 0, 0], [-1, 0, 0, 0]]),
        (("", "red"), [[-1, 0, 0, 0], [1, 0, 0, 0]]),
    ],
)
async def test_a_side_whose_kit_is_not_described_is_the_others_opposite(texts, expected):
    a, b = (TeamSheet(kit_description=text) for text in texts)
    config = StreamConfig("kits", Encoding.JPEG, team_a=a, team_b=b)
    assert (await embed_kits(ScriptedTriton(), config)).tolist() == expected


def test_no_side_is_named_before_its_kit_is_known():
    """Else a wrong side, and by its team sheet wrong names, would be shown as if they were sure."""
    match = Match(team_a=TeamSheet(kit_description="blue"))
    seen, tracks, kits = match.two_sides()
    assert {identity.team for identity in seen.values()} == {None}
    match.ledger.learn_kits(np.stack([KIT[1], KIT[0]]))
    seen, updates = match.frame(*tracks, embeddings=kits)
    assert [seen[i].team for i in range(1, 7)] == [Team.B] * 3 + [Team.A] * 3
    assert {update.changed for update in updates} == {("team",)}


def test_kits_learnt_before_the_sides_name_them_later():
    clusters = TeamClusters(margin=0.1, awaits_kits=True)
    clusters.learn_kits(np.stack([KIT[1], KIT[0]]))
    rows = np.stack([KIT[0], KIT[1]] * 4)
    clusters.fit(rows)
    assert clusters.belief(KIT[0], TeamBelief(None, 0.0)).team is Team.B


async def test_a_replica_whose_columns_mean_something_else_is_refused(caplog):
    async with (
        fake_tritons(1, parameters={"labels": "player,ball"}) as fakes,
        fake_tritons(1, parameters={"labels": "ball,player"}, is_ready=False) as late,
        client(fakes + late) as triton,
    ):
        late[0].is_ready = True
        await until(lambda: "expected labels player,ball as of the other" in caplog.text)
        assert states(triton) == {READY: 1, EJECTED: 1}


async def test_weights_that_are_rolled_out_while_we_run_are_told():
    async with (
        fake_tritons(1, parameters={"weights": "old"}) as fakes,
        client(fakes, patience_s=20) as triton,
    ):
        assert triton.model(ECHO).parameters == {"weights": "old"}
        fakes[0].is_ready, fakes[0].fault = False, GOING
        asking = asyncio.create_task(ask(triton, 5))
        await until(lambda: states(triton) == {EJECTED: 1})
        fakes[0].parameters, fakes[0].max_batch_size = {"weights": "new"}, 8
        fakes[0].is_ready, fakes[0].fault = True, None
        assert await asking == [5]
        assert triton.model(ECHO).parameters == {"weights": "new"}
        assert triton.model(ECHO).max_batch_size == 4
