"""Everything gathered about one person, and what may be said of it."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from orchestrator.settings import NumberSettings
from orchestrator.stages.teams import NO_TEAM, TeamBelief
from orchestrator.types.people import Identity, NumberReading, Role
from orchestrator.types.pictures import Boxes
from orchestrator.types.tracks import Track

_ROLES = tuple(Role)
_ROLE_VOTES = np.eye(len(_ROLES), dtype=np.float32)
_LABEL_ROLES = {
    "player": Role.PLAYER,
    "goalkeeper": Role.GOALKEEPER,
    "referee": Role.REFEREE,
    "assistant_referee": Role.REFEREE,
}
_LEAST_VISIBLE = 0.3
_HEIGHT_DECAY = 0.99
_MOST_EMBEDDINGS = 100
_MOST_NUMBER_VOTES = 100.0
_MOST_ROLE_VOTES = 1000.0
"""What about a minute brings; older evidence fades, so that a mistake need not last for a match."""
_NOBODY = Identity()
_NO_VOTES = np.zeros(0, np.float32)


@dataclass(slots=True)
class Person:
    """One person of a stream: id, whereabouts, evidence and what was said last."""

    track_id: int
    object_id: int
    first_frame: int
    xyxy: Boxes
    height: float = 1.0
    """Body height in pixels; a box at the picture's edge may show less."""
    last_frame: int = -1
    last_count: int = -1
    """Number of the last frame in which the person was reported."""
    frame_count: int = 0
    """Frames in which the person was reported."""
    is_lost: bool = False
    embedding_sum: NDArray[np.float32] | None = None
    embedding: NDArray[np.float32] | None = None
    """Mean embedding, L2-normalised `(D,)`; None before the first."""
    embedding_count: int = 0
    number_votes: NDArray[np.float32] = field(default_factory=lambda: np.zeros(100, np.float32))
    number_count: int = 0
    """Readings in which a number was in sight."""
    role_votes: NDArray[np.float32] = field(default_factory=lambda: np.zeros(4, np.float32))
    team: TeamBelief = NO_TEAM
    identity: Identity = _NOBODY

    def see(self, track: Track, frame_index: int, frame_count: int) -> None:
        """Take note of the person's place and detector label in a frame."""
        self.object_id, self.is_lost = track.object_id, False
        self.xyxy = track.xyxy
        self.height = max(float(track.xyxy[3] - track.xyxy[1]), _HEIGHT_DECAY * self.height)
        self.last_frame, self.last_count = frame_index, frame_count
        role = _LABEL_ROLES.get(track.label or "")
        if role is not None:
            vote = np.float32(track.confidence) * _ROLE_VOTES[_ROLES.index(role)]
            self.role_votes = _sum(self.role_votes, vote, _MOST_ROLE_VOTES)

    def embed(self, embedding: NDArray[np.float32]) -> None:
        """Add an embedding."""
        self._add_embeddings(embedding, 1)

    def read(self, reading: NumberReading) -> None:
        """Add a reading of number and role.

        A number out of sight does not count, and a reading unsure of itself counts for very little:
        the same picture of somebody's back is misread over and over.
        """
        if reading.visible >= _LEAST_VISIBLE:
            votes = reading.visible * reading.numbers.max() ** 4 * reading.numbers
            self.number_votes = _sum(self.number_votes, votes, _MOST_NUMBER_VOTES)
            self.number_count += 1
        self.role_votes = _sum(self.role_votes, reading.roles, _MOST_ROLE_VOTES)

    def absorb(self, other: "Person") -> None:
        """Add the evidence of another track of the same person."""
        if other.embedding_sum is not None:
            self._add_embeddings(other.embedding_sum, other.embedding_count)
        self.number_votes = _sum(self.number_votes, other.number_votes, _MOST_NUMBER_VOTES)
        self.number_count += other.number_count
        self.role_votes = _sum(self.role_votes, other.role_votes, _MOST_ROLE_VOTES)
        self.frame_count += other.frame_count
        self.xyxy, self.height, self.object_id = other.xyxy, other.height, other.object_id
        self.last_frame, self.last_count = other.last_frame, other.last_count
        self.is_lost, self.team = False, other.team

    def settle(self) -> None:
        """Drop the evidence for good; what was said last stays."""
        self.embedding_sum = self.embedding = None
        self.number_votes = self.role_votes = _NO_VOTES

    def number(
        self, settings: NumberSettings, allowed: NDArray[np.bool_] | None
    ) -> tuple[int | None, float]:
        """Return the number that may be said, None while in doubt, and its share of the votes.

        Args:
            settings: When a number may be said.
            allowed: Which numbers are on the team sheet, bool `(100,)`; None allows all.
        """
        if self.number_count < settings.min_readings:
            return None, 0.0
        votes = self.number_votes if allowed is None else self.number_votes * allowed
        best = int(votes.argmax())
        total = float(self.number_votes.sum())
        if votes[best] < settings.min_votes:
            return None, 0.0
        share, next_best = float(votes[best]) / total, float(np.partition(votes, -2)[-2])
        is_clear = share >= settings.min_confidence and votes[best] >= settings.min_lead * next_best
        return (best, share) if is_clear else (None, 0.0)

    def role(self, settings: NumberSettings) -> tuple[Role | None, float]:
        """Return the role that may be said, None while in doubt, and its mean probability."""
        total = float(self.role_votes.sum())
        if total < settings.role_min_readings:
            return None, 0.0
        best = int(self.role_votes.argmax())
        share = float(self.role_votes[best]) / total
        return (_ROLES[best], share) if share >= settings.role_min_confidence else (None, 0.0)

    def _add_embeddings(self, total: NDArray[np.float32], count: int) -> None:
        before = 0.0 if self.embedding_sum is None else self.embedding_sum
        both, most = self.embedding_count + count, _MOST_EMBEDDINGS
        self.embedding_sum = np.asarray((before + total) * min(1.0, most / both), np.float32)
        self.embedding_count = min(both, most)
        self.embedding = self.embedding_sum / max(float(np.linalg.norm(self.embedding_sum)), 1e-12)


def _sum(
    votes: NDArray[np.float32], further: NDArray[np.float32], most: float
) -> NDArray[np.float32]:
    """Return the sum of votes, scaled down where there are more than `most` in all."""
    both = votes + further
    total = float(both.sum())
    return both if total <= most else np.asarray(both * (most / total), np.float32)
