"""People on a small pitch, and a tracker of them whose SAM2 is played by a script."""

import numpy as np

from orchestrator.settings import TrackSettings
from orchestrator.stages.track import Tracker
from orchestrator.types.detections import Detections
from orchestrator.types.frames import Frame, FrameHeader
from tests.unit.scripted_triton import ScriptedTriton

NOBODY = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), ())


def frame(index: int = 0) -> Frame:
    return Frame(FrameHeader(index), np.zeros((100, 200, 3), np.uint8))


def people(*boxes: tuple[float, ...], confidence: float = 0.9) -> Detections:
    n = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(n, 4),
        np.full(n, confidence, np.float32),
        ("person",) * n,
    )


def tracker(triton: ScriptedTriton, **settings: float) -> Tracker:
    return Tracker(triton, TrackSettings(**settings), frame_rate=10)  # type: ignore[arg-type]


LEFT, RIGHT = (10, 10, 30, 60), (120, 10, 140, 60)
