"""Video becomes frames in presentation order, and every unit comes back exactly once."""

import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.decoding import open_decoder
from orchestrator.types.frames import (
    EncodedFrame,
    Encoding,
    Frame,
    FrameHeader,
    GapReason,
    LostFrame,
)
from orchestrator.types.streams import StreamConfig
from orchestrator.video_decoding import MAX_HELD_FRAMES, USUAL_REORDER_FRAMES
from tests.unit.coded_media import COUNT, HEIGHT, MAX_PIXELS, WIDTH, clip, picture, scrolled

Outcome = Frame | LostFrame


def decode_all(
    units: tuple[EncodedFrame, ...] | list[EncodedFrame], encoding: Encoding = Encoding.H264
) -> list[Outcome]:
    decoder = open_decoder(StreamConfig("test", encoding), max_pixels=MAX_PIXELS)
    outcomes = [outcome for unit in units for outcome in decoder.decode(unit)]
    outcomes += decoder.flush()
    decoder.close()
    return outcomes


def indices(outcomes: list[Outcome]) -> list[int]:
    return [outcome.header.frame_index for outcome in outcomes]


def lost(outcomes: list[Outcome]) -> dict[int, str]:
    return {o.header.frame_index: o.detail for o in outcomes if isinstance(o, LostFrame)}


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le", "yuv422p", "yuv444p", "yuvj420p"])
def test_h264_comes_back_in_presentation_order(pix_fmt):
    outcomes = decode_all(clip(pix_fmt=pix_fmt))
    assert lost(outcomes) == {}
    assert indices(outcomes) == list(range(COUNT))
    for index, frame in enumerate(outcomes):
        difference = frame.pixels.astype(int) - picture(shade=10 * index)
        assert np.abs(difference).mean() < 8


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
def test_hevc_comes_back_in_presentation_order(pix_fmt):
    options = (("x265-params", "log-level=none:keyint=8:bframes=3"),)
    outcomes = decode_all(clip("libx265", pix_fmt, options), Encoding.HEVC)
    assert lost(outcomes) == {}
    assert indices(outcomes) == list(range(COUNT))
    assert np.abs(outcomes[9].pixels.astype(int) - picture(shade=90)).mean() < 8


def test_without_reordering_each_unit_is_answered_at_once():
    decoder = open_decoder(StreamConfig("test", Encoding.H264), max_pixels=MAX_PIXELS)
    for unit in clip(options=(("tune", "zerolatency"),)):
        assert indices(decoder.decode(unit)) == [unit.header.frame_index]


def test_order_by_pts_serves_clients_that_count_in_decoding_order():
    units = [
        EncodedFrame(replace(unit.header, frame_index=position), unit.data)
        for position, unit in enumerate(clip())
    ]
    outcomes = decode_all(units)
    assert lost(outcomes) == {}
    assert [outcome.header.pts for outcome in outcomes] == [40 * index for index in range(COUNT)]


def test_clock_that_starts_anew_loses_nothing():
    again = [
        EncodedFrame(FrameHeader(unit.header.frame_index + COUNT, unit.header.pts), unit.data)
        for unit in clip()
    ]
    outcomes = decode_all([*clip(), *again])
    assert lost(outcomes) == {}
    assert indices(outcomes) == list(range(2 * COUNT))


def test_start_between_key_frames_waits_for_the_next():
    units = clip()
    first_kept = 3
    outcomes = decode_all(units[first_kept:])
    key = next(p for p, unit in enumerate(units) if p > first_kept and b"\x67" in unit.data[:6])
    waiting = {unit.header.frame_index for unit in units[first_kept:key]}
    assert set(lost(outcomes)) >= waiting
    assert {lost(outcomes)[index] for index in waiting} == {"waiting for a key frame"}
    assert any(isinstance(outcome, Frame) for outcome in outcomes)
    assert sorted(indices(outcomes)) == sorted(u.header.frame_index for u in units[first_kept:])


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_open_group_of_pictures_is_a_place_to_start(codec):
    options = {
        "libx264": (("g", "8"), ("bf", "2"), ("x264-params", "open-gop=1:scenecut=0")),
        "libx265": (("x265-params", "log-level=none:keyint=8:bframes=3:open-gop=1"),),
    }[codec]
    encoding = Encoding.HEVC if codec == "libx265" else Encoding.H264
    outcomes = decode_all(clip(codec, options=options)[2:], encoding)
    assert sum(isinstance(outcome, Frame) for outcome in outcomes) >= COUNT // 2
    assert len(outcomes) == COUNT - 2


def test_damaged_unit_is_lost_in_its_place_and_the_stream_goes_on():
    units = list(clip(options=(("tune", "zerolatency"), ("g", "4"))))
    units[5] = replace(units[5], data=units[5].data[:5] + bytes(len(units[5].data) - 5))
    units[6] = replace(units[6], data=b"\x00\x00\x01" + b"\xff" * 40)
    outcomes = decode_all(units)
    assert indices(outcomes) == list(range(COUNT))
    assert {5, 6} <= set(lost(outcomes)) <= {5, 6, 7}


