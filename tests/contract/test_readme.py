"""What the README tells people to run exists."""

import re
from pathlib import Path

from orchestrator.cli import _parser

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_every_make_target_exists():
    wanted = set(re.findall(r"\bmake ([a-z-]+)", README))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test"} <= wanted
    assert wanted <= targets


def test_every_touchline_command_parses():
    lines = re.findall(r"^\.venv/bin/touchline (.+)$", README, re.MULTILINE)
    commands = [line.split("#")[0].strip() for line in lines]
    assert len(commands) >= 4
    for command in commands:
        _parser().parse_args(command.split())


def test_every_linked_file_exists():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
