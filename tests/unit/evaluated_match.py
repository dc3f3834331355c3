"""Figures of runs on the made-up match, perfect but for what was damaged."""

import pytest

from tests.unit import synthetic_match as match
from training.evaluation import scores
from training.evaluation.runs import read_run
from training.evaluation.truth import truth_of

PEOPLE = len(match.ASKED)
BOXES = PEOPLE * match.FRAMES
FIGURES = (
    "detection.person.ap50",
    "detection.person.ap",
    "detection.player.ap50",
    "detection.goalkeeper.ap50",
    "detection.referee.ap50",
    "detection.ball.ap50",
    "detection.recall",
    "detection.precision",
    "detection.mean_iou",
    "tracking.hota",
    "tracking.deta",
    "tracking.assa",
    "tracking.idf1",
    "tracking.mota",
    "tracking.id_switches",
    "masks.j",
    "masks.f",
    "masks.j_of_all",
    "attributes.team_accuracy",
    "attributes.team_said",
    "attributes.role_accuracy",
    "attributes.role_said",
    "numbers.right_of_readable",
    "numbers.precision",
    "numbers.frames.right_of_readable",
    "numbers.frames.precision",
    "ball.recall.4",
    "ball.recall.8",
    "ball.recall.16",
    "ball.precision.8",
    "game_state.gs_hota",
)
PERFECT = dict.fromkeys(FIGURES, 1.0) | {"tracking.id_switches": 0}


def loaded(folder, responses):
    """Load responses as a run, with its truth; both are written to `folder`."""
    match.write_truth(folder / "footage")
    run = read_run(match.write_run(folder / "run", responses))
    return run, truth_of([run], [folder / "footage"])[0]


def figures(folder, responses):
    """Return the pooled figures of a run by their dotted names."""
    return flat(scores.evaluate([loaded(folder, responses)])["pooled"])


def flat(tree, path=""):
    if not isinstance(tree, dict):
        return {path[1:]: tree}
    return {k: v for key, part in tree.items() for k, v in flat(part, f"{path}.{key}").items()}


def assert_moved(got, expected):
    """All `FIGURES` are perfect, except `expected`, which are as given (None: anything less)."""
    for name in FIGURES:
        if name not in expected:
            assert got[name] == PERFECT[name], f"{name}: {got[name]}"
        elif expected[name] is None:
            assert got[name] < 1, f"{name}: {got[name]}"
        else:
            assert got[name] == pytest.approx(expected[name], abs=1e-4), f"{name}: {got[name]}"


def player_of(recognition, track):
    return next(p for p in recognition["players"] if p["track_id"] == str(track))
