"""Workers that crash, hang or lie, and what that may cost: their frames, and nothing else."""

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from orchestrator.decode_guard import wire
from orchestrator.decode_guard.nursery import Nursery
from orchestrator.decode_guard.ring import PictureRing
from orchestrator.decode_guard.source import GuardedSource
from orchestrator.decoding import FrameSource, open_decoder, open_source
from orchestrator.settings import DecodeSettings
from orchestrator.types.frames import EncodedFrame, Encoding, Frame, FrameHeader, LostFrame
from orchestrator.types.streams import StreamConfig
from tests.unit.coded_media import COUNT, HEIGHT, WIDTH, as_file, clip, picture

MAX_PIXELS = WIDTH * HEIGHT
PICTURE = as_file(picture(), "PNG")
Outcomes = list[Frame | LostFrame]


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with closing(Nursery()) as made:
        yield made


@pytest.fixture
def opened(nursery):
    """Open guarded sources that are closed after the test."""
    sources = []

    def open_(encoding: Encoding = Encoding.PNG, *, max_pixels: int = MAX_PIXELS, **limits):
        settings = DecodeSettings(**limits)
        sources.append(
            GuardedSource(encoding, max_pixels=max_pixels, settings=settings, nursery=nursery)
        )
        return sources[-1]

    yield open_
    for source in sources:
        source.close()


def one(source: FrameSource, index: int = 0, data: bytes = PICTURE) -> Frame | LostFrame:
    (outcome,) = source.decode(EncodedFrame(FrameHeader(index), data))
    return outcome


def is_running(pid: int) -> bool:
    return Path("/proc", str(pid)).exists()


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


UNITS = {
    Encoding.JPEG: [
        EncodedFrame(FrameHeader(i), as_file(picture(shade=i * 9), "JPEG")) for i in range(9)
    ],
    Encoding.PNG: [
        EncodedFrame(FrameHeader(i), as_file(picture(shade=i * 9), "PNG")) for i in range(9)
    ],
    Encoding.H264: clip(),
    Encoding.HEVC: clip("libx265", options=(("x265-params", "log-level=none:keyint=8"),)),
}


@pytest.mark.parametrize("encoding", UNITS)
def test_a_worker_decodes_to_the_same_bits_in_the_same_order(opened, encoding):
    def run(source: FrameSource) -> Outcomes:
        return [o for unit in UNITS[encoding] for o in source.decode(unit)] + source.flush()

    expected = run(open_source(encoding, max_pixels=MAX_PIXELS))
    outcomes = run(opened(encoding))
    assert [o.header for o in outcomes] == [o.header for o in expected]
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(outcomes, expected, strict=True))


def test_pictures_that_are_held_are_never_written_again(opened):
    source = opened()
    held = [one(source, i, as_file(picture(shade=i), "PNG")).pixels for i in range(40)]
    source.close()
    assert all(np.array_equal(pixels, picture(shade=i)) for i, pixels in enumerate(held))


def test_pictures_that_are_let_go_cost_the_memory_of_one():
    ring = PictureRing(4, MAX_PIXELS * 3)
    slots = set()
    for _ in range(20):
        slots.add(ring.free_slot)
        pixels = ring.take(ring.free_slot, HEIGHT, WIDTH)
        part = pixels[1:, :, 0].T
        del pixels
        slots.add(ring.free_slot)
        assert part.shape == (WIDTH, HEIGHT - 1)
        del part
        gc.collect()
    assert len(slots) == 2


def test_a_ring_is_given_back_with_its_last_picture():
    ring = PictureRing(2, MAX_PIXELS * 3)
    descriptor, pixels = ring.descriptor, ring.take(ring.free_slot, HEIGHT, WIDTH)
    del ring
    assert pixels.sum() == 0
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


@pytest.mark.parametrize(("height", "width"), [(0, 5), (HEIGHT + 99, WIDTH)])
def test_a_picture_outside_its_slot_is_refused(height, width):
    ring = PictureRing(2, MAX_PIXELS * 3)
    with pytest.raises(ValueError, match="bytes"):
        ring.take(ring.free_slot, height, width)


def test_a_crash_costs_one_picture(opened):
    source = opened()
    assert isinstance(one(source, 0), Frame)
    os.kill(source.worker_pid, signal.SIGSEGV)
    crashed = one(source, 1)
    assert isinstance(crashed, LostFrame)
    assert crashed.detail == "PNG data ended its decoder: it died of SIGSEGV"
    assert isinstance(one(source, 2), Frame)


