"""What passes between a stream and its decode worker: small JSON, and the frame's bytes behind it.

A worker counts as hostile once it has read a hostile frame, so that nothing it sends is trusted:
the answers are validated, bounded in size, and no pickle.
"""

import math
import socket
import struct
import time
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

_PREFIX = struct.Struct("<II")
_MOST_JSON = 1 << 14
MOST_DATA = (1 << 32) - 1
"""Most bytes that may follow a message, by its form."""
MOST_DETAIL = 500
"""Longest reason that a worker may give, in characters."""


class Message(BaseModel):
    """What passes between processes: frozen, of these fields and types and no others."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Request(Message):
    """What a worker shall do.

    Attributes:
        kind: `decode` the bytes that follow, `flush`, or answer with the `next` outcome that is
            left of the request before.
        ticket: Number of the frame, unique in the stream.
        frame_index: Its presentation index.
        pts: Its presentation time, if the client sent one.
        slot: Where in the ring a picture may be written.
    """

    kind: Literal["decode", "flush", "next"]
    slot: int
    ticket: int = 0
    frame_index: int = 0
    pts: int | None = None


class Answer(Message):
    """One outcome, or none.

    Attributes:
        left: Outcomes that wait to be asked for with `next`.
        ticket: Whose outcome it is; None if there is none.
        width: Width of the picture in the slot, in pixels; 0 if the frame is lost.
        height: Its height.
        detail: Why the frame is lost.
    """

    left: int = Field(ge=0)
    ticket: int | None = None
    width: int = Field(default=0, ge=0)
    height: int = Field(default=0, ge=0)
    detail: str = Field(default="", max_length=MOST_DETAIL)


def send(channel: socket.socket, message: BaseModel, data: bytes = b"") -> None:
    """Send a message and the bytes that belong to it.

    Raises:
        OSError: The other side is gone, or does not read in time.
    """
    head = message.model_dump_json(exclude_defaults=True).encode()
    channel.sendall(_PREFIX.pack(len(head), len(data)) + head)
    if data:
        channel.sendall(data)


def receive(
    channel: socket.socket, *, most_bytes: int, deadline: float = math.inf
) -> tuple[bytes, bytes]:
    """Receive the JSON of a message, and the bytes that belong to it.

    Args:
        channel: A stream socket.
        most_bytes: Most bytes that may follow the JSON.
        deadline: Latest time to wait for them, in seconds of `time.monotonic`.

    Raises:
        EOFError: The other side is gone.
        OSError: Likewise, or `TimeoutError` if the deadline has passed.
        ValueError: The message is larger than allowed.
    """
    head, body = _PREFIX.unpack(_read(channel, _PREFIX.size, deadline))
    if head > _MOST_JSON or body > most_bytes:
        raise ValueError(f"expected a message of at most {_MOST_JSON} + {most_bytes} bytes")
    return _read(channel, head, deadline), _read(channel, body, deadline)


def _read(channel: socket.socket, count: int, deadline: float) -> bytes:
    data = bytearray(count)
    room = memoryview(data)
    while room:
        if deadline != math.inf:
            channel.settimeout(_left(deadline))
        received = channel.recv_into(room)
        if not received:
            raise EOFError("the other side is gone")
        room = room[received:]
    return bytes(data)


def _left(deadline: float) -> float:
    """Return the seconds until a deadline; whoever talks on and on does not put it off."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline has passed")
    return left
