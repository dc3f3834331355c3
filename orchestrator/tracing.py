"""OpenTelemetry traces of sampled frames; off by default, and next to free for other frames.

    frame ─┬─ decode
           ├─ detect ─── infer rfdetr_detector ─── Triton's own spans, by `traceparent`
           ├─ track ──── infer sam2_tracker
           ├─ identify ─ infer siglip_embedder
           └─ number ─── infer resnet_jersey

A client that sends `traceparent` on its call is the parent of that call's frames; one that says
"not sampled" is obeyed.
"""

import contextlib
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from orchestrator.logs import about_frame, current_stream
from orchestrator.settings import TracingSettings
from orchestrator.types.frames import GapReason

_TRACEPARENT = "traceparent"
_MAX_TRACEPARENT = 128
_EXPORT_TIMEOUT_S = 5.0
_propagator = TraceContextTextMapPropagator()


@dataclass(slots=True)
class _Sink:
    """Where spans go, and the share of frames that have any; one per process."""

    tracer: trace.Tracer = field(default_factory=trace.NoOpTracer)
    ratio: float = 0.0


_sink = _Sink()


@contextmanager
def tracing_to(settings: TracingSettings) -> Iterator[None]:
    """Export traces for as long as the context is open, and what is left of them at its end."""
    if settings.endpoint is None:
        yield
        return
    # Imported here: the SDK takes time and memory that a process without tracing saves.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(
        resource=Resource.create({SERVICE_NAME: settings.service_name}), shutdown_on_exit=False
    )
    exporter = OTLPSpanExporter(endpoint=settings.endpoint, timeout=_EXPORT_TIMEOUT_S)
    provider.add_span_processor(BatchSpanProcessor(exporter))  # bounded; drops what is too much
    _sink.tracer, _sink.ratio = provider.get_tracer("touchline"), settings.sample_ratio
    try:
        yield
    finally:
        _sink.tracer, _sink.ratio = trace.NoOpTracer(), 0.0
        provider.shutdown()


@contextmanager
def called_by(metadata: Iterable[tuple[str, str | bytes]]) -> Iterator[None]:
    """Frames received inside belong to the trace that the call's metadata names, if any."""
    carrier = {
        key: value
        for key, value in metadata
        if key == _TRACEPARENT and isinstance(value, str) and len(value) <= _MAX_TRACEPARENT
    }
    token = otel_context.attach(_propagator.extract(carrier))
    try:
        yield
    finally:
        otel_context.detach(token)


class FrameTraces:
    """The frames of one stream that are under way, and the spans of those that are traced."""

    def __init__(self) -> None:
        self._spans: dict[int, trace.Span] = {}

    def begin(self, frame_index: int) -> None:
        """A frame has arrived; draw whether it is traced."""
        if random.random() >= _sink.ratio:
            return
        caller = trace.get_current_span().get_span_context()
        if caller.is_valid and not caller.trace_flags.sampled:
            return
        self._spans[frame_index] = _sink.tracer.start_span(
            "frame",
            kind=trace.SpanKind.SERVER,
            attributes={"stream.id": current_stream(), "frame.index": frame_index},
        )

    @contextmanager
    def of(self, frame_index: int) -> Iterator[None]:
        """What is logged and measured inside belongs to that frame."""
        span = self._spans.get(frame_index)
        with about_frame(frame_index), _current(span):
            yield

    def end(self, frame_index: int, lost: GapReason | None = None) -> None:
        """The frame is answered: recognised, or lost for a reason."""
        span = self._spans.pop(frame_index, None)
        if span is None:
            return
        if lost is not None:
            span.set_status(trace.StatusCode.ERROR, lost.name)
        span.end()

    def close(self) -> None:
        """End the spans of frames that nobody waits for any more."""
        for span in self._spans.values():
            span.end()
        self._spans.clear()


def _current(span: trace.Span | None) -> contextlib.AbstractContextManager[object]:
    if span is None:
        return contextlib.nullcontext()
    # An error inside may be tried again: how the frame fared, `end` says.
    return trace.use_span(span, record_exception=False, set_status_on_exception=False)


def stage_span(name: str) -> contextlib.AbstractContextManager[object]:
    """Span of a stage within the current frame, if that is traced."""
    if not trace.get_current_span().is_recording():
        return contextlib.nullcontext()
    return _sink.tracer.start_as_current_span(name)


@contextmanager
def inference_span(model: str) -> Iterator[dict[str, str] | None]:
    """Span of one request to a model; yields the gRPC metadata that makes Triton's its children."""
    if not trace.get_current_span().is_recording():
        yield None
        return
    with _sink.tracer.start_as_current_span(
        f"infer {model}", kind=trace.SpanKind.CLIENT, attributes={"rpc.system": "grpc"}
    ):
        headers: dict[str, str] = {}
        _propagator.inject(headers)
        yield headers
