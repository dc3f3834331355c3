"""One trace across the orchestrator and the real tritonserver, with one tiny Python model."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from deploy.local.tritonserver import TritonServer
from orchestrator.contracts import ModelContract, TensorSpec
from orchestrator.settings import TracingSettings, TritonSettings
from orchestrator.tracing import FrameTraces, called_by, stage_span, tracing_to
from orchestrator.triton.client import TritonClient
from tests.span_collector import SpanCollector, span_collector

pytestmark = pytest.mark.triton

MODEL = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        found = [pb_utils.get_input_tensor_by_name(r, "x").as_numpy() for r in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", x + 1)]) for x in found]
"""

CONFIG = """
backend: "python"
max_batch_size: 4
input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
"""

CONTRACT = ModelContract(
    "increment",
    inputs=(TensorSpec("x", "FP32", (2,), "numbers"),),
    outputs=(TensorSpec("y", "FP32", (2,), "each plus one"),),
)

CALLER_TRACE, CALLER_SPAN = "0123456789abcdef0123456789abcdef", "fedcba9876543210"


@pytest.fixture(name="repository")
def _repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository" / CONTRACT.name
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").write_text(MODEL)
    (folder / "configs").mkdir()
    (folder / "configs" / "cpu.pbtxt").write_text(CONFIG)
    return tmp_path / "repository"


async def infer_within(traces: FrameTraces, frame: int, triton: TritonClient) -> None:
    traces.begin(frame)
    with traces.of(frame), stage_span("detect"):
        answer = await triton.infer(CONTRACT, {"x": np.ones((1, 2), np.float32)})
    traces.end(frame)
    assert answer["y"].tolist() == [[2.0, 2.0]]


async def test_tritons_own_spans_are_children_of_the_frame_that_asked(repository):
    traces = FrameTraces()
    caller = [("traceparent", f"00-{CALLER_TRACE}-{CALLER_SPAN}-01")]
    with span_collector() as collector:
        async with TritonServer(
            repository, [CONTRACT.name], trace_endpoint=collector.url
        ) as server:
            settings = TritonSettings(url=server.endpoint)
            async with TritonClient(settings, (CONTRACT,)) as triton:
                await infer_within(traces, 0, triton)  # tracing is off: Triton must not trace it
                for frame in range(1, 4):  # an exporter may lose what it sends, and Triton's has
                    with (
                        tracing_to(TracingSettings(endpoint=collector.url, sample_ratio=1)),
                        called_by(caller),
                    ):
                        await infer_within(traces, frame, triton)
                    if await asyncio.to_thread(has_come, collector):
                        break
            spans = collector.spans

    assert {span.trace for span in spans} == {CALLER_TRACE}
    by_id = {span.id: span for span in spans}
    ways = {(s.service, s.name, by_id[s.parent].name) for s in spans if s.parent in by_id}
    assert ways >= {
        ("touchline", "detect", "frame"),
        ("touchline", "infer increment", "detect"),
        ("tritonserver", "InferRequest", "infer increment"),
    }
    assert {span.parent for span in spans if span.name == "frame"} == {CALLER_SPAN}


def has_come(collector: SpanCollector) -> bool:
    """Whether spans of both sides come in time."""
    try:
        collector.wait_for(
            lambda found: {"frame", "InferRequest"} <= {span.name for span in found}, 10
        )
    except AssertionError:
        return False
    return True
