"""Who of the lost has come back: everybody new in a frame is held against everybody lost, at once.

Places are compared in the newest picture: the lost are carried along as the camera moves, so that
whoever left at the picture's edge is looked for where the pitch is now.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from orchestrator.stages.evidence import Person
from orchestrator.stages.identify import Embedding
from orchestrator.types.tracks import Track

_REACH = 1.0
"""How far a lost person may be from where it was last seen, in body heights at once ..."""
_SPEED = 1.5
"""... and more per second since: beyond that, somebody else is the likelier."""
_CUT_OFF_SHARE = 0.65
"""Half a body at the picture's edge has no looks to go by, and must be so much nearer. Of 12 such
returns in clips learnt from, all 8 beyond this were somebody else, and 1 of 4 within."""
_NEVER = 1e6


def returned(
    newcomers: Sequence[Track],
    embeddings: Mapping[int, Embedding],
    lost: Sequence[tuple[Person, float]],
    least_similarity: float,
) -> dict[int, Person]:
    """Pair new tracks with lost people: alike, and not too far from where they should be now.

    Args:
        newcomers: Tracks of nobody known yet.
        embeddings: Looks by object id; a newcomer without is nobody known.
        lost: People, and for how many seconds they have not been seen.
        least_similarity: Least cosine similarity of looks.

    Returns:
        Person by object id; every person at most once.
    """
    seen = [track for track in newcomers if track.object_id in embeddings]
    known = [(person, away_s) for person, away_s in lost if person.embedding is not None]
    if not seen or not known:
        return {}
    cost = np.array(
        [
            [
                _cost(track, embeddings[track.object_id], person, away_s, least_similarity)
                for person, away_s in known
            ]
            for track in seen
        ]
    )
    pairs = zip(*linear_sum_assignment(cost), strict=True)
    return {seen[i].object_id: known[j][0] for i, j in pairs if cost[i, j] < _NEVER}


def _cost(
    track: Track, looks: Embedding, person: Person, away_s: float, least_similarity: float
) -> float:
    """Distance as a share of what a person can run; `_NEVER` if it cannot be the same."""
    assert person.embedding is not None
    distance = float(np.linalg.norm(_centre(track.xyxy) - _centre(person.xyxy))) / person.height
    share = distance / (_REACH + _SPEED * away_s)
    if track.is_cut_off:
        return share if share <= _CUT_OFF_SHARE else _NEVER
    is_alike = float(person.embedding @ looks) >= least_similarity
    return share if is_alike and share <= 1 else _NEVER


def _centre(xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
    return (xyxy[:2] + xyxy[2:]) / 2
