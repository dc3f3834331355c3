"""The calculation behind the autoscalers' targets: queue, shares, plan."""

import dataclasses
import itertools
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.capacity.__main__ import TARGETS, render
from deploy.capacity.plan import make_plan
from deploy.capacity.profile import DETECTOR, GPUS, STATELESS, TRACKER, load
from deploy.capacity.queueing import BatchServer
from deploy.capacity.targets import (
    replicas,
    server,
    stateless_share,
    trackable,
    tracker_share,
    window,
)
from deploy.local.repository import DEFAULT_REPOSITORY, config_file, read_config
from orchestrator.cli import main
from orchestrator.errors import CapacityError
from orchestrator.settings import Settings
from tests.deploy.manifests import ROOT
from tests.unit.scripted_triton import ScriptedTriton
from tests.unit.test_session import PERSON, encoded, play


def played(server: BatchServer, rate: float, arrivals: int = 40_000) -> float:
    """Mean time of a request in a server that is played request by request."""
    chance = random.Random(1)
    times = list(itertools.accumulate(chance.expovariate(rate) for _ in range(arrivals)))
    now, index, spent = 0.0, 0, 0.0
    while index < arrivals:
        now = max(now, times[index])
        most = index + len(server.seconds)
        end = index
        while end < min(most, arrivals) and times[end] <= now:
            end += 1
        now += server.seconds[end - index - 1]
        spent += sum(now - arrived for arrived in times[index:end])
        index = end
    return spent / arrivals


def test_without_batches_the_queue_is_that_of_pollaczek_and_khinchine():
    service_s, rate = 0.01, 70.0
    load_share = rate * service_s
    expected = service_s * (1 + load_share / (2 * (1 - load_share)))
    assert BatchServer((service_s,)).response_s(rate) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("rate", [10.0, 60.0, 120.0])
def test_the_queue_is_what_a_played_server_shows(rate):
    one = BatchServer(tuple(0.04 + 0.002 * count for count in range(8)))
    assert one.response_s(rate) == pytest.approx(played(one, rate), rel=0.03)


def test_utilisation_says_nothing_where_requests_in_flight_do():
    """50 ms a batch of up to 8: at an eighth of what is possible the server is busy already."""
    one = BatchServer((0.05,) * 8)
    busy = [1 - 1 / (1 + rate * 0.05) for rate in (20.0, 120.0)]  # a batch, then a wait for one
    in_flight = [one.in_server(rate) for rate in (20.0, 120.0)]
    assert busy[1] / busy[0] < 2
    assert in_flight[1] / in_flight[0] > 5


@settings(max_examples=20, deadline=None)
@given(
    times=st.lists(st.floats(0.001, 0.1), min_size=1, max_size=6),
    shares=st.tuples(st.floats(0.05, 0.8), st.floats(0.05, 0.8)),
)
def test_more_requests_wait_longer_and_none_leaves_early(times, shares):
    one = BatchServer(tuple(itertools.accumulate(times, max)))
    low, high = (one.saturation * share for share in sorted(shares))
    assert one.in_server(low) <= one.in_server(high) * (1 + 1e-6)
    assert one.response_s(low) >= one.seconds[0] * (1 - 1e-6)


async def test_the_detector_is_asked_as_often_as_the_orchestrator_asks_it():
    triton = ScriptedTriton(scene=lambda call: [PERSON])
    await play([encoded(index) for index in range(10)], triton)
    asked = [len(inputs["image"]) for inputs, _ in triton.seen(DETECTOR)]
    assert len(asked) == 10 * load().requests_per_frame[DETECTOR]
    assert set(asked) == {load().rows_per_request[DETECTOR]}
    config = read_config(config_file(DEFAULT_REPOSITORY, DETECTOR, "default"))
    assert config.parameters["tiles"].string_value == "1"  # as in this session


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("name", STATELESS)
def test_a_replica_is_given_less_than_its_batcher_takes(gpu, name):
    profile = load(gpu)
    share = stateless_share(profile, name)
    assert 0 < share.load < share.capacity < server(profile, name).saturation
    assert share.target < window(profile, name)


