"""The commands of deploy/README.md, as an operator types them."""

import re
import shlex
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from tests.deploy.manifests import ROOT

README = ROOT / "deploy" / "README.md"

MINE, EXAMPLE = "deploy/kubernetes/mine", "deploy/kubernetes/example"
"""The operator's copy, and what it is a copy of."""

Command = list[str]


def section(title: str) -> str:
    """Return the text of one section."""
    (_, text) = README.read_text().split(f"\n## {title}\n", 1)
    return text.split("\n## ", 1)[0]


def commands(text: str) -> list[Command]:
    """Return the words of every command of a text's shell blocks, variables in front left out."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return list(_commands("\n".join(blocks)))


def _commands(script: str) -> Iterator[Command]:
    for line in script.splitlines():
        words = [one for word in shlex.split(line, comments=True) for one in _braces(word)]
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            del words[0]
        if words:
            yield words


def _braces(word: str) -> list[str]:
    """Expand `a{b,c}` as a shell does."""
    pieces = [piece.split(",") for piece in re.split(r"\{([^{}]*)\}", word)]
    return ["".join(chosen) for chosen in product(*pieces)] if len(pieces) > 1 else [word]


def folder(word: str) -> Path:
    """Return the folder that a path in a command means."""
    return ROOT / word.replace(MINE, EXAMPLE, 1)
