"""SAM2 as a Triton model: the network and its tracker behind `sam2_streaming.serving`."""

import functools
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from sam2_streaming.engine import StreamingEngine, Target
from sam2_streaming.parameters import Parameters
from sam2_streaming.pictures import decode_jpeg
from sam2_streaming.prompts import Prompt
from sam2_streaming.serving import Door
from sam2_streaming.tracker import Tracker

_PEOPLE = 22


class TritonPythonModel:
    """One instance; Triton calls it from one thread."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the weights; a failure keeps the model from becoming ready."""
        parameters = Parameters.of(json.loads(args["model_config"]))
        torch.set_num_threads(parameters.threads)
        cv2.setNumThreads(parameters.threads)
        is_gpu = args["model_instance_kind"] == "GPU"
        device = f"cuda:{args['model_instance_device_id']}" if is_gpu else "cpu"
        if is_gpu:
            _prepare(device)
        network = parameters.network(Path(args["model_repository"]))
        engine = StreamingEngine(network, device, parameters.dtype, parameters.min_memory_score)
        if is_gpu:
            _warm(engine)
        tracker = Tracker(
            engine,
            parameters.mode,
            parameters.slots,
            parameters.ttl_s,
            batches_sequences=is_gpu,
            cover=parameters.context,
            effort=parameters.effort,
        )
        decode = functools.partial(decode_jpeg, device=engine.device)
        self._door = Door(tracker, decode, args["model_instance_name"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by itself: one bad request never fails the others."""
        return self._door.execute(requests)

    def finalize(self) -> None:
        """Triton unloads the model."""
        self._door.close()


def _prepare(gpu: str) -> None:
    """Set what torch keeps for a whole process."""
    torch.cuda.set_device(gpu)  # sam2 makes its tables on the current GPU, else the first
    torch.backends.cudnn.deterministic = True


def _warm(engine: StreamingEngine) -> None:
    """Start and follow a team's worth of objects: what loads at first use is loaded now.

    Triton's own warm-up begins no sequence, and a first frame that takes seconds would look like a
    replica that hangs.
    """
    side = engine.image_size
    picture = np.zeros((1, side, side, 3), np.uint8)
    box = Prompt.box(np.array([side / 4, side / 4, side / 2, side / 2], np.float32))
    targets = [Target(0, prompt=box)] * _PEOPLE
    for _ in range(2):
        memories = engine.step(picture, targets, lambda logits: logits).memories
        targets = [Target(0, memory) for memory in memories]