def test_a_gpu_that_is_too_slow_for_the_objective_is_refused():
    profile = load("t4")
    table = {**profile.table, "objective_ms": {"rfdetr_detector": 5}}
    with pytest.raises(CapacityError, match="rfdetr_detector: a lone request takes 4.4 ms on t4"):
        stateless_share(dataclasses.replace(profile, table=table), "rfdetr_detector")


def test_trackers_are_given_what_they_can_follow_and_no_more_than_their_slots():
    slots = load().models[TRACKER].slots
    capacities = [tracker_share(load("h200", observed=people)).capacity for people in (22, 8, 1)]
    assert capacities == sorted(capacities)
    assert capacities[-1] == slots


def test_streams_that_meet_on_a_tracker_are_followed_once_the_ladder_lets_it_look_for_fewer():
    profile = load()
    people = Settings.model_fields["overload"].default.max_observed
    assert trackable(profile, people) >= profile.models[TRACKER].slots


def test_a_gpu_that_cannot_follow_a_stream_says_how_many_people_it_can():
    with pytest.raises(CapacityError, match="l4 looks for at most 5 people"):
        tracker_share(load("l4"))
    assert tracker_share(load("l4", observed=5)).capacity >= 1


@settings(max_examples=8, deadline=None)
@given(streams=st.integers(1, 500), more=st.integers(0, 500))
def test_a_plan_carries_its_streams_and_grows_with_them(streams, more):
    plan, larger = (make_plan(load("h200", streams=n)) for n in (streams, streams + more))
    for need, other in zip(plan.needs, larger.needs, strict=True):
        assert need.load <= need.replicas * need.capacity
        assert 0 <= need.headroom < 1
        assert need.replicas <= other.replicas
    assert plan.gpus == sum(need.replicas for need in plan.needs if need.has_gpu)
    paid = plan.stream_hour_price * plan.streams
    assert paid == pytest.approx(plan.gpus * plan.gpu_hour_price)


@pytest.mark.parametrize(
    ("workload", "field"),
    [({"streams": 0}, "streams"), ({"frame_rate": 0.5}, "frame_rate"), ({"people": 99}, "people")],
)
def test_a_number_out_of_range_is_refused_by_name(workload, field):
    with pytest.raises(CapacityError, match=f"{field}: expected"):
        load(**workload)


def test_an_unknown_gpu_is_refused_with_those_that_are_known():
    with pytest.raises(CapacityError, match="expected one of h200, a100, l4, t4"):
        load("voodoo2")


def test_the_committed_targets_are_those_of_the_calculation():
    assert TARGETS.read_text() == render(load()), "python -m deploy.capacity"


def test_an_orchestrator_costs_what_was_measured_by_the_transport_of_pods():
    rows = json.loads((ROOT / "tests" / "bench" / "pipeline.json").read_text())["rows"]
    (measured,) = (
        row["orchestrator_cpu_ms"]
        for row in rows
        if row["transport"] == "grpc" and row["streams"] == 1
    )
    assert load().table["orchestrator"]["cpu_ms_per_frame"] == pytest.approx(measured, rel=0.1)


def test_the_autoscalers_end_beyond_what_is_planned():
    lines = dict(line.split("=") for line in TARGETS.read_text().splitlines() if line[0] != "#")
    for name, planned in replicas(load()).items():
        assert int(lines[f"{name.upper()}_MAX_REPLICAS"]) > planned


def test_the_command_prints_a_plan(capsys):
    assert main(["plan", "--streams", "8", "--gpu", "l4", "--observed", "5"]) == 0
    printed = capsys.readouterr().out
    assert "8 streams" in printed
    assert "estimates" in printed


def test_the_plan_as_json_says_what_the_table_says(capsys):
    arguments = ["plan", "--streams", "32", "--gpu", "h200", "--gpu-hour-price", "5"]
    assert main([*arguments, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    # 43 trackers, and two of each of three other models.
    assert (plan["gpus"], plan["stream_hour_price"]) == (49, 49 * 5 / 32)


def test_the_command_explains_what_cannot_be(capsys):
    assert main(["plan", "--gpu", "t4"]) == 1
    assert "--observed 2" in capsys.readouterr().err
