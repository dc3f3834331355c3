"""SAM2's stand-in as a Triton model: a tracker that knows the recording, behind the real door."""

import json
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sam2_streaming.effort import Effort
from sam2_streaming.requests import InvalidRequestError
from sam2_streaming.serving import Door
from touchline_sim.following import RecordedTracker
from touchline_sim.pace import Pace
from touchline_sim.record import load_record


class TritonPythonModel:
    """One instance; Triton calls it from one thread."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the config and the recording; ValueError for an unknown profile."""
        parameters = json.loads(args["model_config"])["parameters"]
        texts = {key: value["string_value"] for key, value in parameters.items()}
        tracker = RecordedTracker(
            load_record(),
            Pace.of(args["model_config"]),
            slots=int(texts["slots"]),
            ttl_s=float(texts["ttl_s"]),
            effort=Effort(int(texts["rest_frames"]), int(texts["max_observed"])),
        )
        self._door = Door(tracker, _decode_jpeg, args["model_instance_name"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by itself: one bad request never fails the others."""
        return self._door.execute(requests)

    def finalize(self) -> None:
        """Triton unloads the model."""
        self._door.close()


def _decode_jpeg(data: bytes) -> NDArray[np.uint8]:
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise InvalidRequestError("frame_jpeg: expected a JPEG picture that is not damaged")
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)
