"""Video made to harm: it costs its frames, little time and little memory."""

from dataclasses import replace

import numpy as np
import pytest

from orchestrator.types.frames import Encoding, LostFrame
from tests.unit.coded_media import COUNT, HEIGHT, WIDTH, clip
from tests.unit.guarded_decoding import detail, every, fed, peak_bytes, pixels

START = b"\x00\x00\x01"


def bits(*fields: tuple[int, int] | int) -> bytes:
    """Write fields `(value, width)` and Exp-Golomb numbers, then the stop bit."""
    text = ""
    for field in fields:
        if isinstance(field, tuple):
            text += f"{field[0]:0{field[1]}b}"
        else:
            code = f"{field + 1:b}"
            text += "0" * (len(code) - 1) + code
    text += "1"
    text += "0" * (-len(text) % 8)
    raw = int(text, 2).to_bytes(len(text) // 8, "big")
    escaped, zeros = bytearray(), 0
    for byte in raw:
        if zeros >= 2 and byte <= 3:
            escaped.append(3)
            zeros = 0
        escaped.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes(escaped)


def h264_sps(*, columns: int, rows: int, references: int = 1) -> bytes:
    """Write a sequence parameter set, sizes in macroblocks. Source: ITU-T H.264 7.3.2.1.1."""
    return START + bits(
        (0x67, 8), (66, 8), (0xC0, 8), (51, 8), 0, 0, 2, references, (0, 1), columns - 1, rows - 1,
        (1, 1), (1, 1), (0, 1), (0, 1),
    )  # fmt: skip


def hevc_sps(*, width: int, height: int, pictures: int = 4) -> bytes:
    """Write a sequence parameter set. Source: ITU-T H.265 7.3.2.2.1."""
    profile = ((1, 8), (0x60000000, 32), (0x900000000000, 48), (186, 8))
    return START + bits(
        (0x4201, 16), (0, 4), (0, 3), (1, 1), *profile, 0, 1, width, height, (0, 1), 0, 0, 4,
        (1, 1), pictures, 0, 0, 0, 3, 0, 3, 0, 0, (0, 1), (0, 1), (0, 1), (0, 1), 0, (0, 1),
        (0, 1), (0, 1), (0, 1), (0, 1),
    )  # fmt: skip


def without_kind(unit: bytes, encoding: Encoding, kind: int) -> bytes:
    """Drop the NAL units of one type."""
    nals = [nal.strip(b"\x00") for nal in unit.split(START)[1:]]
    kind_of = (lambda n: n[0] & 31) if encoding is Encoding.H264 else (lambda n: n[0] >> 1 & 63)
    return b"".join(START + nal for nal in nals if nal and kind_of(nal) != kind)


H264 = clip(options=(("tune", "zerolatency"), ("g", "8")))
HEVC = clip("libx265", options=(("x265-params", "log-level=none:keyint=8:bframes=0"),))


@pytest.mark.parametrize("size", [(1000, 1000), (60_000, 60_000), (33, 32), (1, 65_536)])
def test_huge_h264_is_refused_before_its_pictures_exist(guarded, size):
    source = guarded(Encoding.H264)
    fed(source, START + b"\x09\x10")
    before = peak_bytes(source)
    sps = h264_sps(columns=size[0], rows=size[1])
    outcomes = every(source, sps + without_kind(H264[0].data, Encoding.H264, 7))
    assert [detail(outcome) for outcome in outcomes]
    # FFmpeg makes its tables of 16x16 blocks before it looks at the limit: 80 of 384 MB.
    assert peak_bytes(source) - before < 88 << 20


@pytest.mark.parametrize("size", [(16_384, 16_384), (65_528, 65_528), (8, 1 << 20), (0, 0)])
def test_huge_hevc_is_refused_before_its_pictures_exist(guarded, size):
    source = guarded(Encoding.HEVC)
    fed(source, HEVC[0].data)
    before = peak_bytes(source)
    vps = HEVC[0].data.split(START)[1].strip(b"\x00")
    sps = hevc_sps(width=size[0], height=size[1])
    rest = without_kind(without_kind(HEVC[0].data, Encoding.HEVC, 33), Encoding.HEVC, 32)
    outcomes = every(source, START + vps + sps + rest)
    assert [detail(outcome) for outcome in outcomes]
    assert peak_bytes(source) - before < 8 << 20


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_real_bomb_costs_no_picture(guarded, codec):
    is_hevc = codec == "libx265"
    quiet = ("x265-params", "log-level=none") if is_hevc else ("tune", "zerolatency")
    bomb = clip(codec, options=(("preset", "ultrafast"), quiet), size=(2048, 2048), count=1)[0].data
    encoding = Encoding.HEVC if is_hevc else Encoding.H264
    source = guarded(encoding)
    fed(source, (HEVC if is_hevc else H264)[0].data)
    before = peak_bytes(source)
    outcomes = every(source, bomb)
    assert "far larger" in detail(outcomes[-1])
    assert peak_bytes(source) - before < 5 << 20  # its planes would be 6 MB


@pytest.mark.parametrize("references", [16, 33, 4000])
def test_absurd_numbers_of_references_cost_bounded_memory(guarded, references):
    source = guarded(Encoding.H264)
    fed(source, START + b"\x09\x10")
    before = peak_bytes(source)
    sps = h264_sps(columns=WIDTH // 16, rows=HEIGHT // 16, references=references)
    units = [without_kind(unit.data, Encoding.H264, 7) for unit in H264]
    outcomes = every(source, sps + units[0], *units[1:])
    assert len(outcomes) == COUNT
    assert peak_bytes(source) - before < 16 << 20


def test_a_size_that_flips_to_and_fro_loses_nothing_but_time(guarded):
    small = clip(options=(("tune", "zerolatency"), ("g", "8")), size=(WIDTH - 16, HEIGHT))
    source = guarded(Encoding.H264)
    data = [(small if group % 2 else H264)[i].data for group in range(20) for i in range(8)]
    outcomes = every(source, *data)
    assert len(outcomes) == len(data)
    assert {pixels(outcome).shape[1] for outcome in outcomes} == {WIDTH, WIDTH - 16}


def test_thousands_of_slices_cost_bounded_cpu_time(guarded):
    slices = START + H264[0].data.split(START)[-1]
    source = guarded(Encoding.H264, cpu_limit_s=0.05)
    first, second = every(source, H264[0].data + slices * 20_000, H264[8].data)
    assert detail(first) == "H264 data ended its decoder: it needs more than 0.05 s of CPU time"
    assert pixels(second).any()


def test_units_of_start_codes_alone_are_lost_at_once(guarded):
    (outcome,) = fed(guarded(Encoding.HEVC), START * 300_000)
    assert detail(outcome) == "expected HEVC in Annex B form, found no start code"


def test_bits_that_flip_in_every_unit_never_end_the_decoder(guarded):
    generator = np.random.default_rng(7)
    for encoding, units in ((Encoding.H264, H264), (Encoding.HEVC, HEVC)):
        source = guarded(encoding)
        damaged = []
        for unit in units * 8:
            data = bytearray(unit.data)
            for position in generator.integers(4, len(data), 3):
                data[position] ^= 1 << int(generator.integers(8))
            damaged.append(replace(unit, data=bytes(data)))
        outcomes = every(source, *(unit.data for unit in damaged))
        assert len(outcomes) == len(damaged)
        assert "ended" not in "".join(o.detail for o in outcomes if isinstance(o, LostFrame))
