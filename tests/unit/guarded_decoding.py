"""What guarded workers make of data, and what it takes them."""

from pathlib import Path

from orchestrator.decode_guard.source import GuardedSource
from orchestrator.decoding import FrameSource
from orchestrator.types.frames import EncodedFrame, Frame, FrameHeader, LostFrame
from orchestrator.types.pictures import Pixels
from tests.unit.coded_media import as_file, picture

PICTURE = as_file(picture(), "PNG")


def one(source: FrameSource, data: bytes = PICTURE) -> Frame | LostFrame:
    """Decode one picture."""
    (outcome,) = source.decode(EncodedFrame(FrameHeader(0), data))
    return outcome


def fed(source: FrameSource, *data: bytes) -> list[Frame | LostFrame]:
    """Decode access units; some outcomes may be held back."""
    units = [EncodedFrame(FrameHeader(index), part) for index, part in enumerate(data)]
    return [outcome for unit in units for outcome in source.decode(unit)]


def every(source: FrameSource, *data: bytes) -> list[Frame | LostFrame]:
    """Decode access units, the last ones of their stream."""
    return fed(source, *data) + source.flush()


def detail(outcome: Frame | LostFrame) -> str:
    assert isinstance(outcome, LostFrame)
    return outcome.detail


def pixels(outcome: Frame | LostFrame) -> Pixels:
    assert isinstance(outcome, Frame), outcome.detail
    return outcome.pixels


def peak_bytes(source: GuardedSource) -> int:
    """Return the most memory that the present worker has held."""
    status = Path("/proc", str(source.worker_pid), "status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10


def is_running(pid: int) -> bool:
    return Path("/proc", str(pid)).exists()
