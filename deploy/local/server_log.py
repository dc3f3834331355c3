"""What a starting tritonserver says in its log.

The log tells of a failed model seconds before the server answers or exits, and with its reason.
Source: the lines as tritonserver 2.51.0 writes them.
"""

import json
import re
from dataclasses import dataclass

_FAILURE = re.compile(
    r"\] (?P<quoted>\"(?:failed to load|failed to poll model|Poll failed for model directory) "
    r"'.*\")$",
    re.MULTILINE,
)
_MESSAGE = re.compile(r"[^']*'(?P<model>[^']+)'(?: version \d+)?: (?P<reason>.*)", re.DOTALL)
_PORT_CLASH = re.compile(r"failed to start \w+ service: .* already in use")
_TABLE = ("|", "+-")


@dataclass(frozen=True, slots=True)
class LoadFailure:
    """A model that could not be loaded; `reason` may have several lines."""

    model: str
    reason: str


def load_failure(log: str) -> LoadFailure | None:
    """Return the first model that failed to load, or None if none failed so far."""
    for line in _FAILURE.finditer(log):
        message = _MESSAGE.match(json.loads(line["quoted"], strict=False))
        if message is not None:
            return LoadFailure(message["model"], message["reason"].strip())
    return None


def has_port_clash(log: str) -> bool:
    """Return whether the server ended because another process holds one of its ports."""
    return _PORT_CLASH.search(log) is not None


def tail(log: str, lines: int = 15) -> str:
    """Return the last lines of a log without its tables, each cut to 300 characters."""
    kept = [line[:300] for line in log.splitlines() if line and not line.startswith(_TABLE)]
    return "\n".join(kept[-lines:])
