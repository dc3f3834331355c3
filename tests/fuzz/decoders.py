"""Damaged pictures and video by the ten thousand, through the real guarded decoder.

`python -m tests.fuzz.decoders --inputs 20000 --output out/fuzz_decoders.json` takes that many of
each encoding, writes what became of them, and fails unless every input was answered exactly once,
in bounded time, by workers of bounded memory, and nothing was left behind. Inputs follow from the
seed: what ended a worker can be made again from the encoding and number in the report.
"""

import argparse
import json
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from orchestrator.decode_guard.nursery import Nursery
from orchestrator.decode_guard.source import GuardedSource
from orchestrator.settings import DecodeSettings
from orchestrator.types.frames import EncodedFrame, Encoding, Frame, FrameHeader, LostFrame
from tests.fuzz.decoder_media import damaged, originals

MAX_PIXELS = 1280 * 720
SETTINGS = DecodeSettings(
    cpu_limit_s=2.0, timeout_s=30.0, memory_bytes=256 << 20, max_worker_losses=1000
)
STREAM_LENGTH = 400
"""Inputs that one stream takes before the next begins."""


@dataclass
class Tally:
    """What became of the inputs of one encoding.

    Attributes:
        inputs: Damaged units sent.
        pictures: Of these, how many gave a picture all the same.
        lost: And how many were lost, with a reason.
        unanswered: Inputs without an answer, and answers too many.
        ended_workers: Number of an input that ended its worker, and how.
        slowest_s: Longest time until an input was answered, wall time.
        worker_peak_bytes: Most memory that a worker held, shared pictures included.
    """

    inputs: int = 0
    pictures: int = 0
    lost: int = 0
    unanswered: int = 0
    ended_workers: dict[int, str] = field(default_factory=dict)
    slowest_s: float = 0.0
    worker_peak_bytes: int = 0

    def count(self, outcomes: list[Frame | LostFrame]) -> None:
        """Enter outcomes."""
        self.pictures += sum(isinstance(outcome, Frame) for outcome in outcomes)
        for outcome in outcomes:
            if isinstance(outcome, LostFrame):
                self.lost += 1
                if "ended its decoder" in outcome.detail:
                    self.ended_workers.setdefault(outcome.header.frame_index, outcome.detail)


def fuzz(encoding: Encoding, inputs: int, seed: int, nursery: Nursery) -> Tally:
    """Send damaged units of one encoding in streams of `STREAM_LENGTH`."""
    tally, units = Tally(), originals(encoding)
    for first in range(0, inputs, STREAM_LENGTH):
        source = GuardedSource(encoding, max_pixels=MAX_PIXELS, settings=SETTINGS, nursery=nursery)
        try:
            stream = damaged(units, seed, range(first, min(first + STREAM_LENGTH, inputs)))
            _play(source, stream, tally)
        finally:
            source.close()
    return tally


def _play(source: GuardedSource, stream: Iterator[EncodedFrame], tally: Tally) -> None:
    open_headers: Counter[FrameHeader] = Counter()
    for unit in stream:
        open_headers[unit.header] += 1
        begun = time.monotonic()
        outcomes = source.decode(unit)
        tally.slowest_s = max(tally.slowest_s, time.monotonic() - begun)
        tally.inputs += 1
        tally.count(outcomes)
        open_headers.subtract(outcome.header for outcome in outcomes)
    if source.worker_pid is not None:
        tally.worker_peak_bytes = max(tally.worker_peak_bytes, peak_bytes(source.worker_pid))
    outcomes = source.flush()
    tally.count(outcomes)
    open_headers.subtract(outcome.header for outcome in outcomes)
    tally.unanswered += sum(abs(count) for count in open_headers.values())


def peak_bytes(pid: int) -> int:
    """Peak of the memory that a process held."""
    status = Path("/proc", str(pid), "status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10


def children() -> list[str]:
    """Process ids of the direct children of this process."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def run(inputs: int, seed: int) -> dict[str, object]:
    """Fuzz all encodings; return the report."""
    nursery = Nursery()
    begun, tallies = time.monotonic(), {}
    encodings = [encoding for encoding in Encoding if encoding is not Encoding.RGB24]
    for encoding in encodings:
        fuzz(encoding, 20, seed, nursery)  # originals, codecs and caches count as the start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    for encoding in encodings:
        tallies[encoding.name] = fuzz(encoding, inputs, seed, nursery)
    nursery.close()
    return {
        "seed": seed,
        "inputs": sum(tally.inputs for tally in tallies.values()),
        "parent_growth_bytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - memory,
        "processes_left": len(children()),
        "seconds": round(time.monotonic() - begun, 1),
        "encodings": {name: asdict(tally) for name, tally in tallies.items()},
    }


def main() -> int:
    """Fuzz, write the report, and return 1 if a bound was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=20_000, help="of each encoding")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    report = run(options.inputs, options.seed)
    text = json.dumps(report, indent=2)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text + "\n")
    sys.stdout.write(text + "\n")
    return 0 if is_sound(report) else 1


def is_sound(report: dict[str, object]) -> bool:
    """Whether the bounds held: no process left, no growth here, no worker beyond its limits."""
    tallies = [Tally(**values) for values in report["encodings"].values()]  # type: ignore[attr-defined]
    return (
        report["processes_left"] == 0
        and report["parent_growth_bytes"] < 64 << 20  # type: ignore[operator]
        and all(tally.unanswered == 0 for tally in tallies)
        and all(tally.slowest_s < 2 * SETTINGS.timeout_s for tally in tallies)
        and all(tally.worker_peak_bytes < SETTINGS.memory_bytes + (160 << 20) for tally in tallies)
    )


if __name__ == "__main__":
    sys.exit(main())
