"""Servers that speak Triton's gRPC API on 127.0.0.1 and fail on demand, in this process.

For policies that need many replicas or rare faults; the real server is used in tests/contract.
"""
# ruff: noqa: N802, ASYNC110  gRPC names the methods; conditions are polled

import asyncio
import contextlib
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from orchestrator.contracts import ModelContract, TensorSpec

ROW = TensorSpec("x", "FP32", (1,), "any number")
ECHO = ModelContract("echo", (ROW,), (TensorSpec("y", "FP32", (1,), "the same number"),))
FOLLOWER = ModelContract(
    "follower",
    (ROW, TensorSpec("forget_object_ids", "INT64", (-1,), "ignored", is_optional=True)),
    (TensorSpec("y", "FP32", (1,), "the same number"),),
    is_sequence=True,
)

STUB_DIED = (grpc.StatusCode.INTERNAL, "Stub process 'echo_0_0' is not healthy.")
GOING = (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'echo' has no available versions")
BROKEN = (grpc.StatusCode.INTERNAL, "CUDA error: an illegal memory access was encountered")
BAD_INPUT = (grpc.StatusCode.INVALID_ARGUMENT, "x: expected a finite number")
FULL = (grpc.StatusCode.UNAVAILABLE, "all 2 sequence slots are in use")
ENDING = (grpc.StatusCode.UNAVAILABLE, "Server exiting")
NO_REGION = (grpc.StatusCode.INVALID_ARGUMENT, "Unable to find shared memory region: 'r'")
UNKNOWN = (grpc.StatusCode.UNAVAILABLE, "sequence 7 is not known; send START")


@dataclass
class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """One server with both models.

    Attributes:
        fault: Status and text that every inference ends with; None answers.
        hangs: Whether nothing is answered at all, probes included.
        is_ending: Whether it was told to end, and finishes what it has.
        gate: Inferences wait until it is set.
        slots: Sequences it holds; a further START is refused.
        width: The model's live width; the contract says 1.
        parameters: Of the model's config.
        answer_width: That of its answers.
        questions: How often it was asked whether it lives.
        calls: Inferences that came in.
        failing_loads: How many loads of a model fail.
        shares_memory: Whether it opens shared memory of this host.
        regions: Files of the shared memory that it knows, by name.
    """

    fault: tuple[grpc.StatusCode, str] | None = None
    hangs: bool = False
    is_ready: bool = True
    is_ending: bool = False
    slots: int = 2
    max_batch_size: int = 4
    width: int = 1
    answer_width: int = 1
    parameters: dict[str, str] = field(default_factory=dict)
    has_model_control: bool = True
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    sequences: set[int] = field(default_factory=set)
    served: list[int] = field(default_factory=list)
    rows: int = 0
    most_rows: int = 0
    reloads: list[str] = field(default_factory=list)
    questions: int = 0
    calls: int = 0
    failing_loads: int = 0
    shares_memory: bool = False
    regions: dict[str, Path] = field(default_factory=dict)
    address: str = ""

    def __post_init__(self):
        self.gate.set()

    async def _pause(self):
        while self.hangs:
            await asyncio.sleep(0.01)

    async def ServerLive(self, request, context):
        self.questions += 1
        await self._pause()
        if self.is_ending:
            await context.abort(*ENDING)
        return service_pb2.ServerLiveResponse(live=True)

    async def ModelReady(self, request, context):
        await self._pause()
        return service_pb2.ModelReadyResponse(ready=self.is_ready)

    async def ModelMetadata(self, request, context):
        shape = [-1, self.width]
        inputs = [{"name": "x", "datatype": "FP32", "shape": shape}]
        if request.name == FOLLOWER.name:
            inputs.append({"name": "forget_object_ids", "datatype": "INT64", "shape": [-1, -1]})
        outputs = [{"name": "y", "datatype": "FP32", "shape": shape}]
        return service_pb2.ModelMetadataResponse(name=request.name, inputs=inputs, outputs=outputs)

    async def ModelConfig(self, request, context):
        config = model_config_pb2.ModelConfig(name=request.name, max_batch_size=self.max_batch_size)
        config.instance_group.add(count=1)
        for key, value in self.parameters.items():
            config.parameters[key].string_value = value
        return service_pb2.ModelConfigResponse(config=config)

    async def SystemSharedMemoryRegister(self, request, context):
        if not self.shares_memory:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not in this IPC namespace")
        self.regions[request.name] = Path(f"/dev/shm{request.key}")
        return service_pb2.SystemSharedMemoryRegisterResponse()

    async def SystemSharedMemoryUnregister(self, request, context):
        del self.regions[request.name]
        return service_pb2.SystemSharedMemoryUnregisterResponse()

    async def RepositoryModelUnload(self, request, context):
        if not self.has_model_control:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "explicit model load is not allowed")
        self.is_ready = False
        self.reloads.append("unload")
        return service_pb2.RepositoryModelUnloadResponse()

    async def RepositoryModelLoad(self, request, context):
        if self.failing_loads:
            self.failing_loads -= 1
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "CUDA out of memory")
        self.is_ready, self.fault = True, None
        self.reloads.append("load")
        return service_pb2.RepositoryModelLoadResponse()

    async def RepositoryIndex(self, request, context):
        state = "READY" if self.is_ready else "UNAVAILABLE"
        index = service_pb2.RepositoryIndexResponse()
        for name in (ECHO.name, FOLLOWER.name):
            index.models.add(name=name, version="1", state=state)
        return index

    async def ModelInfer(self, request, context):
        rows = request.inputs[0].shape[0]
        self.calls += 1
        self.rows += rows
        self.most_rows = max(self.most_rows, self.rows)
        try:
            await self._pause()
            await self.gate.wait()
        finally:
            self.rows -= rows
        if self.fault:
            await context.abort(*self.fault)
        if request.model_name == FOLLOWER.name:
            await self._take_step(request, context)
        self.served.append(rows)
        response = service_pb2.ModelInferResponse(model_name=request.model_name)
        given = await self._given(request, context)
        response.outputs.add(name="y", datatype="FP32", shape=[rows, self.answer_width])
        response.raw_output_contents.append(given * self.answer_width)
        return response

    async def _given(self, request, context):
        """The bytes of `x`; a step that only ends a sequence has none."""
        if request.inputs[0].name != "x":
            return bytes(4)
        options = request.inputs[0].parameters
        if "shared_memory_region" not in options:
            return request.raw_input_contents[0]
        region = self.regions.get(options["shared_memory_region"].string_param)
        if region is None:
            await context.abort(*NO_REGION)
        return region.read_bytes()[: options["shared_memory_byte_size"].int64_param]

    async def _take_step(self, request, context):
        options = request.parameters
        sequence_id = options["sequence_id"].int64_param
        if options["sequence_start"].bool_param:
            if len(self.sequences) >= self.slots:
                await context.abort(*FULL)
            self.sequences.add(sequence_id)
        if sequence_id not in self.sequences:
            await context.abort(*UNKNOWN)
        if options["sequence_end"].bool_param:
            self.sequences.discard(sequence_id)


@contextlib.asynccontextmanager
async def fake_tritons(count, **options):
    """Run some servers for as long as the context is open."""
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(serving(FakeTriton(**options))) for _ in range(count)
        ]


@contextlib.asynccontextmanager
async def serving(triton, port=0, credentials=None):
    """Serve one, on a given port if it must come back there, with TLS if given credentials."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(triton, server)
    wanted = f"127.0.0.1:{port}"
    bound = (
        server.add_secure_port(wanted, credentials)
        if credentials
        else server.add_insecure_port(wanted)
    )
    triton.address = f"127.0.0.1:{bound}"
    await server.start()
    try:
        yield triton
    finally:
        triton.hangs = False
        await server.stop(None)


def numbers(*values):
    return {"x": np.array(values, np.float32).reshape(-1, 1)}
