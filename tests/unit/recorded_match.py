"""A match played frame by frame into the ledger of identities."""

import numpy as np

from orchestrator.settings import IdentifySettings, NumberSettings
from orchestrator.stages.record import IdentityLedger, Observations
from orchestrator.types.frames import Encoding, FrameHeader
from orchestrator.types.people import NumberReading
from orchestrator.types.pictures import Shift
from orchestrator.types.streams import StreamConfig
from orchestrator.types.tracks import Track, Tracks, TrackState

KIT = np.eye(6, dtype=np.float32)


def track(
    object_id: int,
    x: float = 0.0,
    label: str | None = "person",
    is_new: bool = False,
    is_cut_off: bool = False,
):
    box = np.array([x, 10, x + 20, 60], np.float32)
    return Track(object_id, box, 0.9, TrackState.CONFIRMED, label, None, is_new, is_cut_off)


def pan(dx: float) -> Shift:
    return Shift(np.array([[1, 0, dx], [0, 1, 0]], np.float32))


def reading(number: int, sure: float = 0.95, visible: float = 0.9, role: int = 0):
    numbers = np.full(100, (1 - sure) / 99, np.float32)
    numbers[number] = sure
    roles = np.full(4, 0.02, np.float32)
    roles[role] = 0.94
    return NumberReading(visible, numbers, roles)


_AT_REST = pan(0)


class Match:
    """Plays frames into a ledger."""

    def __init__(self, identify: IdentifySettings | None = None, **config):
        self.ledger = IdentityLedger(
            StreamConfig("m", Encoding.JPEG, frame_rate=10, **config),
            identify or IdentifySettings(),
            NumberSettings(),
        )
        self.count = 0

    def frame(
        self, *tracks, ended=(), embeddings=None, readings=None, is_cut=False, shift=_AT_REST
    ):
        players, updates = self.ledger.record(
            FrameHeader(self.count),
            self.count,
            Tracks(tuple(tracks), tuple(ended), is_cut=is_cut, shift=shift),
            Observations(embeddings or {}, readings or {}),
        )
        self.count += 1
        return {p.track_id: p.identity for p in players}, updates

    def two_sides(self, frames: int = 6):
        """Objects 1-3 wear kit 0, objects 4-6 kit 1."""
        tracks = [track(i, 60.0 * i) for i in range(1, 7)]
        kits = {i: KIT[0] if i <= 3 else KIT[1] for i in range(1, 7)}
        seen = {}
        for _ in range(frames):
            seen, _ = self.frame(*tracks, embeddings=kits)
        return seen, tracks, kits
