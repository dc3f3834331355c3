"""What a 1080p JPEG frame costs the orchestrator, against decoding and resizing it alone.

Plays a lossless stream through the real orchestrator in front of `sim` models, whose answers take
no time here, and counts the CPU time of all its processes. In turns, in the same run, this process
decodes and resizes the same frames, and nothing else: with the product's own functions, and with
OpenCV's as any script would, a yardstick that stays when ours become faster.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path

import cv2
import numpy as np
from soccer.v1 import player_recognition_pb2 as pb

from deploy.local.cluster import LocalCluster
from deploy.local.orchestrator import OrchestratorProcess
from orchestrator.imaging import square_tiles
from orchestrator.picture_decoding import decode_compressed
from orchestrator.types.frames import Encoding
from orchestrator.types.pictures import Pixels
from tests.bench.pipeline import tree_cpu_seconds
from tests.bench.results import write_results
from tests.conftest import DATA
from tests.load.pictures import MatchPictures
from tests.stream.streams import play

WIDTH, HEIGHT = 1920, 1080
QUALITY = 90
DETECTOR_SIDE = 192
"""Input of the sim detector; resizing costs what the picture is large, not its result."""
_ISOLATIONS = ("process", "thread")


@dataclass(frozen=True)
class Row:
    """CPU time per frame in milliseconds, medians over the rounds.

    Attributes:
        isolation: Where frames are decoded: in a `process` of the stream's own, or in a `thread`.
        orchestrator_ms: All processes of the orchestrator, from a frame's bytes to its result.
        alone_ms: Decoding and resizing alone, in one thread, by the product's functions.
        ratio: The first by the second, the median of the rounds' ratios.
        opencv_ms: Decoding and resizing alone by OpenCV's functions.
        opencv_ratio: The first by that.
    """

    isolation: str
    orchestrator_ms: float
    alone_ms: float
    ratio: float
    opencv_ms: float
    opencv_ratio: float


def match_frames(count: int) -> list[bytes]:
    """Code frames of the simulated match, played on a filmed pitch: flat ones decode too fast."""
    match = MatchPictures(WIDTH, HEIGHT)
    filmed = cv2.imread(str(DATA / "frame.jpg"))
    grass = match.rgb(0)[HEIGHT // 2, 0]
    pitch = cv2.resize(filmed, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return [_coded(match.rgb(number), grass, pitch) for number in range(count)]


def _coded(painted: Pixels, grass: Pixels, pitch: Pixels) -> bytes:
    is_grass = (painted == grass).all(axis=2, keepdims=True)
    bgr = np.where(is_grass, pitch, painted[:, :, ::-1])
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


def alone_ms(prepare: Callable[[bytes], object], frames: list[bytes]) -> float:
    """CPU time per frame of decoding and resizing alone."""
    cv2.setNumThreads(1)
    begun = time.process_time()
    for data in frames:
        prepare(data)
    return 1000 * (time.process_time() - begun) / len(frames)


def by_product(data: bytes) -> None:
    """Decode and resize a frame as the orchestrator does."""
    pixels = decode_compressed(data, Encoding.JPEG, max_pixels=WIDTH * HEIGHT)
    square_tiles(pixels, 1, DETECTOR_SIDE)


def by_opencv(data: bytes) -> None:
    """Decode and resize a frame as a script would."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    cv2.resize(pixels, (DETECTOR_SIDE, DETECTOR_SIDE), interpolation=cv2.INTER_AREA)


async def served_ms(served: OrchestratorProcess, frames: list[bytes]) -> float:
    """CPU time per frame of the orchestrator's processes."""
    config = pb.StreamConfig(stream_name="bench", encoding=pb.FRAME_ENCODING_JPEG, frame_rate=25.0)
    messages = [pb.Frame(frame_index=i, data=data) for i, data in enumerate(frames)]
    begun = tree_cpu_seconds(served.pid)
    responses = await play(served.target, config, messages)
    seconds = tree_cpu_seconds(served.pid) - begun
    recognized = responses[-1].summary.recognized_frame_count
    if recognized != len(frames):
        raise RuntimeError(f"expected {len(frames)} recognised frames, got {recognized}")
    return 1000 * seconds / len(frames)


async def run(frame_count: int, rounds: int) -> list[Row]:
    """Measure in turns, so that a noisy minute hits all alike."""
    frames = match_frames(frame_count)
    alone: list[float] = []
    opencv: list[float] = []
    served: dict[str, list[float]] = {isolation: [] for isolation in _ISOLATIONS}
    async with LocalCluster("sim") as cluster:
        for _ in range(rounds):
            alone.append(alone_ms(by_product, frames))
            opencv.append(alone_ms(by_opencv, frames))
            for isolation in _ISOLATIONS:
                options = {"TOUCHLINE_DECODE__ISOLATION": isolation}
                async with OrchestratorProcess(cluster.endpoints, settings=options) as process:
                    await served_ms(process, frames[:10])  # connections, first decodes
                    served[isolation].append(await served_ms(process, frames))
    return [_row(isolation, served[isolation], alone, opencv) for isolation in _ISOLATIONS]


def _row(isolation: str, served: list[float], alone: list[float], opencv: list[float]) -> Row:
    columns = (served, alone, _ratios(served, alone), opencv, _ratios(served, opencv))
    return Row(isolation, *(round(statistics.median(column), 2) for column in columns))


def _ratios(served: list[float], least: list[float]) -> list[float]:
    return [mine / other for mine, other in zip(served, least, strict=True)]


def table(rows: list[Row]) -> str:
    """Write the rows as Markdown."""
    lines = [
        "| decoding in a | orchestrator CPU-ms/frame | decode + resize alone | ratio "
        "| decode + resize by OpenCV | ratio |",
        "|" + " --- |" * 6,
    ]
    lines += ["| " + " | ".join(map(str, astuple(row))) + " |" for row in rows]
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rows = asyncio.run(run(options.frames, options.rounds))
    write_results(
        options.output,
        rows,
        frame=f"{WIDTH}x{HEIGHT} JPEG, quality {QUALITY}",
        frames=options.frames,
        rounds=options.rounds,
    )
    print(table(rows))


if __name__ == "__main__":
    main()
