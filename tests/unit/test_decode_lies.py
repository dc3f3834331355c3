"""Workers that say what is not so cost their own frames, and messages arrive whole."""

import os
import socket
import threading
import time

import pytest

from orchestrator.decode_guard import wire
from orchestrator.decode_guard.source import GuardedSource
from orchestrator.settings import DecodeSettings
from orchestrator.types.frames import EncodedFrame, Encoding, FrameHeader, LostFrame
from tests.unit.coded_media import MAX_PIXELS
from tests.unit.guarded_decoding import one


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
        framed(b'{"left": 0}' + b" " * (1 << 15)),
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


def test_what_lies_there_already_does_not_put_the_deadline_off():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(framed(b'{"left": 1}'))
        with pytest.raises(TimeoutError):
            wire.receive(ours, most_bytes=0, deadline=time.monotonic())


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
