"""What several orchestrator processes expose at `/metrics`, added up into one reading."""

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from orchestrator.errors import MetricsError

Series = tuple[str, frozenset[tuple[str, str]]]
"""A sample's name and labels."""

_TIMEOUT = aiohttp.ClientTimeout(total=5)
_SEEN_BY_ALL = {
    "touchline_model_replicas",
    "touchline_model_capacity_rows_per_second",
    "touchline_tracker_slots",
    "touchline_degradation_level",
}
"""Not the process's own, but as it sees the cluster: of several processes the largest counts."""


@dataclass(frozen=True, slots=True)
class Reading:
    """All samples at one moment.

    Attributes:
        at: When, in seconds of `time.monotonic`.
        values: Value of each series, over all processes.
    """

    at: float
    values: Mapping[Series, float]

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
        """Return a counter's growth per second; a restarted process counts as none."""
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


async def read(urls: Iterable[str]) -> Reading:
    """Read all processes at once.

    Raises:
        MetricsError: One of them did not answer with metrics.
    """
    addresses = [address(url) for url in urls]
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
        texts = await asyncio.gather(*(_text_of(session, url) for url in addresses))
    return merged(dict(zip(addresses, texts, strict=True)))


def merged(texts: Mapping[str, str]) -> Reading:
    """Add up the expositions of several processes, by their URLs.

    Raises:
        MetricsError: One of them is something else.
    """
    values: defaultdict[Series, float] = defaultdict(float)
    for url, text in texts.items():
        for sample in _samples(url, text):
            series = (sample.name, frozenset(sample.labels.items()))
            if sample.name in _SEEN_BY_ALL:
                values[series] = max(values[series], sample.value)
            else:
                values[series] += sample.value
    return Reading(time.monotonic(), values)


def address(url: str) -> str:
    """Complete `HOST:PORT` to the URL of its metrics."""
    return url if "://" in url else f"http://{url}/metrics"


def _samples(url: str, text: str) -> list[Sample]:
    try:
        families = text_string_to_metric_families(text)
        return [sample for family in families for sample in family.samples]
    except ValueError as error:
        raise MetricsError(f"{url}: expected Prometheus metrics") from error


async def _text_of(session: aiohttp.ClientSession, url: str) -> str:
    try:
        async with session.get(url) as response:
            response.raise_for_status()
            return await response.text(errors="replace")
    except aiohttp.InvalidURL as error:
        raise MetricsError(f"{url}: expected HOST:PORT or a URL") from error
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise MetricsError(f"{url}: {str(error) or 'no answer in time'}") from error
