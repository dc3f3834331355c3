"""Frames of many streams in, objects out; slots, lifetimes and batching of the streams."""

import time
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor

from sam2_streaming.effort import FULL_EFFORT, Effort
from sam2_streaming.engine import StreamingEngine
from sam2_streaming.requests import InvalidRequestError, StepRequest, StepResult
from sam2_streaming.slots import Slots, UnknownSequenceError, Usage
from sam2_streaming.stream import Found, Mode, Outcome, Plan, Stream, ViewSettings
from sam2_streaming.windows import COVER

StepOutcome = StepResult | InvalidRequestError | UnknownSequenceError


class Tracker:
    """Follows the objects of several sequences.

    The caller sees to it that one thread uses the tracker at a time.

    Args:
        engine: The network.
        mode: See `ViewSettings`.
        slots: Most sequences alive at a time.
        ttl_s: Seconds after which an idle sequence is dropped.
        batches_sequences: Whether the objects of all sequences of a call share one batch. Pays on a
            GPU; results then depend on the other sequences, by rounding only. Without it they do
            not depend on them at all.
        max_objects: Most objects in a sequence.
        cover: Side of a window in heights of its object.
        effort: How many objects are looked at in a frame.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        engine: StreamingEngine,
        mode: Mode,
        slots: int,
        ttl_s: float,
        batches_sequences: bool = False,
        max_objects: int = 64,
        cover: float = COVER,
        effort: Effort = FULL_EFFORT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._settings = ViewSettings(
            mode, engine.image_size, engine.device, max_objects, cover, effort
        )
        self._batches_sequences = batches_sequences
        self._live: Slots[Stream] = Slots(slots, ttl_s, clock)

    def usage(self) -> Usage:
        """Return how many sequences and objects live, and their size."""
        return self._live.usage()

    def start(self, sequence_id: int) -> None:
        """Open a sequence without objects; replaces a live one of the same id.

        Raises:
            SlotsExhaustedError: All slots are taken.
        """
        self._live.start(sequence_id, Stream(self._settings))

    def end(self, sequence_id: int) -> None:
        """Free everything of a sequence; unknown ones are ignored."""
        self._live.end(sequence_id)

    def step(self, request: StepRequest) -> StepResult:
        """Step one sequence; raises what `step_many` returns as an error."""
        (outcome,) = self.step_many([request])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def step_many(self, requests: Sequence[StepRequest]) -> list[StepOutcome]:
        """Step distinct sequences by one frame each.

        Returns:
            For each request its result, or the error that left its sequence as it was.
        """
        planned = [self._plan(request) for request in requests]
        ready = [plan for plan in planned if not isinstance(plan, Exception)]
        groups = [ready] if self._batches_sequences else [[one] for one in ready]
        # Nothing is committed before all have succeeded: a failure leaves every sequence as it was.
        concluded = [step for group in groups for step in self._conclude(group)]
        results = iter([stream.commit(outcome) for stream, outcome in concluded])
        return [plan if isinstance(plan, Exception) else next(results) for plan in planned]

    def _plan(
        self, request: StepRequest
    ) -> tuple[Stream, Plan] | InvalidRequestError | UnknownSequenceError:
        try:
            stream = self._live.use(request.sequence_id)
            return stream, stream.plan(request)
        except (InvalidRequestError, UnknownSequenceError) as error:
            return error

    def _conclude(self, group: Sequence[tuple[Stream, Plan]]) -> list[tuple[Stream, Outcome]]:
        """Look for the objects of all plans in one batch."""
        found = self._find([plan for _, plan in group])
        return [
            (stream, stream.conclude(plan, of_one))
            for (stream, plan), of_one in zip(group, found, strict=True)
        ]

    def _find(self, plans: Sequence[Plan]) -> list[Found]:
        parts = _parts([len(plan.sought) for plan in plans])
        images = _parts([len(plan.images) for plan in plans])
        targets = [
            target
            for plan, part in zip(plans, images, strict=True)
            for target in plan.targets(part.start)
        ]
        if not targets:
            size = self._settings.image_size
            nothing = Found(
                torch.empty(0, size, size), np.empty(0, np.float32), [], torch.empty(0, 3)
            )
            return [nothing] * len(plans)

        looks: list[Tensor] = []

        def resolve(logits: Tensor) -> Tensor:
            results = [plan.settled(logits[part]) for plan, part in zip(plans, parts, strict=True)]
            looks.extend(look for _, look in results)
            return torch.cat([of_one for of_one, _ in results])

        pictures = torch.cat([plan.images for plan in plans])
        estimates = self._engine.step(pictures, targets, resolve)
        scores = estimates.scores.cpu().numpy()
        return [
            Found(estimates.logits[part], scores[part], estimates.memories[part], of_one)
            for part, of_one in zip(parts, looks, strict=True)
        ]


def _parts(lengths: Sequence[int]) -> list[slice]:
    """Where each of several lists of these lengths lies in their concatenation."""
    return [slice(a, b) for a, b in pairwise(accumulate(lengths, initial=0))]
