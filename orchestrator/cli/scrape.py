"""What several orchestrator processes expose at `/metrics`, added up over those that answer."""

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.errors import MetricsError

Series = tuple[str, frozenset[tuple[str, str]]]
"""A sample's name and labels."""
Samples = Mapping[Series, float]
"""What one process exposes."""

_TIMEOUT = aiohttp.ClientTimeout(total=5)
_SEEN_BY_ALL = {
    "touchline_model_replicas",
    "touchline_model_capacity_rows_per_second",
    "touchline_tracker_slots",
    "touchline_degradation_level",
}
"""Not the process's own, but as it sees the cluster: of several processes the largest counts."""
_OWN_PREFIX = "touchline_"
_STARTED: Series = ("process_start_time_seconds", frozenset())


@dataclass(frozen=True, slots=True)
class Scrape:
    """What the processes that answered expose at one moment.

    Attributes:
        at: When, in seconds of `time.monotonic`.
        processes: Samples of each, by its URL.
        problems: What is wrong with each of the others.
    """

    at: float
    processes: Mapping[str, Samples]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """All samples at one moment.

    Attributes:
        at: When, in seconds of `time.monotonic`.
        values: Value of each series, over all processes.
    """

    at: float
    values: Samples

    def total(self, name: str, **labels: str) -> float:
        """Return the sum over all series of a name that have these labels."""
        return sum(
            value
            for (found_name, found), value in self.values.items()
            if found_name == name and labels.items() <= found
        )

    def label_values(self, name: str, label: str) -> list[str]:
        """Return the values that a label of a name has, sorted."""
        series = [dict(found) for found_name, found in self.values if found_name == name]
        return sorted({labels[label] for labels in series if label in labels})

    def buckets(self, name: str, **labels: str) -> dict[float, float]:
        """Return a histogram's cumulative counts by upper bound in seconds, ascending."""
        counts: defaultdict[float, float] = defaultdict(float)
        for (found_name, found), value in self.values.items():
            if found_name == f"{name}_bucket" and labels.items() <= found:
                counts[float(dict(found)["le"])] += value
        return dict(sorted(counts.items()))


@dataclass(frozen=True, slots=True)
class Change:
    """What happened between two readings."""

    before: Reading
    now: Reading

    def rate(self, name: str, **labels: str) -> float:
        """Return a counter's growth per second, never less than 0."""
        grown = self.now.total(name, **labels) - self.before.total(name, **labels)
        return max(0.0, grown) / max(1e-9, self.now.at - self.before.at)

    def quantile(self, share: float, name: str, **labels: str) -> float | None:
        """Return the duration that `share` of a histogram's new ones stay below, in seconds.

        Interpolated within its bucket; None if there are no new ones.
        """
        before, now = self.before.buckets(name, **labels), self.now.buckets(name, **labels)
        counts = {bound: count - before.get(bound, 0.0) for bound, count in now.items()}
        total = counts.get(math.inf, 0.0)
        if total <= 0:
            return None
        lower, below = 0.0, 0.0
        for bound, count in counts.items():
            if count >= share * total:
                within = (share * total - below) / max(1e-9, count - below)
                return lower if math.isinf(bound) else lower + within * (bound - lower)
            lower, below = bound, count
        return lower


async def read(urls: Iterable[str]) -> Scrape:
    """Read all processes at once."""
    addresses = [address(url) for url in urls]
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
        answers = await asyncio.gather(
            *(_samples_of(session, url) for url in addresses), return_exceptions=True
        )
    processes: dict[str, Samples] = {}
    problems: list[str] = []
    for url, answer in zip(addresses, answers, strict=True):
        if isinstance(answer, MetricsError):
            problems.append(str(answer))
        elif isinstance(answer, BaseException):
            raise answer
        else:
            processes[url] = answer
    return Scrape(time.monotonic(), processes, tuple(problems))


def between(before: Scrape, now: Scrape) -> Change:
    """Add up the processes that answered both times: one that comes or goes is no growth.

    One that restarted meanwhile has counted from 0.
    """
    both = {url: now.processes[url] for url in before.processes.keys() & now.processes.keys()}
    counted = [_counted_on(before.processes[url], samples) for url, samples in both.items()]
    return Change(merged(before.at, counted), merged(now.at, both.values()))


def _counted_on(before: Samples, now: Samples) -> Samples:
    """What a process's counters now began from."""
    return before if before.get(_STARTED) == now.get(_STARTED) else {}


def merged(at: float, processes: Iterable[Samples]) -> Reading:
    """Add up what several processes expose."""
    values: defaultdict[Series, float] = defaultdict(float)
    for samples in processes:
        for series, value in samples.items():
            is_shared = series[0] in _SEEN_BY_ALL
            values[series] = max(values[series], value) if is_shared else values[series] + value
    return Reading(at, values)


def address(url: str) -> str:
    """Complete `HOST:PORT` to the URL of its metrics."""
    return url if "://" in url else f"http://{url}/metrics"


def parsed(url: str, text: str) -> Samples:
    """Read the exposition of the orchestrator process at a URL.

    Raises:
        MetricsError: It is something else, such as a model server's.
    """
    try:
        families = list(text_string_to_metric_families(text))
    except ValueError as error:
        raise MetricsError(f"{url}: expected Prometheus metrics") from error
    if not any(family.name.startswith(_OWN_PREFIX) for family in families):
        raise MetricsError(f"{url}: expected metrics of an orchestrator, found no {_OWN_PREFIX}*")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


async def _samples_of(session: aiohttp.ClientSession, url: str) -> Samples:
    return parsed(url, await _text_of(session, url))


async def _text_of(session: aiohttp.ClientSession, url: str) -> str:
    try:
        async with session.get(url) as response:
            response.raise_for_status()
            return await response.text(errors="replace")
    except aiohttp.InvalidURL as error:
        raise MetricsError(f"{url}: expected HOST:PORT or a URL") from error
    except aiohttp.ClientResponseError as error:  # its text may quote pages of the answer
        reason = error.message.partition("\n")[0].rstrip(":")
        raise MetricsError(f"{url}: expected metrics, got {error.status} {reason}") from error
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise MetricsError(f"{url}: {str(error) or 'no answer in time'}") from error
