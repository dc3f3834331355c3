"""What hostile or broken clients send: messages drawn from the API's own descriptors, and bytes."""

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from soccer.v1 import player_recognition_pb2 as pb

from tests.unit.coded_media import as_file, clip, picture

Target = Literal["RecognizeStream", "RecognizeFrame", "Nothing", "wire"]
Ending = Literal["close", "cancel", "vanish"]

LAST_TOKEN = "the token of the stream that started last"
"""Replaced when it is sent."""

_INTEGERS = (0, 1, -1, 2, 16, 25, 90, 8192, 2**31 - 1, -(2**31))
_LONG = (*_INTEGERS, 2**53, 2**63 - 1, -(2**63))
_FLOATS = (0.0, -0.0, 1.0, 25.0, 240.0, 1e-300, 1e300, float("inf"), float("-inf"), float("nan"))
_TEXTS = ("", "red shirt", "x" * 129, "é\U0001f600", "\x00\n\r\x1b[2J", "%s%n{0}", "../../etc")
_SCALARS: dict[int, Callable[[random.Random], Any]] = {
    FieldDescriptor.CPPTYPE_INT32: lambda c: c.choice(_INTEGERS),
    FieldDescriptor.CPPTYPE_INT64: lambda c: c.choice(_LONG),
    FieldDescriptor.CPPTYPE_DOUBLE: lambda c: c.choice(_FLOATS),
    FieldDescriptor.CPPTYPE_FLOAT: lambda c: c.choice((0.0, 1.0, float("nan"))),
    FieldDescriptor.CPPTYPE_BOOL: lambda c: c.random() < 0.5,
    FieldDescriptor.CPPTYPE_ENUM: lambda c: c.choice((0, 1, 2, 3, 4, 5, 99, -1)),
}
_HEADERS = ("x-api-key", "authorization", "traceparent", "tracestate", "user-agent", "x-other")
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_STARTS = (b"", _PREFACE, b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"\x00" * 9)


@dataclass(frozen=True)
class Attack:
    """One call or connection.

    Attributes:
        target: Method that is called, one that does not exist, or the bare port.
        parts: Its messages, serialized; for the bare port what is written.
        metadata: Headers of the call.
        ending: Whether the client waits for the end, cancels, or closes its connection.
    """

    target: Target
    parts: tuple[bytes, ...]
    metadata: tuple[tuple[str, str], ...] = ()
    ending: Ending = "close"


def attack(chance: random.Random) -> Attack:
    """Draw one attack."""
    target: Target = chance.choices(
        ("RecognizeStream", "RecognizeFrame", "Nothing", "wire"), (80, 12, 1, 7)
    )[0]
    if target == "wire":
        return Attack(target, _wire(chance))
    if target == "RecognizeFrame":
        message = message_of(pb.RecognizeFrameRequest.DESCRIPTOR, chance)
        if chance.random() < 0.7:
            message.encoding, message.data = _picture(chance)
        parts: tuple[bytes, ...] = (_damaged(message.SerializeToString(), chance, 0.2),)
    else:
        parts = _conversation(chance)
    ending: Ending = chance.choices(("close", "cancel", "vanish"), (16, 3, 1))[0]
    return Attack(target, parts, _metadata(chance), ending)


def message_of(descriptor: Descriptor, chance: random.Random, depth: int = 0) -> Message:
    """Draw a message of any type: every field absent, at an edge of its range, or nested."""
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if chance.random() < 0.6 or depth > 4:
            continue
        if field.is_repeated:
            count = chance.choice((0, 1, 2, 70))
            getattr(message, field.name).extend(_value(field, chance, depth) for _ in range(count))
        elif field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            getattr(message, field.name).CopyFrom(_value(field, chance, depth))
        else:
            setattr(message, field.name, _value(field, chance, depth))
    return message


def _value(field: FieldDescriptor, chance: random.Random, depth: int) -> Any:
    if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        return message_of(field.message_type, chance, depth + 1)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return chance.randbytes(chance.choice((0, 1, 60, 3000)))
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return chance.choice(_TEXTS)
    return _SCALARS[field.cpp_type](chance)


