"""A small part of `make chaos`: the stand-ins tell the truth, and a dead replica costs nobody."""

from collections import Counter

import pytest
import pytest_asyncio
from soccer.v1 import player_recognition_pb2 as pb
from touchline_sim.record import load_record

from tests.chaos.journal import Journal
from tests.chaos.scenarios import lose_tracker_server
from tests.chaos.stage import FRAME_RATE, TRACKER, play_through, stage
from tests.load.broadcaster import Broadcaster, stored_config
from tests.load.pictures import MatchPictures

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene():
    async with stage({TRACKER: 2}) as scene:
        yield scene


async def test_what_the_stand_ins_say_reaches_the_client(scene):
    pictures, last = MatchPictures(), []
    broadcaster = Broadcaster(
        scene.orchestrator.target, stored_config("truth", 25), pictures, seconds=3,
        on_response=last.append,
    )  # fmt: skip
    journal = Journal(broadcaster.first)
    tally = await broadcaster.play()
    for response in last:
        journal.note(response)
    assert tally.is_accounted
    assert not tally.refusal
    recognitions = [r.recognition for r in last if r.HasField("recognition")]
    people, final = load_record().people, recognitions[-1]
    players = {player.track_id: player for player in final.players}
    found = {person: players[track] for person, track in journal.entries[-1].ids.items()}
    assert len(found) >= 10
    sides = Counter(
        (people[person].shirt, player.team) for person, player in found.items() if player.team
    )
    assert len(sides) >= 2
    numbered = [(p, player) for p, player in found.items() if player.HasField("jersey_number")]
    right = [player.jersey_number == people[person].number for person, player in numbered]
    assert len(right) >= 5
    assert sum(right) >= 0.9 * len(right)
    scene_of = load_record().scene
    seen = [r for r in recognitions if scene_of(broadcaster.first + r.frame_index).ball is not None]
    assert sum(r.HasField("ball") for r in seen) >= 0.9 * len(seen) > 0
    assert all(player.HasField("mask") for player in found.values())
    assert pb.DEGRADATION_TRACKER_UNAVAILABLE not in final.degradations


async def test_a_killed_tracker_replica_costs_no_frame_and_no_id(scene):
    outcome = await play_through(scene, "killed", lose_tracker_server, after_s=5)
    assert outcome.frames_unaccounted == 0
    assert not outcome.refusals
    assert outcome.frames_sent > 5 * FRAME_RATE
    assert outcome.ids_kept_share >= 0.9
    assert outcome.longest_gap_s < 4  # a second on a quiet machine
