"""What a frame still needs: learnt from what frames needed lately."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.overload import profile as profile_module
from orchestrator.overload.control import LoadControl
from orchestrator.overload.ladder import Level
from orchestrator.overload.profile import Profile
from orchestrator.overload.window import MovingWindow
from orchestrator.settings import Settings

_TIMES = {"decode": 0.01, "detect": 0.1, "track": 0.05, "identify": 0.02, "number": 0.03}


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(profile_module, "time", clock)
    return clock


def test_without_news_nothing_is_expected(clock):
    profile = Profile(2.0)
    assert profile.remaining("decode") == 0.0
    profile.observe(_TIMES)
    clock.now += 2.5
    assert profile.remaining("decode") == 0.0


def test_a_frame_needs_the_stages_before_it_and_the_longer_of_the_last_two(clock):
    profile = Profile(2.0)
    profile.observe({**_TIMES, "queue": 9.0, "total": 9.0})
    assert profile.remaining("decode") == pytest.approx(0.19)
    assert profile.remaining("detect") == pytest.approx(0.18)
    assert profile.remaining("track") == pytest.approx(0.08)
    assert profile.remaining("identify") == pytest.approx(0.03)


def test_what_was_measured_on_one_step_of_the_ladder_is_not_expected_on_another():
    control = LoadControl(Settings())
    control.profile.observe(_TIMES)
    assert control.profile.remaining("decode") > 0.1
    control.ladder._enter(Level.BOXES_ONLY)
    assert control.profile.remaining("decode") == 0.0


def test_one_outlier_changes_nothing(clock):
    profile = Profile(2.0)
    for _ in range(9):
        profile.observe(_TIMES)
    profile.observe({"detect": 30.0})
    assert profile.seconds("detect") == 0.1


def test_a_stage_must_leave_time_for_those_after_it(clock):
    profile = Profile(2.0)
    profile.observe(_TIMES)
    assert profile.stage_deadline("detect", 101.0) == pytest.approx(101.0 - 0.08)
    assert profile.stage_deadline("identify", 101.0) == 101.0
    assert profile.stage_deadline("detect", math.inf) == math.inf
    # but it always gets half of what is left
    assert profile.stage_deadline("detect", 100.1) == pytest.approx(100.05)


@given(
    st.lists(st.tuples(st.floats(0, 3), st.floats(0, 100)), min_size=1, max_size=40),
    st.floats(0.05, 1.0),
)
def test_quantiles_are_those_of_the_values_not_yet_too_old(steps, share):
    window, now, values = MovingWindow(5.0, most=16), 0.0, []
    for pause, value in steps:
        now += pause
        window.add(value, now)
        values.append((now, value))
    recent = sorted(value for when, value in values[-16:] if now - when <= 5.0)
    assert window.quantile(share, now) == recent[math.ceil(share * len(recent)) - 1]
    assert window.quantile(share, now + 6) is None
