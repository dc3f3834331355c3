"""The files that commands write: all or none; and those of `touchline recognize`."""

import errno
import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from google.protobuf.json_format import MessageToDict, MessageToJson
from soccer.v1 import player_recognition_pb2 as pb

from orchestrator.errors import InvalidRequestError
from orchestrator.merged_ids import MergedIds, begins_anew

_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def all_or_nothing(directory: Path, flag: str = "--output") -> Iterator[Path]:
    """Give a folder to write into, whose files come into `directory` at the end, all together.

    If the block fails, they are gone, and what was in `directory` before stays as it was.

    Raises:
        InvalidRequestError: `directory`, given by `flag`, is no folder that can be written, raised
            before the block; or the disk is full.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        draft = tempfile.TemporaryDirectory(
            dir=directory, prefix=".draft-", ignore_cleanup_errors=True
        )
    except OSError as error:
        expected = f"expected a folder that can be written: {directory}: {error.strerror}"
        raise InvalidRequestError(flag, expected) from error
    try:
        with draft as name:
            yield Path(name)
            for path in Path(name).iterdir():
                path.replace(directory / path.name)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        expected = f"expected room for the results in {directory}: {error.strerror}"
        raise InvalidRequestError(flag, expected) from error


class ResultFiles:
    """`results.jsonl`, `mot.txt` and `summary.json` in one directory.

    `results.jsonl` has one response a line, as protobuf JSON with the proto's field names;
    `mot.txt` is in MOTChallenge form, frames counted from 1, with the ids that tracks have in the
    end, after all merges. Where a server lost the stream and began it anew, ids in `mot.txt` go on
    behind those of before.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files = ExitStack()
        self._results = self._files.enter_context((directory / "results.jsonl").open("w"))
        lines = tempfile.TemporaryFile("w+", dir=directory)  # noqa: SIM115  is closed
        self._boxes = self._files.enter_context(lines)
        """The lines of `mot.txt`, with the ids as they were said at once."""
        self._merged = MergedIds()
        self._highest_id = self._earlier_ids = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._files:
            self._write_mot()

    def write(self, response: pb.RecognizeStreamResponse) -> None:
        """Append one response."""
        text = MessageToJson(
            response,
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
            indent=None,
        )
        self._results.write(text + "\n")
        if begins_anew(response):
            self._earlier_ids = self._highest_id
        elif response.HasField("recognition"):
            self._note_boxes(response.recognition)
        elif response.HasField("identity_update"):
            update = response.identity_update
            into = update.merged_into_track_id
            self._merged.note(self._unique(update.track_id), into and self._unique(into))

    def write_summary(self, summary: pb.StreamSummary, facts: dict[str, Any]) -> dict[str, Any]:
        """Write the totals, with the client's own facts first; return what was written."""
        totals = facts | MessageToDict(
            summary,
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
        )
        path = self._directory / "summary.json"
        path.write_text(json.dumps(totals, indent=2) + "\n")
        return totals

    def _note_boxes(self, recognition: pb.FrameRecognition) -> None:
        for player in recognition.players:
            box = player.box
            self._boxes.write(
                f"{recognition.frame_index + 1},{self._unique(player.track_id)},"
                f"{box.x_min:.2f},{box.y_min:.2f},"
                f"{box.x_max - box.x_min:.2f},{box.y_max - box.y_min:.2f},"
                f"{player.confidence:.4f},-1,-1,-1\n"
            )

    def _unique(self, track_id: int) -> int:
        """Return a track's id among those of all times that the stream was begun."""
        self._highest_id = max(self._highest_id, self._earlier_ids + track_id)
        return self._earlier_ids + track_id

    def _write_mot(self) -> None:
        self._boxes.seek(0)
        with (self._directory / "mot.txt").open("w") as mot:
            for line in self._boxes:
                frame, track_id, rest = line.split(",", 2)
                mot.write(f"{frame},{self._merged.final(int(track_id))},{rest}")
