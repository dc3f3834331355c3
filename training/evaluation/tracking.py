"""HOTA, identity and CLEAR figures, by TrackEval's own metric classes.

The classes are called directly with the matched boxes; TrackEval's dataset classes, which read
files of fixed layouts, are not needed.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from trackeval.metrics import CLEAR, HOTA, Identity

from training.evaluation import switches
from training.evaluation.matching import MatchedFrame, MatchedRun
from training.evaluation.switches import Switch

_QUIET = {"PRINT_CONFIG": False}
_ALPHA_50 = 9
"""TrackEval's thresholds are 0.05, 0.10 ... 0.95."""


@dataclass(frozen=True)
class Tracking:
    """What one clip adds to the figures: TrackEval's results, and its switches one by one.

    Attributes:
        seconds: Length of the clip; nan if its labels tell no frame rate.
        takeovers: See `switches.takeovers`.
    """

    hota: dict[str, Any]
    clear: dict[str, Any]
    identity: dict[str, Any]
    seconds: float
    switches: tuple[Switch, ...]
    takeovers: int


def sequence(
    frames: Iterable[MatchedFrame], similarities: Iterable[NDArray[np.float64]]
) -> dict[str, Any]:
    """Return frames in the form that TrackEval's metrics take.

    Args:
        frames: The frames.
        similarities: For each frame the similarity in `[0, 1]` of each person with each player.
    """
    frames = list(frames)
    people = _places(seen.object_id for frame in frames for seen in frame.people)
    tracks = _places(player.track_id for frame in frames for player in frame.players)
    return {
        "num_timesteps": len(frames),
        "gt_ids": [np.array([people[s.object_id] for s in f.people], int) for f in frames],
        "tracker_ids": [np.array([tracks[p.track_id] for p in f.players], int) for f in frames],
        "similarity_scores": list(similarities),
        "num_gt_ids": len(people),
        "num_tracker_ids": len(tracks),
        "num_gt_dets": sum(len(frame.people) for frame in frames),
        "num_tracker_dets": sum(len(frame.players) for frame in frames),
    }


def measure(matched: MatchedRun) -> Tracking:
    """Run TrackEval's metrics on one clip."""
    data = sequence(matched.frames, (frame.overlap.astype(float) for frame in matched.frames))
    return Tracking(
        HOTA().eval_sequence(data),
        CLEAR(_QUIET).eval_sequence(data),
        Identity(_QUIET).eval_sequence(data),
        len(matched.frames) / (matched.clip.frame_rate or math.nan),
        tuple(switches.find(matched)),
        switches.takeovers(matched),
    )


def figures(parts: Sequence[Tracking]) -> dict[str, Any]:
    """Return the figures of clips taken together, as TrackEval combines sequences.

    Returns:
        `hota`, `deta`, `assa`, `loca` (means over the thresholds), `hota50` (at 0.5), `idf1`,
        `mota`, all at most 1, None where nobody is asked for; `id_switches` and
        `id_switches_per_10s`, None where a frame rate is unknown; `switch_causes`; `takeovers`,
        see `switches.takeovers`; `deta_loss`, which splits `1 - deta` (see `_deta_loss`); and the
        `switches` themselves.
    """
    hota = HOTA().combine_sequences({i: part.hota for i, part in enumerate(parts)})
    clear = CLEAR(_QUIET).combine_sequences({i: part.clear for i, part in enumerate(parts)})
    identity = Identity(_QUIET).combine_sequences({i: p.identity for i, p in enumerate(parts)})
    seconds = sum(part.seconds for part in parts)
    shares = {
        **{name.lower(): hota[name].mean() for name in ("HOTA", "DetA", "AssA", "LocA")},
        "hota50": hota["HOTA"][_ALPHA_50],
        "idf1": identity["IDF1"],
        "mota": clear["MOTA"],
    }
    is_measured = asks_for_somebody(hota)  # of nobody TrackEval makes zeros
    return {
        **{name: float(value) if is_measured else None for name, value in shares.items()},
        "id_switches": int(clear["IDSW"]),
        "id_switches_per_10s": 10 * clear["IDSW"] / seconds if seconds > 0 else None,
        "switch_causes": switches.causes(s for part in parts for s in part.switches),
        "takeovers": sum(part.takeovers for part in parts),
        "deta_loss": _deta_loss(hota),
        "switches": [s.as_dict() for part in parts for s in part.switches],
    }


def asks_for_somebody(hota: Mapping[str, Any]) -> bool:
    """Return whether there was anybody to be found, by what TrackEval's HOTA returns."""
    return bool(hota["HOTA_TP"][0] + hota["HOTA_FN"][0])


def _deta_loss(hota: dict[str, Any]) -> dict[str, float]:
    """Split what DetA lacks to 1.

    Misses and false positives are those that are left at the laxest threshold, where any overlap
    counts; what the stricter thresholds add to them is a matter of where the boxes lie.
    """
    missed, invented = hota["HOTA_FN"][0], hota["HOTA_FP"][0]
    total = max(hota["HOTA_TP"][0] + missed + invented, 1)
    return {
        "misses": float(missed / total),
        "false_positives": float(invented / total),
        "localisation": float(hota["DetA"][0] - hota["DetA"].mean()),
    }


def _places(ids: Iterable[int]) -> dict[int, int]:
    return {number: place for place, number in enumerate(sorted(set(ids)))}
