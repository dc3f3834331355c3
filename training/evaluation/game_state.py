"""GS-HOTA: HOTA on the pitch, where a match must also have the role, team and number right.

The pipeline reports no pitch positions, so both sides' foot points, the middle of a box's lower
edge, go through the true homography: this measures identities and boxes, not camera calibration.
Where labels tell pitch positions alone, as SoccerNet's do, they give the homography; a frame with
too few of them for that is left out. Attributes are each track's final ones. As in SoccerNet's
truth, a number that can be read nowhere in the clip is no number; only outfield players have
numbers, only players and keepers teams.

Source: SoccerNet Game State Reconstruction (Somers et al. 2024) and its sn-trackeval: similarity
exp(ln(0.05) d² / 5²) at a distance of d metres, 0 where attributes differ, then HOTA.
"""

from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from trackeval.metrics import HOTA

from training.data.clips import Box, Clip, Person, Sighting
from training.evaluation.attributes import naming
from training.evaluation.matching import MatchedFrame, MatchedRun
from training.evaluation.runs import Identity
from training.evaluation.tracking import asks_for_somebody, sequence
from training.evaluation.truth import role_of

TOLERANCE_M = 5.0
"""At this distance the similarity is 0.05, HOTA's lowest threshold."""

_LEAST_PLACED = 6
"""People of a frame whose positions make a homography."""
_LEAST_SPREAD_M = 2.0
"""How far they must be scattered (standard deviation) about the line that fits them best."""
_MOST_OFF_M = 1.0
"""How far the homography may put them, on average, from where the labels do."""

Points = NDArray[np.float64]
Attributes = tuple[str | None, str | None, int | None]
"""Role, side and number."""


def measure(matched: MatchedRun) -> dict[str, Any] | None:
    """Run TrackEval's HOTA on one clip's game state; None if its truth has no homography."""
    maps = map(_homography, matched.clip.homographies or repeat(None), matched.clip.sightings)
    pairs = zip(matched.frames, maps, strict=True)
    mapped = [(frame, to_image) for frame, to_image in pairs if to_image is not None]
    if not mapped:
        return None
    true, said = _true_attributes(matched.clip), _said_attributes(matched)
    similarities = [_similarity(frame, to_image, true, said) for frame, to_image in mapped]
    hota = HOTA().eval_sequence(sequence([frame for frame, _ in mapped], similarities))
    return dict(hota) | {"frames": len(mapped)}


def figures(parts: Sequence[dict[str, Any] | None]) -> dict[str, Any]:
    """Return the figures of clips taken together.

    Returns:
        `gs_hota`, `gs_deta` and `gs_assa` in `[0, 1]`, None where no frame has a homography or
        nobody is asked for; `frames`, those with a homography.
    """
    known = {i: part for i, part in enumerate(parts) if part is not None}
    hota = HOTA().combine_sequences(known) if known else None
    is_measured = hota is not None and asks_for_somebody(hota)
    return {
        f"gs_{name.lower()}": float(hota[name].mean()) if hota and is_measured else None
        for name in ("HOTA", "DetA", "AssA")
    } | {
        "frames": sum(part["frames"] for part in known.values()),
        "foot_points": "boxes through the true homography",
    }


def _homography(
    told: NDArray[np.float64] | None, sightings: Sequence[Sighting]
) -> NDArray[np.float64] | None:
    """Return a frame's map from pitch to picture: the labels' own, or that of their positions."""
    placed = [seen for seen in sightings if seen.pitch is not None and not seen.is_ball]
    if told is not None or len(placed) < _LEAST_PLACED:
        return told
    pitch = np.array([seen.pitch for seen in placed], np.float64)
    spread = np.linalg.svd(pitch - pitch.mean(axis=0), compute_uv=False)
    if spread[-1] / np.sqrt(len(placed)) < _LEAST_SPREAD_M:
        return None
    boxes = [seen.box_full for seen in placed]
    fitted, _ = cv2.findHomography(pitch, _feet(boxes)[:, :2])
    if fitted is None:
        return None
    # A homography is the same with its sign turned; people stand before the camera.
    to_image = np.asarray(fitted, np.float64) * np.sign(fitted[2] @ [*pitch[0], 1.0])
    away = np.linalg.norm(_on_pitch(boxes, to_image) - pitch, axis=1)
    return to_image if away.mean() <= _MOST_OFF_M else None  # not so of nan, behind the camera


def _similarity(
    frame: MatchedFrame,
    to_image: NDArray[np.float64],
    true: Mapping[int, Attributes],
    said: Mapping[int, Attributes],
) -> NDArray[np.float64]:
    people = _on_pitch([seen.box_full for seen in frame.people], to_image)
    players = _on_pitch([player.box for player in frame.players], to_image)
    away = np.linalg.norm(people[:, np.newaxis] - players[np.newaxis], axis=2)
    similarity = np.where(np.isnan(away), 0.0, np.exp(np.log(0.05) * (away / TOLERANCE_M) ** 2))
    alike = [[true[s.object_id] == said[p.track_id] for p in frame.players] for s in frame.people]
    return np.asarray(similarity * np.array(alike, float).reshape(similarity.shape))


def _on_pitch(boxes: Sequence[Box], to_image: NDArray[np.float64]) -> Points:
    """Return the boxes' foot points in metres, `(n, 2)`; nan at or above the horizon."""
    x, y, depth = np.linalg.solve(to_image, _feet(boxes).T)
    depth = np.where(depth > 0, depth, np.nan)
    return np.stack((x / depth, y / depth), axis=1)


def _feet(boxes: Sequence[Box]) -> Points:
    """Return the boxes' foot points in pixels, homogeneous, `(n, 3)`."""
    xyxy = np.array(boxes, np.float64).reshape(-1, 4)
    return np.stack(((xyxy[:, 0] + xyxy[:, 2]) / 2, xyxy[:, 3], np.ones(len(xyxy))), axis=1)


def _attributes(role: str | None, side: str | None, number: int | None) -> Attributes:
    has_side = role in {"player", "goalkeeper"}
    return role, side if has_side else None, number if role == "player" else None


def _true_attributes(clip: Clip) -> dict[int, Attributes]:
    everybody = [seen for frame in clip.sightings for seen in frame]
    readable = {seen.object_id for seen in everybody if seen.is_number_readable}
    if all(seen.number_span is None for seen in everybody):  # labels have only what can be read
        readable = set(clip.people)

    def attributes(person: Person) -> Attributes:
        number = person.jersey_number if person.person_id in readable else None
        return _attributes(role_of(person), person.team, number)

    return {number: attributes(person) for number, person in clip.people.items()}


def _said_attributes(matched: MatchedRun) -> dict[int, Attributes]:
    sides = naming(matched)

    def attributes(said: Identity) -> Attributes:
        side = None if said.team is None else sides[said.team]
        return _attributes(said.role, side, said.jersey_number)

    return {track: attributes(said) for track, said in matched.run.tracks.items()}
