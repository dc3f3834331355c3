"""The nursery's process and the workers that it forks; started by `Nursery`, never imported by it.

A worker reads frames of one stream from its channel until that is closed. Whatever a frame makes of
it, it can open no file and no connection, has a bounded memory, and ends when a frame takes too
much CPU time.
"""

import contextlib
import gc
import io
import mmap
import os
import signal
import socket
import sys
from collections import deque
from importlib import import_module
from typing import NoReturn

import numpy as np
from PIL import Image

from orchestrator.decode_guard import wire
from orchestrator.decode_guard.confinement import confine, cpu_limited
from orchestrator.decode_guard.orders import Born, End, Ended, Fork
from orchestrator.decoding import FrameSource, open_source
from orchestrator.types.frames import EncodedFrame, Encoding, Frame, FrameHeader, LostFrame
from orchestrator.types.pictures import Pixels

_MOST_ORDER_BYTES = 4096


def main() -> None:
    """Run the nursery: fork and end workers on request until the owner is gone."""
    control = socket.socket(fileno=int(sys.argv[1]))
    children: set[int] = set()
    _warm_up()
    gc.collect()
    gc.freeze()  # else a collection in a worker would copy all memory that it shares
    while True:
        order, descriptors, _, _ = socket.recv_fds(control, _MOST_ORDER_BYTES, 2)
        if not order:
            return
        answer = (
            _fork(control, children, Fork.model_validate_json(order), descriptors)
            if descriptors
            else _end(children, End.model_validate_json(order))
        )
        control.send(answer.model_dump_json().encode())


def _fork(control: socket.socket, children: set[int], order: Fork, descriptors: list[int]) -> Born:
    try:
        pid: int | None = os.fork()
    except OSError:  # the nursery itself must outlive that: it knows the workers that there are
        pid = None
    if pid == 0:
        control.close()
        _work(order, *descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    if pid is not None:
        children.add(pid)
    return Born(pid=pid)


def _end(children: set[int], order: End) -> Ended:
    """Kill a worker, unless it is dead already, and tell how it ended."""
    if order.pid not in children:  # an earlier nursery's; the number may be anybody's by now
        return Ended(exit_code=None)
    children.remove(order.pid)
    os.kill(order.pid, signal.SIGKILL)
    _, status = os.waitpid(order.pid, 0)
    return Ended(exit_code=os.waitstatus_to_exitcode(status))


def _work(order: Fork, channel: int, memory: int) -> NoReturn:
    """Be a worker."""
    code = 1
    try:
        ring = np.frombuffer(mmap.mmap(memory, 0), np.uint8).reshape(order.slots, -1)
        os.close(memory)
        confine(order.memory_bytes)
        with contextlib.suppress(EOFError):
            _Worker(socket.socket(fileno=channel), ring, order).serve()
        code = 0
    finally:
        os._exit(code)


class _Worker:
    """Decodes one stream for as long as its channel is open."""

    def __init__(self, channel: socket.socket, ring: Pixels, order: Fork) -> None:
        self._channel = channel
        self._ring = ring
        self._order = order
        self._slot = ring[0]
        self._source: FrameSource = open_source(
            Encoding[order.encoding], max_pixels=order.max_pixels, allocate=self._allocate
        )
        self._left: deque[Frame | LostFrame] = deque()

    def serve(self) -> NoReturn:
        """Answer requests.

        Raises:
            EOFError: The channel is closed.
        """
        while True:
            head, data = wire.receive(self._channel, most_bytes=wire.MOST_DATA)
            request = wire.Request.model_validate_json(head)
            with cpu_limited(self._order.cpu_limit_s):
                answer = self._answer(request, data)
            wire.send(self._channel, answer)

    def _answer(self, request: wire.Request, data: bytes) -> wire.Answer:
        self._slot = self._ring[request.slot]
        if request.kind == "decode":
            # A decoder only echoes the timecode, so it can carry the ticket.
            header = FrameHeader(request.frame_index, request.pts, str(request.ticket))
            self._left.extend(self._source.decode(EncodedFrame(header, data)))
        elif request.kind == "flush":
            self._left.extend(self._source.flush())
        if not self._left:
            return wire.Answer(left=0)
        outcome = self._left.popleft()
        left, ticket = len(self._left), int(outcome.header.timecode)
        if isinstance(outcome, LostFrame):
            return wire.Answer(left=left, ticket=ticket, detail=outcome.detail[: wire.MOST_DETAIL])
        self._store(outcome.pixels)
        return wire.Answer(left=left, ticket=ticket, width=outcome.width, height=outcome.height)

    def _allocate(self, height: int, width: int) -> Pixels:
        """Offer the slot as memory for a picture, which saves a copy."""
        picture: Pixels = self._slot[: height * width * 3].reshape(height, width, 3)
        return picture

    def _store(self, pixels: Pixels) -> None:
        target = self._allocate(*pixels.shape[:2])
        if target.ctypes.data != pixels.ctypes.data:
            np.copyto(target, pixels)


def _warm_up() -> None:
    """Decode a picture of each kind, so that all modules and codecs are loaded before the fork."""
    import_module("PIL.MpoImagePlugin")  # for JPEG files of several pictures, as cameras make them
    picture = Image.new("RGB", (16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    for encoding in (Encoding.JPEG, Encoding.PNG):
        for options in ({}, {"exif": exif}):
            file = io.BytesIO()
            picture.save(file, encoding.name, **options)
            _try(encoding, file.getvalue())
    for encoding in Encoding:
        if encoding is not Encoding.RGB24:
            _try(encoding, b"\x00\x00\x01\x67\x00")


def _try(encoding: Encoding, data: bytes) -> None:
    source = open_source(encoding, max_pixels=1 << 16)
    source.decode(EncodedFrame(FrameHeader(0), data))
    source.flush()
    source.close()


if __name__ == "__main__":
    main()
