"""What capacity is computed from, gathered from where each number has its home."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from deploy.local.repository import DEFAULT_REPOSITORY, config_file, read_config
from orchestrator.errors import CapacityError
from orchestrator.settings import Settings

PROFILE = Path(__file__).with_name("profile.toml")
LATENCIES = Path(__file__).parents[1] / "local" / "sim" / "touchline_sim" / "latency.toml"
GPUS = ("h200", "a100", "l4", "t4")
TRACKER = "sam2_tracker"
DETECTOR = "rfdetr_detector"
STATELESS = (DETECTOR, "resnet_jersey", "siglip_embedder")
"""Models that scale by requests. siglip_text is asked once per stream and does not scale."""

_DETECTIONS = 2.0
"""Requests that a frame makes to the detector: the whole frame, and a closer look for the ball."""

_RANGES = {
    "streams": (1, 100_000),
    "frame_rate": (1.0, 240.0),
    "people": (1, 64),
    "observed": (1, 64),
}


@dataclass(frozen=True, slots=True)
class Latency:
    """Time of one execution by batch size: between two rows on a line, outside at a fixed rate.

    Attributes:
        batches: Rows in one execution, rising.
        seconds: Time of each.
        is_measured: Whether every row was measured on this GPU.
    """

    batches: tuple[int, ...]
    seconds: tuple[float, ...]
    is_measured: bool

    @classmethod
    def of(cls, rows: list[dict[str, Any]]) -> Self:
        """Read one table of `latency.toml`."""
        return cls(
            tuple(row["batch"] for row in rows),
            tuple(row["ms"] / 1000 for row in rows),
            all(row["basis"] == "measured" for row in rows),
        )

    def __call__(self, batch: float) -> float:
        """Return the seconds of an execution of `batch` rows."""
        if batch > self.batches[-1]:
            return self.seconds[-1] * batch / self.batches[-1]
        return float(np.interp(batch, self.batches, self.seconds))


@dataclass(frozen=True, slots=True)
class Model:
    """One replica of a model on one kind of GPU.

    Attributes:
        name: As in the model repository.
        latency: Of one instance.
        max_batch: Rows in one execution at most.
        instances: That share the replica's GPU.
        queue_delay_s: How long Triton's batcher waits for further requests.
        slots: Streams that it takes; 0 for stateless models.
        max_observed: People that a tracker looks for in a frame at most; 0 is all.
    """

    name: str
    latency: Latency
    max_batch: int
    instances: int
    queue_delay_s: float
    slots: int = 0
    max_observed: int = 0


@dataclass(frozen=True, slots=True)
class Profile:
    """All inputs of one calculation, for one kind of GPU.

    Attributes:
        gpu: Its name in the latency tables.
        models: By name.
        table: `profile.toml`, as it is.
        requests_per_frame: Requests that a frame makes, by stateless model.
        rows_per_request: Batch rows of such a request.
    """

    gpu: str
    models: Mapping[str, Model]
    table: Mapping[str, Any]
    requests_per_frame: Mapping[str, float]
    rows_per_request: Mapping[str, float]

    def share(self, name: str) -> float:
        """Return a share of `[headroom]`."""
        return float(self.table["headroom"][name])


def load(gpu: str | None = None, **workload: float | None) -> Profile:
    """Gather the inputs.

    Args:
        gpu: One of the latency tables; None takes the one that the profile names.
        **workload: What replaces the profile's `[workload]`: `streams`, `frame_rate`, `people`, and
            `observed`, how many of them a tracker looks for in a frame (else as its config says).
            None replaces nothing.

    Raises:
        CapacityError: The GPU is unknown, or a number is out of range; says what was expected.
    """
    table = tomllib.loads(PROFILE.read_text())
    gpu = gpu or str(table["gpu"])
    if gpu not in GPUS:
        raise CapacityError(f"gpu {gpu!r}: expected one of {', '.join(GPUS)}")
    table["workload"] |= {key: value for key, value in workload.items() if value is not None}
    _check(table["workload"])
    latencies = tomllib.loads(LATENCIES.read_text())[gpu]
    models = {name: _model(name, latencies[name]) for name in (*STATELESS, TRACKER)}
    crops = _crops_per_frame(table["workload"]["people"], table["workload"]["frame_rate"])
    return Profile(
        gpu=gpu,
        models=models,
        table=table,
        requests_per_frame={DETECTOR: _DETECTIONS, **{k: min(1.0, n) for k, n in crops.items()}},
        rows_per_request={DETECTOR: 1.0, **{k: max(1.0, n) for k, n in crops.items()}},
    )


def _check(workload: Mapping[str, float]) -> None:
    for key, value in workload.items():
        least, most = _RANGES[key]
        if not least <= value <= most:
            raise CapacityError(f"{key}: expected {least:g} to {most:g}, got {value:g}")


def _model(name: str, latency: list[dict[str, Any]]) -> Model:
    config = read_config(config_file(DEFAULT_REPOSITORY, name, "default"))
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    return Model(
        name=name,
        latency=Latency.of(latency),
        max_batch=config.max_batch_size,
        instances=sum(group.count for group in config.instance_group),
        queue_delay_s=config.dynamic_batching.max_queue_delay_microseconds / 1e6,
        slots=int(parameters.get("slots", 0)),
        max_observed=int(parameters.get("max_observed", 0)),
    )


def _crops_per_frame(people: int, frame_rate: float) -> dict[str, float]:
    """Return the crops that models look at per frame on average: people take turns."""
    settings = Settings.model_fields
    identify, number = settings["identify"].default, settings["number"].default
    return {
        "resnet_jersey": _crops(people, frame_rate, number),
        "siglip_embedder": _crops(people, frame_rate, identify),
    }


def _crops(people: int, frame_rate: float, settings: Any) -> float:
    due = people / (settings.interval_s * frame_rate)
    return float(min(due, people, settings.max_crops_per_frame))
