"""A stream's promises: every frame answered once, in order, with bounded room, whatever happens."""

import asyncio
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from orchestrator.errors import ModelUnavailableError
from orchestrator.session import StreamSession
from orchestrator.settings import ServerSettings, Settings, StreamSettings
from orchestrator.types.frames import EncodedFrame, Encoding, FrameHeader, GapReason, LostFrame
from orchestrator.types.results import Degradation, IdentityUpdate, Recognition
from orchestrator.types.streams import StreamConfig
from tests.unit.scripted_triton import ScriptedTriton

PERSON = (0.25, 0.5, 0.1, 0.4, 0, 3.0)
BALL = (0.75, 0.8, 0.05, 0.08, 1, 2.0)


def jpeg(width=160, height=96, shade=90) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), (shade, 120, 60)).save(out, "JPEG")
    return out.getvalue()


GOOD = jpeg()


def encoded(index: int, data: bytes = GOOD, **header: object) -> EncodedFrame:
    return EncodedFrame(FrameHeader(index, **header), data)  # type: ignore[arg-type]


async def play(frames, triton=None, config=None, options=None, emit=None):
    """Run a whole stream; return its outcomes and the session."""
    triton = triton or ScriptedTriton(scene=lambda call: [PERSON, BALL])
    config = config or StreamConfig("test", Encoding.JPEG)
    session = await StreamSession.open(config, triton, options or Settings())
    outcomes = []

    async def keep(outcome):
        outcomes.append(outcome)
        if emit is not None:
            await emit(outcome)

    async def source():
        for frame in frames:
            yield frame

    await asyncio.wait_for(session.run(source(), keep), 20)
    await session.close()
    return outcomes, session


def answers(outcomes):
    return [o for o in outcomes if not isinstance(o, IdentityUpdate)]


def gaps(outcomes):
    return [(o.header.frame_index, o.reason) for o in outcomes if isinstance(o, LostFrame)]


async def test_every_frame_is_answered_in_order_with_players_and_ball():
    outcomes, session = await play([encoded(i) for i in range(12)])
    assert [o.header.frame_index for o in answers(outcomes)] == list(range(12))
    assert all(isinstance(o, Recognition) for o in answers(outcomes))
    last = answers(outcomes)[-1]
    (player,) = last.players
    assert np.allclose(player.track.xyxy, (32, 28.8, 48, 67.2), atol=1e-3)
    assert last.ball.confidence == pytest.approx(0.8808, abs=1e-4)
    assert (session.stats.received, session.stats.recognized) == (12, 12)


async def test_an_empty_stream_has_no_outcome():
    outcomes, session = await play([])
    assert outcomes == []
    assert session.stats.received == 0


