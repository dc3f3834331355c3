"""Requests are judged field by field; results keep every value."""

from dataclasses import replace

import numpy as np
import pytest
from soccer.v1 import player_recognition_pb2 as pb

from orchestrator.convert import requests, responses
from orchestrator.errors import InvalidRequestError
from orchestrator.telemetry import StreamStats
from orchestrator.types.frames import Encoding, FrameHeader, GapReason, LostFrame
from orchestrator.types.people import Identity, Role, Team
from orchestrator.types.pictures import Mask
from orchestrator.types.results import Ball, Degradation, IdentityUpdate, Player, Recognition
from orchestrator.types.streams import StreamConfig
from orchestrator.types.tracks import Track, TrackState


def config(**fields) -> pb.StreamConfig:
    return pb.StreamConfig(**{"encoding": pb.FRAME_ENCODING_JPEG, **fields})


def sheet(*numbers: int, **fields) -> pb.TeamSheet:
    entries = [{"player_id": "p", "jersey_number": number, **fields} for number in numbers]
    return pb.TeamSheet(roster=[pb.RosterEntry(**entry) for entry in entries])


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (pb.StreamConfig(), "config.encoding"),
        (config(encoding=77), "config.encoding"),
        (config(encoding=pb.FRAME_ENCODING_RGB24), "config.width_px"),
        (config(width_px=640), "config.height_px"),
        (config(height_px=640), "config.width_px"),
        (config(width_px=8, height_px=640), "config.width_px"),
        (config(width_px=640, height_px=9000), "config.height_px"),
        (config(frame_rate=-1), "config.frame_rate"),
        (config(frame_rate=float("nan")), "config.frame_rate"),
        (config(frame_rate=float("inf")), "config.frame_rate"),
        (config(frame_rate=241), "config.frame_rate"),
        (config(rotation_degrees=45), "config.rotation_degrees"),
        (config(delivery_mode=9), "config.delivery_mode"),
        (
            config(delivery_mode=pb.DELIVERY_MODE_LIVE, latency_budget={"seconds": 61}),
            "config.latency_budget",
        ),
        (
            config(delivery_mode=pb.DELIVERY_MODE_LIVE, latency_budget={"nanos": 39_999_999}),
            "config.latency_budget",
        ),
        (
            config(delivery_mode=pb.DELIVERY_MODE_LIVE, latency_budget={"seconds": -1}),
            "config.latency_budget",
        ),
        (config(delivery_mode=pb.DELIVERY_MODE_LIVE, latency_budget={}), "config.latency_budget"),
        (config(team_a=pb.TeamSheet(name="x" * 129)), "config.team_a.name"),
        (config(team_b=sheet(*range(1, 66))), "config.team_b.roster"),
        (config(team_b=sheet(100)), "config.team_b.roster[0].jersey_number"),
        (config(team_b=sheet(4, player_id="x" * 129)), "config.team_b.roster[0].player_id"),
        (config(team_b=sheet(4, display_name="x" * 129)), "config.team_b.roster[0].display_name"),
        (config(time_base=pb.Rational(numerator=1)), "config.time_base.denominator"),
        (config(stream_name="x" * 129), "config.stream_name"),
        (config(team_a=pb.TeamSheet(kit_description="x" * 257)), "config.team_a.kit_description"),
        (
            config(team_b=pb.TeamSheet(roster=[pb.RosterEntry(player_id="p", jersey_number=0)])),
            "config.team_b.roster[0].jersey_number",
        ),
        (
            config(team_a=pb.TeamSheet(roster=[pb.RosterEntry(jersey_number=9)])),
            "config.team_a.roster[0].player_id",
        ),
        (
            config(
                team_a=pb.TeamSheet(
                    roster=[pb.RosterEntry(player_id=i, jersey_number=9) for i in "ab"]
                )
            ),
            "config.team_a.roster",
        ),
        (
            config(
                team_a=pb.TeamSheet(
                    roster=[pb.RosterEntry(player_id="p", jersey_number=9, role=pb.ROLE_REFEREE)]
                )
            ),
            "config.team_a.roster[0].role",
        ),
    ],
)
def test_a_bad_config_is_refused_naming_the_field(message, field):
    with pytest.raises(InvalidRequestError) as caught:
        requests.to_stream_config(message)
    assert caught.value.field == field
    assert "expected" in str(caught.value)


def test_a_minimal_config_gets_the_documented_defaults():
    got = requests.to_stream_config(config())
    assert got == StreamConfig("", Encoding.JPEG)
    live = requests.to_stream_config(config(delivery_mode=pb.DELIVERY_MODE_LIVE))
    assert (live.is_live, live.latency_budget_s) == (True, 2.0)


def test_what_lies_at_a_limit_is_within_it():
    for nanos, seconds in ((40_000_000, 0), (0, 60)):
        budget = {"nanos": nanos, "seconds": seconds}
        live = config(delivery_mode=pb.DELIVERY_MODE_LIVE, latency_budget=budget)
        got = requests.to_stream_config(live)
        assert got.latency_budget_s == pytest.approx(nanos / 1e9 + seconds)
    assert requests.to_stream_config(config(frame_rate=240)).frame_rate == 240
    largest = requests.to_stream_config(config(width_px=8192, height_px=16))
    assert (largest.width, largest.height) == (8192, 16)
    full = sheet(*range(1, 65), display_name="\N{SOCCER BALL}" * 128)
    assert len(requests.to_stream_config(config(team_a=full)).team_a.roster) == 64


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_pictures_may_be_turned_by_quarters(degrees):
    assert requests.to_stream_config(config(rotation_degrees=degrees)).rotation_degrees == degrees


