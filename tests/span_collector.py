"""An OpenTelemetry collector for tests; takes OTLP as protobuf (the SDK) or JSON (Triton)."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Span:
    """Identifiers are lower-case hexadecimal; `parent` is empty at a root."""

    name: str
    service: str
    trace: str
    id: str
    parent: str
    is_error: bool = False


@dataclass
class SpanCollector:
    url: str
    _spans: list[Span] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def spans(self) -> list[Span]:
        with self._changed:
            return list(self._spans)

    def add(self, spans: list[Span]) -> None:
        with self._changed:
            self._spans += spans
            self._changed.notify_all()

    def wait_for(self, condition, timeout_s: float = 30.0) -> list[Span]:
        """Wait until `condition(spans)` holds; return the spans."""
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self._spans), timeout_s), self._spans
            return list(self._spans)


@contextmanager
def span_collector() -> Iterator[SpanCollector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            is_json = "json" in self.headers["Content-Type"]
            collector.add(list((_from_json if is_json else _from_protobuf)(body)))
            self.send_response(200)
            self.send_header("Content-Type", self.headers["Content-Type"])
            self.send_header("Content-Length", "2" if is_json else "0")
            self.end_headers()
            self.wfile.write(b"{}" if is_json else b"")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = SpanCollector(f"http://127.0.0.1:{server.server_port}/v1/traces")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


def _from_protobuf(body: bytes) -> Iterator[Span]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        attributes = {a.key: a.value.string_value for a in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                yield Span(span.name, attributes["service.name"], *ids, span.status.code == 2)


def _from_json(body: bytes) -> Iterator[Span]:
    for resource in json.loads(body)["resourceSpans"]:
        attributes = {a["key"]: a["value"] for a in resource["resource"]["attributes"]}
        service = attributes["service.name"]["stringValue"]
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                ids = (span["traceId"], span["spanId"], span.get("parentSpanId", ""))
                yield Span(span["name"], service, *ids)