async def test_header_fields_come_back_as_sent():
    header = {"pts": -7, "timecode": "10:21:07:12", "capture_time": (5, 6)}
    outcomes, _ = await play([encoded(3, **header)])
    assert outcomes[0].header == FrameHeader(3, -7, "10:21:07:12", (5, 6))


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (encoded(1, b""), GapReason.DECODE_ERROR),
        (encoded(1, GOOD[: len(GOOD) // 2]), GapReason.DECODE_ERROR),
        (encoded(1, b"GIF89a"), GapReason.DECODE_ERROR),
        (encoded(1, jpeg(64, 64)), GapReason.RESOLUTION_CHANGED),
        (encoded(1, b"x" * 5000), GapReason.DECODE_ERROR),
        (encoded(0), GapReason.INVALID_FRAME),
        (encoded(-4), GapReason.INVALID_FRAME),
        (encoded(1, timecode="x" * 33), GapReason.INVALID_FRAME),
    ],
)
async def test_a_bad_frame_becomes_a_gap_and_nothing_else_is_lost(frame, reason):
    options = Settings(server=ServerSettings(max_frame_bytes=4096))
    outcomes, session = await play([encoded(0), frame, encoded(2), encoded(3)], options=options)
    assert gaps(outcomes) == [(frame.header.frame_index, reason)]
    kept = [o.header.frame_index for o in answers(outcomes) if isinstance(o, Recognition)]
    assert kept == [0, 2, 3]
    assert session.stats.gaps == {reason: 1}


async def test_a_detector_outage_is_a_gap_per_frame_and_ends_by_itself():
    down = ModelUnavailableError("rfdetr_detector", "down")
    triton = ScriptedTriton(
        scene=lambda call: [PERSON],
        faults={"rfdetr_detector": [None, None, down, down, None]},
        labels="player,referee",
    )
    options = Settings(stream=StreamSettings(detect_ahead=1))
    outcomes, _ = await play([encoded(i) for i in range(7)], triton, options=options)
    lost = gaps(outcomes)  # of frames that are detected at once, either may be the first to ask
    assert [reason for _, reason in lost] == [GapReason.MODEL_UNAVAILABLE] * 2
    assert {index for index, _ in lost} <= {1, 2, 3, 4}
    ids = {p.track_id for o in answers(outcomes)[4:] for p in o.players}
    assert ids == {1}


@pytest.mark.parametrize(
    ("model", "degradation"),
    [
        ("sam2_tracker", Degradation.TRACKER_UNAVAILABLE),
        ("siglip_embedder", Degradation.IDENTIFICATION_UNAVAILABLE),
        ("resnet_jersey", Degradation.NUMBERS_UNAVAILABLE),
    ],
)
async def test_an_optional_stage_that_is_gone_degrades_results_and_says_so(model, degradation):
    triton = ScriptedTriton(
        scene=lambda call: [PERSON], faults={model: [ModelUnavailableError(model, "down")]}
    )
    outcomes, session = await play([encoded(i) for i in range(8)], triton)
    degraded = [o.header.frame_index for o in answers(outcomes) if degradation in o.degradations]
    assert degraded == [0]
    assert session.stats.degradations == {degradation: 1}
    assert all(p.track_id == 1 for o in answers(outcomes) for p in o.players)


async def test_a_frame_without_the_closer_look_at_the_ball_says_so():
    lost_look = [None, ModelUnavailableError("rfdetr_detector", "down")]
    triton = ScriptedTriton(scene=lambda call: [PERSON], faults={"rfdetr_detector": lost_look})
    outcomes, session = await play([encoded(0)], triton)
    assert session.stats.degradations == {Degradation.BALL_UNAVAILABLE: 1}
    assert len(outcomes[0].players) == 1


async def test_random_weights_mark_every_result():
    triton = ScriptedTriton(scene=lambda call: [PERSON], weights={"sam2_tracker": "random"})
    outcomes, _ = await play([encoded(i) for i in range(3)], triton)
    assert all(Degradation.UNTRAINED_WEIGHTS in o.degradations for o in answers(outcomes))


@pytest.mark.filterwarnings("error")
async def test_boxes_that_are_not_finite_or_empty_are_dropped():
    nan, inf = float("nan"), float("inf")
    scene = [
        (nan, 0.5, 0.1, 0.4, 0, 3.0),
        (0.5, 0.5, inf, 0.4, 0, 3.0),
        (0.5, 0.5, 0.0, 0.0, 0, 3.0),
        (5.0, 0.5, 0.1, 0.4, 0, 3.0),
        (0.5, 0.5, 0.1, 0.4, 0, nan),
        PERSON,
    ]
    outcomes, _ = await play([encoded(0)], ScriptedTriton(scene=lambda call: scene))
    assert len(outcomes[0].players) == 1


async def test_a_fault_of_ours_costs_one_frame_only(monkeypatch):
    triton = ScriptedTriton(scene=lambda call: [PERSON])
    session = await StreamSession.open(StreamConfig("t", Encoding.JPEG), triton, Settings())
    walk = session.process_frame
    outcomes = []

    async def flawed(frame, found, effort):
        if frame.header.frame_index == 2:
            raise ZeroDivisionError
        return await walk(frame, found, effort)

    async def keep(outcome):
        outcomes.append(outcome)

    async def source():
        for index in range(5):
            yield encoded(index)

    monkeypatch.setattr(session, "process_frame", flawed)
    await session.run(source(), keep)
    await session.close()
    assert gaps(outcomes) == [(2, GapReason.INTERNAL)]
    assert len(answers(outcomes)) == 5


async def test_a_lossless_client_is_slowed_down_when_nobody_reads():
    gate = asyncio.Event()
    taken = 0

    def frames():
        nonlocal taken
        for index in range(60):
            taken += 1
            yield encoded(index)

    async def wait(_):
        await gate.wait()

    playing = asyncio.create_task(play(frames(), emit=wait))
    await asyncio.sleep(0.5)
    assert taken <= Settings().stream.credit_frame_count + 1
    gate.set()
    outcomes, _ = await playing
    assert len(answers(outcomes)) == 60


async def test_a_live_client_beyond_its_credits_loses_the_surplus_declared():
    gate = asyncio.Event()

    async def wait(_):
        await gate.wait()

    config = StreamConfig("live", Encoding.JPEG, is_live=True, latency_budget_s=60)
    playing = asyncio.create_task(play([encoded(i) for i in range(40)], config=config, emit=wait))
    await asyncio.sleep(0.3)
    gate.set()
    outcomes, session = await playing
    lost = gaps(outcomes)
    assert lost
    assert {reason for _, reason in lost} == {GapReason.OVERLOADED}
    assert [o.header.frame_index for o in answers(outcomes)] == list(range(40))
    assert session.stats.recognized + len(lost) == 40


async def test_a_live_frame_that_is_too_late_is_dropped_declared():
    async def dawdle(outcome):
        await asyncio.sleep(0.12)

    config = StreamConfig("live", Encoding.JPEG, is_live=True, latency_budget_s=0.1)
    outcomes, _ = await play([encoded(i) for i in range(6)], config=config, emit=dawdle)
    assert len(answers(outcomes)) == 6
    assert {reason for _, reason in gaps(outcomes)} == {GapReason.OVERLOADED}


async def test_sessions_share_nothing():
    triton = ScriptedTriton(scene=lambda call: [PERSON])
    alone, _ = await play([encoded(i) for i in range(6)], triton)
    one, two = await asyncio.gather(
        play([encoded(i) for i in range(6)], ScriptedTriton(scene=lambda call: [PERSON])),
        play([encoded(i) for i in range(6)], ScriptedTriton(scene=lambda call: [PERSON])),
    )
    for outcomes, _ in (one, two):
        assert [[p.track_id for p in o.players] for o in answers(outcomes)] == [
            [p.track_id for p in o.players] for o in answers(alone)
        ]


_BAD = [b"", b"nonsense", GOOD[:300], jpeg(64, 64), b"\xff\xd8\xff" + bytes(50)]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-2, 12), st.one_of(st.just(GOOD), st.sampled_from(_BAD))), max_size=14
    ),
    st.booleans(),
    st.lists(st.booleans(), max_size=14),
)
def test_whatever_is_sent_each_frame_is_answered_exactly_once(sent, is_live, faults):
    down = ModelUnavailableError("rfdetr_detector", "down")
    triton = ScriptedTriton(
        scene=lambda call: [PERSON],
        faults={"rfdetr_detector": [down if fault else None for fault in faults]},
    )
    config = StreamConfig("any", Encoding.JPEG, is_live=is_live, latency_budget_s=5.0)
    frames = [encoded(index, data) for index, data in sent]
    outcomes, session = asyncio.run(play(frames, triton, config))
    assert [o.header.frame_index for o in answers(outcomes)] == [index for index, _ in sent]
    stats = session.stats
    assert stats.received == stats.recognized + stats.gaps.total() == len(sent)
