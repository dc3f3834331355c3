"""Team sheets on the command line: what is known of the two sides before the match."""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

from google.protobuf.json_format import ParseDict, ParseError
from soccer.v1 import player_recognition_pb2 as pb

from orchestrator.errors import InvalidRequestError

_MOST_BYTES = 1 << 20


def add_sheet_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that `sheet` reads."""
    sides = parser.add_argument_group("the two sides")
    for side, example in (("a", 'such as "red shirt"'), ("b", "of the other side")):
        sides.add_argument(f"--kit-{side}", default="", metavar="TEXT", help=example)
        sides.add_argument(
            f"--sheet-{side}",
            type=Path,
            metavar="FILE",
            help="team sheet, the API's TeamSheet as JSON; only its numbers are reported",
        )


def sheet(options: argparse.Namespace, side: str) -> pb.TeamSheet:
    """Return the team sheet of side `a` or `b`; a kit that is given beside it replaces its own.

    Raises:
        InvalidRequestError: The file is no team sheet; names the flag and what was expected.
    """
    path, kit = getattr(options, f"sheet_{side}"), getattr(options, f"kit_{side}")
    found = _read(path, f"--sheet-{side}") if path else pb.TeamSheet()
    if kit:
        found.kit_description = kit
    return found


def display_names(sheets: Iterable[pb.TeamSheet]) -> dict[str, str]:
    """Return the names to show, by player id."""
    listed = [entry for one in sheets for entry in one.roster]
    return {entry.player_id: entry.display_name for entry in listed if entry.display_name}


def _read(path: Path, flag: str) -> pb.TeamSheet:
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InvalidRequestError(flag, f"expected a file: {path}: {error.strerror}") from error
    if len(text) > _MOST_BYTES:
        raise InvalidRequestError(flag, f"expected at most {_MOST_BYTES} bytes: {path}")
    expected = f"expected a TeamSheet as JSON: {path}"
    try:
        document = json.loads(text)
        if isinstance(document, dict):
            return ParseDict(document, pb.TeamSheet())
    except (ValueError, RecursionError, ParseError) as error:
        raise InvalidRequestError(flag, f"{expected}: {error}") from error
    raise InvalidRequestError(flag, f"{expected}: got no object")
