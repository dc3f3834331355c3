"""Tracking with the ids that people have in the end, after all merges that the run told later."""

from collections.abc import Sequence
from typing import Any

from training.evaluation import tracking
from training.evaluation.matching import MatchedRun, match_run
from training.evaluation.tracking import Tracking

_NAMES = ("hota", "assa", "idf1", "id_switches", "id_switches_per_10s")


def measure(matched: MatchedRun) -> Tracking:
    """Run TrackEval's metrics on one clip."""
    return tracking.measure(match_run(matched.run.revised(), matched.clip))


def figures(parts: Sequence[Tracking]) -> dict[str, Any]:
    """Return the figures of clips taken together: some of those of `tracking.figures`."""
    found = tracking.figures(parts)
    return {name: found[name] for name in _NAMES}
