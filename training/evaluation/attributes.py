"""Teams and roles of matched players, frame by frame."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from training.evaluation.matching import MatchedRun
from training.evaluation.ratios import share
from training.evaluation.truth import role_of

ROLES = ("player", "goalkeeper", "referee")
"""Rows of the confusion: what a person is."""

SAID_ROLES = (*ROLES, "other", "unspecified")
"""Columns of the confusion: what was said."""

_STRAIGHT = {"A": "left", "B": "right"}
_CROSSED = {"A": "right", "B": "left"}


@dataclass
class Attributes:
    """Counts over one clip, in matched players."""

    teams: Counter[bool] = field(default_factory=Counter)
    team_unsaid: int = 0
    roles: Counter[tuple[str, str]] = field(default_factory=Counter)


def measure(matched: MatchedRun) -> Attributes:
    """Count teams and roles in one clip; its teams are named as fits best."""
    counts = Attributes()
    names = naming(matched)
    for frame in matched.frames:
        for seen, player in frame.matches:
            person, said = matched.clip.people[seen.object_id], player.identity
            if role_of(person) in ROLES:
                counts.roles[role_of(person), said.role or "unspecified"] += 1
            if person.kind != "player" or person.team is None:
                continue
            if said.team is None:
                counts.team_unsaid += 1
            else:
                counts.teams[names[said.team] == person.team] += 1
    return counts


def naming(matched: MatchedRun) -> dict[str, str]:
    """Return the true side of teams A and B: of the two namings that with more outfield players."""
    pairs = Counter(
        (player.identity.team, person.team)
        for frame in matched.frames
        for seen, player in frame.matches
        if (person := matched.clip.people[seen.object_id]).kind == "player"
    )
    right = [sum(pairs[pair] for pair in names.items()) for names in (_STRAIGHT, _CROSSED)]
    return _STRAIGHT if right[0] >= right[1] else _CROSSED


def figures(parts: Sequence[Attributes]) -> dict[str, Any]:
    """Return the figures of clips taken together.

    Returns:
        `team_accuracy` over outfield players of whom a team is said and `team_said`, the share of
        whom it is; the same for `role_accuracy` and `role_said` over everybody; `role_confusion`
        with its `rows` (truth), `columns` (said) and `counts` in players times frames.
    """
    teams: Counter[bool] = sum((part.teams for part in parts), Counter())
    roles: Counter[tuple[str, str]] = sum((part.roles for part in parts), Counter())
    unsaid = sum(part.team_unsaid for part in parts)
    said = sum(count for (_, column), count in roles.items() if column != "unspecified")
    return {
        "team_accuracy": share(teams[True], teams.total()),
        "team_said": share(teams.total(), teams.total() + unsaid),
        "role_accuracy": share(sum(roles[role, role] for role in ROLES), said),
        "role_said": share(said, roles.total()),
        "role_confusion": {
            "rows": ROLES,
            "columns": SAID_ROLES,
            "counts": [[roles[row, column] for column in SAID_ROLES] for row in ROLES],
        },
    }
