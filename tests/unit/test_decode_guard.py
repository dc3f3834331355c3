"""Workers that crash or hang, and what that may cost: their frames, and nothing else."""

import errno
import os
import signal
import threading
from contextlib import closing
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from orchestrator.decode_guard import worker
from orchestrator.decode_guard.nursery import Nursery
from orchestrator.decode_guard.orders import Born, Fork
from orchestrator.decoding import FrameSource, open_decoder, open_source
from orchestrator.errors import OverloadedError
from orchestrator.settings import DecodeSettings
from orchestrator.types.frames import EncodedFrame, Encoding, Frame, FrameHeader, LostFrame
from orchestrator.types.streams import StreamConfig
from tests.unit.coded_media import COUNT, HEIGHT, MAX_PIXELS, WIDTH, as_file, clip, picture
from tests.unit.guarded_decoding import detail, is_running, one

Outcomes = list[Frame | LostFrame]


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
def test_a_worker_decodes_to_the_same_bits_in_the_same_order(guarded, encoding):
    def run(source: FrameSource) -> Outcomes:
        return [o for unit in UNITS[encoding] for o in source.decode(unit)] + source.flush()

    expected = run(open_source(encoding, max_pixels=MAX_PIXELS))
    outcomes = run(guarded(encoding))
    assert [o.header for o in outcomes] == [o.header for o in expected]
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(outcomes, expected, strict=True))


def test_a_cameras_jpeg_of_several_pictures_is_its_first(guarded):
    first, second = Image.fromarray(picture()), Image.fromarray(picture(shade=200))
    several = as_file(first, "MPO", save_all=True, append_images=[second])
    outcome = one(guarded(Encoding.JPEG), several)
    assert isinstance(outcome, Frame), outcome.detail
    assert np.abs(outcome.pixels.astype(int) - picture()).mean() < 8


def test_pictures_that_are_held_are_never_written_again(guarded):
    source = guarded()
    held = [one(source, as_file(picture(shade=i), "PNG")).pixels for i in range(40)]
    source.close()
    assert all(np.array_equal(pixels, picture(shade=i)) for i, pixels in enumerate(held))


@pytest.mark.parametrize(("number", "name"), [(signal.SIGSEGV, "SIGSEGV"), (40, "signal 40")])
def test_a_crash_costs_one_picture(guarded, number, name):
    source = guarded()
    assert isinstance(one(source), Frame)
    os.kill(source.worker_pid, number)
    crashed = one(source)
    assert isinstance(crashed, LostFrame)
    assert crashed.detail == f"PNG data ended its decoder: it died of {name}"
    assert isinstance(one(source), Frame)


def test_a_crash_in_video_costs_the_frames_until_the_next_key_frame(guarded):
    source, outcomes = guarded(Encoding.H264), []
    for position, unit in enumerate(clip()):
        if position == 10:
            os.kill(source.worker_pid, signal.SIGKILL)
        outcomes += source.decode(unit)
    outcomes += source.flush()
    lost = [o.header.frame_index for o in outcomes if isinstance(o, LostFrame)]
    assert sorted(o.header.frame_index for o in outcomes) == list(range(COUNT))
    assert sorted(lost) == list(range(min(lost), max(lost) + 1))
    assert max(lost) < COUNT - 1


def test_a_hanging_worker_is_killed_and_replaced(guarded):
    source = guarded(timeout_s=0.3)
    one(source)
    stalled = source.worker_pid
    os.kill(stalled, signal.SIGSTOP)
    outcome = one(source)
    assert isinstance(outcome, LostFrame)
    assert outcome.detail == "PNG data ended its decoder: no answer within 0.3 s"
    assert not is_running(stalled)
    source.close()  # the limit was meant for the stopped one only


def test_a_stream_that_loses_worker_after_worker_is_decoded_no_more(guarded):
    hostile, innocent = guarded(max_worker_losses=2), guarded()
    one(innocent)
    for _ in range(2):
        one(hostile)
        os.kill(hostile.worker_pid, signal.SIGKILL)
        one(hostile)
    refused = one(hostile)
    assert isinstance(refused, LostFrame)
    assert refused.detail == "not decoded: this stream's data ended its decoder 2 times"
    assert hostile.worker_pid is None
    assert isinstance(one(innocent), Frame)


