"""What it costs in quality to hand SAM2's sequences over: the same clips with and without.

A sequence that is lost, drained or moved is rebuilt from its last frame and masks. Here that is
done to a running pipeline with the real models every few frames, far more often than any match
night would, and the result is held against the clips' truth beside an undisturbed run.

    python -m tests.bench.handover --footage FOLDER --output out/bench/handover.json
"""

import argparse
import asyncio
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from unittest import mock

from soccer.v1 import player_recognition_pb2 as pb
from typing_extensions import override

from deploy.local.cluster import LocalCluster
from orchestrator.cli.outputs import ResultFiles
from orchestrator.server import running_server
from orchestrator.settings import Settings
from orchestrator.stages.segmenting import Segment, Segmenter
from orchestrator.types.frames import Frame
from orchestrator.types.pictures import Boxes
from tests.bench.results import write_results
from tests.stream.streams import play, stored_stream
from training.data.crops import HELD_OUT
from training.data.footage import read_clip
from training.evaluation import masks, tracking
from training.evaluation.matching import MatchedRun, match_run
from training.evaluation.runs import read_run

_SETTLE_FRAMES = 5
"""Who has the same id so many frames after a hand-over as before it has kept it."""


@dataclass(frozen=True)
class Row:
    """One run over all clips.

    Attributes:
        every: Frames between two hand-overs; 0 for none.
        handovers: Hand-overs in all.
        hota: HOTA of all clips together.
        mask_j: Mean region overlap of the masks.
        id_switches: Identity switches.
        ids_kept: Share of people with the same id before and after the frames of the hand-overs;
            without any, at the same frames.
    """

    every: int
    handovers: int
    hota: float
    mask_j: float
    id_switches: int
    ids_kept: float


class _MovingSegmenter(Segmenter):
    """Leaves its sequence every few frames, as before its replica ends."""

    every = 0
    """Frames between two hand-overs; 0 for none."""
    _count = 0

    @override
    async def segment(
        self, frame: Frame, prompts: Mapping[int, Boxes], max_observed: int = 0
    ) -> dict[int, Segment]:
        if self.every and self._count and self._count % self.every == 0:
            await self.close()
        self._count += 1
        return await super().segment(frame, prompts, max_observed)


def record(responses: Iterable[pb.RecognizeStreamResponse], directory: Path) -> None:
    """Write what was answered as `touchline recognize` does."""
    directory.mkdir()
    with ResultFiles(directory) as files:
        for response in responses:
            files.write(response)


async def run(footage: Path, clips: Sequence[str], every: int) -> list[Row]:
    """Recognise the clips without and with hand-overs."""
    truths = {name: read_clip(footage, name) for name in clips}
    rows = []
    async with LocalCluster() as cluster:
        settings = Settings.model_validate(
            {"triton": {"urls": cluster.endpoints}, "server": {"port": 0}}
        )
        for frames in (0, every):
            with (
                tempfile.TemporaryDirectory() as folder,
                mock.patch.object(_MovingSegmenter, "every", frames),
                mock.patch("orchestrator.stages.track.Segmenter", _MovingSegmenter),
            ):
                async with running_server(settings) as server:
                    for name, truth in truths.items():
                        stream = stored_stream(footage / f"{name}.mp4", len(truth.sightings))
                        record(await play(server.target, *stream), Path(folder, name))
                matched = [match_run(read_run(Path(folder, n)), t) for n, t in truths.items()]
            rows.append(_row(frames, every, matched))
    return rows


def _row(frames: int, every: int, matched: list[MatchedRun]) -> Row:
    figures = tracking.figures([tracking.measure(one) for one in matched])
    kept = [is_kept for one in matched for is_kept in _kept(one, every)]
    count = sum((len(one.frames) - 1) // every for one in matched) if frames else 0
    return Row(
        every=frames,
        handovers=count,
        hota=round(figures["hota"], 4),
        mask_j=round(masks.figures([masks.measure(one) for one in matched])["j"] or 0.0, 4),
        id_switches=figures["id_switches"],
        ids_kept=round(sum(kept) / len(kept), 4),
    )


def _kept(matched: MatchedRun, every: int) -> Iterator[bool]:
    """Yield for everybody in sight on both sides of a hand-over whether the id is the same."""
    for frame in range(every, len(matched.frames) - _SETTLE_FRAMES, every):
        before, after = (
            {seen.object_id: player.track_id for seen, player in matched.frames[index].matches}
            for index in (frame - 1, frame + _SETTLE_FRAMES)
        )
        yield from (after[person] == before[person] for person in before.keys() & after.keys())


def table(rows: Sequence[Row]) -> str:
    """Write the rows as Markdown."""
    lines = ["| hand-over | in all | HOTA | mask J | id switches | ids kept |", "|" + " --- |" * 6]
    for row in rows:
        name = f"every {row.every} frames" if row.every else "none"
        lines.append(f"| {name} | " + " | ".join(map(str, astuple(row)[1:])) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--footage", type=Path, required=True, help="rendered clips and truth")
    parser.add_argument("--clips", nargs="+", default=HELD_OUT)
    parser.add_argument("--every", type=int, default=50, help="frames between two hand-overs")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    rows = asyncio.run(run(options.footage, options.clips, options.every))
    write_results(options.output, rows, clips=list(options.clips))
    print(table(rows))


if __name__ == "__main__":
    main()
