"""`touchline recognize VIDEO`: a video file through the gRPC API into four output files."""

import argparse
import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from soccer.v1 import player_recognition_pb2 as pb

from orchestrator.cli.annotate import AnnotatedVideo
from orchestrator.cli.connection import connect
from orchestrator.cli.local import console, server_target
from orchestrator.cli.outputs import ResultFiles, all_or_nothing
from orchestrator.cli.sheets import display_names, sheet
from orchestrator.cli.video import Clock, VideoFile, access_units, frames, probe
from orchestrator.client import RecognitionClient
from orchestrator.convert.requests import to_stream_config
from orchestrator.errors import TouchlineError
from orchestrator.merged_ids import begins_anew
from orchestrator.types.frames import EncodedFrame
from orchestrator.types.pictures import Pixels

UNTRAINED_BANNER = "RANDOM WEIGHTS: NOT A RESULT"
_VIDEO_NAME = "annotated.mp4"
_BEGUN_ANEW = "the server lost the stream: track ids and totals are those from here on"


async def recognize_file(options: argparse.Namespace) -> int:
    """Recognise one file and write what was found; return the exit code.

    Raises:
        TouchlineError: The file is no video that can be sent, the output cannot be written, or a
            flag cannot be used; raised before any server is asked or started.
    """
    video = probe(options.video)
    config = stream_config(video, is_live=options.live)
    config.team_a.CopyFrom(sheet(options, "a"))
    config.team_b.CopyFrom(sheet(options, "b"))
    to_stream_config(config)  # what a server would refuse
    with all_or_nothing(options.output) as draft:
        async with server_target(options) as target, connect(target, options) as client:
            summary = await _recognize(client, video, config, options, draft)
        written = sorted(path.name for path in draft.iterdir())
    if _VIDEO_NAME not in written:
        (options.output / _VIDEO_NAME).unlink(missing_ok=True)  # shows the results of before
    return _report(summary, f"in {options.output}/: {' '.join(written)}")


async def _recognize(
    client: RecognitionClient,
    video: VideoFile,
    config: pb.StreamConfig,
    options: argparse.Namespace,
    directory: Path,
) -> dict[str, Any]:
    begun = time.monotonic()
    untrained: list[str] = []
    has_begun = False
    summary = pb.StreamSummary()
    with ResultFiles(directory) as files, _progress(video) as progress:
        drawing = None if options.no_video else _Drawing(directory, video, config)
        with drawing or contextlib.nullcontext():
            async for response in client.recognize_stream(config, _paced(video, options.live)):
                files.write(response)
                if response.HasField("started"):
                    if has_begun and begins_anew(response):
                        console.print(f"[bold yellow]{_BEGUN_ANEW}[/]")
                    has_begun = True
                    untrained = [m.name for m in response.started.models if m.untrained]
                    _warn(untrained)
                if response.HasField("summary"):
                    summary = response.summary
                if drawing is not None:
                    await asyncio.to_thread(drawing.add, response, bool(untrained))
                if response.HasField("recognition") or response.HasField("gap"):
                    progress.advance(progress.task_ids[0])
        seconds = time.monotonic() - begun
        facts = {
            "video": options.video.name,
            "untrained_models": untrained,
            "elapsed_s": round(seconds, 3),
            "frames_per_second": round(summary.received_frame_count / seconds, 2),
        }
        return files.write_summary(summary, facts)


def stream_config(video: VideoFile, *, is_live: bool) -> pb.StreamConfig:
    """Describe a video file as a stream that wants masks and timings."""
    return pb.StreamConfig(
        stream_name=video.path.name.encode(errors="replace").decode()[:128],
        encoding=pb.FrameEncoding.Value(f"FRAME_ENCODING_{video.encoding.name}"),
        width_px=video.width,
        height_px=video.height,
        frame_rate=min(video.frame_rate, 240.0),
        time_base=pb.Rational(
            numerator=video.time_base.numerator, denominator=video.time_base.denominator
        ),
        rotation_degrees=video.rotation_degrees,
        delivery_mode=pb.DELIVERY_MODE_LIVE if is_live else pb.DELIVERY_MODE_LOSSLESS,
        result_options=pb.ResultOptions(include_masks=True, include_stage_timings=True),
    )


