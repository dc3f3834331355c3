"""Who is who: reported players against true people, frame by frame, by one rule for all metrics.

People of whom at most `IGNORED_PX` pixels can be seen are ignored: neither asked for nor held
against a run. A reported player who matches nobody else and lies on an ignored person is dropped,
as MOTChallenge does with distractors. A frame in which fewer than `BALL_VISIBLE_PX` pixels of the
ball can be seen, but some, has no ball, neither a true nor a reported one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from orchestrator.imaging import iou, stacked
from training.data.clips import Box, Clip, Sighting
from training.evaluation.runs import Ball, Player, Run

IGNORED_PX = 40
BALL_VISIBLE_PX = 8
MATCH_IOU = 0.5

_KEEP_TRACK = 1000.0
"""What going on with the track of the frame before is worth beside an overlap of at most 1."""


@dataclass(frozen=True)
class MatchedFrame:
    """One frame of the truth with what was reported for it.

    Attributes:
        people: The true people who are asked for.
        players: The reported players that count.
        overlap: IoU of each of `people` with each of `players`, float32 `(people, players)`.
        pairs: Indices into `people` and `players` of those who match.
        true_ball: The ball's true box; None if the ball is not seen.
        ball: The reported ball, right or wrong.
        is_answered: Whether the run has a result for this frame.
    """

    index: int
    people: tuple[Sighting, ...]
    players: tuple[Player, ...]
    overlap: NDArray[np.float32]
    pairs: tuple[tuple[int, int], ...]
    true_ball: Box | None
    ball: Ball | None
    is_answered: bool

    @property
    def matches(self) -> list[tuple[Sighting, Player]]:
        """The matching people and players."""
        return [(self.people[person], self.players[player]) for person, player in self.pairs]


@dataclass(frozen=True)
class MatchedRun:
    """A run matched with its truth; `frames` are all frames of the truth, in order."""

    run: Run
    clip: Clip
    frames: tuple[MatchedFrame, ...]


def match_run(run: Run, clip: Clip) -> MatchedRun:
    """Match every frame of the truth.

    Pairs have an IoU of at least `MATCH_IOU`; a pair of the frame before is kept while it has, and
    the rest is assigned so that the overlap is largest.

    Source: CLEAR MOT (Bernardin and Stiefelhagen 2008), as trackeval.metrics.CLEAR matches, so that
    identity switches seen here are those it counts.
    """
    frames: list[MatchedFrame] = []
    track_of: dict[int, int] = {}
    for index, sightings in enumerate(clip.sightings):
        frame = _match_frame(run, index, sightings, track_of)
        frames.append(frame)
        if frame.people and frame.players:
            track_of = {seen.object_id: player.track_id for seen, player in frame.matches}
    return MatchedRun(run, clip, tuple(frames))


def _match_frame(
    run: Run, index: int, sightings: Sequence[Sighting], track_of: Mapping[int, int]
) -> MatchedFrame:
    everybody = [seen for seen in sightings if not seen.is_ball]
    people = tuple(seen for seen in everybody if is_asked_for(seen))
    ignored = [seen for seen in everybody if not is_asked_for(seen)]
    answer = run.frames.get(index)
    players = answer.players if answer else ()
    seen = stacked([p.box_visible for p in people if p.box_visible is not None])  # of all of them
    overlap = iou(seen, stacked([p.box for p in players]))
    pairs = _assign(overlap, _continues(people, players, track_of))
    kept = _kept(players, {column for _, column in pairs}, ignored)
    place = {column: new for new, column in enumerate(kept)}
    return MatchedFrame(
        index,
        people,
        tuple(players[column] for column in kept),
        overlap[:, kept],
        tuple((row, place[column]) for row, column in pairs),
        *_balls(sightings, answer.ball if answer else None),
        is_answered=answer is not None,
    )


def is_asked_for(seen: Sighting) -> bool:
    """Return whether enough of a person is seen to be asked for."""
    return seen.box_visible is not None and seen.visible_px_at_most > IGNORED_PX


def _balls(sightings: Sequence[Sighting], reported: Ball | None) -> tuple[Box | None, Ball | None]:
    """Return the true and the reported ball; neither if the true one is all but hidden."""
    ball = next((seen for seen in sightings if seen.is_ball), None)
    if ball is None or ball.box_visible is None:
        return None, reported
    is_ignored = 0 < ball.visible_px_at_most < BALL_VISIBLE_PX
    return (None, None) if is_ignored else (ball.box_visible, reported)


def _continues(
    people: Sequence[Sighting], players: Sequence[Player], track_of: Mapping[int, int]
) -> NDArray[np.bool_]:
    before = np.array([track_of.get(seen.object_id, -1) for seen in people], np.int64)
    now = np.array([player.track_id for player in players], np.int64)
    return np.equal(before[:, np.newaxis], now[np.newaxis])


def _assign(
    overlap: NDArray[np.float32], continues: NDArray[np.bool_]
) -> tuple[tuple[int, int], ...]:
    worth = np.where(overlap >= MATCH_IOU, overlap + _KEEP_TRACK * continues, 0.0)
    rows, columns = linear_sum_assignment(worth, maximize=True)
    return tuple(
        (int(row), int(column))
        for row, column in zip(rows, columns, strict=True)
        if worth[row, column] > 0
    )


def _kept(players: Sequence[Player], matched: set[int], ignored: Sequence[Sighting]) -> list[int]:
    """Return the indices of the players that are matched or lie on no ignored person."""
    shown = [seen.box_visible for seen in ignored if seen.box_visible is not None]
    hidden = stacked([*shown, *(seen.box_full for seen in ignored)])
    on_ignored = iou(stacked([player.box for player in players]), hidden) >= MATCH_IOU
    return [i for i in range(len(players)) if i in matched or not on_ignored[i].any()]
