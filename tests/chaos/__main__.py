"""The chaos test: `make chaos`. Writes `out/chaos.json`; exit code 1 if streams suffer."""

import argparse
import asyncio
import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.bench.results import write_report
from tests.chaos import clock
from tests.chaos.scenarios import SCENARIOS, Scenario
from tests.chaos.stage import FRAME_RATE, Outcome, play_through, stage

log = logging.getLogger(__name__)


async def play(scenario: Scenario) -> Outcome:
    """Play one scenario in a cluster of its own."""
    async with stage(scenario.replicas, sets_clock=scenario.sets_clock) as scene:
        return await play_through(
            scene,
            scenario.name,
            scenario.fault,
            streams=scenario.streams,
            after_s=scenario.after_s,
        )


def failures(scenario: Scenario, outcome: Outcome) -> list[str]:
    """Say in what a scenario went worse than it may."""
    found = list(outcome.refusals)
    if outcome.frames_unaccounted:
        found.append(f"{outcome.frames_unaccounted} frames unaccounted for")
    if outcome.ids_kept_share < scenario.least_kept:
        found.append(f"ids kept: {outcome.ids_kept_share:.0%} < {scenario.least_kept:.0%}")
    if outcome.longest_gap_s > scenario.most_gap_s:
        found.append(f"a gap of {outcome.longest_gap_s} s > {scenario.most_gap_s} s")
    if outcome.recovery_s > scenario.most_recovery_s:
        found.append(f"recovered after {outcome.recovery_s} s > {scenario.most_recovery_s} s")
    for name, (least, most) in scenario.measured.items():
        if not least <= outcome.measured[name] <= most:
            found.append(f"{name}: {outcome.measured[name]} is not in {least} to {most}")
    return found


def played(scenario: Scenario) -> dict[str, Any]:
    """Play a scenario and return its outcome and failures; one that breaks down is a failure."""
    try:
        outcome = asyncio.run(play(scenario))
    except Exception as error:  # the others are worth playing
        log.exception("%s broke down", scenario.name)
        return {"scenario": scenario.name, "failures": [f"broke down: {error!r}"]}
    return asdict(outcome) | {"failures": failures(scenario, outcome)}


def main() -> None:
    """Play all scenarios, or those whose name holds a word; write JSON and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/chaos.json"))
    parser.add_argument("--only", default="", help="word in the names of the scenarios to play")
    options = parser.parse_args()
    chosen = [scenario for scenario in SCENARIOS if options.only in scenario.name]
    if not chosen:
        parser.error(f"--only: expected a word of {[scenario.name for scenario in SCENARIOS]}")
    rows = []
    for scenario in chosen:
        if scenario.sets_clock and not clock.IS_INSTALLED:
            print(f"{scenario.name}: not played, libfaketime is not installed")
        else:
            row = played(scenario)
            rows.append(row)
            print(f"{scenario.name}: {'; '.join(row['failures']) or 'ok'} {json.dumps(row)}")
    write_report(options.output, models="sim, profile bench", frame_rate=FRAME_RATE, scenarios=rows)
    sys.exit(any(row["failures"] for row in rows))


if __name__ == "__main__":
    main()
