"""First figures of a whole pipeline run against exact truth.

`python -m training.evaluation.results RESULTS.jsonl --footage DIR --clip NAME` matches players with
people frame by frame (IoU of at least 0.5) and prints one line of JSON.
"""

import argparse
import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from orchestrator.imaging import iou
from training.data.footage import Clip, Sighting, read_clip

MATCH_IOU = 0.5
MIN_VISIBLE_PX = 40
"""People of whom less can be seen are not asked for."""
BALL_RADIUS_PX = 8.0
_SIDES = ("x_min", "y_min", "x_max", "y_max")
_ROLES = {
    "player": "ROLE_PLAYER",
    "goalkeeper": "ROLE_GOALKEEPER",
    "referee": "ROLE_REFEREE",
    "assistant_referee": "ROLE_REFEREE",
}

Recognition = dict[str, Any]


@dataclass
class Tally:
    """Counts over the frames of one clip."""

    found: int = 0
    missed: int = 0
    invented: int = 0
    switches: int = 0
    pairs: Counter[tuple[int, str]] = field(default_factory=Counter)
    true_frames: Counter[int] = field(default_factory=Counter)
    track_frames: Counter[str] = field(default_factory=Counter)
    teams: Counter[tuple[str, str]] = field(default_factory=Counter)
    roles_right: int = 0
    roles_said: int = 0
    balls_found: int = 0
    balls: int = 0
    last_track: dict[int, str] = field(default_factory=dict)

    def add(self, clip: Clip, recognition: Recognition) -> None:
        """Count one frame."""
        sightings = clip.sightings[int(recognition["frame_index"])]
        people = [
            s
            for s in sightings
            if not s.is_ball and s.box_visible and s.visible_px > MIN_VISIBLE_PX
        ]
        players = recognition["players"]
        matched = _match(people, players)
        self.found += len(matched)
        self.missed += len(people) - len(matched)
        self.invented += len(players) - len(matched)
        self.true_frames.update(s.object_id for s in people)
        self.track_frames.update(p["track_id"] for p in players)
        for seen, player in matched:
            self._add_pair(clip, seen, player)
        self._add_ball(sightings, recognition.get("ball"))

    def report(self) -> dict[str, float]:
        """Return the figures; shares in `[0, 1]`."""
        total = sum(self.true_frames.values()) + sum(self.track_frames.values())
        return {
            "recall": self.found / max(self.found + self.missed, 1),
            "precision": self.found / max(self.found + self.invented, 1),
            "idf1": 2 * self._identity_matches() / max(total, 1),
            "id_switches": self.switches,
            "people": len(self.true_frames),
            "tracks": len(self.track_frames),
            "team_accuracy": self._team_accuracy(),
            "role_accuracy": self.roles_right / max(self.roles_said, 1),
            "ball_recall": self.balls_found / max(self.balls, 1),
        }

    def _add_pair(self, clip: Clip, seen: Sighting, player: dict[str, Any]) -> None:
        person, track_id = clip.people[seen.object_id], player["track_id"]
        self.pairs[seen.object_id, track_id] += 1
        self.switches += self.last_track.get(seen.object_id, track_id) != track_id
        self.last_track[seen.object_id] = track_id
        if person.kind == "player" and person.team and player["team"] != "TEAM_UNSPECIFIED":
            self.teams[person.team, player["team"]] += 1
        if player["role"] != "ROLE_UNSPECIFIED":
            self.roles_said += 1
            self.roles_right += player["role"] == _ROLES[person.kind]

    def _add_ball(self, sightings: tuple[Sighting, ...], ball: dict[str, Any] | None) -> None:
        truth = [s.box_visible for s in sightings if s.is_ball and s.box_visible]
        if not truth:
            return
        self.balls += 1
        if ball is not None:
            away = np.linalg.norm(_centre(_box(ball)) - _centre(np.array(truth[0])))
            self.balls_found += bool(away < BALL_RADIUS_PX)

    def _identity_matches(self) -> int:
        """Frames right under the best one-to-one naming of tracks (Ristani et al. 2016)."""
        people, tracks = sorted(self.true_frames), sorted(self.track_frames)
        counts = np.array([[self.pairs[p, t] for t in tracks] for p in people])
        return int(counts[linear_sum_assignment(counts, maximize=True)].sum())

    def _team_accuracy(self) -> float:
        """Share of frames right under the better naming of the two sides."""
        straight = self.teams["left", "TEAM_A"] + self.teams["right", "TEAM_B"]
        total = sum(self.teams.values())
        return max(straight, total - straight) / max(total, 1)


def numbers(clip: Clip, tally: Tally, summary: dict[str, Any]) -> dict[str, int]:
    """Count the tracks whose final number is right, wrong or not said, officials left out."""
    best: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for (person_id, track_id), count in tally.pairs.items():
        best[track_id] = max(best[track_id], (count, person_id))
    counts = Counter({"right": 0, "wrong": 0, "unsaid": 0})
    for track in summary["tracks"]:
        count, person_id = best[track["track_id"]]
        true_number = clip.people[person_id].jersey_number if count else None
        if true_number is None:
            continue
        said = track.get("jersey_number")
        counts["unsaid" if said is None else "right" if said == true_number else "wrong"] += 1
    return {f"numbers_{name}": count for name, count in counts.items()}


def evaluate(results: Path, clip: Clip) -> dict[str, float]:
    """Compare a `results.jsonl` with the truth of its clip."""
    tally = Tally()
    summary: dict[str, Any] = {"tracks": []}
    for line in results.read_text().splitlines():
        response = json.loads(line)
        if "recognition" in response:
            tally.add(clip, response["recognition"])
        summary = response.get("summary", summary)
    return {**tally.report(), **numbers(clip, tally, summary)}


def _match(
    people: list[Sighting], players: list[dict[str, Any]]
) -> list[tuple[Sighting, dict[str, Any]]]:
    truth = np.array([s.box_visible for s in people], np.float32).reshape(-1, 4)
    found = np.array([_box(p) for p in players], np.float32).reshape(-1, 4)
    overlap = iou(truth, found)
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    return [
        (people[row], players[column])
        for row, column in zip(rows, columns, strict=True)
        if overlap[row, column] >= MATCH_IOU
    ]


def _box(item: dict[str, Any]) -> NDArray[np.float64]:
    return np.array([item["box"][side] for side in _SIDES])


def _centre(xyxy: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((xyxy[:2] + xyxy[2:]) / 2)


def main() -> None:
    """Print the figures of one run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--footage", type=Path, required=True)
    parser.add_argument("--clip", required=True)
    options = parser.parse_args()
    figures = evaluate(options.results, read_clip(options.footage, options.clip))
    print(json.dumps({key: round(value, 4) for key, value in figures.items()}))  # noqa: T201


if __name__ == "__main__":
    main()