def frame_message(unit: EncodedFrame) -> pb.Frame:
    """Write one unit of a file as the API's frame."""
    return pb.Frame(frame_index=unit.header.frame_index, pts=unit.header.pts, data=unit.data)


async def _paced(video: VideoFile, is_live: bool) -> AsyncIterator[pb.Frame]:
    """Yield the file's frames, at the video's own pace if live."""
    units, clock = access_units(video), Clock(video)
    begun = time.monotonic()
    count = 0
    while (unit := await asyncio.to_thread(next, units, None)) is not None:
        if is_live:
            shown = video.presentation[count] if video.presentation else unit.header.pts
            due = begun + clock.seconds(shown)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        count += 1
        yield frame_message(unit)


class _Drawing:
    """Brings responses together with the file's own pictures, in presentation order."""

    def __init__(self, directory: Path, video: VideoFile, config: pb.StreamConfig) -> None:
        is_turned = video.rotation_degrees in {90, 270}
        size = (video.height, video.width) if is_turned else (video.width, video.height)
        self._output = AnnotatedVideo(
            directory / _VIDEO_NAME,
            *size,
            frame_rate=video.frame_rate,
            title=video.path.stem,
            pixel_aspect=1 / video.pixel_aspect if is_turned else video.pixel_aspect,
            names=display_names([config.team_a, config.team_b]),
        )
        self._pictures: Iterator[tuple[int, float, Pixels]] = frames(video)
        self._ahead: tuple[int, float, Pixels] | None = None
        self._turn = threading.Lock()
        """Who is interrupted leaves a thread behind that still draws."""

    def __enter__(self) -> Self:
        self._output.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        with self._turn:
            self._output.__exit__(*error)

    def add(self, response: pb.RecognizeStreamResponse, untrained: bool) -> None:
        """Draw a recognition or a gap; other responses show nothing."""
        with self._turn:
            self._add(response, UNTRAINED_BANNER if untrained else None)

    def _add(self, response: pb.RecognizeStreamResponse, banner: str | None) -> None:
        if response.HasField("recognition"):
            shown = self._picture(response.recognition.frame_index)
            if shown is not None:
                seconds, pixels = shown
                self._output.write(pixels, response.recognition, seconds, banner=banner)
        elif response.HasField("gap"):
            gap = response.gap
            for index in range(gap.first_frame_index, gap.last_frame_index + 1):
                shown = self._picture(index)
                if shown is not None:
                    seconds, pixels = shown
                    self._output.write_gap(pixels, index, seconds, gap.detail)

    def _picture(self, index: int) -> tuple[float, Pixels] | None:
        """Advance to a frame and return its time, too; None if the file has no picture of it."""
        while self._ahead is None or self._ahead[0] < index:
            self._ahead = next(self._pictures, None)
            if self._ahead is None:
                return None
        return self._ahead[1:] if self._ahead[0] == index else None


@contextlib.contextmanager
def _progress(video: VideoFile) -> Iterator[Progress]:
    columns = (
        TextColumn("recognising {task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        progress.add_task(video.path.name, total=len(video.presentation) or None)
        yield progress


def _warn(untrained: list[str]) -> None:
    if untrained:
        console.print(
            f"[bold white on red] {UNTRAINED_BANNER} [/] untrained: {', '.join(untrained)}"
        )


def _report(summary: dict[str, Any], where: str) -> int:
    gaps = {gap["reason"]: int(gap["frame_count"]) for gap in summary["gaps"]}
    received = int(summary["received_frame_count"])
    recognized = int(summary["recognized_frame_count"])
    if recognized + sum(gaps.values()) != received:
        raise TouchlineError(
            f"the server received {received} frames, but answered {recognized} and lost {gaps}"
        )
    numbered = sum("jersey_number" in track for track in summary["tracks"])
    lost = f", gaps {gaps}" if gaps else ""
    console.print(
        f"{recognized} of {received} frames at {summary['frames_per_second']} frames/s{lost}; "
        f"{len(summary['tracks'])} tracks, {numbered} with a number"
    )
    console.print(where, markup=False)
    return 0 if recognized else 1
