"""A stream's promises where they break easily: refused units, tiny pictures, our own faults."""

import asyncio
import contextlib
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from orchestrator.convert.requests import to_encoded_frame
from orchestrator.errors import ConnectionLostError
from orchestrator.flow import _MOST_REPEATED
from orchestrator.session import StreamSession
from orchestrator.settings import DecodeSettings, ServerSettings, Settings, StreamSettings
from orchestrator.types.frames import Encoding, GapReason, LostFrame
from orchestrator.types.results import IdentityUpdate, Recognition
from orchestrator.types.streams import StreamConfig
from tests.patience import until
from tests.stream.streams import coded_stream
from tests.unit.scripted_triton import ScriptedTriton
from tests.unit.test_session import PERSON, answers, encoded, gaps, jpeg, play

VIDEO = StreamConfig("video", Encoding.H264)
THREADED = Settings(decode=DecodeSettings(isolation="thread"))


def units(count: int = 24):
    """Access units of a clip with B-frames, in decoding order."""
    images = [np.full((96, 160, 3), 60 + 5 * index, np.uint8) for index in range(count)]
    return [to_encoded_frame(unit) for unit in coded_stream(images, "h264")[1]]


def test_the_clip_has_units_that_are_sent_before_their_turn():
    assert [unit.header.frame_index for unit in units(7)] == [0, 3, 1, 2, 6, 4, 5]


async def test_a_fault_of_ours_in_detection_costs_one_frame_only(monkeypatch):
    triton = ScriptedTriton(scene=lambda call: [PERSON])
    session = await StreamSession.open(StreamConfig("t", Encoding.JPEG), triton, THREADED)
    detect = session.state.detector.detect
    outcomes = []

    async def flawed(frame):
        if frame.header.frame_index == 2:
            raise ZeroDivisionError
        return await detect(frame)

    async def keep(outcome):
        outcomes.append(outcome)

    async def source():
        for index in range(5):
            yield encoded(index)

    monkeypatch.setattr(session.state.detector, "detect", flawed)
    await session.run(source(), keep)
    await session.close()
    assert gaps(outcomes) == [(2, GapReason.INTERNAL)]
    assert len(answers(outcomes)) == 5


def oversized(unit):
    return replace(unit, data=bytes(70_000))


def beyond_quota(unit):
    return LostFrame(unit.header, GapReason.QUOTA_EXCEEDED, "too many")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(oversized, GapReason.DECODE_ERROR), (beyond_quota, GapReason.QUOTA_EXCEEDED)],
)
@pytest.mark.parametrize("isolation", ["thread", "process"])
async def test_a_unit_refused_unread_is_answered_in_its_turn(spoil, reason, isolation):
    frames = units()
    positions = {frame.header.frame_index: place for place, frame in enumerate(frames)}
    for index in (8, 14):  # nothing refers to them
        frames[positions[index]] = spoil(frames[positions[index]])
    options = Settings(
        server=ServerSettings(max_frame_bytes=65_536), decode=DecodeSettings(isolation=isolation)
    )
    outcomes, session = await play(frames, config=VIDEO, options=options)
    assert [o.header.frame_index for o in answers(outcomes)] == list(range(24))
    assert gaps(outcomes) == [(8, reason), (14, reason)]
    assert session.stats.received == 24


async def test_a_unit_with_a_used_index_is_refused_and_the_first_still_answered():
    frames = units(9)
    again = beyond_quota(frames[1])
    outcomes, _ = await play([*frames[:2], again, *frames[2:]], config=VIDEO, options=THREADED)
    order = [o.header.frame_index for o in answers(outcomes)]
    assert sorted(order) == sorted([*range(9), again.header.frame_index])
    assert gaps(outcomes) == [(again.header.frame_index, GapReason.QUOTA_EXCEEDED)]


async def test_few_units_sent_again_for_others_sake_wait_at_a_time(monkeypatch):
    session = await StreamSession.open(VIDEO, ScriptedTriton(), THREADED)
    gate, taken = threading.Event(), 0
    decode = session._decoder.decode

    def wait_and_decode(unit):
        assert gate.wait(5)
        return decode(unit)

    async def source():
        nonlocal taken
        for unit in units(60):
            taken += 1
            yield replace(unit, is_answered=True)

    async def never(outcome):
        raise AssertionError(outcome)

    monkeypatch.setattr(session._decoder, "decode", wait_and_decode)
    running = asyncio.create_task(session.run(source(), never))
    await until(lambda: taken == _MOST_REPEATED + 1)
    for _ in range(20):
        await asyncio.sleep(0)
    assert taken == _MOST_REPEATED + 1
    gate.set()
    await running
    await session.close()
    assert taken == 60
    assert session.stats.received == 0


