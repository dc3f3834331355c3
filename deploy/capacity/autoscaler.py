"""The algorithm of Kubernetes' HorizontalPodAutoscaler for one metric with an AverageValue."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Policy:
    """How fast replicas come and go; `components/keda/policy.yaml` says the same.

    Attributes:
        least: Replicas at any time.
        tolerance: Smaller relative differences from the target change nothing.
        up_pods: Most replicas added at one decision, unless they are doubled.
        down_window_s: The highest recommendation of this time counts.
        down_period_s: Time for each replica that is taken away.
    """

    least: int
    tolerance: float
    up_pods: int
    down_window_s: float
    down_period_s: float

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Self:
        """Read `[autoscaling]` of the profile."""
        return cls(
            least=table["min_replicas"],
            tolerance=table["tolerance"],
            up_pods=table["scale_up_pods"],
            down_window_s=table["scale_down_window_s"],
            down_period_s=table["scale_down_period_s"],
        )


class Autoscaler:
    """Decides on the replicas of one Deployment, once per `scale_up_period_s`."""

    def __init__(self, policy: Policy, target: float, most: int) -> None:
        """Describe an autoscaler.

        Args:
            policy: Its behaviour.
            target: Value of the metric per replica, more than 0.
            most: Replicas at any time, at least the policy's least.
        """
        self._policy = policy
        self._target = target
        self._most = most
        self._recommended: deque[tuple[float, int]] = deque()
        self._down_at = -math.inf

    def decide(self, now_s: float, current: int, metric: float) -> int:
        """Return how many replicas there should be.

        Args:
            now_s: Time of the decision in seconds, never earlier than the last one.
            current: Replicas that there are, those that start included.
            metric: Total over all replicas.
        """
        wanted = min(max(self._recommend(current, metric), self._policy.least), self._most)
        self._recommended.append((now_s, wanted))
        while self._recommended[0][0] < now_s - self._policy.down_window_s:
            self._recommended.popleft()
        if wanted > current:
            return min(wanted, max(current + self._policy.up_pods, 2 * current))
        highest = min(current, max(count for _, count in self._recommended))
        if highest < current and now_s - self._down_at >= self._policy.down_period_s:
            self._down_at = now_s
            return current - 1
        return current

    def _recommend(self, current: int, metric: float) -> int:
        if abs(metric / (self._target * current) - 1) <= self._policy.tolerance:
            return current
        return math.ceil(metric / self._target)
