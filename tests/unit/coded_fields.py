"""Interlaced H.264 whose frames are coded as two fields, which no encoder at hand writes."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av

_FIELD_MACROBLOCKS = 8
"""Of a field of 64x32 pixels."""


class _Bits:
    """Writes the fields of H.264's syntax."""

    def __init__(self) -> None:
        self._text = ""

    def fixed(self, count: int, value: int) -> "_Bits":
        self._text += f"{value:0{count}b}"
        return self

    def numbers(self, *values: int) -> "_Bits":
        for value in values:
            coded = f"{value + 1:b}"
            self._text += "0" * (len(coded) - 1) + coded
        return self

    def align(self) -> None:
        self._text += "0" * (-len(self._text) % 8)

    def unit(self, kind: int) -> bytes:
        """Return all as a NAL unit; nothing in it needs emulation prevention."""
        self._text += "1"
        self.align()
        body = int(self._text, 2).to_bytes(len(self._text) // 8, "big")
        return b"\0\0\0\1" + bytes([kind]) + body


def _parameter_sets() -> bytes:
    sequence = _Bits().fixed(8, 77).fixed(8, 0).fixed(8, 30)
    sequence.numbers(0, 0, 2, 1).fixed(1, 0).numbers(3, 1)  # 4 macroblocks by 2 pairs
    sequence.fixed(5, 0b00100)  # frames or fields; no cropping, no VUI
    picture = _Bits().numbers(0, 0).fixed(2, 0).numbers(0, 0, 0).fixed(3, 0)
    picture.numbers(0, 0, 0).fixed(3, 0b100)  # deblocking is told
    return sequence.unit(0x67) + picture.unit(0x68)


def _field(frame: int, is_bottom: bool, shade: int) -> bytes:
    is_first = frame == 0 and not is_bottom
    bits = _Bits().numbers(0, 7, 0).fixed(4, frame % 16).fixed(1, 1).fixed(1, is_bottom)
    if is_first:
        bits.numbers(0).fixed(2, 0)
    else:
        bits.fixed(1, 0)
    bits.numbers(0, 1)  # no deblocking
    for _ in range(_FIELD_MACROBLOCKS):
        bits.numbers(25)  # I_PCM
        bits.align()
        for sample in [shade] * 256 + [128] * 128:
            bits.fixed(8, sample)
    return bits.unit(0x65 if is_first else 0x61)


def _fields(count: int) -> Iterator[bytes]:
    for frame in range(count):
        for is_bottom in (False, True):
            sets = _parameter_sets() if frame % 4 == 0 and not is_bottom else b""
            yield b"\0\0\0\1\x09\xf0" + sets + _field(frame, is_bottom, 40 + 12 * frame)


def write_fields(path: Path, count: int) -> Path:
    """Write a transport stream of 25 frames a second, each field with a timestamp of its own."""
    raw = path.with_suffix(".h264")
    raw.write_bytes(b"".join(_fields(count)))
    with av.open(str(raw)) as template, av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream_from_template(template.streams.video[0])
        for position, data in enumerate(_fields(count)):
            packet = av.Packet(data)
            packet.stream, packet.time_base = stream, Fraction(1, 50)
            packet.pts = packet.dts = 50 + position
            container.mux(packet)
    return path
