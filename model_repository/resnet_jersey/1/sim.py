"""ResNet's stand-in: reads the number and role of the person whom a crop's colours show."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from touchline_sim.batches import answer_all
from touchline_sim.kits import nearest_kit
from touchline_sim.marks import SHIRT, mean_colour, read_person
from touchline_sim.pace import Pace
from touchline_sim.record import load_record

_SURE = 4.0
_ROLES = ("player", "goalkeeper", "referee", "other")
_NO_TENS = 10


class TritonPythonModel:
    """One instance; Triton calls it from one thread."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the config and the recording; ValueError for an unknown profile."""
        outputs = json.loads(args["model_config"])["output"]
        self._sizes = {output["name"]: int(output["dims"][0]) for output in outputs}
        self._people = load_record().people
        self._pace = Pace.of(args["model_config"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer all requests in the time of one batch."""
        return answer_all(requests, "crops", self._read, self._pace)

    def _read(self, crops: NDArray[np.uint8]) -> Mapping[str, NDArray[Any]]:
        logits = {
            name: np.zeros((len(crops), size), np.float32) for name, size in self._sizes.items()
        }
        for row, crop in enumerate(crops):
            self._fill({name: values[row] for name, values in logits.items()}, crop)
        return logits

    def _fill(self, logits: Mapping[str, NDArray[np.float32]], crop: NDArray[np.uint8]) -> None:
        """Write what one crop shows; all logits of one kind alike where it shows nothing."""
        logits["kit_colour"][nearest_kit(mean_colour(crop, SHIRT))] = _SURE
        person = self._people.get(read_person(crop) or 0)
        logits["number_visible"][0] = -_SURE
        if person is None:
            return
        logits["role"][_ROLES.index(person.role)] = _SURE
        if person.number is not None:
            tens, units = divmod(person.number, 10)
            logits["number_visible"][0] = _SURE
            logits["tens"][tens or _NO_TENS] = _SURE
            logits["units"][units] = _SURE