def test_a_unit_of_which_half_is_missing_is_lost_openly():
    units = list(clip(options=(("tune", "zerolatency"), ("g", "4")), paint=scrolled))
    units[4] = replace(units[4], data=units[4].data[: len(units[4].data) // 2])
    outcomes = decode_all(units)
    assert indices(outcomes) == list(range(COUNT))
    assert isinstance(outcomes[4], LostFrame)
    assert outcomes[4].detail == "H264 access unit is damaged"


def test_length_prefixed_units_are_refused():
    units = [
        EncodedFrame(unit.header, struct.pack(">I", 1000 + len(unit.data)) + unit.data[4:])
        for unit in clip(options=(("tune", "zerolatency"),))[1:4]
    ]
    details = set(lost(decode_all(units)).values())
    assert details == {"expected H264 in Annex B form, found no start code"}


def test_unit_that_comes_too_late_is_lost():
    units = clip(options=(("tune", "zerolatency"),))
    late = EncodedFrame(FrameHeader(2, pts=-1000), units[6].data)
    outcomes = decode_all([*units[:6], late, *units[7:]])
    assert len(outcomes) == COUNT
    assert "already shown" in lost(outcomes)[2]


def test_video_larger_than_the_limit_is_lost():
    outcomes = decode_all(clip(size=(WIDTH + 16, HEIGHT)))
    assert set(lost(outcomes)) == set(range(COUNT))
    assert lost(outcomes)[0] == (
        "expected sides of 16 pixels or more and at most 3072 pixels in all, got 80x48"
    )


def test_video_far_larger_than_the_limit_is_lost_before_decoding():
    outcomes = decode_all(clip(size=(4 * WIDTH, 4 * HEIGHT)))
    assert set(lost(outcomes)) == set(range(COUNT))
    assert "far larger than 3072 pixels" in lost(outcomes)[0]


def test_size_that_changes_in_mid_stream_is_lost():
    small = clip(size=(WIDTH - 16, HEIGHT))
    later = [EncodedFrame(FrameHeader(u.header.frame_index + COUNT), u.data) for u in small]
    first = [EncodedFrame(FrameHeader(u.header.frame_index), u.data) for u in clip()]
    outcomes = decode_all([*first, *later])
    assert indices(outcomes) == list(range(2 * COUNT))
    assert set(lost(outcomes)) == set(range(COUNT, 2 * COUNT))
    assert outcomes[-1].reason is GapReason.RESOLUTION_CHANGED


def test_no_more_than_the_largest_picture_buffer_is_held_back():
    decoder = open_decoder(StreamConfig("test", Encoding.H264), max_pixels=MAX_PIXELS)
    parameter_sets = clip()[0].data
    key_frame_start = parameter_sets.rindex(b"\x00\x00\x01")
    silent = b"\x00\x00\x01\x06\x06\x01\xc4\x80" + parameter_sets[: key_frame_start - 1]
    answered = 0
    for sent in range(1, 60):
        answered += len(decoder.decode(EncodedFrame(FrameHeader(2 * sent), silent)))
        assert sent - answered <= MAX_HELD_FRAMES
    assert len(decoder.flush()) + answered == 59


def test_garbage_is_answered_soon_although_indices_have_holes():
    decoder = open_decoder(StreamConfig("test", Encoding.H264), max_pixels=MAX_PIXELS)
    answered = 0
    for sent in range(1, 40):
        answered += len(decoder.decode(EncodedFrame(FrameHeader(100 + 2 * sent), b"garbage")))
        assert sent - answered <= USUAL_REORDER_FRAMES


def test_stream_can_go_on_after_a_flush():
    decoder = open_decoder(StreamConfig("test", Encoding.H264), max_pixels=MAX_PIXELS)
    for _ in range(2):
        outcomes = [outcome for unit in clip() for outcome in decoder.decode(unit)]
        outcomes += decoder.flush()
        assert [type(outcome) for outcome in outcomes] == [Frame] * COUNT


def mangle(unit: EncodedFrame, fate: str, position: float, patch: bytes) -> EncodedFrame:
    """Damage one unit as a network or a careless client would."""
    start = int(position * len(unit.data))
    data = {
        "cut": unit.data[:start],
        "patched": unit.data[:start] + patch + unit.data[start + len(patch) :],
        "garbage": patch,
        "grown": unit.data + patch,
    }.get(fate, unit.data)
    header = unit.header
    if fate == "timeless":
        header = replace(header, pts=None)
    if fate == "elsewhen":
        header = replace(header, pts=len(patch) * 100 - 300)
    return EncodedFrame(header, data)


FATES = st.lists(
    st.tuples(
        st.sampled_from(
            ["fine"] * 4 + ["cut", "patched", "garbage", "grown", "dropped", "timeless", "elsewhen"]
        ),
        st.floats(0, 1),
        st.binary(max_size=12),
    ),
    min_size=COUNT,
    max_size=COUNT,
)


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(fates=FATES, order=st.sampled_from(["kept", "reversed", "twice"]))
def test_every_unit_comes_back_exactly_once(codec, fates, order):
    is_hevc = codec == "libx265"
    options = (("x265-params", "log-level=none:keyint=8"),) if is_hevc else (("g", "8"),)
    units = [
        mangle(unit, *fate)
        for unit, fate in zip(clip(codec, options=options), fates, strict=True)
        if fate[0] != "dropped"
    ]
    units = {"kept": units, "reversed": units[::-1], "twice": units * 2}[order]
    outcomes = decode_all(units, Encoding.HEVC if is_hevc else Encoding.H264)
    sent = sorted(id(unit.header) for unit in units)
    assert sorted(id(outcome.header) for outcome in outcomes) == sent
