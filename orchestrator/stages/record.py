"""The ledger of identities: provisional at once, revised by explicit updates, never silently."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.settings import IdentifySettings, NumberSettings
from orchestrator.stages.association import stacked
from orchestrator.stages.evidence import Person
from orchestrator.stages.identify import Embedding
from orchestrator.stages.returning import returned
from orchestrator.stages.teams import TeamClusters
from orchestrator.types import (
    FrameHeader,
    Identity,
    IdentityUpdate,
    NumberReading,
    Player,
    Role,
    StreamConfig,
    Team,
    TeamSheet,
    Track,
    Tracks,
)

_SIDED_ROLES = {Role.PLAYER, None}
"""Roles whose kit names the side; a goalkeeper's or referee's does not."""
_RETURN_S = 2.0
"""After a longer absence looks and place prove nothing: a side dresses alike. The number does."""
_KEEPER_EMBEDDINGS = 5
"""Looks at somebody's clothes before they say goalkeeper."""
_MOST_PEOPLE = 512
"""People remembered; the longest lost are forgotten first."""
_MOST_JUDGED = 128
"""People whose looks tell the sides apart, the last seen: enough for minutes. With all of a match's
people telling would take ten times as long."""
_REPORTED = ("role", "team", "jersey_number", "player_id")


@dataclass(frozen=True, slots=True)
class Observations:
    """What the models said of one frame's people, by object id."""

    embeddings: dict[int, Embedding]
    readings: dict[int, NumberReading]


