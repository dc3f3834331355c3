"""The load test itself: its parts do what they say, and a small run gives a whole report."""

import asyncio
import itertools
import json
import math
import os
import subprocess
import time
from unittest.mock import AsyncMock, Mock

import numpy as np
import pytest
from soccer.v1 import player_recognition_pb2 as pb
from touchline_sim.record import load_record

from orchestrator.settings import IdentifySettings, NumberSettings
from tests.load.__main__ import QUICK, Efficiency, _added, run
from tests.load.analyzer import throughput
from tests.load.broadcaster import first_frame
from tests.load.measure import Conditions, _play, _point
from tests.load.network import Relay, Uplink
from tests.load.pictures import MatchPictures
from tests.load.plots import plot
from tests.load.script import rows_due, tracker_frames_per_s, typical_frame
from tests.load.soak import growth, resident_mb
from tests.load.tally import Tally, fine_histogram, jain_index
from tests.patience import until


def test_frames_arrive_in_order_delayed_and_in_bursts():
    uplink = Uplink(jitter_s=0.002, stall_every_s=2.0, stall_s=0.2)
    times = list(itertools.islice(uplink.arrivals(50, np.random.default_rng(1)), 500))
    after = times - np.arange(500) / 50
    assert (np.diff(times) >= 0).all()
    assert 0 <= after.min() < 1 / 50
    assert np.median(after - after.min()) < 0.02
    assert (np.diff(times) == 0).sum() >= 4 * 8  # held back frames come at once


def test_cameras_are_not_in_step():
    first = [next(Uplink(0.0).arrivals(5, np.random.default_rng(seed))) for seed in range(8)]
    assert np.ptp(first) > 0.5 / 5


@pytest.mark.parametrize(("shares", "index"), [((3, 3, 3), 1), ((1, 0, 0, 0), 0.25), ((0, 0), 1)])
def test_fairness_is_one_for_equals_and_one_nth_for_a_monopoly(shares, index):
    assert jain_index(shares) == pytest.approx(index)


@pytest.mark.parametrize(
    ("looks", "frame_rate", "rows"),
    [
        (IdentifySettings(), 8.0, [8, 8, 2, 0, 8, 8, 2, 0]),
        (IdentifySettings(), 25.0, [8, 8, 2, 0, 0, 0, 0, 0]),
        (NumberSettings(), 8.0, [12] * 8),
        (NumberSettings(), 25.0, [12, 6, 0, 12, 6, 0, 12, 6]),
    ],
)
def test_the_bare_models_are_asked_for_what_the_orchestrator_would_ask(looks, frame_rate, rows):
    assert [rows_due(18, number, frame_rate, looks) for number in range(8)] == rows


def test_efficiency_is_held_against_the_better_yardstick():
    assert Efficiency.of(8, 40.0, 50.0, 45.0).share == 0.9
    assert Efficiency.of(8, 50.0, 40.0, 45.0).share == 0.9
    assert Efficiency.of(8, 50.0, None, 45.0) == Efficiency(8, 50.0, None, 45.0, 0.9)


def test_perf_analyzer_shows_the_tracker_as_many_people_as_the_streams_do():
    pictures, match = MatchPictures(), load_record()

    def people(first, frames):
        return np.mean([len(match.scene(first + k).person_ids) for k in range(frames)])

    streams = np.mean([people(first_frame(seed, pictures), 25) for seed in range(16)])
    assert people(typical_frame(16, pictures), 12) == pytest.approx(streams, rel=0.01)
    assert people(0, 12) < 0.95 * streams  # what a sequence from the match's beginning would show


def test_what_perf_analyzer_found_is_read_from_its_report():
    report = "Concurrency,Inferences/Second,Client Send\n4,34.7624,124\n"
    assert throughput(report) == 34.7624


def test_latencies_are_told_apart_that_differ_by_half_a_per_cent():
    histogram = fine_histogram()
    for ms in range(1, 1001):
        histogram.add(ms / 1000)
    for share in (0.5, 0.95, 0.99):
        assert histogram.quantile(share) == pytest.approx(share, rel=0.003)


def answer(index):
    return pb.RecognizeStreamResponse(recognition=pb.FrameRecognition(frame_index=index))


def test_a_frame_counts_as_accounted_for_when_it_is_answered_exactly_once():
    tally = Tally(budget_s=math.inf)
    for index in range(4):
        tally.note_sent(index, 0.0)
    tally.note(answer(0))
    gap = pb.FrameGap(first_frame_index=1, last_frame_index=2, reason=pb.GAP_REASON_OVERLOADED)
    tally.note(pb.RecognizeStreamResponse(gap=gap))
    assert (tally.unanswered, tally.is_accounted) == (1, False)
    tally.note(answer(3))
    assert tally.is_accounted
    assert tally.counts["gap.OVERLOADED"] == 2
    tally.note(answer(3))
    assert not tally.is_accounted


