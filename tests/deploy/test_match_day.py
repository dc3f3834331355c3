"""The simulated day: nothing appears, nothing gets lost, and the autoscaler is Kubernetes' own."""

import dataclasses
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy import capacity
from deploy.capacity.autoscaler import Autoscaler, Policy
from deploy.capacity.match_day import DAY_S, Simulation
from deploy.capacity.plan import make_plan
from deploy.capacity.profile import TRACKER, Profile, load
from deploy.capacity.targets import tracker_share

EXAMPLE = Path(capacity.__file__).with_name("example")
POLICY = Policy(least=1, tolerance=0.1, up_pods=4, down_window_s=900, down_period_s=120)


def day_of(matches: list[dict[str, float]], **headroom: float) -> Profile:
    """A profile with another day."""
    profile = load("h200", observed=8)
    table = {
        **profile.table,
        "match_day": {**profile.table["match_day"], "matches": matches},
        "headroom": {**profile.table["headroom"], **headroom},
    }
    return dataclasses.replace(profile, table=table)


def trajectory(metrics: list[float], current: int, *, target: float = 5, most: int = 5):
    scaler = Autoscaler(POLICY, target, most)
    counts = []
    for tick, metric in enumerate(metrics):
        current = scaler.decide(tick * 15.0, current, metric)
        counts.append(current)
    return counts


def test_replicas_follow_the_metric_up_at_once():
    assert trajectory([3, 24, 24], 1) == [1, 5, 5]


def test_doubling_is_the_most_once_there_are_many():
    assert trajectory([500, 500, 500], 10, most=100) == [20, 40, 80]


def test_a_small_difference_changes_nothing():
    assert trajectory([21.9, 18.1, 22.1], 4, most=9) == [4, 4, 5]


def test_replicas_go_one_by_one_after_the_window():
    counts = trajectory([25.0] + [5.0] * 120, 5)
    assert counts[: 900 // 15 + 1] == [5] * 61
    leaving = [tick for tick, (a, b) in enumerate(itertools.pairwise(counts)) if b < a]
    assert counts[-1] == 1
    assert {later - earlier for earlier, later in itertools.pairwise(leaving)} == {120 // 15}


@settings(max_examples=50)
@given(
    metrics=st.lists(st.floats(0, 1e4), min_size=1, max_size=60),
    current=st.integers(1, 9),
)
def test_replicas_stay_within_their_bounds(metrics, current):
    assert all(1 <= count <= 9 for count in trajectory(metrics, current, most=9))


matches = st.lists(
    st.fixed_dictionaries({"hour": st.floats(1, 23), "streams": st.integers(1, 20)}),
    min_size=1,
    max_size=4,
)


@settings(max_examples=8, deadline=None)
@given(matches=matches, start_s=st.floats(1, 1200), seed=st.integers(0, 9))
def test_what_clients_want_is_served_or_missed_and_all_of_it_is_paid_for(matches, start_s, seed):
    profile = day_of(matches)
    day = Simulation(profile, seed=seed, start_s=start_s).run()
    total = sum(match["streams"] for match in matches)
    capacity = tracker_share(profile).capacity
    least = profile.table["autoscaling"]["min_replicas"]
    for moment in day.moments:
        assert 0 <= moment.served <= moment.wanted <= total
        assert 0 <= moment.missed <= 1
        assert moment.missed * moment.wanted >= moment.wanted - moment.served - 1e-9
        assert moment.served <= moment.gpus[TRACKER] * capacity
        assert min(moment.gpus.values()) >= least
    assert [moment.at_s for moment in day.moments] == sorted(m.at_s for m in day.moments)
    assert 0 <= day.missed_share <= 1
    assert day.gpu_hours >= least * 4 * 24
    assert day.refused <= total


def test_every_stream_lasts_as_long_as_it_should():
    profile = day_of([{"hour": 12, "streams": 7}, {"hour": 15, "streams": 5}])
    day = Simulation(profile).run()
    assert day.stream_hours == pytest.approx(12 * profile.table["match_day"]["duration_s"] / 3600)
    assert day.moments[-1].at_s == DAY_S
    assert day.moments[-1].wanted == 0


def test_replicas_that_start_at_once_miss_nothing():
    day = Simulation(load("h200"), start_s=0.0).run()
    assert day.missed_share < 1e-3


def test_slower_starts_miss_more_and_spare_slots_miss_less():
    matches = [{"hour": 15, "streams": 40}]
    slow, slower = (
        Simulation(day_of(matches), start_s=s).run().missed_share for s in (300.0, 900.0)
    )
    spared = Simulation(day_of(matches, slots=0.5), start_s=900.0).run().missed_share
    assert 0 < slow < slower
    assert spared < slower


def test_a_served_stream_keeps_its_slot():
    day = Simulation(day_of([{"hour": 12, "streams": 30}, {"hour": 16, "streams": 30}])).run()
    served = [moment.served for moment in day.moments]
    wanted = [moment.wanted for moment in day.moments]
    fewer = [k for k, (a, b) in enumerate(itertools.pairwise(served)) if b < a]
    assert all(wanted[k + 1] < wanted[k] for k in fewer)


def test_the_committed_example_is_what_the_simulation_gives():
    stored = json.loads((EXAMPLE / "plan.json").read_text())
    profile = load()
    day = Simulation(profile).run()
    assert stored["day"]["missed_share"] == pytest.approx(day.missed_share, rel=1e-6)
    assert stored["day"]["gpu_hours"] == pytest.approx(day.gpu_hours, rel=1e-6)
    assert stored["plan"] == json.loads(json.dumps(make_plan(profile).as_json()))
    for plot in ("match_day.png", "curves.png"):
        assert (EXAMPLE / plot).stat().st_size < 100_000
