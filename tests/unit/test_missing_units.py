"""H.264 of which access units never come or come damaged: what is wrong is lost openly."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.decoding import open_decoder
from orchestrator.h264_gaps import FrameNumbers
from orchestrator.settings import DecodeSettings
from orchestrator.types.frames import EncodedFrame, Encoding, Frame, LostFrame
from orchestrator.types.streams import StreamConfig
from tests.unit.coded_media import COUNT, HEIGHT, WIDTH, clip, scrolled

X264 = {
    "plain": "bframes=0:keyint=8",
    "B": "bframes=3:b-adapt=0:b-pyramid=none:keyint=8",
    "B pyramid": "bframes=3:b-adapt=0:b-pyramid=normal:keyint=12",
    "strict B pyramid": "bframes=3:b-adapt=0:b-pyramid=strict:keyint=12",
    "many references": "bframes=2:ref=8:weightp=2:weightb=1:mixed-refs=1:keyint=12",
    "slices": "slices=4:aud=1:repeat-headers=1:keyint=8",
    "open groups": "bframes=3:b-adapt=0:open-gop=1:keyint=8",
    "scaling matrices": "cqm=jvt:keyint=8",
    "interlaced": "tff=1:bframes=2:keyint=8",
    "marked as interlaced": "fake-interlaced=1:pic-struct=1:keyint=8",
    "one key frame": "bframes=2:keyint=infinite",
}
CODINGS = [(name, "yuv420p") for name in X264]
CODINGS += [("B", pix_fmt) for pix_fmt in ("yuv420p10le", "yuv422p", "yuv444p", "gray")]


def coded(params: str, pix_fmt: str = "yuv420p") -> tuple[EncodedFrame, ...]:
    options = (("x264-params", f"{params}:scenecut=0"),)
    return clip(pix_fmt=pix_fmt, options=options, paint=scrolled)


def decode(
    units: list[EncodedFrame], settings: DecodeSettings | None = None
) -> dict[int, Frame | LostFrame]:
    config = StreamConfig("test", Encoding.H264)
    decoder = open_decoder(config, max_pixels=WIDTH * HEIGHT, settings=settings)
    outcomes = [outcome for unit in units for outcome in decoder.decode(unit)]
    outcomes += decoder.flush()
    decoder.close()
    indices = [outcome.header.frame_index for outcome in outcomes]
    assert indices == sorted(unit.header.frame_index for unit in units)
    return {outcome.header.frame_index: outcome for outcome in outcomes}


def shown(outcomes: dict[int, Frame | LostFrame]) -> dict[int, Frame]:
    return {index: o for index, o in outcomes.items() if isinstance(o, Frame)}


def is_reference(unit: EncodedFrame) -> bool:
    nals = [nal for nal in unit.data.split(b"\x00\x00\x01") if nal]
    return any(nal[0] & 0x60 for nal in nals if nal[0] & 0x1F in {1, 5})


@pytest.mark.parametrize(("name", "pix_fmt"), CODINGS)
def test_only_right_pictures_are_shown_whichever_unit_is_missing(name, pix_fmt):
    units = list(coded(X264[name], pix_fmt))
    whole = shown(decode(units))
    assert len(whole) == COUNT
    for missing in range(1, COUNT, 2):
        outcomes = decode(units[:missing] + units[missing + 1 :])
        seen = shown(outcomes)
        for index, frame in seen.items():
            assert np.array_equal(frame.pixels, whole[index].pixels)
        if not is_reference(units[missing]):
            assert len(seen) == COUNT - 1


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_stream_goes_on_at_the_next_key_frame(isolation):
    units = list(coded(X264["plain"]))
    outcomes = decode(units[:3] + units[4:], DecodeSettings(isolation=isolation))
    assert sorted(shown(outcomes)) == [0, 1, 2, *range(8, COUNT)]
    assert {o.detail for o in outcomes.values() if isinstance(o, LostFrame)} == {
        "waiting for a key frame: an access unit that others refer to is missing"
    }


def test_a_stream_goes_on_where_open_groups_of_pictures_begin():
    units = list(coded(X264["open groups"]))
    first = next(p for p in range(4, COUNT) if is_reference(units[p]))
    outcomes = decode(units[:first] + units[first + 1 :])
    assert set(range(16, COUNT)) <= set(shown(outcomes))


@pytest.mark.parametrize("share", [0.0, 0.5], ids=["missing", "damaged"])
def test_an_intra_refresh_heals_a_stream_without_key_frames(share):
    units = list(coded("intra-refresh=1:keyint=6:bframes=0"))
    whole = shown(decode(units))
    assert len(whole) == COUNT
    third = replace(units[3], data=units[3].data[: int(len(units[3].data) * share)])
    seen = shown(decode([*units[:3], *([third] if share else []), *units[4:]]))
    assert {0, 1, 2, 20, 21, 22, 23} <= set(seen)
    assert 4 not in seen
    for index, frame in seen.items():
        difference = frame.pixels.astype(int) - whole[index].pixels
        assert np.abs(difference).mean() < 1


def shown_after_damage(units: list[EncodedFrame], position: int) -> dict[int, Frame] | None:
    """Return what is shown after a unit whose half is missing, or none if that goes unnoticed."""
    unit = units[position]
    halved = replace(unit, data=unit.data[: len(unit.data) // 2])
    outcomes = decode([*units[:position], halved, *units[position + 1 :]])
    index = unit.header.frame_index
    if isinstance(outcomes[index], Frame):
        return None
    return {later: frame for later, frame in shown(outcomes).items() if later > index}


@pytest.mark.parametrize(("name", "pix_fmt"), CODINGS)
def test_nothing_made_from_a_damaged_unit_is_shown_after_it(name, pix_fmt):
    units = list(coded(X264[name], pix_fmt))
    whole = shown(decode(units))
    noticed = 0
    for position in range(1, COUNT, 2):
        seen = shown_after_damage(units, position)
        if seen is None:
            continue
        noticed += 1
        for index, frame in seen.items():
            assert np.array_equal(frame.pixels, whole[index].pixels), (position, index)
        if not is_reference(units[position]):
            assert len(seen) == COUNT - 1 - units[position].header.frame_index
    assert noticed >= 9


# ------------------------------------------------------------------------------------- headers


def exp_golomb(number: int) -> str:
    digits = f"{number + 1:b}"
    return "0" * (len(digits) - 1) + digits


def bits_of(*numbers: int | str) -> bytes:
    """Code numbers as ue(v), strings as they stand, and stop as a NAL unit does."""
    text = "".join(n if isinstance(n, str) else exp_golomb(n) for n in numbers) + "1"
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\0\0\1", b"\0\0\3\1")


def sets(*, may_skip: bool = False, separate_planes: bool = False) -> list[bytes]:
    """Parameter sets: frame numbers of 4 bits, picture order kind 1 with two offsets."""
    profile = f"{244:08b}" if separate_planes else f"{66:08b}"
    chroma = (3, "1", 0, 0, "0", "0") if separate_planes else ()
    order = (1, "0", 0, 0, 2, 0, 0)
    sequence = bits_of(profile, "0" * 16, 0, *chroma, 0, *order, 1, str(int(may_skip)))
    return [b"\x67" + sequence, b"\x68" + bits_of(0, 0)]


def unit(number: int, kind: int = 0x21, planes: str = "") -> list[bytes]:
    return [bytes([kind]) + bits_of(0, 5, 0, planes, f"{number:04b}")]


def gaps(*units: list[bytes]) -> list[bool]:
    numbers = FrameNumbers()
    return [numbers.is_gap_before(nals) for nals in units]


def test_fields_of_a_frame_share_its_number_and_numbers_start_again_after_the_last():
    fields = [unit(number) for number in (*range(1, 16), 0, 1) for _ in range(2)]
    assert not any(gaps([*sets(), *unit(0, kind=0x65)], *fields))
    assert gaps(sets(), unit(15), unit(1)) == [False, False, True]


def test_pictures_that_nothing_refers_to_may_be_missing():
    assert gaps(sets(), unit(3), unit(4, kind=0x01), unit(4), unit(6)) == [False] * 4 + [True]


def test_separate_colour_planes_are_passed_over():
    units = [unit(number, planes="10") for number in (0, 1, 3)]
    assert gaps(sets(separate_planes=True), *units) == [False] * 3 + [True]


def test_a_stream_that_may_skip_numbers_misses_none():
    assert not any(gaps(sets(may_skip=True), unit(0), unit(7)))


def test_a_unit_that_cannot_be_read_is_as_if_it_had_not_come():
    units = unit(0), [b"\x21"], [b"\x21" + bytes(40)], unit(1), [b"\x21"], unit(3)
    assert gaps(sets(), *units) == [False] * 6 + [True]


@given(
    units=st.lists(
        st.tuples(st.sampled_from([0x21, 0x65, 0x67, 0x68]), st.binary(max_size=60)).map(
            lambda nal: [bytes([nal[0]]) + nal[1]]
        )
    )
)
def test_hostile_headers_never_raise_and_fill_no_memory(units):
    numbers = FrameNumbers()
    for nals in units:
        numbers.is_gap_before(nals)
    assert set(numbers._sequences) <= set(range(32))
    assert set(numbers._sequence_ids) <= set(range(256))
