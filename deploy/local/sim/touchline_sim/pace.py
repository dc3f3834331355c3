"""How long a model takes on a GPU: a table of batch sizes, and a clock that keeps to it."""

import itertools
import json
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TABLES = Path(__file__).with_name("latency.toml")
BASES = ("measured", "estimated", "chosen")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table.

    Attributes:
        batch: Rows in one execution of the model; for the tracker, objects that are looked at.
        ms: Time of the whole execution in milliseconds.
        basis: `measured` by the source, `estimated` by us, or `chosen` for a test.
        source: Where the number comes from.
    """

    batch: int
    ms: float
    basis: str
    source: str


@dataclass(frozen=True, slots=True)
class Pace:
    """Time of one execution by batch size: between two rows on a line, outside at a fixed rate.

    Attributes:
        rows: By rising batch size, one or more.
    """

    rows: tuple[Row, ...]

    @classmethod
    def of(cls, model_config: str) -> "Pace":
        """Read the table that a model's config asks for by its parameter `profile`.

        Args:
            model_config: JSON, as Triton hands it to a Python model.

        Raises:
            ValueError: The profile, or the model in it, is unknown; says which ones are known.
        """
        config = json.loads(model_config)
        return load(config["parameters"]["profile"]["string_value"], config["name"])

    def seconds(self, batch: int) -> float:
        """Return the time of an execution; none for an empty one."""
        if not batch:
            return 0.0
        first, last = self.rows[0], self.rows[-1]
        if batch <= first.batch:
            return first.ms / 1000
        if batch > last.batch:
            return last.ms / 1000 * batch / last.batch
        batches, times = [row.batch for row in self.rows], [row.ms for row in self.rows]
        return float(np.interp(batch, batches, times)) / 1000

    def wait(self, began: float, batch: int) -> None:
        """Sleep until an execution that began then would be done on a GPU.

        Args:
            began: `time.monotonic()` when the work began; the work's own time counts.
            batch: Its rows.
        """
        time.sleep(max(0.0, began + self.seconds(batch) - time.monotonic()))


def load(profile: str, model: str) -> Pace:
    """Return a model's table in a profile such as `h200`; ValueError for an unknown one."""
    tables = load_tables()
    if profile not in tables:
        raise ValueError(f"parameter profile: expected one of {', '.join(tables)}, got {profile}")
    if model not in tables[profile]:
        raise ValueError(f"profile {profile}: expected one of {', '.join(tables[profile])}")
    return tables[profile][model]


def load_tables() -> dict[str, dict[str, Pace]]:
    """Read all tables, by profile and model.

    Raises:
        ValueError: A row is unmarked, or batch sizes or times do not rise; names the table.
    """
    stored: dict[str, dict[str, list[dict[str, Any]]]] = tomllib.loads(TABLES.read_text())
    return {
        profile: {model: _pace(f"{profile}.{model}", rows) for model, rows in models.items()}
        for profile, models in stored.items()
    }


def _pace(name: str, stored: list[dict[str, Any]]) -> Pace:
    rows = tuple(Row(**row) for row in stored)
    if any(row.basis not in BASES or not row.source for row in rows):
        raise ValueError(f"{name}: expected a source and one of {', '.join(BASES)} in every row")
    if any(a.batch >= b.batch or a.ms > b.ms for a, b in itertools.pairwise(rows)):
        raise ValueError(f"{name}: expected rising batch sizes and times")
    return Pace(rows)
