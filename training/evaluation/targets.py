"""The main figures: where each is found, how it is defined, and what is to be reached."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """One main figure.

    Attributes:
        path: Where it is in a clip's figures, keys joined by dots.
        name: For tables and plots.
        bound: What is to be reached; None for figures that are only reported.
        is_most: Whether `bound` is the most allowed, not the least wanted.
        definition: One sentence.
    """

    path: str
    name: str
    bound: float | None
    definition: str
    is_most: bool = False

    def value(self, figures: Mapping[str, Any]) -> float | None:
        """Return the figure of a clip, or of all clips; None if nothing was there to measure."""
        found: Any = figures
        for key in self.path.split("."):
            found = found[key]
        return None if found is None else float(found)

    def is_met(self, value: float) -> bool:
        """Return whether a figure reaches the bound; true without one."""
        if self.bound is None:
            return True
        return value <= self.bound if self.is_most else value >= self.bound


TARGETS = (
    Target(
        "tracking.hota",
        "HOTA",
        0.78,
        "Higher order tracking accuracy (Luiten et al. 2021) of people's boxes, by TrackEval: the "
        "geometric mean of detection and association accuracy, over IoU 0.05 to 0.95.",
    ),
    Target(
        "detection.person.ap50",
        "AP50 people",
        0.95,
        "COCO average precision of people, whatever their role, at IoU 0.5, with the reported "
        "confidence as score.",
    ),
    Target(
        "tracking.id_switches_per_10s",
        "Id switches per 10 s",
        8.0,
        "How often a person is matched with another track than when last matched (CLEAR MOT, "
        "IoU 0.5, TrackEval), for 10 s of video.",
        is_most=True,
    ),
    Target(
        "tracking.takeovers",
        "Tracks taken over",
        0.0,
        "How often a track that was one person's for more than 5 matched frames is another's for "
        "more than 5.",
        is_most=True,
    ),
    Target(
        "ball.recall.8",
        "Ball within 8 px",
        0.60,
        "Share of the frames in which at least 8 pixels of the ball are seen where the reported "
        "ball's centre is at most 8 px off.",
    ),
    Target(
        "masks.j",
        "Mask J",
        0.75,
        "Mean IoU of the masks of people who are matched by box (IoU 0.5).",
    ),
    Target(
        "attributes.team_accuracy",
        "Team accuracy",
        0.95,
        "Share of matched outfield players, frame by frame, whose team is right among those of "
        "whom one is said, under the better of the two namings of a clip.",
    ),
    Target(
        "attributes.role_accuracy",
        "Role accuracy",
        0.95,
        "Share of matched people, frame by frame, whose role (player, goalkeeper, referee) is "
        "right among those of whom one is said.",
    ),
    Target(
        "numbers.right_of_readable",
        "Number right",
        0.70,
        "Share of tracks whose final shirt number is right among those whose person's number can "
        "be read by eye in at least 5 matched frames.",
    ),
    Target(
        "numbers.precision",
        "Number precision",
        0.95,
        "Share of final shirt numbers that are right among all that are said, on whatever track.",
    ),
    Target(
        "attributes.team_said",
        "Team said",
        None,
        "Share of matched outfield players, frame by frame, of whom a team is said.",
    ),
    Target(
        "attributes.role_said",
        "Role said",
        None,
        "Share of matched people, frame by frame, of whom a role is said.",
    ),
    Target(
        "ball.precision.8",
        "Ball precision",
        None,
        "Share of reported balls whose centre is at most 8 px off; a ball of which 1 to 7 pixels "
        "are seen is left out.",
    ),
    Target(
        "masks.j_of_all",
        "Mask J of all",
        None,
        "Mask J where people whom nobody matches count as 0.",
    ),
    Target(
        "tracking.idf1",
        "IDF1",
        None,
        "Share of boxes with the right identity under the best one-to-one naming of tracks "
        "(Ristani et al. 2016), IoU 0.5, by TrackEval.",
    ),
    Target(
        "revised.hota",
        "HOTA, ids as revised",
        None,
        "HOTA with the track ids that people have in the end, after the merges that a run tells "
        "once it knows who had come back.",
    ),
    Target(
        "revised.id_switches_per_10s",
        "Id switches per 10 s, ids as revised",
        None,
        "Id switches with those track ids.",
        is_most=True,
    ),
    Target(
        "tracking.deta",
        "DetA",
        None,
        "Detection accuracy, the part of HOTA that asks whether the boxes are right.",
    ),
    Target(
        "tracking.assa",
        "AssA",
        None,
        "Association accuracy, the part of HOTA that asks whether tracks keep to their person.",
    ),
    Target(
        "masks.j_and_f",
        "Mask J&F",
        None,
        "Mean of J and of DAVIS's contour measure F (contours within 0.8 % of the picture's "
        "diagonal; lenient for small people), F on every fifth frame.",
    ),
    Target(
        "game_state.gs_hota",
        "GS-HOTA",
        None,
        "SoccerNet's HOTA on the pitch, where role, team and number must be right as well; foot "
        "points go through the true homography, so calibration is not measured. Only frames whose "
        "truth tells a homography, or enough pitch positions to find it.",
    ),
)
