"""Team sheets given on the command line."""

import asyncio
import json

import pytest

from orchestrator.cli import recognize
from orchestrator.cli.sheets import display_names, sheet
from orchestrator.errors import InvalidRequestError
from tests.unit.test_command_line import options
from tests.unit.test_video_file import write_video

MARIA = {"player_id": "m", "jersey_number": 7, "display_name": "Maria"}


def given(tmp_path, text, *more):
    path = tmp_path / "a.json"
    path.write_bytes(text if isinstance(text, bytes) else json.dumps(text).encode())
    return options("recognize", "clip.mp4", "--output", "out", "--sheet-a", path, *more)


def test_a_sheet_is_the_apis_message(tmp_path):
    chosen = given(tmp_path, {"name": "Reds", "kit_description": "red shirt", "roster": [MARIA]})
    found = sheet(chosen, "a")
    assert (found.name, found.kit_description) == ("Reds", "red shirt")
    assert [(e.player_id, e.jersey_number) for e in found.roster] == [("m", 7)]
    assert display_names([found, sheet(chosen, "b")]) == {"m": "Maria"}


def test_a_kit_given_beside_a_sheet_replaces_its_own(tmp_path):
    text = {"kit_description": "red shirt", "roster": [MARIA]}
    found = sheet(given(tmp_path, text, "--kit-a", "white shirt", "--kit-b", "blue"), "a")
    assert found.kit_description == "white shirt"
    assert len(found.roster) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"red", "expected a TeamSheet as JSON"),
        (b"\xff\xfe", "expected a TeamSheet as JSON"),
        (b"[" * 100_000, "expected a TeamSheet as JSON"),
        (b"[]", "expected a TeamSheet as JSON"),
        ({"players": [MARIA]}, "players"),
        ({"roster": [{"jersey_number": "seven"}]}, "jerseyNumber|jersey_number"),
        (b" " * (1 << 20) + b"{}", "expected at most 1048576 bytes"),
    ],
)
def test_what_is_no_sheet_is_refused_naming_flag_and_file(tmp_path, text, expected):
    with pytest.raises(InvalidRequestError, match=expected) as refused:
        sheet(given(tmp_path, text), "a")
    assert "--sheet-a" in str(refused.value)
    assert "a.json" in str(refused.value)


def test_a_sheet_that_is_not_there_is_named(tmp_path):
    chosen = options("recognize", "clip.mp4", "--output", "out", "--sheet-b", tmp_path / "none")
    with pytest.raises(InvalidRequestError, match=r"--sheet-b.*none: No such file"):
        sheet(chosen, "b")


def test_a_sheet_that_a_server_would_refuse_stops_before_any_is_started(tmp_path):
    clip = write_video(tmp_path / "clip.mp4")
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"roster": [MARIA | {"jersey_number": 0}]}))
    chosen = options("recognize", clip, "--output", tmp_path / "out", "--sheet-a", path)
    with pytest.raises(InvalidRequestError, match=r"team_a\.roster\[0\]\.jersey_number"):
        asyncio.run(recognize.recognize_file(chosen))
    assert not (tmp_path / "out").exists()
