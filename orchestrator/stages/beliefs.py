"""What may be said of people by the evidence gathered: role, side, number, name on the sheet."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from orchestrator.settings import NumberSettings
from orchestrator.stages.evidence import Person
from orchestrator.stages.teams import TeamClusters
from orchestrator.types.people import Identity, Role, Shirt, Team, TeamSheet
from orchestrator.types.streams import StreamConfig

_SIDED_ROLES = {Role.PLAYER, None}
"""Roles whose kit names the side; a goalkeeper's or referee's does not."""
_KEEPER_EMBEDDINGS = 5
"""Looks at somebody's clothes before they say goalkeeper."""
_SURER = 0.1
"""By so much must somebody be surer of a number to take it from whom it was said of before."""


class Beliefs:
    """Judges the people of one stream, by its two sides' kits and team sheets.

    Args:
        config: Holds the team sheets.
        settings: When a number or a role may be said.
        teams: Tells the sides apart.
    """

    def __init__(self, config: StreamConfig, settings: NumberSettings, teams: TeamClusters) -> None:
        self._sheets = {Team.A: config.team_a, Team.B: config.team_b}
        of_sides = {None: [*self._sheets.values()]} | {t: [s] for t, s in self._sheets.items()}
        self._allowed = {
            (side, is_keeper): _allowed(sheets, is_keeper=is_keeper)
            for side, sheets in of_sides.items()
            for is_keeper in (False, True)
        }
        """Numbers that may be said, by side, if it is known, and whether of a goalkeeper."""
        self._settings = settings
        self._teams = teams

    def fit_teams(self, people: Iterable[Person]) -> None:
        """Learn the two sides anew from everybody's mean embedding."""
        rows = [
            person.embedding
            for person in people
            if person.embedding is not None and person.role(self._settings)[0] in _SIDED_ROLES
        ]
        if rows:
            self._teams.fit(np.stack(rows))

    def judge(self, seen: Sequence[Person]) -> dict[int, Identity]:
        """Return what is believed of all people in sight, by track id."""
        beliefs = {person.track_id: self._belief(person) for person in seen}
        _silence_rivals(beliefs, {person.track_id: person.identity for person in seen})
        return beliefs

    def _belief(self, person: Person) -> Identity:
        role, role_confidence = self._role(person)
        team, team_confidence = self._side(person, role)
        number, confidence = None, 0.0
        if role not in {Role.REFEREE, Role.OTHER}:
            allowed = self._allowed[team, role is Role.GOALKEEPER]
            number, confidence = person.number(self._settings, allowed)
        if role is Role.GOALKEEPER and (team := self._side_of_keeper(number)):
            team_confidence = confidence
        return Identity(
            role=role,
            role_confidence=role_confidence,
            team=team,
            team_confidence=team_confidence,
            jersey_number=number,
            jersey_number_confidence=confidence,
            player_id=_player_id(self._sheets[team], number) if team else "",
        )

    def _side(self, person: Person, role: Role | None) -> tuple[Team | None, float]:
        """Return the side that somebody's kit names, and the belief in it."""
        if role not in _SIDED_ROLES:
            return None, 0.0
        if person.embedding is not None:
            person.team = self._teams.belief(person.embedding, person.team)
        return person.team.team, person.team.confidence

    def _side_of_keeper(self, number: int | None) -> Team | None:
        """Return whose goalkeeper wears a number, where the sheets of both sides tell."""
        if number is None or self._allowed[None, True] is None:
            return None
        sides = [
            team
            for team in self._sheets
            if (allowed := self._allowed[team, True]) is not None and allowed[number]
        ]
        return sides[0] if len(sides) == 1 else None

    def _role(self, person: Person) -> tuple[Role | None, float]:
        """Return a person's role: who plays in neither side's kit keeps a goal.

        A keeper's shirt differs from match to match, so no reader of single crops can know it.
        """
        role, confidence = person.role(self._settings)
        if (
            role is Role.PLAYER
            and person.embedding is not None
            and person.embedding_count >= _KEEPER_EMBEDDINGS
            and self._teams.is_apart(person.embedding)
        ):
            return Role.GOALKEEPER, confidence
        return role, confidence


def unnumbered(belief: Identity) -> Identity:
    """Return a belief without the number and what follows from it."""
    return replace(belief, jersey_number=None, jersey_number_confidence=0.0, player_id="")


def _silence_rivals(beliefs: dict[int, Identity], said: Mapping[int, Identity]) -> None:
    """Let only the surest of several people in sight carry one side's number.

    Args:
        beliefs: What is believed of each, by track id; changed in place.
        said: What was said of each before.
    """
    best: dict[Shirt, int] = {}
    for track_id, belief in beliefs.items():
        if belief.shirt is None:
            continue
        rival = best.setdefault(belief.shirt, track_id)
        if rival == track_id:
            continue
        wins = _claim(belief, said[track_id]) > _claim(beliefs[rival], said[rival])
        loser = rival if wins else track_id
        best[belief.shirt] = track_id if wins else rival
        beliefs[loser] = unnumbered(beliefs[loser])


def _claim(belief: Identity, said: Identity) -> float:
    return belief.jersey_number_confidence + _SURER * (said.shirt == belief.shirt)


def _allowed(sheets: Iterable[TeamSheet], *, is_keeper: bool) -> NDArray[np.bool_] | None:
    """Return which numbers are on any of the sheets, bool `(100,)`; None if one is not known.

    A goalkeeper's are those of a side's goalkeepers, if it has any.
    """
    allowed = np.zeros(100, np.bool_)
    for sheet in sheets:
        if not sheet.roster:
            return None
        keepers = [entry for entry in sheet.roster if entry.role is Role.GOALKEEPER]
        listed = keepers if keepers and is_keeper else sheet.roster
        allowed[[entry.jersey_number for entry in listed]] = True
    return allowed


def _player_id(sheet: TeamSheet, number: int | None) -> str:
    for entry in sheet.roster:
        if entry.jersey_number == number:
            return entry.player_id
    return ""
