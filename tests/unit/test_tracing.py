"""Traces of frames, as a real OTLP exporter sends them to a collector."""

import asyncio

import pytest

from orchestrator import tracing
from orchestrator.contracts import ModelContract
from orchestrator.errors import ModelOverloadedError
from orchestrator.logs import about_stream
from orchestrator.settings import TracingSettings
from orchestrator.tracing import FrameTraces, called_by, inference_span, stage_span, tracing_to
from orchestrator.types.frames import FrameHeader, GapReason, LostFrame
from orchestrator.types.results import Recognition
from tests.span_collector import span_collector
from tests.unit.scripted_triton import ScriptedTriton
from tests.unit.test_session import BALL, PERSON, encoded, play

CALLER = "00-0123456789abcdef0123456789abcdef-fedcba9876543210-01"


@pytest.fixture(name="collector")
def _collector():
    with span_collector() as collector:
        yield collector


class TracedTriton(ScriptedTriton):
    """Asks for a span as the real client does."""

    async def infer(self, contract: ModelContract, *args, **kwargs):
        with inference_span(contract.name):
            return await super().infer(contract, *args, **kwargs)


def traced(collector, ratio: float = 1.0):
    return tracing_to(TracingSettings(endpoint=collector.url, sample_ratio=ratio))


async def test_a_frame_is_one_trace_of_its_stages_and_their_inferences(collector):
    with traced(collector):
        await play([encoded(0)], TracedTriton(scene=lambda call: [PERSON, BALL]))

    spans = {span.id: span for span in collector.spans}
    (frame,) = [span for span in spans.values() if span.name == "frame"]
    assert frame.parent == ""
    assert {(span.trace, span.service) for span in spans.values()} == {(frame.trace, "touchline")}
    assert {
        (span.name, spans[span.parent].name) for span in spans.values() if span is not frame
    } == {
        ("decode", "frame"),
        ("detect", "frame"),
        ("track", "frame"),
        ("identify", "frame"),
        ("number", "frame"),
        ("infer rfdetr_detector", "detect"),
        ("infer sam2_tracker", "track"),
        ("infer rfdetr_detector", "track"),  # a closer look where the ball should be
        ("infer siglip_embedder", "identify"),
        ("infer resnet_jersey", "number"),
    }


async def test_every_frame_has_a_trace_of_its_own(collector):
    with traced(collector):
        await play([encoded(i) for i in range(3)])
    frames = [span for span in collector.spans if span.name == "frame"]
    assert len({frame.trace for frame in frames}) == 3
    assert {span.trace for span in collector.spans} == {frame.trace for frame in frames}


async def test_the_client_that_names_a_trace_is_the_parent_of_its_frames(collector):
    with traced(collector), called_by([("user-agent", "x"), ("traceparent", CALLER)]):
        await play([encoded(0)])
    (frame,) = [span for span in collector.spans if span.name == "frame"]
    assert (frame.trace, frame.parent) == (CALLER[3:35], CALLER[36:52])


@pytest.mark.parametrize(
    "value", ["", "00-nonsense", CALLER[:-1], "0" * 5000, b"\xff\x00", CALLER.replace("f", "g")]
)
async def test_a_malformed_parent_is_ignored(collector, value):
    with traced(collector), called_by([("traceparent", value)]):
        traces = FrameTraces()
        traces.begin(0)
        traces.end(0)
    (frame,) = collector.spans
    assert frame.parent == ""


async def test_a_client_that_does_not_sample_is_obeyed(collector):
    with traced(collector), called_by([("traceparent", CALLER[:-2] + "00")]):
        outcomes, _ = await play([encoded(0)])
    assert isinstance(outcomes[0], Recognition)
    assert collector.spans == []


async def test_a_lost_frame_ends_as_an_error(collector):
    with traced(collector):
        outcomes, _ = await play([encoded(0, b"no picture")])
    assert isinstance(outcomes[0], LostFrame)
    (frame,) = [span for span in collector.spans if span.name == "frame"]
    assert frame.is_error


async def test_a_frame_that_waited_for_room_and_was_recognised_is_no_error(collector):
    full = ModelOverloadedError("rfdetr_detector", "no room")
    triton = TracedTriton(scene=lambda call: [PERSON, BALL], faults={"rfdetr_detector": [full]})
    with traced(collector):
        outcomes, _ = await play([encoded(0)], triton)
    assert isinstance(outcomes[0], Recognition)
    (frame,) = [span for span in collector.spans if span.name == "frame"]
    assert not frame.is_error


async def test_frames_are_drawn_one_by_one(collector, monkeypatch):
    draws = iter([0.9, 0.2, 0.6, 0.1])
    monkeypatch.setattr(tracing.random, "random", lambda: next(draws))
    with traced(collector, ratio=0.5), about_stream("ab12"):
        await play([encoded(i) for i in range(4)])
    assert [span.name for span in collector.spans].count("frame") == 2


async def test_frames_that_nobody_awaits_any_more_are_exported_too(collector):
    with traced(collector):
        traces = FrameTraces()
        traces.begin(0)
        traces.close()
    assert [span.name for span in collector.spans] == ["frame"]


async def test_without_an_endpoint_nothing_is_traced_and_no_header_is_sent():
    with tracing_to(TracingSettings()), called_by([("traceparent", CALLER)]):
        traces = FrameTraces()
        traces.begin(0)
        with traces.of(0), stage_span("decode"), inference_span("any") as headers:
            assert headers is None
        traces.end(0, GapReason.INTERNAL)
        outcomes, _ = await play([encoded(0)])
    assert outcomes[0].header == FrameHeader(0)


async def test_a_collector_that_is_away_costs_a_stream_nothing():
    settings = TracingSettings(endpoint="http://127.0.0.1:9/v1/traces", sample_ratio=1)
    export = tracing_to(settings)
    with export:
        outcomes, _ = await asyncio.wait_for(play([encoded(i) for i in range(3)]), 20)
    assert [isinstance(outcome, Recognition) for outcome in outcomes] == [True] * 3
