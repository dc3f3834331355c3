"""Frames that are lost on the way count as time: for motion, for patience, and for who returns."""

import numpy as np
import pytest

from orchestrator.session import StreamSession
from orchestrator.settings import IdentifySettings, NumberSettings, Settings, TrackSettings
from orchestrator.stages.record import IdentityLedger, Observations
from orchestrator.stages.track import Tracker
from orchestrator.types.detections import Detections
from orchestrator.types.frames import Encoding, FrameHeader
from orchestrator.types.people import Team
from orchestrator.types.streams import StreamConfig
from orchestrator.types.tracks import Track, Tracks, TrackState
from tests.unit.scripted_triton import ScriptedTriton
from tests.unit.tracked_people import LEFT, NOBODY, RIGHT, frame, people, tracker

KIT = np.eye(6, dtype=np.float32)


def blind() -> ScriptedTriton:
    return ScriptedTriton(move=lambda i, age, box: (box * 0, 0.0))


async def test_after_a_long_outage_nobody_is_taken_for_who_stood_there_before():
    subject = tracker(ScriptedTriton())
    for index in range(4):
        await subject.track(frame(index), people(LEFT, RIGHT))
    tracks = await subject.track(frame(55), people(LEFT, RIGHT), elapsed=52)
    assert tracks.ended == (1, 2)
    assert [track.object_id for track in tracks.seen] == [3, 4]


async def test_after_a_short_gap_everybody_goes_on():
    subject = tracker(ScriptedTriton())
    for index in range(4):
        await subject.track(frame(index), people(LEFT, RIGHT))
    tracks = await subject.track(frame(30), people(LEFT, RIGHT), elapsed=27)
    assert tracks.ended == ()
    assert [track.object_id for track in tracks.seen] == [1, 2]


async def test_a_runner_is_expected_where_lost_frames_have_led():
    subject = tracker(blind())
    for index in range(12):
        x = 10 + 6 * index
        await subject.track(frame(index), people((x, 10, x + 16, 60)))
    tracks = await subject.track(frame(17), people((112, 10, 128, 60)), elapsed=6)
    assert [track.object_id for track in tracks.seen] == [1]


async def test_an_endless_gap_leads_nobody_out_of_all_bounds():
    subject = tracker(blind())
    for index in range(6):
        x = 10 + 6 * index
        await subject.track(frame(index), people((x, 10, x + 16, 60)))
    tracks = await subject.track(frame(6), people((60, 10, 76, 60)), elapsed=10**15)
    assert np.isfinite(tracks.seen[0].xyxy).all()


async def test_patience_is_measured_in_time_where_every_third_frame_arrives():
    subject = tracker(blind(), coast_s=1.0)
    for index in range(6):
        await subject.track(frame(3 * index), people(LEFT), elapsed=3)
    ended = [(await subject.track(frame(), NOBODY, elapsed=3)).ended for _ in range(6)]
    assert ended == [(), (), (), (), (1,), ()]


@pytest.mark.parametrize(("frame_rate", "frames"), [(25, 8), (60, 19)])
async def test_two_people_may_cover_each_other_for_a_third_of_a_second(frame_rate, frames):
    one, other, behind = (10, 10, 50, 60), (80, 10, 120, 60), (14, 10, 54, 60)
    subject = Tracker(blind(), TrackSettings(), frame_rate=frame_rate)
    for _ in range(4):
        await subject.track(frame(), people(one, other))
    for step in range(12):
        x = 80 - 5.5 * (step + 1)
        await subject.track(frame(), people(one, (x, 10, x + 40, 60)))
    hidden = [people(one, behind)] * (frames + 12)
    ended = [(await subject.track(frame(), found)).ended for found in hidden]
    assert frames - 3 <= ended.index((2,)) <= frames


def track(object_id: int, x: float) -> Track:
    box = np.array([x, 10, x + 20, 60], np.float32)
    return Track(object_id, box, 0.9, TrackState.CONFIRMED, "person", None, is_new=False)


def ledger(frame_rate: float) -> IdentityLedger:
    config = StreamConfig("m", Encoding.JPEG, frame_rate=frame_rate)
    return IdentityLedger(config, IdentifySettings(), NumberSettings())


def test_sides_are_learnt_though_only_every_second_frame_arrives():
    subject = ledger(frame_rate=8)  # learnt anew every fourth frame: 0, 4, 8 ...
    tracks = Tracks(tuple(track(i, 60.0 * i) for i in range(1, 7)))
    kits = {i: KIT[0] if i <= 3 else KIT[1] for i in range(1, 7)}
    for count in range(1, 15, 2):
        players, _ = subject.record(FrameHeader(count), count, tracks, Observations(kits, {}))
    assert [p.identity.team for p in players] == [Team.A] * 3 + [Team.B] * 3


@pytest.mark.parametrize(("lost", "track_id"), [(5, 1), (30, 2)])
async def test_who_stands_there_after_an_outage_is_somebody_else(lost, track_id):
    """Through the session: what it tells the ledger is the stream's time."""
    config = StreamConfig("m", Encoding.JPEG, frame_rate=10)
    session = await StreamSession.open(config, ScriptedTriton(), Settings())

    async def play(index: int, found: Detections):
        recognition, _ = await session.process_frame(frame(index), found)
        return [player.track_id for player in recognition.players]

    for index in range(8):
        await play(index, people(LEFT))
    session.state.tracker._end_all()
    session.state.ledger._by_object.pop(1).is_lost = True
    assert await play(7 + lost, people(LEFT)) == [track_id]
    assert session.state.count == 8 + lost
    await session.close()
