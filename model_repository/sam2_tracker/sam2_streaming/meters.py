"""What an instance tells of itself on Triton's metrics page."""

from collections.abc import Sequence
from typing import Any

import triton_python_backend_utils as pb_utils

from sam2_streaming.requests import StepResult
from sam2_streaming.slots import Usage


class Meter:
    """One number on Triton's metrics page."""

    def __init__(self, kind: Any, name: str, description: str, instance: str) -> None:
        # Triton deletes the number with its family: keep it.
        self._family = pb_utils.MetricFamily(name=name, description=description, kind=kind)
        self._metric = self._family.Metric(labels={"instance": instance})

    def show(self, value: float) -> None:
        """Set the number of a gauge."""
        self._metric.set(value)

    def add(self, count: int) -> None:
        """Let a counter grow."""
        self._metric.increment(count)


class Meters:
    """What one instance tells of itself."""

    def __init__(self, instance: str) -> None:
        gauge, counter = pb_utils.MetricFamily.GAUGE, pb_utils.MetricFamily.COUNTER
        self._active = Meter(gauge, "sam2_active_sequences", "Live sequences", instance)
        self._slots = Meter(gauge, "sam2_sequence_slots", "Most live sequences", instance)
        self._objects = Meter(gauge, "sam2_tracked_objects", "Objects of live sequences", instance)
        self._bytes = Meter(gauge, "sam2_memory_bytes", "Remembered of all objects", instance)
        frames = "frames of objects that were "
        self._observed = Meter(
            counter, "sam2_observed_object_frames", frames + "looked for", instance
        )
        self._predicted = Meter(
            counter, "sam2_predicted_object_frames", frames + "predicted from motion", instance
        )

    def show(self, usage: Usage) -> None:
        """Set the gauges."""
        self._active.show(usage.sequences)
        self._slots.show(usage.slots)
        self._objects.show(usage.objects)
        self._bytes.show(usage.nbytes)

    def count(self, answers: Sequence[StepResult | Exception]) -> None:
        """Let the counters grow by what was answered."""
        results = [answer for answer in answers if isinstance(answer, StepResult)]
        observed = sum(int(result.observed.sum()) for result in results)
        self._observed.add(observed)
        self._predicted.add(sum(len(result.observed) for result in results) - observed)
