"""The ladder against a simulated load: fast up, slow down, and at rest in between."""

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.overload.ladder import Ladder, Level
from orchestrator.settings import OverloadSettings
from orchestrator.types.results import Degradation

_COST = {
    Level.NORMAL: 1.0,
    Level.IDENTIFY_LESS: 0.9,
    Level.NUMBER_LESS: 0.8,
    Level.SEGMENT_LESS: 0.5,
    Level.BOXES_ONLY: 0.3,
    Level.THIN_FRAMES: 0.15,
}
"""What a frame costs at each level, as a share of its full cost."""


@dataclass
class Plant:
    """Live streams on simulated models: strain is what is asked for over what can be done."""

    options: OverloadSettings = field(default_factory=OverloadSettings)
    now: float = 1000.0
    changes: list[tuple[float, Level]] = field(default_factory=list)

    def __post_init__(self):
        self.ladder = Ladder(self.options, lambda: self.now)

    def run(self, load, seconds, frame_rate=25.0, noise=()):
        factors = itertools.cycle(noise or [1.0])
        for factor in itertools.islice(factors, round(seconds * frame_rate)):
            level = self.ladder.level
            self.now += 1 / frame_rate
            self.ladder.observe(level, load * _COST[level] * factor)
            if self.ladder.level != level:
                self.changes.append((self.now, self.ladder.level))
        return self.ladder.level


def test_a_short_burst_changes_nothing():
    plant = Plant()
    plant.run(load=0.5, seconds=5)
    plant.run(load=3.0, seconds=0.4)
    plant.run(load=0.5, seconds=5)
    assert plant.changes == []


def test_overload_climbs_one_step_at_a_time_and_within_seconds():
    plant = Plant()
    assert plant.run(load=100.0, seconds=8) is Level.THIN_FRAMES
    assert [level for _, level in plant.changes] == list(Level)[1:]


def test_the_further_steps_of_a_climb_take_less_time_the_more_there_is_too_much():
    pauses = {}
    for load in (4.0, 16.0):
        plant = Plant()
        plant.run(load, seconds=3)
        (begun, _), (second, _), *_ = plant.changes
        assert begun - 1000.0 > plant.options.raise_after_s  # the first one may be a burst
        pauses[load] = second - begun
    assert pauses[16.0] < pauses[4.0] < 0.5 * plant.options.raise_after_s


def test_a_short_burst_on_a_bearable_step_changes_nothing():
    plant = Plant()
    plant.run(load=1.05, seconds=5)
    assert plant.ladder.level is Level.IDENTIFY_LESS
    plant.run(load=3.0, seconds=0.4)
    plant.run(load=1.05, seconds=5)
    assert len(plant.changes) == 1


def test_the_climb_ends_where_the_load_is_bearable():
    plant = Plant()
    assert plant.run(load=1.8, seconds=30) is Level.SEGMENT_LESS


def test_after_the_overload_all_steps_are_taken_back_slowly():
    plant = Plant()
    plant.run(load=100.0, seconds=8)
    plant.changes.clear()
    assert plant.run(load=0.3, seconds=60) is Level.NORMAL
    times = [when for when, _ in plant.changes]
    assert [level for _, level in plant.changes] == list(reversed(Level))[1:]
    least = plant.options.lower_after_s
    assert all(later - earlier > least - 0.1 for earlier, later in itertools.pairwise(times))


def test_without_live_frames_the_level_falls_back_by_itself():
    plant = Plant()
    plant.run(load=100.0, seconds=8)
    plant.now += plant.options.ladder_window_s + 0.1
    assert plant.ladder.level is Level.THIN_FRAMES  # and so begins the calm
    plant.now += 5 * plant.options.lower_after_s + 2
    assert plant.ladder.level is Level.NORMAL


def test_a_load_between_two_marks_leaves_the_ladder_at_rest():
    plant = Plant()
    assert plant.run(load=1.05, seconds=600) is Level.IDENTIFY_LESS
    assert len(plant.changes) == 1


def test_a_step_that_is_either_too_much_or_too_little_is_tried_ever_more_rarely():
    plant = Plant(OverloadSettings(low_mark=0.98))
    plant.run(load=1.05, seconds=600)
    tries = [when for when, level in plant.changes if level is Level.NORMAL]
    pauses = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert pauses == sorted(pauses)
    assert pauses[-1] > 10 * plant.options.lower_after_s


@settings(max_examples=60, deadline=None)
@given(
    load=st.floats(0.05, 8.0),
    rate=st.sampled_from([10.0, 25.0, 50.0]),
    noise=st.lists(st.floats(0.8, 1.2), min_size=1, max_size=50),
)
def test_under_a_steady_load_the_ladder_comes_to_rest(load, rate, noise):
    plant = Plant()
    plant.run(load, 120, rate, noise)
    plant.changes.clear()
    plant.run(load, 300, rate, noise)
    # The longest patience is 80 s: at most a try down and one back up for each.
    assert len(plant.changes) <= 2 * (300 / 80 + 1)
    level, peak = plant.ladder.level, max(noise)
    if load * peak < plant.options.low_mark:
        assert level is Level.NORMAL
    if load * min(noise) > 1.0:
        assert level > Level.NORMAL


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0.0, 10.0), st.floats(0.1, 20.0)), max_size=8))
def test_levels_change_by_single_steps_whatever_the_load_does(phases):
    plant = Plant()
    for load, seconds in phases:
        plant.run(load, seconds)
    levels = [Level.NORMAL, *(level for _, level in plant.changes)]
    assert all(abs(b - a) == 1 for a, b in itertools.pairwise(levels))


def test_frames_begun_at_another_level_do_not_count():
    plant = Plant()
    while plant.run(load=100.0, seconds=0.04) is Level.NORMAL:
        pass
    assert plant.ladder.level is Level.IDENTIFY_LESS
    for _ in range(100):
        plant.now += 0.04
        plant.ladder.observe(Level.NORMAL, 5.0)
    assert plant.ladder.level is Level.IDENTIFY_LESS


@pytest.mark.parametrize(
    ("load", "degradations", "observed", "stretches"),
    [
        (0.1, set(), 0, (1, 1)),
        (1.05, {Degradation.IDENTIFIED_LESS_OFTEN}, 0, (4, 1)),
        (1.2, {Degradation.IDENTIFIED_LESS_OFTEN, Degradation.NUMBERED_LESS_OFTEN}, 0, (4, 4)),
        (
            1.8,
            {
                Degradation.IDENTIFIED_LESS_OFTEN,
                Degradation.NUMBERED_LESS_OFTEN,
                Degradation.SEGMENTED_LESS_OFTEN,
            },
            8,
            (4, 4),
        ),
        (
            3.0,
            {
                Degradation.IDENTIFIED_LESS_OFTEN,
                Degradation.NUMBERED_LESS_OFTEN,
                Degradation.BOXES_ONLY,
            },
            None,
            (4, 4),
        ),
    ],
)
def test_each_step_says_what_it_takes_away(load, degradations, observed, stretches):
    plant = Plant()
    plant.run(load, seconds=20)
    effort = plant.ladder.effort
    assert effort.degradations == degradations
    assert effort.max_observed == observed
    assert (effort.identify_stretch, effort.number_stretch) == stretches


def test_others_must_yield_as_soon_as_live_frames_come_near_their_limit():
    plant = Plant()
    plant.run(load=0.3, seconds=3)
    assert not plant.ladder.is_tight
    plant.run(load=0.8, seconds=3)
    assert plant.ladder.is_tight
    assert plant.ladder.level is Level.NORMAL
