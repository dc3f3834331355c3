"""NVIDIA's perf_analyzer drives the tracker: a yardstick that is not of our making.

`analyzer.sh` fetches it. Where it is missing, the load test has only its own closed loop.
"""

import asyncio
import base64
import csv
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.contracts import SAM2_TRACKER

FOLDER = Path(__file__).parents[2] / ".tools" / "perf_analyzer"
_EXECUTABLE = FOLDER / "perf_analyzer"
SEQUENCE_FRAMES = 30
FRAMES_PER_STREAM = 12
"""So many steps of each sequence are played and counted."""
_TIMEOUT_S = 120.0

Step = Mapping[str, NDArray[Any]]
"""Tensors of one request by name, without the batch's dimension."""


def is_there() -> bool:
    """Whether it can be run."""
    return _EXECUTABLE.exists()


async def analyzed_frames_per_s(endpoint: str, steps: list[Step], streams: int) -> float:
    """Return the frames per second that the tracker alone does for so many sequences.

    Args:
        endpoint: `host:port` of the tracker's server.
        steps: The requests of a sequence, of about `SEQUENCE_FRAMES`.
        streams: Sequences at a time.

    Raises:
        RuntimeError: It failed; the text holds what it said.
        TimeoutError: It did not end in time.
    """
    with tempfile.TemporaryDirectory() as folder:
        data, report = Path(folder) / "data.json", Path(folder) / "report.csv"
        data.write_text(json.dumps({"data": [[_written(step) for step in steps]]}))
        command = (
            *(_EXECUTABLE, "-u", endpoint, "-i", "grpc", "--streaming", "-m", SAM2_TRACKER.name),
            *("--input-data", data, "--sequence-length", len(steps)),
            *("--sequence-length-variation", 0, "--concurrency-range", f"{streams}:{streams}"),
            *("--request-count", streams * FRAMES_PER_STREAM, "--verbose-csv", "-f", report),
        )
        await _run([str(word) for word in command])
        return throughput(report.read_text())


def throughput(report: str) -> float:
    """Return the inferences per second of a report with one line."""
    (row,) = csv.DictReader(report.splitlines())
    return float(row["Inferences/Second"])


def _written(step: Step) -> dict[str, dict[str, object]]:
    return {
        name: {
            "b64": base64.b64encode(np.ascontiguousarray(array).tobytes()).decode(),
            "shape": list(array.shape),
        }
        for name, array in step.items()
    }


async def _run(command: list[str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, "LD_LIBRARY_PATH": str(FOLDER)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"perf_analyzer failed: {said.decode(errors='replace')[-2000:]}")
