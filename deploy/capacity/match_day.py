"""A day of football in front of the autoscalers: a discrete-event simulation of the GPUs.

Streams begin before their kick-offs, hold a tracker's slot until they end, and make requests to the
other models. Autoscalers look every few seconds; what they order answers only after a while. Time
jumps from event to event, and between two of them nothing changes.

Left out: orchestrators (they start in seconds and take no GPU), failures, and the time that a
stream needs to move when its tracker's replica is taken away.
"""

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from deploy.capacity.autoscaler import Autoscaler, Policy
from deploy.capacity.fleet import Fleet, response
from deploy.capacity.profile import STATELESS, TRACKER, Profile
from deploy.capacity.targets import stateless_share, tracker_share

DAY_S = 24 * 3600.0
_REFUSALS_COUNTED = 4
"""As in the tracker's query: a stream that is refused has asked every replica."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What was so until the next moment.

    Attributes:
        at_s: Seconds since midnight.
        wanted: Streams that clients want to send.
        served: Of those, the ones that have a tracker's slot.
        missed: Share of the wanted streams' frames that nobody answers in time, 0 to 1.
        gpus: GPUs that are paid for, by model.
    """

    at_s: float
    wanted: int
    served: int
    missed: float
    gpus: dict[str, int]


@dataclass(frozen=True, slots=True)
class Day:
    """A simulated day.

    Attributes:
        moments: By time; the last one is the end.
        refused: Streams that had to wait for a slot.
        longest_wait_s: The longest such wait.
    """

    moments: tuple[Moment, ...]
    refused: int
    longest_wait_s: float

    @property
    def stream_hours(self) -> float:
        """Hours of video that clients wanted to send."""
        return self._total(lambda moment: moment.wanted)

    @property
    def missed_share(self) -> float:
        """Share of that which was not served in time."""
        return self._total(lambda moment: moment.wanted * moment.missed) / self.stream_hours

    @property
    def gpu_hours(self) -> float:
        """GPU time that was paid for."""
        return self._total(lambda moment: sum(moment.gpus.values()))

    def _total(self, value: Callable[[Moment], float]) -> float:
        steps = itertools.pairwise(self.moments)
        return sum(value(one) * (following.at_s - one.at_s) for one, following in steps) / 3600


class Simulation:
    """One day; `run` it once."""

    def __init__(self, profile: Profile, *, seed: int = 0, start_s: float | None = None) -> None:
        """Describe a day.

        Args:
            profile: What is simulated.
            seed: Of the arrivals.
            start_s: From a new pod to its first answer; None takes the profile's.

        Raises:
            CapacityError: The GPU cannot serve such streams.
        """
        table = profile.table["autoscaling"]
        self._profile = profile
        self._chance = random.Random(seed)
        self._start_s: float = table["start_s"] if start_s is None else start_s
        self._tracker = tracker_share(profile)
        self._models = {name: response(profile, name) for name in STATELESS}
        self._fleets = self._new_fleets(Policy.of(table))
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = itertools.count()
        self._arrived: dict[int, float] = {}
        self._waiting: list[int] = []
        self._served: set[int] = set()
        self._moments: list[Moment] = []
        self._refused = 0
        self._longest_wait_s = 0.0

    def run(self) -> Day:
        """Play the day."""
        self._plan_day()
        while self._events and self._events[0][0] <= DAY_S:
            now, _, happen = heapq.heappop(self._events)
            happen(now)
            self._place(now)
            self._note(now)
        self._note(DAY_S)
        return Day(tuple(self._moments), self._refused, self._longest_wait_s)

    def _new_fleets(self, policy: Policy) -> dict[str, Fleet]:
        targets = {name: stateless_share(self._profile, name).target for name in STATELESS}
        targets[TRACKER] = self._tracker.target
        unlimited = 10**6  # what the day needs is what we want to know
        return {
            name: Fleet(Autoscaler(policy, target, unlimited), policy.least)
            for name, target in targets.items()
        }

    def _plan_day(self) -> None:
        day = self._profile.table["match_day"]
        poll_s = self._profile.table["autoscaling"]["poll_s"]
        numbers = itertools.count()
        self._note(0.0)
        for tick in range(int(DAY_S // poll_s)):
            self._at(tick * poll_s, self._scale)
        for match in day["matches"]:
            for _ in range(match["streams"]):
                begin = match["hour"] * 3600 - self._chance.uniform(0, day["before_s"])
                number = next(numbers)
                self._at(begin, partial(self._begin, number))
                self._at(begin + day["duration_s"], partial(self._end, number))

    def _at(self, when: float, happen: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), happen))

    def _begin(self, number: int, now: float) -> None:
        self._arrived[number] = now
        self._waiting.append(number)
        if len(self._served) >= self._slots:
            self._refused += 1

    def _end(self, number: int, _: float) -> None:
        self._served.discard(number)
        if number in self._waiting:
            self._waiting.remove(number)

    @property
    def _slots(self) -> int:
        return int(self._fleets[TRACKER].ready * self._tracker.capacity)

    def _place(self, now: float) -> None:
        """Give free slots to who waits; a client tries again as soon as there is one."""
        while self._waiting and len(self._served) < self._slots:
            number = self._waiting.pop(0)
            self._served.add(number)
            self._longest_wait_s = max(self._longest_wait_s, now - self._arrived[number])

    def _scale(self, now: float) -> None:
        served = len(self._served)
        metrics = {
            name: model.demand(served, self._fleets[name].ready)
            for name, model in self._models.items()
        }
        metrics[TRACKER] = served + min(_REFUSALS_COUNTED, len(self._waiting))
        for name, fleet in self._fleets.items():
            wanted = fleet.scaler.decide(now, fleet.paid, metrics[name])
            for _ in range(fleet.resize(wanted)):
                self._at(now + self._start_s, fleet.arrive)

    def _note(self, now: float) -> None:
        served, wanted = len(self._served), len(self._served) + len(self._waiting)
        shortfall = max(
            model.shortfall(served, self._fleets[name].ready)
            for name, model in self._models.items()
        )
        missed = (len(self._waiting) + served * shortfall) / wanted if wanted else 0.0
        gpus = {name: fleet.paid for name, fleet in self._fleets.items()}
        self._moments.append(Moment(now, wanted, served, missed, gpus))
