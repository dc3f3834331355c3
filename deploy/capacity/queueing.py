"""A server that takes all who wait as one batch: how long requests stay, and how many there are.

Arrivals are random (Poisson), a batch is whoever waits when the last one is done, up to the largest
batch, and takes a time that depends on its size alone: the queue M/D(b)/1 with bulk service. It is
solved exactly at the moments when a batch is done (Bailey, 1954; the chain below), then by Little's
law: requests in the server = rate x time in the server.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_PRECISION = 1e-3
_HIGHEST_LOAD = 0.95
"""Share of the saturation beyond which a mean says little: times differ too much."""
_DECAY = 1e-9
"""States rarer than this are left out."""


@dataclass(frozen=True)
class BatchServer:
    """One instance of a model.

    Attributes:
        seconds: Time of a batch of 1, 2, ... requests; as many as a batch can have.
    """

    seconds: tuple[float, ...]

    @property
    def saturation(self) -> float:
        """Requests per second beyond which the queue grows for ever."""
        return max(count / time for count, time in enumerate(self.seconds, 1))

    def in_server(self, rate: float) -> float:
        """Return the mean number of requests that wait or are served.

        Args:
            rate: Requests per second, more than 0 and less than the saturation.
        """
        # Long queues are rare but not near saturation, where the bound would cut them off.
        bound = len(self.seconds) + 64
        while True:
            shares = self._after_batches(rate, bound)
            if shares[-1] < _DECAY or bound > 2000:
                break
            bound *= 2
        waiting = np.maximum(np.arange(bound), 1)
        service = self._service(bound)
        idle = np.where(np.arange(bound) == 0, 1 / rate, 0.0)
        # While a batch is served, all of `waiting` are there, and newcomers half of the time.
        present = shares * (waiting + rate * service / 2) * service
        return float(present.sum() / (shares * (service + idle)).sum())

    def response_s(self, rate: float) -> float:
        """Return the mean time from a request's arrival to its answer, in seconds."""
        return self.in_server(rate) / rate

    def highest_rate(
        self, objective_s: float, *, transport_s: float = 0.0, window: float = math.inf
    ) -> float:
        """Return the most requests per second for which a mean response is in time.

        Args:
            objective_s: The response time, transport included.
            transport_s: Time on the way to the server and back.
            window: Requests that the caller has under way at most.

        Returns:
            Requests per second; 0 if a lone request takes longer than the objective already.
        """
        if self.seconds[0] + transport_s >= objective_s:
            return 0.0
        low, high = 0.0, self.saturation * _HIGHEST_LOAD
        while high - low > _PRECISION * high:
            rate = (low + high) / 2
            response_s = self.response_s(rate) + transport_s
            fits = response_s <= objective_s and rate * response_s <= window
            low, high = (rate, high) if fits else (low, rate)
        return low

    def _service(self, bound: int) -> npt.NDArray[np.float64]:
        """Time of the next batch by the number that wait; a lone arrival starts one by itself."""
        batch = np.clip(np.arange(bound), 1, len(self.seconds))
        times: npt.NDArray[np.float64] = np.asarray(self.seconds)[batch - 1]
        return times

    def _after_batches(self, rate: float, bound: int) -> npt.NDArray[np.float64]:
        """How often each number waits when a batch is done: the chain's steady state."""
        steps = np.zeros((bound, bound))
        for waiting, time in enumerate(self._service(bound)):
            left = max(0, waiting - len(self.seconds))
            steps[waiting, left:] = _poisson(rate * float(time), bound)[: bound - left]
            steps[waiting, -1] += 1 - steps[waiting].sum()
        equations = steps.T - np.eye(bound)
        equations[-1] = 1.0
        shares: npt.NDArray[np.float64] = np.linalg.solve(equations, np.eye(bound)[-1])
        return np.clip(shares, 0, None)


@functools.lru_cache(maxsize=4096)
def _poisson(mean: float, count: int) -> npt.NDArray[np.float64]:
    """Probability of 0, 1, ... arrivals."""
    factorials = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, count)))))
    chances: npt.NDArray[np.float64] = np.exp(np.arange(count) * np.log(mean) - mean - factorials)
    return chances