def _conversation(chance: random.Random) -> tuple[bytes, ...]:
    """Draw the messages of a stream: mostly a config that works, then frames good and bad."""
    config, units = _opening(chance)
    messages = [pb.RecognizeStreamRequest(config=config)]
    index = 0
    for _ in range(chance.choice((0, 1, 3, 6, 12))):
        frame = pb.Frame(frame_index=index, data=_damaged(chance.choice(units), chance, 0.4))
        if chance.random() < 0.2:
            frame.MergeFrom(message_of(pb.Frame.DESCRIPTOR, chance))
        index += chance.choice((1, 1, 1, 1, 1, 0, -1, 7, 2**40))
        messages.append(pb.RecognizeStreamRequest(frame=frame))
    if chance.random() < 0.1:
        whole = message_of(pb.RecognizeStreamRequest.DESCRIPTOR, chance)
        messages.insert(chance.randrange(len(messages) + 1), whole)
    return tuple(_damaged(message.SerializeToString(), chance, 0.03) for message in messages)


def _opening(chance: random.Random) -> tuple[pb.StreamConfig, list[bytes]]:
    """Draw a config and units that may fit it."""
    encoding, data = _picture(chance)
    units = [data, *_units("libx264")] if chance.random() < 0.1 else [data]
    if chance.random() < 0.1:
        encoding, units = chance.choice(
            (
                (pb.FRAME_ENCODING_H264, _units("libx264")),
                (pb.FRAME_ENCODING_HEVC, _units("libx265")),
            )
        )
    config = pb.StreamConfig(
        encoding=encoding,
        delivery_mode=chance.choice((0, 1, 2)),
        rotation_degrees=chance.choice((0, 0, 90, 180, 270)),
    )
    if encoding == pb.FRAME_ENCODING_RGB24:
        config.width_px, config.height_px = 16, 16
    if chance.random() < 0.1:
        config.resume_token = LAST_TOKEN
    if chance.random() < 0.15:
        config.MergeFrom(message_of(pb.StreamConfig.DESCRIPTOR, chance))
    return config, units


def _picture(chance: random.Random) -> "tuple[pb.FrameEncoding.ValueType, bytes]":
    return chance.choice(_pictures())


@cache
def _pictures() -> "tuple[tuple[pb.FrameEncoding.ValueType, bytes], ...]":
    return (
        (pb.FRAME_ENCODING_JPEG, as_file(picture(), "JPEG")),
        (pb.FRAME_ENCODING_JPEG, as_file(picture(32, 32), "JPEG", progressive=True)),
        (pb.FRAME_ENCODING_PNG, as_file(picture(), "PNG")),
        (pb.FRAME_ENCODING_RGB24, picture(16, 16).tobytes()),
    )


@cache
def _units(codec: str) -> list[bytes]:
    options = (("x265-params", "log-level=none"),) if codec == "libx265" else (("bf", "2"),)
    return [unit.data for unit in clip(codec, options=options, count=8)]


def _damaged(data: bytes, chance: random.Random, share: float) -> bytes:
    """Return bytes, a share of the time with some of them changed, cut out, or repeated."""
    if chance.random() >= share:
        return data
    damaged = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        place = chance.randrange(len(damaged) + 1)
        change = chance.randrange(4)
        if change == 0:
            damaged[place : place + 1] = chance.randbytes(1)
        elif change == 1:
            del damaged[place : place + chance.randrange(1, 40)]
        elif change == 2:
            damaged[place:place] = damaged[place : place + 40] * chance.choice((1, 30))
        else:
            del damaged[place:]
    return bytes(damaged)


def _metadata(chance: random.Random) -> tuple[tuple[str, str], ...]:
    """Draw headers that gRPC lets a client send at all: printable ASCII."""
    count = chance.choice((0, 0, 0, 1, 3))
    length = chance.choice((0, 5, 60, 500))
    return tuple(
        (
            chance.choice(_HEADERS[:4] + _HEADERS[5:]),
            "".join(chr(chance.randrange(33, 127)) for _ in range(length)),
        )
        for _ in range(count)
    )


def _wire(chance: random.Random) -> tuple[bytes, ...]:
    """Draw what is written to the bare port: half of it frames of HTTP/2 with any content."""
    start = chance.choice(_STARTS)
    frames = [
        struct.pack(">I", length)[1:]
        + bytes((chance.randrange(12), chance.randrange(256)))
        + struct.pack(">I", chance.choice((0, 1, 2, 3, 2**31 - 1)))
        + chance.randbytes(length)
        for length in chance.choices((0, 4, 6, 8, 40, 900), k=chance.randrange(4))
    ]
    noise = [chance.randbytes(chance.choice((1, 30, 5000)))] if chance.random() < 0.5 else []
    return (start, *frames, *noise)
