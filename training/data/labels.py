"""The names that data sets give to what they label, and the kinds they mean here."""

import re

_KIND_OF = {
    "player": "player",
    "players": "player",
    "outfield player": "player",
    "goalkeeper": "goalkeeper",
    "goalkeepers": "goalkeeper",
    "goal keeper": "goalkeeper",
    "keeper": "goalkeeper",
    "referee": "referee",
    "referees": "referee",
    "main referee": "referee",
    "assistant referee": "assistant_referee",
    "side referee": "assistant_referee",
    "linesman": "assistant_referee",
    "other": "other",
    "others": "other",
    "staff": "other",
    "staff members": "other",
    "person": "person",
    "people": "person",
    "pedestrian": "person",
    "ball": "ball",
    "football": "ball",
    "soccer ball": "ball",
    "sports ball": "ball",
    "object": "object",
}
KNOWN_LABELS = ", ".join(_KIND_OF)


def kind_of(label: str) -> str | None:
    """Return the kind that a label means, None if it is unknown; `Goal_Keeper` is as `goal keeper`.

    `player team left`, as SoccerNet writes it, is a player.
    """
    words = re.sub(r"[\s_-]+", " ", label).strip().lower()
    return _KIND_OF.get(re.sub(r" team (left|right)$", "", words))


def team_of(label: str) -> str | None:
    """Return `left` or `right` if a label such as `player team left` names a team."""
    match = re.search(r"\bteam (left|right)\b", label.lower())
    return match[1] if match else None
