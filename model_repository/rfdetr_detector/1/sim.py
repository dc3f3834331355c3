"""RF-DETR's stand-in: finds the people and the ball of the recorded frame that a picture names."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from touchline_sim.batches import answer_all
from touchline_sim.marks import read_number
from touchline_sim.pace import Pace
from touchline_sim.record import Scene, load_record

_SURE, _NEVER = 3.0, -8.0
"""Logits of confidences 0.95 and 0.0003."""


class TritonPythonModel:
    """One instance; Triton calls it from one thread."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the config and the recording; ValueError for an unknown profile."""
        config = json.loads(args["model_config"])
        self._labels = config["parameters"]["labels"]["string_value"].split(",")
        self._queries = int(config["output"][0]["dims"][0])
        self._record = load_record()
        self._pace = Pace.of(args["model_config"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer all requests in the time of one batch."""
        return answer_all(requests, "image", self._detect, self._pace)

    def _detect(self, images: NDArray[np.uint8]) -> Mapping[str, NDArray[Any]]:
        boxes = np.zeros((len(images), self._queries, 4), np.float32)
        logits = np.full((len(images), self._queries, len(self._labels) + 1), _NEVER, np.float32)
        for row, image in enumerate(images):
            number = read_number(image)
            if number is not None:
                self._fill(boxes[row], logits[row], self._record.scene(number))
        return {"boxes": boxes, "logits": logits}

    def _fill(self, boxes: NDArray[np.float32], logits: NDArray[np.float32], scene: Scene) -> None:
        people = len(scene.person_ids)
        boxes[:people] = _cxcywh(scene.boxes)
        for query, person_id in enumerate(scene.person_ids.tolist()):
            logits[query, self._labels.index(self._record.people[person_id].role)] = _SURE
        if scene.ball is not None:
            boxes[people] = _cxcywh(scene.ball[None])
            logits[people, self._labels.index("ball")] = _SURE


def _cxcywh(xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
    low, high = xyxy[:, :2], xyxy[:, 2:]
    return np.concatenate([(low + high) / 2, high - low], axis=1)