def test_the_loss_of_a_worker_is_forgiven_after_a_while(guarded, monkeypatch):
    monkeypatch.setattr("orchestrator.decode_guard.source._FORGIVEN_AFTER", 4)
    source = guarded(max_worker_losses=2)
    for _ in range(3):
        for _ in range(3):
            assert isinstance(one(source), Frame)
        os.kill(source.worker_pid, signal.SIGKILL)
        assert isinstance(one(source), LostFrame)


def test_a_host_without_a_process_to_spare_is_not_held_against_a_stream(
    guarded, nursery, monkeypatch
):
    source = guarded(max_worker_losses=1)
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(nursery, "_ask", Mock(return_value=Born(pid=None)))
        lost = [detail(one(source)) for _ in range(3)]
    assert lost == ["no decoder can be started: the host has no process to spare"] * 3
    assert isinstance(one(source), Frame)


def test_a_host_without_a_file_to_spare_refuses_a_stream_for_now(guarded, monkeypatch):
    failing = Mock(side_effect=OSError(errno.EMFILE, "Too many open files"))
    monkeypatch.setattr(os, "memfd_create", failing)
    with pytest.raises(OverloadedError, match="memory for pictures.*Too many open files"):
        guarded()


def test_the_nursery_outlives_a_fork_that_fails(monkeypatch):
    monkeypatch.setattr(os, "fork", Mock(side_effect=BlockingIOError(errno.EAGAIN, "no process")))
    order = Fork(encoding="PNG", max_pixels=1, slots=1, cpu_limit_s=1.0, memory_bytes=1)
    channel, control = os.open(os.devnull, os.O_RDONLY), Mock()
    assert worker._fork(control, set(), order, [channel]) == Born(pid=None)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(channel)
    control.close.assert_not_called()


def test_streams_go_on_without_the_nursery_and_new_ones_get_another(guarded, nursery):
    source = guarded()
    one(source)
    os.kill(nursery.pid, signal.SIGKILL)
    assert isinstance(one(source), Frame)
    assert isinstance(one(guarded()), Frame)
    assert isinstance(one(source), Frame)


@pytest.mark.parametrize("dies", [False, True])
def test_a_nursery_that_hangs_or_dies_while_it_is_asked_is_replaced(
    guarded, nursery, monkeypatch, dies
):
    nursery.close()
    with monkeypatch.context() as meanwhile:
        patience_s = 60 if dies else 0.3
        meanwhile.setattr("orchestrator.decode_guard.nursery._ANSWER_TIMEOUT_S", patience_s)
        nursery.prepare()
    stalled = nursery.pid
    os.kill(stalled, signal.SIGSTOP)
    dying = threading.Timer(0.3, os.kill, (stalled, signal.SIGKILL))
    if dies:
        dying.start()
    assert isinstance(one(guarded()), Frame)
    assert nursery.pid != stalled
    assert not is_running(stalled)


def test_nothing_is_left_of_a_closed_stream(guarded, nursery):
    one(guarded())
    before = open_descriptors()
    source = guarded()
    one(source)
    pid = source.worker_pid
    source.close()
    assert not is_running(pid)
    assert open_descriptors() == before


def test_a_frame_that_is_late_for_a_closed_stream_starts_no_worker(guarded):
    source = guarded()
    source.close()
    assert isinstance(one(source), LostFrame)
    assert source.worker_pid is None


def test_a_stream_can_be_closed_while_a_frame_is_decoded(guarded):
    source = guarded(timeout_s=0.5)
    one(source)
    os.kill(source.worker_pid, signal.SIGSTOP)
    outcomes: Outcomes = []
    decoding = threading.Thread(target=lambda: outcomes.append(one(source)))
    decoding.start()
    source.close()
    decoding.join()
    source.close()
    assert [type(outcome) for outcome in outcomes] == [LostFrame]


def test_raw_pixels_need_no_worker(monkeypatch):
    monkeypatch.delattr(Nursery, "fork")
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