def test_a_latency_budget_of_a_lossless_stream_is_ignored():
    got = requests.to_stream_config(config(latency_budget={"seconds": -1}))
    assert got.latency_budget_s is None


def test_video_is_no_single_image():
    request = pb.RecognizeFrameRequest(encoding=pb.FRAME_ENCODING_H264)
    with pytest.raises(InvalidRequestError, match="encoding"):
        requests.to_still_config(request)


def recognition() -> Recognition:
    track = Track(
        9,
        np.array([1, 2, 3, 4], np.float32),
        0.5,
        TrackState.COASTING,
        None,
        Mask(90, 160, "abc", is_predicted=True),
        False,
    )
    identity = Identity(Role.GOALKEEPER, 0.9, Team.B, 0.8, 31, 0.7, "keeper")
    return Recognition(
        FrameHeader(4, 0, "tc", (7, 8)),
        160,
        90,
        (Player(2, track, identity),),
        Ball(np.array([5, 6, 7, 8], np.float32), 0.25),
        frozenset({Degradation.NUMBERS_UNAVAILABLE}),
        {"total": 0.25},
    )


def test_boxes_end_at_the_edges_of_the_picture():
    found = recognition()
    (player,) = found.players
    for box, said in (
        ((-3, -2, 40, 50), (0, 0, 40, 50)),
        ((130, 70, 163, 92), (130, 70, 160, 90)),
    ):
        track = replace(player.track, xyxy=np.array(box, np.float32))
        answer = replace(found, players=(replace(player, track=track),))
        (message,) = responses.from_recognition(answer, StreamConfig("s", Encoding.JPEG)).players
        edges = (message.box.x_min, message.box.y_min, message.box.x_max, message.box.y_max)
        assert edges == said


def test_a_recognition_keeps_every_value():
    wanted = StreamConfig("s", Encoding.JPEG, wants_masks=True, wants_stage_timings=True)
    message = responses.from_recognition(recognition(), wanted)
    (player,) = message.players
    assert (message.frame_index, message.pts, message.timecode) == (4, 0, "tc")
    assert message.HasField("pts")
    assert message.capture_time.ToNanoseconds() == 7_000_000_008
    assert (message.width_px, message.height_px) == (160, 90)
    assert (player.track_id, player.role, player.team) == (2, pb.ROLE_GOALKEEPER, pb.TEAM_B)
    assert (player.jersey_number, player.player_id) == (31, "keeper")
    assert player.state == pb.TRACK_STATE_COASTING
    assert player.mask == pb.Mask(height=90, width=160, rle_counts="abc", is_predicted=True)
    assert message.ball.box.x_max == 7
    assert message.degradations == [pb.DEGRADATION_NUMBERS_UNAVAILABLE]
    assert message.stage_timings.total.ToMilliseconds() == 250


def test_masks_and_timings_are_left_out_unless_wanted():
    message = responses.from_recognition(recognition(), StreamConfig("s", Encoding.JPEG))
    assert not message.players[0].HasField("mask")
    assert not message.HasField("stage_timings")


@pytest.mark.parametrize("wanted", ["masks", "stage_timings"])
def test_each_of_masks_and_timings_comes_alone(wanted):
    options = pb.ResultOptions(**{f"include_{wanted}": True})
    got = requests.to_stream_config(config(result_options=options))
    message = responses.from_recognition(recognition(), got)
    told = {"masks": message.players[0].HasField("mask")}
    told["stage_timings"] = message.HasField("stage_timings")
    assert told == {name: name == wanted for name in told}


def test_an_unread_number_is_absent_not_zero():
    update = responses.from_identity_update(IdentityUpdate(3, 5, Identity(), ("role",), None))
    assert not update.HasField("jersey_number")
    assert update.merged_into_track_id == 0, "it was no merge"
    assert (update.role, update.team) == (pb.ROLE_UNSPECIFIED, pb.TEAM_UNSPECIFIED)


@pytest.mark.parametrize("reason", list(GapReason))
def test_every_gap_reason_has_a_name_in_the_api(reason):
    gap = responses.from_lost_frame(LostFrame(FrameHeader(6), reason, "why"))
    assert (gap.first_frame_index, gap.last_frame_index, gap.detail) == (6, 6, "why")
    assert pb.GapReason.Name(gap.reason) == f"GAP_REASON_{reason.name}"


@pytest.mark.parametrize("pts", [None, 0, -1])
def test_only_a_time_stamp_that_was_sent_comes_back(pts):
    header = requests.to_encoded_frame(pb.Frame(frame_index=3, pts=pts)).header
    answer = Recognition(header, 16, 16, (), None)
    message = responses.from_recognition(answer, StreamConfig("s", Encoding.JPEG))
    assert (message.pts if message.HasField("pts") else None) == pts


def test_extreme_capture_times_are_echoed():
    frame = pb.Frame(frame_index=0)
    frame.capture_time.seconds, frame.capture_time.nanos = 2**63 - 1, -5
    header = requests.to_encoded_frame(frame).header
    answer = Recognition(header, 16, 16, (), None)
    message = responses.from_recognition(answer, StreamConfig("s", Encoding.JPEG))
    assert message.capture_time == frame.capture_time


def test_the_summary_adds_up():
    stats = StreamStats(received=3, recognized=1)
    stats.gaps[GapReason.DECODE_ERROR] += 2
    stats.latencies["total"].add(0.1)
    summary = responses.from_stats(stats, [], None)
    assert summary.gaps[0].frame_count == 2
    total = {s.stage: s.p50.ToTimedelta().total_seconds() for s in summary.stage_latencies}
    assert total["total"] == pytest.approx(0.1, rel=0.05)
    assert total["detect"] == 0
