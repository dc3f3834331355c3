"""TensorRT on this machine: its module, its GPU, and running a plan. The one door to both."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto
from pydantic import BaseModel, ConfigDict

from training.engine.builder import Build, BuildOptions
from training.errors import InputError
from training.export.agreement import Runner, Tensors

_MAJORS = ("10", "11")


class Machine(BaseModel):
    """What an engine is tied to.

    Attributes:
        tensorrt: Its version, such as `11.4.0.106`.
        gpu: The GPU's name.
        capability: The GPU's compute capability without the dot, such as `90`.
    """

    model_config = ConfigDict(frozen=True)

    tensorrt: str
    gpu: str
    capability: str


@dataclass(frozen=True, slots=True)
class Toolchain:
    """How engines are built and run here.

    Attributes:
        build: Compiles a graph into a plan.
        run: Loads a plan.
    """

    machine: Machine
    build: Callable[[ModelProto, BuildOptions], bytes]
    run: Callable[[bytes], Runner]


def load_tensorrt() -> ModuleType:
    """Return TensorRT's module.

    Raises:
        InputError: It is not installed, or is neither 10 nor 11.
    """
    try:
        trt = import_module("tensorrt")
    except ImportError as error:
        raise InputError(
            "engines are built where they run: start this command in the TensorRT image of the "
            f"same release as your Triton (nvcr.io/nvidia/tensorrt:YY.MM-py3): {error}"
        ) from error
    if trt.__version__.partition(".")[0] not in _MAJORS:
        raise InputError(f"expected TensorRT {' or '.join(_MAJORS)}, found {trt.__version__}")
    return trt


def this_toolchain(timings: Path | None = None) -> Toolchain:
    """Return TensorRT and the first GPU of this machine.

    Args:
        timings: File of kernel timings to read, if it exists, and to write after a build.

    Raises:
        InputError: TensorRT or the GPU is missing.
    """
    trt = load_tensorrt()
    machine = this_machine(trt)

    def build(graph: ModelProto, options: BuildOptions) -> bytes:
        one = Build(trt, graph)
        one.configure(options)
        if timings is not None:
            one.read_timings(timings)
        plan = one.plan()
        if timings is not None:
            one.write_timings(timings)
        return plan

    return Toolchain(machine, build, lambda plan: PlanRunner(trt, plan))


def this_machine(trt: ModuleType) -> Machine:
    """Return what engines built here are tied to.

    Raises:
        InputError: There is no GPU.
    """
    import torch  # takes seconds, and only GPU machines come here

    if not torch.cuda.is_available():
        raise InputError("expected an NVIDIA GPU: TensorRT times its kernels on the real one")
    major, minor = torch.cuda.get_device_capability(0)
    return Machine(
        tensorrt=trt.__version__,
        gpu=torch.cuda.get_device_name(0),
        capability=f"{major}{minor}",
    )


class PlanRunner:
    """A TensorRT plan run on the first GPU, its tensors held by torch."""

    def __init__(self, trt: ModuleType, plan: bytes) -> None:
        """Load a plan.

        Raises:
            InputError: It was built by another TensorRT, or for another GPU.
        """
        self._trt = trt
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise InputError(f"TensorRT {trt.__version__} cannot load this plan on this GPU")
        self._context = self._engine.create_execution_context()
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        self._input = next(name for name in names if self._is(name, trt.TensorIOMode.INPUT))
        self._outputs = [name for name in names if self._is(name, trt.TensorIOMode.OUTPUT)]
        least, _, most = self._engine.get_tensor_profile_shape(self._input, 0)
        self._batches = (int(least[0]), int(most[0]))

    def __call__(self, rows: NDArray[np.uint8]) -> Tensors:
        """Return the outputs of all rows, run in batches that the plan takes."""
        least, most = self._batches
        parts = []
        for start in range(0, len(rows), most):
            part = rows[start : start + most]
            # A last batch below the least is filled up with rows of its own.
            filled = part[np.arange(max(len(part), least)) % len(part)]
            parts.append({k: v[: len(part)] for k, v in self._run(filled).items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in self._outputs}

    def _run(self, rows: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        import torch

        pixels = torch.from_numpy(np.ascontiguousarray(rows)).cuda()
        self._context.set_input_shape(self._input, tuple(pixels.shape))
        tensors: dict[str, Any] = {self._input: pixels}
        for name in self._outputs:
            shape = tuple(self._context.get_tensor_shape(name))
            tensors[name] = torch.empty(shape, dtype=torch.float32, device="cuda")
        for name, tensor in tensors.items():
            self._context.set_tensor_address(name, tensor.data_ptr())
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())  # after the copy of the pixels
        if not self._context.execute_async_v3(stream.cuda_stream):
            raise RuntimeError("TensorRT did not run the plan; its log tells why")
        stream.synchronize()
        return {name: tensors[name].cpu().numpy() for name in self._outputs}

    def _is(self, name: str, mode: Any) -> bool:
        return bool(self._engine.get_tensor_mode(name) == mode)