class Ledger:
    """Who is who in one stream."""

    def __init__(
        self,
        config: StreamConfig,
        identify: IdentifySettings,
        number: NumberSettings,
        *,
        kits: NDArray[np.float32] | None = None,
    ) -> None:
        self._sheets = {Team.A: config.team_a, Team.B: config.team_b}
        self._frame_rate = config.frame_rate
        self._identify, self._number = identify, number
        self._teams = TeamClusters(margin=identify.team_margin, kits=kits)
        self._fit_every = max(1, round(identify.interval_s * config.frame_rate))
        self._people: dict[int, Person] = {}
        self._by_object: dict[int, Person] = {}
        self._next_track_id = 1
        self._cut_count = 0
        """Number of the frame of the last camera cut."""

    def record(
        self, header: FrameHeader, frame_count: int, tracks: Tracks, observations: Observations
    ) -> tuple[tuple[Player, ...], list[IdentityUpdate]]:
        """Enter one frame.

        Args:
            header: The frame's header.
            frame_count: Number of the frame within the stream, rising by one.
            tracks: Who is seen and who was given up.
            observations: New evidence.

        Returns:
            The players by ascending track id, and the revisions of what was said before.
        """
        if tracks.is_cut:
            self._cut_count = frame_count
        for object_id in tracks.ended:
            if object_id in self._by_object:
                self._by_object.pop(object_id).is_lost = True
        back = self._returned(tracks, frame_count, observations)
        for track in tracks.seen:
            self._enter(track, header.frame_index, frame_count, observations, back)
        if frame_count % self._fit_every == 0:
            self._settle_long_lost(frame_count)
            self._fit_teams()
        updates = self._revise(tracks, header.frame_index, frame_count)
        self._forget_longest_lost()
        players = [
            Player(person.track_id, track, person.identity)
            for track in tracks.seen
            for person in (self._by_object[track.object_id],)
        ]
        return tuple(sorted(players, key=lambda player: player.track_id)), updates

    @property
    def people(self) -> tuple[Person, ...]:
        """Everybody remembered, by ascending track id."""
        return tuple(self._people[key] for key in sorted(self._people))

    def _enter(
        self,
        track: Track,
        frame_index: int,
        frame_count: int,
        observations: Observations,
        back: dict[int, Person],
    ) -> None:
        embedding = observations.embeddings.get(track.object_id)
        person = self._by_object.get(track.object_id) or back.get(track.object_id)
        if person is None:
            person = Person(self._next_track_id, track.object_id, frame_index, track.xyxy)
            self._people[person.track_id] = person
            self._next_track_id += 1
        self._by_object[track.object_id] = person
        person.see(track, frame_index, frame_count)
        if embedding is not None:
            person.embed(embedding)
        if track.object_id in observations.readings:
            person.read(observations.readings[track.object_id])

    def _returned(
        self, tracks: Tracks, frame_count: int, observations: Observations
    ) -> dict[int, Person]:
        """Carry everybody along with the camera, and find who of the lost is back."""
        away = [
            (person, (frame_count - person.last_count) / self._frame_rate)
            for person in self._people.values()
            if person.last_count >= self._cut_count
        ]
        recently = [(person, away_s) for person, away_s in away if away_s <= _RETURN_S]
        carried = tracks.shift.moved(stacked([person.xyxy for person, _ in recently]))
        for (person, _), box in zip(recently, carried, strict=True):
            person.xyxy = box
        recently = [one for one in recently if one[0].is_lost]
        newcomers = [track for track in tracks.seen if track.object_id not in self._by_object]
        least = self._identify.reidentify_similarity
        return returned(newcomers, observations.embeddings, recently, least)

    def _lost(self, frame_count: int) -> list[Person]:
        return [p for p in self._people.values() if p.is_lost and self._may_return(p, frame_count)]

    def _may_return(self, person: Person, frame_count: int) -> bool:
        longest = self._identify.reidentify_s * self._frame_rate
        return frame_count - person.last_count <= longest

    def _settle_long_lost(self, frame_count: int) -> None:
        """Keep of those who were lost longest only what the stream's summary says of them."""
        last_seen_last = sorted(self._people.values(), key=lambda person: person.last_count)
        for person in last_seen_last[:-_MOST_JUDGED]:
            if person.is_lost and not self._may_return(person, frame_count):
                person.settle()

    def _fit_teams(self) -> None:
        rows = [
            person.embedding
            for person in self.people
            if person.embedding is not None and person.role(self._number)[0] in _SIDED_ROLES
        ]
        if rows:
            self._teams.fit(np.stack(rows))

    def _revise(self, tracks: Tracks, frame_index: int, frame_count: int) -> list[IdentityUpdate]:
        """Settle what is believed of everybody seen, and report every change."""
        seen = [self._by_object[track.object_id] for track in tracks.seen]
        beliefs = {person.track_id: self._belief(person) for person in seen}
        _silence_rivals(beliefs)
        updates = []
        for person in sorted(seen, key=lambda p: p.track_id):
            belief = beliefs[person.track_id]
            changed = tuple(
                name
                for name in _REPORTED
                if getattr(belief, name) != getattr(person.identity, name)
            )
            person.identity = belief
            earlier = self._earlier_self(person, frame_count) if changed else None
            if earlier is not None:
                self._merge(person, into=earlier)
            if changed:
                merged = earlier.track_id if earlier else None
                updates.append(
                    IdentityUpdate(person.track_id, frame_index, belief, changed, merged)
                )
        return updates

    def _belief(self, person: Person) -> Identity:
        role, role_confidence = self._role(person)
        if role in _SIDED_ROLES and person.embedding is not None:
            person.team = self._teams.belief(person.embedding, person.team)
        team = person.team.team if role in _SIDED_ROLES else None
        sheet = self._sheets[team] if team else TeamSheet()
        number, confidence = (None, 0.0)
        if role not in {Role.REFEREE, Role.OTHER}:
            number, confidence = person.number(self._number, _allowed(sheet))
        return Identity(
            role=role,
            role_confidence=role_confidence,
            team=team,
            team_confidence=person.team.confidence if team else 0.0,
            jersey_number=number,
            jersey_number_confidence=confidence,
            player_id=_player_id(sheet, number),
        )

    def _role(self, person: Person) -> tuple[Role | None, float]:
        """Return a person's role: who plays in neither side's kit keeps a goal.

        A keeper's shirt differs from match to match, so no reader of single crops can know it.
        """
        role, confidence = person.role(self._number)
        if (
            role is Role.PLAYER
            and person.embedding is not None
            and person.embedding_count >= _KEEPER_EMBEDDINGS
            and self._teams.is_apart(person.embedding)
        ):
            return Role.GOALKEEPER, confidence
        return role, confidence

    def _earlier_self(self, person: Person, frame_count: int) -> Person | None:
        """Find a lost person of the same side and number who was gone before this one came."""
        identity = person.identity
        if identity.team is None or identity.jersey_number is None:
            return None
        for earlier in self._lost(frame_count):
            same = (earlier.identity.team, earlier.identity.jersey_number) == (
                identity.team,
                identity.jersey_number,
            )
            if same and earlier.last_frame < person.first_frame:
                return earlier
        return None

    def _merge(self, person: Person, *, into: Person) -> None:
        into.absorb(person)
        into.identity = person.identity
        self._by_object[person.object_id] = into
        del self._people[person.track_id]

    def _forget_longest_lost(self) -> None:
        if len(self._people) <= _MOST_PEOPLE:
            return
        lost = sorted(
            (person for person in self._people.values() if person.is_lost),
            key=lambda person: person.last_count,
        )
        for person in lost[: len(self._people) - _MOST_PEOPLE]:
            del self._people[person.track_id]


def _silence_rivals(beliefs: dict[int, Identity]) -> None:
    """Let only the surest of several people in sight carry one side's number."""
    best: dict[tuple[Team, int], int] = {}
    for track_id, belief in beliefs.items():
        if belief.team is None or belief.jersey_number is None:
            continue
        key = (belief.team, belief.jersey_number)
        rival = best.setdefault(key, track_id)
        if rival == track_id:
            continue
        wins = belief.jersey_number_confidence > beliefs[rival].jersey_number_confidence
        loser = rival if wins else track_id
        best[key] = track_id if wins else rival
        beliefs[loser] = _without_number(beliefs[loser])


def _without_number(belief: Identity) -> Identity:
    return Identity(
        role=belief.role,
        role_confidence=belief.role_confidence,
        team=belief.team,
        team_confidence=belief.team_confidence,
    )


def _allowed(sheet: TeamSheet) -> NDArray[np.bool_] | None:
    if not sheet.roster:
        return None
    allowed = np.zeros(100, np.bool_)
    allowed[[entry.jersey_number for entry in sheet.roster]] = True
    return allowed


def _player_id(sheet: TeamSheet, number: int | None) -> str:
    for entry in sheet.roster:
        if entry.jersey_number == number:
            return entry.player_id
    return ""
