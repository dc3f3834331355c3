"""The stand-in of SigLIP's text tower: embeds the colours that a text names."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from touchline_sim.batches import answer_all
from touchline_sim.kits import embed_text
from touchline_sim.pace import Pace


class TritonPythonModel:
    """One instance; Triton calls it from one thread."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the config; ValueError for an unknown profile."""
        self._width = int(json.loads(args["model_config"])["output"][0]["dims"][0])
        self._pace = Pace.of(args["model_config"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer all requests in the time of one batch."""
        return answer_all(requests, "text", self._embed, self._pace)

    def _embed(self, texts: NDArray[np.object_]) -> Mapping[str, NDArray[Any]]:
        rows = [embed_text(text.decode(errors="replace"), self._width) for (text,) in texts]
        return {"embedding": np.stack(rows)}