async def test_units_sent_again_leave_a_live_client_the_room_of_its_credit(monkeypatch):
    config = replace(VIDEO, is_live=True, latency_budget_s=60.0)
    session = await StreamSession.open(config, ScriptedTriton(), THREADED)
    decode = session._decoder.decode
    frames, repeated = units(60), 60 - session.credit
    frames[:repeated] = [replace(unit, is_answered=True) for unit in frames[:repeated]]
    outcomes = []

    def decode_slowly(unit):
        time.sleep(0.005)
        return decode(unit)

    async def source():
        for unit in frames:
            yield unit

    async def keep(outcome):
        outcomes.append(outcome)

    monkeypatch.setattr(session._decoder, "decode", decode_slowly)
    await session.run(source(), keep)
    await session.close()
    assert not gaps(outcomes)
    assert len(answers(outcomes)) == session.credit


async def test_a_live_client_that_heeds_its_credit_is_never_told_that_it_sent_too_much():
    options = Settings(stream=StreamSettings(credit_frame_count=2))
    config = StreamConfig("live", Encoding.JPEG, is_live=True, latency_budget_s=60.0)
    session = await StreamSession.open(config, ScriptedTriton(), options)
    granted, outcomes = asyncio.Semaphore(session.credit), []

    async def source():
        for index in range(12):
            await granted.acquire()
            yield encoded(index)

    async def answer(outcome):
        outcomes.append(outcome)
        granted.release()
        for _ in range(20):  # the client is as quick as the writes that follow an answer
            await asyncio.sleep(0)

    await session.run(source(), answer)
    await session.close()
    assert not gaps(outcomes)


@pytest.mark.parametrize("size", [(1, 1), (15, 40), (40, 15)])
async def test_a_picture_too_small_to_hold_anybody_is_no_fault_of_the_server(size):
    outcomes, _ = await play([encoded(0, jpeg(*size)), encoded(1, jpeg(16, 16))], options=THREADED)
    lost, found = answers(outcomes)
    assert lost.reason is GapReason.DECODE_ERROR
    assert lost.detail.endswith(f"got {size[0]}x{size[1]}")
    assert found.header.frame_index == 1
    assert not isinstance(found, LostFrame)


async def play_on(state, frames, *, broken_at=None):
    """Play frames in a session of a stream, which breaks where one is answered; say who is told."""
    config = StreamConfig("t", Encoding.JPEG)
    triton = ScriptedTriton(scene=lambda call: [PERSON])
    session = await StreamSession.open(config, triton, THREADED, state=state)
    outcomes = []

    async def keep(outcome):
        if isinstance(outcome, Recognition) and outcome.header.frame_index == broken_at:
            raise ConnectionLostError
        outcomes.append(outcome)

    async def source():
        for frame in frames:
            yield frame

    with contextlib.suppress(ExceptionGroup):
        await session.run(source(), keep)
    await session.close()
    return outcomes, session.state


def told(outcomes):
    return [(o.track_id, o.changed) for o in outcomes if isinstance(o, IdentityUpdate)]


async def test_what_a_broken_connection_kept_from_being_told_is_told_in_the_next_call():
    frames = [encoded(index) for index in range(12)]
    whole, _ = await play_on(None, frames)
    revised = [o.frame_index for o in whole if isinstance(o, IdentityUpdate)]
    assert revised
    for index in revised:
        before, state = await play_on(None, frames, broken_at=index)
        after, state = await play_on(state, frames[index:])
        assert told(before) + told(after) == told(whole)
        assert not state.untold


async def test_a_resumed_stream_is_held_to_its_pictures_size_even_if_no_config_says_it():
    _, state = await play_on(None, [encoded(0, b"no picture"), encoded(1)])
    outcomes, _ = await play_on(state, [encoded(2, jpeg(64, 64)), encoded(3)])
    assert gaps(outcomes) == [(2, GapReason.RESOLUTION_CHANGED)]
    assert len(answers(outcomes)) == 2
