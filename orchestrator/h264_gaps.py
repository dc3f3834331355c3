"""Which access units of H.264 never came, told by the numbers of reference pictures.

A decoder conceals a missing reference picture and says nothing, and all that refers to it comes out
wrong. Source: ITU-T H.264 7.3.2.1, 7.3.2.2, 7.3.3 (syntax) and 7.4.3 (`frame_num`).
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

_SLICE, _IDR_SLICE, _SEQUENCE_SET, _PICTURE_SET = 1, 5, 7, 8
"""NAL unit types, table 7-1."""
_HIGH_PROFILES = frozenset({44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244})
"""Those whose parameter sets tell of chroma and scaling."""
_MOST_HEADER_BYTES = 32
"""What is looked for in a slice ends within 20 bytes."""
_MOST_SET_BYTES = 2048


class FrameNumbers:
    """Follows the frame numbers of one stream; what cannot be read is as if it had not come.

    A stream that may skip numbers is never found to miss any. Numbers return after 16 or more, so a
    long run of missing pictures, or a key frame that starts them anew, can be missed unnoticed.
    Memory management operation 5, which does so without a key frame, is taken for a gap.
    """

    def __init__(self) -> None:
        self._sequences: dict[int, _Sequence] = {}
        self._sequence_ids: dict[int, int] = {}
        """Of the sequence parameter set that each picture parameter set names."""
        self._previous: int | None = None
        """Number of the last reference picture."""

    def is_gap_before(self, nals: Iterable[bytes]) -> bool:
        """Take the next access unit, and tell whether a reference picture is missing before it.

        Args:
            nals: Its NAL units without start codes, none of them empty.
        """
        for nal in nals:
            kind = nal[0] & 0x1F
            with suppress(ValueError, KeyError):
                if kind == _SEQUENCE_SET:
                    sequence_id, sequence = _sequence(_Bits(nal[1:_MOST_SET_BYTES]))
                    self._sequences[sequence_id] = sequence
                elif kind == _PICTURE_SET:
                    bits = _Bits(nal[1:_MOST_HEADER_BYTES])
                    self._sequence_ids[bits.number(255)] = bits.number(31)
                elif kind in (_SLICE, _IDR_SLICE):
                    return self._follow(nal)  # other slices of the picture have the same number
        return False

    def _follow(self, nal: bytes) -> bool:
        bits = _Bits(nal[1:_MOST_HEADER_BYTES])
        bits.numbers(2)  # first macroblock and slice type
        sequence = self._sequences[self._sequence_ids[bits.number(255)]]
        bits.fixed(2 * sequence.has_separate_planes)
        number, previous = bits.fixed(sequence.number_bits), self._previous
        if nal[0] & 0x60:  # a picture that others refer to
            self._previous = number
        if nal[0] & 0x1F == _IDR_SLICE or sequence.may_skip or previous is None:
            return False
        # Two fields of one frame share its number.
        return number not in (previous, (previous + 1) % (1 << sequence.number_bits))


@dataclass(frozen=True, slots=True)
class _Sequence:
    """What a sequence parameter set says of frame numbers."""

    number_bits: int
    may_skip: bool
    has_separate_planes: bool


class _Bits:
    """Reads the fields of a header; `ValueError` where it ends or a number is out of range."""

    def __init__(self, data: bytes) -> None:
        plain = data.replace(b"\x00\x00\x03", b"\x00\x00")  # 7.4.1.1: emulation prevention
        self._bits = bin(int.from_bytes(b"\x01" + plain, "big"))[3:]
        self._at = 0

    def fixed(self, count: int) -> int:
        """Read a number of `count` bits: u(n)."""
        start, self._at = self._at, self._at + count
        if self._at > len(self._bits):
            raise ValueError("expected more bits")
        return int(self._bits[start : self._at] or "0", 2)

    def number(self, most: int = (1 << 32) - 1) -> int:
        """Read a number of the length that its leading zeros tell, 9.1: ue(v)."""
        zeros = self._bits.index("1", self._at) - self._at
        self._at += zeros
        number = self.fixed(zeros + 1) - 1
        if number > most:
            raise ValueError("expected a smaller number")
        return number

    def numbers(self, count: int) -> None:
        """Pass over so many such numbers, signed or not."""
        for _ in range(count):
            self.number()


def _sequence(bits: _Bits) -> tuple[int, _Sequence]:
    """Read a sequence parameter set, up to what is needed; returns its id, too."""
    profile, _ = bits.fixed(8), bits.fixed(16)
    sequence_id = bits.number(31)
    has_separate_planes = profile in _HIGH_PROFILES and _read_chroma(bits)
    number_bits = bits.number(12) + 4
    order_kind = bits.number(2)
    if order_kind == 0:
        bits.numbers(1)
    elif order_kind == 1:
        bits.fixed(1)
        bits.numbers(2)
        bits.numbers(bits.number(255))
    bits.numbers(1)  # most reference pictures
    return sequence_id, _Sequence(number_bits, bool(bits.fixed(1)), has_separate_planes)


def _read_chroma(bits: _Bits) -> bool:
    """Pass over chroma, depths and scaling; return whether colour planes are coded apart."""
    chroma = bits.number(3)
    has_separate_planes = chroma == 3 and bool(bits.fixed(1))
    bits.numbers(2)  # depths
    bits.fixed(1)
    if bits.fixed(1):
        for index in range(12 if chroma == 3 else 8):
            if bits.fixed(1):
                _pass_scaling_list(bits, 16 if index < 6 else 64)
    return has_separate_planes


def _pass_scaling_list(bits: _Bits, size: int) -> None:
    """Pass over a list, whose end is where the next scale would be 0: 7.3.2.1.1.1."""
    scale = 8
    for _ in range(size):
        code = bits.number()
        scale = (scale + (code + 1 >> 1) * (1 if code % 2 else -1)) % 256
        if not scale:
            return
