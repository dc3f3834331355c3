"""Compiling an ONNX graph into a TensorRT plan; TensorRT 10, 11 and TensorRT-RTX share this API.

The network is always strongly typed: it computes in the types that the graph states. TensorRT 11
knows nothing else, 10 is asked for it, so both build the same engine from the same fp16 graph.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from onnx import ModelProto

from training.errors import InputError
from training.whole_file import write_whole

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What the builder is asked for.

    Attributes:
        min_batch: Least rows of a request, 1 or more.
        opt_batch: Rows that the kernels are chosen for.
        max_batch: Most rows of a request.
        workspace_gib: Memory that the kernels may use beside weights and activations, in GiB;
            None leaves it to TensorRT, which takes what the GPU has.
    """

    min_batch: int = 1
    opt_batch: int = 8
    max_batch: int = 32
    workspace_gib: float | None = None

    def __post_init__(self) -> None:
        """Refuse batches out of order.

        Raises:
            InputError: They are not 1 <= min <= opt <= max, or the workspace is not positive.
        """
        if not 1 <= self.min_batch <= self.opt_batch <= self.max_batch:
            raise InputError(
                "batches: expected 1 <= min <= opt <= max, "
                f"got {self.min_batch}, {self.opt_batch}, {self.max_batch}"
            )
        if self.workspace_gib is not None and not 0 < self.workspace_gib < math.inf:
            raise InputError(f"workspace: expected more than 0 GiB, got {self.workspace_gib}")


class Build:
    """One network on its way to a plan.

    Attributes:
        config: TensorRT's `IBuilderConfig`.
        layers: Layers of the parsed network.
    """

    def __init__(self, trt: ModuleType, graph: ModelProto) -> None:
        """Parse a graph.

        Raises:
            InputError: TensorRT refuses it; tells the parser's first errors.
        """
        self._trt = trt
        self._errors: list[str] = []
        self._logger = _logger(trt, self._errors)
        self._builder = trt.Builder(self._logger)
        self._network = self._builder.create_network(_network_flags(trt))
        parser = trt.OnnxParser(self._network, self._logger)
        if not parser.parse(graph.SerializeToString()):
            errors = [parser.get_error(i).desc() for i in range(min(parser.num_errors, 3))]
            raise InputError(f"{trt.__name__} refuses the graph: {'; '.join(errors)}")
        self.config = self._builder.create_builder_config()
        self.layers = int(self._network.num_layers)

    def configure(self, options: BuildOptions) -> None:
        """Set batch sizes and memory. The first dimension of every input is the batch.

        Raises:
            InputError: An input has another free size than the batch.
        """
        profile = self._builder.create_optimization_profile()
        for index in range(self._network.num_inputs):
            tensor = self._network.get_input(index)
            batch, *rest = tuple(tensor.shape)
            if batch != -1 or -1 in rest:
                raise InputError(
                    f"input {tensor.name}: expected only the batch free, {(batch, *rest)}"
                )
            sizes = (options.min_batch, options.opt_batch, options.max_batch)
            profile.set_shape(tensor.name, *((size, *rest) for size in sizes))
        self.config.add_optimization_profile(profile)
        if options.workspace_gib is not None:
            pool = self._trt.MemoryPoolType.WORKSPACE
            self.config.set_memory_pool_limit(pool, int(options.workspace_gib * _GIB))

    def read_timings(self, path: Path) -> None:
        """Use the kernel timings that earlier builds on such a GPU wrote; none if no file is there.

        Raises:
            InputError: The file holds timings of another TensorRT or GPU.
        """
        content = path.read_bytes() if path.exists() else b""
        cache = self.config.create_timing_cache(content)
        if cache is None or not self.config.set_timing_cache(cache, ignore_mismatch=False):
            raise InputError(f"{path}: expected timings of this TensorRT version and this GPU")

    def write_timings(self, path: Path) -> None:
        """Write the kernel timings, those that were read included, for later builds."""
        write_whole(path, bytes(self.config.get_timing_cache().serialize()))

    def plan(self) -> bytes:
        """Compile.

        Raises:
            InputError: TensorRT gives up; tells the last of its errors.
        """
        plan: Any = self._builder.build_serialized_network(self._network, self.config)
        if plan is None:
            reason = self._errors[-1] if self._errors else "it does not say why"
            raise InputError(f"{self._trt.__name__} could not build the engine: {reason}")
        return bytes(plan)


def _network_flags(trt: ModuleType) -> int:
    """Ask for strong typing; it is an option of 10, accepted and without effect in 11."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _logger(trt: ModuleType, errors: list[str]) -> Any:
    """Return a TensorRT logger that collects the errors and drops all else."""

    class Errors(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                errors.append(message)

    return Errors()