def test_a_crash_in_video_costs_the_frames_until_the_next_key_frame(opened):
    source, outcomes = opened(Encoding.H264), []
    for position, unit in enumerate(clip()):
        if position == 10:
            os.kill(source.worker_pid, signal.SIGKILL)
        outcomes += source.decode(unit)
    outcomes += source.flush()
    lost = [o.header.frame_index for o in outcomes if isinstance(o, LostFrame)]
    assert sorted(o.header.frame_index for o in outcomes) == list(range(COUNT))
    assert sorted(lost) == list(range(min(lost), max(lost) + 1))
    assert max(lost) < COUNT - 1


def test_a_hanging_worker_is_killed_and_replaced(opened):
    source = opened(timeout_s=0.3)
    one(source, 0)
    stalled = source.worker_pid
    os.kill(stalled, signal.SIGSTOP)
    outcome = one(source, 1)
    assert isinstance(outcome, LostFrame)
    assert outcome.detail == "PNG data ended its decoder: no answer within 0.3 s"
    assert not is_running(stalled)
    source.close()  # the limit was meant for the stopped one only


def test_a_stream_that_loses_worker_after_worker_is_decoded_no_more(opened):
    hostile, innocent = opened(max_worker_losses=2), opened()
    one(innocent)
    for index in range(2):
        one(hostile, 2 * index)
        os.kill(hostile.worker_pid, signal.SIGKILL)
        one(hostile, 2 * index + 1)
    refused = one(hostile, 9)
    assert isinstance(refused, LostFrame)
    assert refused.detail == "not decoded: this stream's data ended its decoder 2 times"
    assert hostile.worker_pid is None
    assert isinstance(one(innocent, 1), Frame)


def test_streams_go_on_without_the_nursery_and_new_ones_get_another(opened, nursery):
    source = opened()
    one(source, 0)
    os.kill(nursery.pid, signal.SIGKILL)
    assert isinstance(one(source, 1), Frame)
    assert isinstance(one(opened()), Frame)
    assert isinstance(one(source, 2), Frame)


def test_nothing_is_left_of_a_closed_stream(opened, nursery):
    one(opened())
    before = open_descriptors()
    source = opened()
    one(source)
    pid = source.worker_pid
    source.close()
    assert not is_running(pid)
    assert open_descriptors() == before


def test_a_frame_that_is_late_for_a_closed_stream_starts_no_worker(opened):
    source = opened()
    source.close()
    assert isinstance(one(source), LostFrame)
    assert source.worker_pid is None


def test_a_stream_can_be_closed_while_a_frame_is_decoded(opened):
    source = opened(timeout_s=0.5)
    one(source)
    os.kill(source.worker_pid, signal.SIGSTOP)
    outcomes: Outcomes = []
    decoding = threading.Thread(target=lambda: outcomes.append(one(source, 1)))
    decoding.start()
    source.close()
    decoding.join()
    source.close()
    assert len(outcomes) == 1


def test_the_nursery_ends_with_its_owner():
    program = (
        "from orchestrator.decode_guard.nursery import Nursery\n"
        "nursery = Nursery(); nursery.prepare(); print(nursery.pid, flush=True)\n"
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    )
    owner = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    pid = int(owner.stdout)
    for _ in range(3000):
        if not is_running(pid) or b"Z" in Path(f"/proc/{pid}/stat").read_bytes():
            break
        time.sleep(0.01)
    else:
        pytest.fail("the nursery outlived its owner by half a minute")


def test_the_nursery_has_one_thread_and_no_secrets(opened, nursery, monkeypatch):
    monkeypatch.setenv("TOUCHLINE_SECRET", "hunter2")
    nursery.close()
    one(opened())
    process = Path("/proc", str(nursery.pid))
    assert len(list((process / "task").iterdir())) == 1
    assert b"hunter2" not in (process / "environ").read_bytes()


CONFINED = """
import os, socket, numpy as np
from orchestrator.decode_guard.confinement import confine
confine(64 << 20)
refused = 0
for forbidden in (
    lambda: open("/etc/hostname"), socket.socket, os.pipe, lambda: os.dup(0),
    lambda: np.ones(100 << 20, np.uint8),
):
    try:
        forbidden()
    except (OSError, MemoryError):
        refused += 1
np.ones(10 << 20, np.uint8)
os._exit(refused)
"""