def test_what_comes_after_its_budget_is_late():
    tally = Tally(budget_s=1.0)
    tally.note_sent(0, arrival=time.monotonic() - 10)
    tally.note(answer(0))
    assert (tally.counts["late"], tally.counts["in_time"]) == (1, 0)


def test_what_never_comes_is_missed_as_well_as_what_comes_late():
    stream = Mock(tally=Tally(budget_s=1.0))
    stream.tally.note(pb.RecognizeStreamResponse(started=pb.StreamStarted()))
    stream.tally.note_sent(0, arrival=time.monotonic() - 10)
    before = stream.tally.snapshot()
    for index in (1, 2):
        stream.tally.note_sent(index, arrival=time.monotonic() - 10)
    stream.tally.note_sent(3, arrival=time.monotonic())
    stream.tally.note(answer(0))
    stream.tally.note(answer(1))
    change = stream.tally.snapshot()
    change.subtract(before)
    point = _point([stream], [change], fine_histogram(), 25, 1.0)
    assert point.missed_share == round(2 / 3, 4), (
        "frame 0 was missed before, frame 3 may be in time"
    )


async def test_figures_of_a_load_that_was_not_served_whole_are_refused(monkeypatch):
    point = Mock(refusals={"RESOURCE_EXHAUSTED: full": 1}, p99_ms=1.0)
    alone = fine_histogram()
    alone.add(0.1)
    monkeypatch.setattr("tests.load.__main__.chain_latencies", AsyncMock(return_value=alone))
    monkeypatch.setattr("tests.load.__main__.live_point", AsyncMock(return_value=point))
    with pytest.raises(RuntimeError, match="expected the whole load"):
        await _added(QUICK, Mock(), Mock(), 8.0)


async def test_every_step_of_the_bare_tracker_counts_the_last_ones_too():
    class Steps:
        pictures = MatchPictures(64, 36)
        count, begun, ended = 0, math.inf, 0.0

        async def track(self, *_: object, **__: object) -> None:
            self.begun = min(self.begun, time.monotonic())
            self.count += 1
            await asyncio.sleep(0.05)
            self.ended = time.monotonic()

    steps = Steps()
    rate = await tracker_frames_per_s(steps, [4], 0.2)
    assert rate == pytest.approx(steps.count / (steps.ended - steps.begun), rel=0.15)


async def test_latencies_are_those_of_the_measured_seconds():
    class Stream:
        tally = Tally(1.0)

        async def play(self) -> None:
            for seconds in (9.0, 0.1):  # warm-up, measurement
                before = self.tally.latencies
                before.add(seconds)
                await until(lambda before=before: self.tally.latencies is not before)
            self.tally.latencies.add(8.0)

    conditions = Conditions("", MatchPictures(64, 36), 0.1, 0.1, 1.0)
    _, latencies = await asyncio.wait_for(_play([Stream()], conditions), 20)
    assert latencies.quantile(1.0) == pytest.approx(0.1, rel=0.01)


async def test_a_relay_passes_on_until_it_freezes_or_cuts():
    async def echo(reader, writer):
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Relay(f"127.0.0.1:{port}") as relay:
        host, port = relay.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"one")
        assert await reader.readexactly(3) == b"one"
        relay.freeze()
        writer.write(b"two")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(3), 0.2)
        relay.thaw()
        assert await reader.readexactly(3) == b"two"
        relay.cut()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()


def test_growth_is_counted_after_the_warm_up():
    flat = growth("flat", [(t, 100 if t > 10 else t) for t in range(100)])
    assert (flat.begin_mb, flat.growth_share) == (100, 0)
    leaky = growth("leaky", [(t, 100 + t) for t in range(100)])
    assert leaky.growth_share > 0.5


def test_memory_is_that_of_a_process_and_its_children():
    assert sum(resident_mb([os.getpid()]).values()) > 10
    assert resident_mb([]) == {}


def test_a_process_that_ended_and_is_not_waited_for_takes_no_memory():
    """Else a decoding process that ends while it is looked at would end half an hour's soak."""
    with subprocess.Popen(["true"]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        assert resident_mb([ended.pid]) == {}


@pytest.mark.triton
async def test_a_small_load_test_gives_a_whole_report(tmp_path):
    report = await run(QUICK, "bench", 5.0, 1.0)
    assert report.efficiency.tracker_fps > 1
    assert report.efficiency.orchestrator_fps > 1
    points = (*report.sweep, report.added.orchestrator)
    assert all(point.is_accounted for point in points)
    assert all(point.goodput_fps > 0 for point in points)
    assert report.double_unmeasured.is_accounted
    assert report.double_unmeasured.refused == 0
    assert report.added.script_p99_ms > 40  # a picture's time in detector and tracker
    plot(report.sweep, report.efficiency.tracker_fps, tmp_path / "load.png")
    assert (tmp_path / "load.png").stat().st_size > 10_000
    assert json.dumps(report.sweep[0].counts)
