"""The ball: a few pixels that the detector's tiles shrink to nothing, so it gets a closer look.

Every frame, one more square of the picture goes to the detector at its own resolution: where the
ball was going, or where something in the whole frame hinted at it, or, with neither, the next
place of a search. Which candidate is the ball is decided by confidence and motion.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle, product

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import ModelError
from orchestrator.stages.detect import Detector
from orchestrator.types.detections import Detections
from orchestrator.types.frames import Frame
from orchestrator.types.pictures import Boxes
from orchestrator.types.results import Ball

_WINDOW_SHARE = 0.5
"""Side of the close look as a share of the frame's height; training cuts 0.36 to 0.62."""
_REACH_PER_S = 0.5
"""How far the ball may stray from its predicted place in a second, as a share of the width."""
_FASTEST_PER_S = 1.5
"""What jumps farther has not flown there: a trail begins anew, in units as before."""
_TRUST_BLEND = 0.3
"""Weight of the newest confidence in the trust in a trail."""
_SURE_TRUST = 0.5
"""A trail trusted less is doubtful."""
_TRUST_FADE = 0.8
"""Factor on that trust in a frame without the ball."""
_HINT_TRUST = 0.6
"""Factor on the confidence of what only the shrunken frame shows: socks look like balls there."""
_HINTS_VISITED = 3
"""As many of the best hints are looked at in turn."""
_MEMORY_S = 0.6

Point = NDArray[np.float32]


class BallFollower:
    """Follows the one ball of a stream. It never invents a position.

    Args:
        detector: Finds candidates in the close look.
        frame_rate: Frames of the stream per second.
    """

    def __init__(self, detector: Detector, *, frame_rate: float) -> None:
        self._detector = detector
        self._frame_rate = frame_rate
        self._memory_frames = round(_MEMORY_S * frame_rate)
        self._centre: Point | None = None
        self._velocity = np.zeros(2, np.float32)
        self._missed = 0
        """Frames since the ball was surely seen."""
        self._unseen = 0
        """Frames since it was seen at all."""
        self._trust = 0.0
        """Confidence of late, `[0, 1]`."""
        self._looks = self._visits = 0
        self._search = _search_places()

    async def follow(
        self, frame: Frame, hints: Detections, *, elapsed: int = 1
    ) -> tuple[Ball | None, bool]:
        """Find the ball of the next frame.

        Args:
            frame: The next frame of the stream.
            hints: What of the whole frame may be the ball, doubtful candidates included.
            elapsed: By how many frames of the stream it follows the last one, 1 or more.

        Returns:
            The ball, or None where no candidate is good enough; and whether the closer look is
            missing, because the detector gave no answer: the hints alone decide then.
        """
        self._pass(elapsed - 1)
        try:
            closer = await self._detector.look_for_ball(frame, self._window(frame, hints))
            is_missing = False
        except ModelError:
            closer, is_missing = Detections.joined(), True
        doubted = replace(hints, confidence=hints.confidence * np.float32(_HINT_TRUST))
        ball = self._choose(Detections.joined(closer, doubted), width=frame.width)
        return ball, is_missing

    def forget(self) -> None:
        """Begin anew: where the ball was and how it flew means nothing after a camera cut."""
        self._centre, self._velocity = None, np.zeros(2, np.float32)
        self._missed, self._unseen, self._trust = 0, 0, 0.0

    def _window(self, frame: Frame, hints: Detections) -> Boxes:
        """Return the square to look at, xyxy `(4,)`, inside the frame."""
        side = min(round(_WINDOW_SHARE * frame.height), frame.width)
        room = np.array([frame.width - side, frame.height - side], np.float32)
        # While the trail is doubtful, every other look goes to a hint.
        is_doubtful = self._trust < _SURE_TRUST
        self._looks += is_doubtful
        is_elsewhere = is_doubtful and self._looks % 2 == 1 and len(hints) > 0
        if self._centre is not None and not is_elsewhere:
            corner = self._predicted() - side / 2
        elif len(hints):
            ranks = np.argsort(-hints.confidence, kind="stable")[:_HINTS_VISITED]
            visited = hints.xyxy[ranks[self._visits % len(ranks)]]
            self._visits += 1
            corner = (visited[:2] + visited[2:]) / 2 - side / 2
        else:
            corner = np.array(next(self._search), np.float32) * room
        corner = corner.clip(0, room).round()
        return np.asarray(np.concatenate([corner, corner + side]), np.float32)

    def _choose(self, candidates: Detections, *, width: int) -> Ball | None:
        """Choose by confidence, where motion makes some candidates likelier than others."""
        if not len(candidates):
            self._miss()
            return None
        centres = (candidates.xyxy[:, :2] + candidates.xyxy[:, 2:]) / 2
        score, bar = candidates.confidence.copy(), self._detector.ball_threshold
        if self._centre is not None:
            distance = np.linalg.norm(centres - self._predicted(), axis=1)
            is_near = distance <= _REACH_PER_S * width * self._seconds()
            # Motion counts for as much as the trail is trusted: one that began on a sock gives way.
            score = score * np.where(is_near, 1 + self._trust, 1 - self._trust)
        best = int(score.argmax())
        if score[best] < bar:
            self._miss()
            return None
        self._hit(centres[best], float(candidates.confidence[best]), fastest=_FASTEST_PER_S * width)
        return Ball(candidates.xyxy[best], float(candidates.confidence[best]))

    def _predicted(self) -> Point:
        assert self._centre is not None
        return self._centre + self._velocity * (self._unseen + 1)

    def _seconds(self) -> float:
        """Time from the last sight of the ball to this frame."""
        return (self._unseen + 1) / self._frame_rate

    def _hit(self, centre: Point, confidence: float, *, fastest: float) -> None:
        if self._centre is not None:
            way = centre - self._centre
            has_flown = float(np.linalg.norm(way)) <= fastest * self._seconds()
            self._velocity = way * has_flown / (self._unseen + 1)
        self._centre, self._unseen = centre, 0
        is_sure = confidence >= self._detector.ball_threshold
        self._missed = 0 if is_sure else self._missed + 1
        self._trust += _TRUST_BLEND * (confidence - self._trust)
        self._forget_if_cold()

    def _miss(self) -> None:
        self._trust *= _TRUST_FADE
        self._pass(1)

    def _pass(self, frames: int) -> None:
        """Let frames go by without the ball."""
        self._missed += frames
        self._unseen += frames
        self._forget_if_cold()

    def _forget_if_cold(self) -> None:
        if self._missed > self._memory_frames:
            self.forget()


def _search_places() -> Iterator[tuple[float, float]]:
    """Yield corners of the search for ever, as shares of the room; the middle height first."""
    return cycle((x, y) for y, x in product((0.5, 1.0, 0.0), (0.0, 0.25, 0.5, 0.75, 1.0)))