def test_a_confined_process_opens_nothing_and_takes_bounded_memory():
    assert subprocess.run([sys.executable, "-c", CONFINED]).returncode == 5


# ------------------------------------------------------------------------------ workers that lie


class LyingNursery:
    """Stands in for a worker that hostile data has taken over: says the same whatever is asked."""

    def __init__(self, lie: bytes) -> None:
        self._lie = lie

    def fork(self, order: object, channel: int, memory: int) -> int:
        threading.Thread(target=self._talk, args=(os.dup(channel),), daemon=True).start()
        return 1

    def end(self, pid: int) -> None:
        return None

    def _talk(self, descriptor: int) -> None:
        with socket.socket(fileno=descriptor) as channel:
            try:
                while channel.recv(1 << 16):
                    channel.sendall(self._lie)
            except OSError:
                pass


def framed(json: bytes, trailing: int = 0) -> bytes:
    return len(json).to_bytes(4, "little") + trailing.to_bytes(4, "little") + json


@pytest.mark.parametrize(
    "lie",
    [
        b"garbage that is longer than the prefix",
        b"\xff" * 8,
        framed(b'{"left": 0}', trailing=1 << 31),
        framed(b'{"left": 0, "ticket": 77}'),
        framed(b'{"left": 5, "ticket": 1, "width": 4, "height": 4}'),
        framed(b'{"left": -1}'),
        framed(b'{"left": 0, "ticket": 1, "width": 1000000, "height": 1000000}'),
        framed(b'{"left": 0, "ticket": 1, "width": -4, "height": -4}'),
        framed(b'{"left": 0, "ticket": 1, "detail": "' + b"x" * 9000 + b'"}'),
        framed(b'{"left": 1}'),
        b"",
    ],
)
def test_a_lying_worker_costs_its_frame(lie):
    settings = DecodeSettings(timeout_s=0.2)
    source = GuardedSource(
        Encoding.PNG, max_pixels=MAX_PIXELS, settings=settings, nursery=LyingNursery(lie)
    )
    outcome = one(source)
    source.close()
    assert isinstance(outcome, LostFrame)
    assert len(outcome.detail) < 1000


def test_a_worker_that_never_answers_for_its_frames_is_found_out():
    nursery = LyingNursery(framed(b'{"left": 0}'))
    source = GuardedSource(
        Encoding.H264, max_pixels=MAX_PIXELS, settings=DecodeSettings(), nursery=nursery
    )
    outcomes = []
    for index in range(40):
        outcomes += source.decode(EncodedFrame(FrameHeader(index), b""))
    source.close()
    assert [o.header.frame_index for o in outcomes] == list(range(34))
    assert "held back" in outcomes[0].detail


def test_messages_survive_any_split():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        data = bytes(range(256)) * 5000
        request = wire.Request(kind="decode", slot=3, ticket=4, frame_index=-5, pts=None)
        sending = threading.Thread(target=wire.send, args=(ours, request, data))
        sending.start()
        head, received = wire.receive(theirs, most_bytes=len(data))
        sending.join()
    assert wire.Request.model_validate_json(head) == request
    assert received == data


def test_raw_pixels_need_no_worker():
    config = StreamConfig("test", Encoding.RGB24, width=WIDTH, height=HEIGHT)
    decoder = open_decoder(config, max_pixels=MAX_PIXELS, settings=DecodeSettings())
    (frame,) = decoder.decode(EncodedFrame(FrameHeader(0), picture().tobytes()))
    assert np.array_equal(frame.pixels, picture())
    assert frame.pixels.base is not None


@pytest.mark.parametrize("isolation", ["process", "thread"])
def test_both_kinds_of_isolation_turn_and_hold_to_the_first_size(isolation):
    config = StreamConfig("test", Encoding.PNG, rotation_degrees=90)
    settings = DecodeSettings(isolation=isolation)
    with closing(open_decoder(config, max_pixels=MAX_PIXELS, settings=settings)) as decoder:
        first, other = (
            decoder.decode(EncodedFrame(FrameHeader(0), as_file(picture(*size), "PNG")))[0]
            for size in ((WIDTH, HEIGHT), (HEIGHT, WIDTH))
        )
    assert np.array_equal(first.pixels, np.rot90(picture(), -1))
    assert isinstance(other, LostFrame)
