"""SigLIP's stand-in: embeds a crop by the kit and the person that its colours show."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from touchline_sim.batches import answer_all
from touchline_sim.kits import embed_person, nearest_kit
from touchline_sim.marks import SHIRT, mean_colour, read_person
from touchline_sim.pace import Pace


class TritonPythonModel:
    """One instance; Triton calls it from one thread."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the config; ValueError for an unknown profile."""
        self._width = int(json.loads(args["model_config"])["output"][0]["dims"][0])
        self._pace = Pace.of(args["model_config"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer all requests in the time of one batch."""
        return answer_all(requests, "crops", self._embed, self._pace)

    def _embed(self, crops: NDArray[np.uint8]) -> Mapping[str, NDArray[Any]]:
        rows = [
            embed_person(nearest_kit(mean_colour(crop, SHIRT)), read_person(crop), self._width)
            for crop in crops
        ]
        return {"embedding": np.stack(rows)}
