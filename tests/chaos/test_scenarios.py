"""What scenarios are judged by, and the clock that one of them sets."""

import math
import os
import subprocess
import sys

import pytest

from tests.chaos import __main__ as chaos
from tests.chaos.__main__ import failures
from tests.chaos.clock import IS_INSTALLED, WallClock
from tests.chaos.scenarios import SCENARIOS, Scenario, nothing
from tests.chaos.stage import Outcome

CLOCKS = "import time; print(time.time(), time.monotonic())"


def outcome(**changes):
    well = {
        "scenario": "any", "streams": 2, "frames_sent": 100, "frames_unaccounted": 0,
        "frames_lost": 0, "ids_kept_share": 1.0, "longest_gap_s": 0.1, "recovery_s": 0.0,
        "resumed": 0, "refusals": (), "measured": {"slot_free_s": 0.2, "lost": 3},
    }  # fmt: skip
    return Outcome(**(well | changes))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, []),
        ({"frames_unaccounted": 1}, ["1 frames unaccounted for"]),
        ({"longest_gap_s": 1.1}, ["a gap of 1.1 s > 1.0 s"]),
        ({"ids_kept_share": 0.9}, ["ids kept: 90% < 95%"]),
        ({"recovery_s": 6.0}, ["recovered after 6.0 s > 5.0 s"]),
        ({"refusals": ("ABORTED: no",)}, ["ABORTED: no"]),
        (
            {"measured": {"slot_free_s": 1.5, "lost": 0}},
            ["slot_free_s: 1.5 is not in 0 to 1.0", "lost: 0 is not in 1 to inf"],
        ),
    ],
)
def test_whatever_is_worse_than_it_may_be_is_told(changes, told):
    limits = {"slot_free_s": (0, 1.0), "lost": (1, math.inf)}
    assert failures(Scenario("any", nothing, measured=limits), outcome(**changes)) == told


def test_a_measure_that_is_missing_passes_for_nothing():
    with pytest.raises(KeyError):
        failures(Scenario("any", nothing, measured={"else": (0, 1)}), outcome())


def test_no_two_scenarios_have_a_name_in_common():
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)


@pytest.mark.skipif(not IS_INSTALLED, reason="libfaketime is not installed")
async def test_a_clock_that_jumps_takes_wall_time_along_and_nothing_else():
    def clocks():
        command = [sys.executable, "-c", CLOCKS]
        environment = os.environ | clock.environment
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return [float(word) for word in run.stdout.split()]

    with WallClock() as clock:
        wall, steady = clocks()
        await clock.jump(3600)
        later_wall, later_steady = clocks()
    assert 3590 < later_wall - wall < 3900
    assert 0 < later_steady - steady < 300


def test_a_scenario_that_breaks_down_is_a_failure_by_name(monkeypatch):
    async def break_down(scenario):
        raise LookupError("no such process")

    monkeypatch.setattr(chaos, "play", break_down)
    scenario = SCENARIOS[0]
    row = chaos.played(scenario)
    assert row["scenario"] == scenario.name
    assert row["failures"] == ["broke down: LookupError('no such process')"]
