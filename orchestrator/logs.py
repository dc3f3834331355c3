"""How the process logs: a line a record on standard error, with the stream and frame it is about.

Whoever works for a stream does so inside `about_stream`; tasks and threads started there inherit
it. What must stay secret is kept out twice: callers log names and sizes only, and `redacted` blots
out what looks like a key, a token or bytes. What goes wrong with every frame fills no disk.
"""

import json
import logging
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from typing_extensions import override

from orchestrator.settings import LoggingSettings

_stream: ContextVar[str] = ContextVar("stream", default="")
_frame: ContextVar[int | None] = ContextVar("frame", default=None)

_MAX_TEXT = 8192
"""Longest message or traceback that is written, in characters."""
_FLOOD, _FLOOD_S = 120, 60.0
"""Most warnings and errors that one line of code logs within so many seconds."""

_SECRETS = (
    # Anything named like a credential, up to the end of its value.
    re.compile(
        r"(?i)((?:authorization|api[-_]?key|token|secret|password)\W{1,4})(?:bearer\s+)?[^\s'\",;)}]+"
    ),
    re.compile(r"(?i)(\bbearer\s+)\S+"),
    re.compile(r"()\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"),  # a JSON web token, whatever its name
    re.compile(r"()\btouchline_[\w-]{12,}"),  # an API key
    re.compile(r"()\b\d+\.[\w-]{32}(?![\w-])"),  # a resume token
    re.compile(r"(?s)(-----BEGIN )[A-Z ]*PRIVATE KEY-----.*?(?:-----END|$)"),
    # Bytes that were formatted, up to their end or to where the text was cut.
    re.compile(r"""()\bb(['"])(?:\\.|(?!\2)[^\\]){33,}(?:\2|\\?$)"""),
)


_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""What begins a new line, or commands a terminal."""


@contextmanager
def about_stream(stream_id: str) -> Iterator[None]:
    """Everything logged inside belongs to a stream."""
    token = _stream.set(stream_id)
    try:
        yield
    finally:
        _stream.reset(token)


@contextmanager
def about_frame(frame_index: int) -> Iterator[None]:
    """Everything logged inside belongs to a frame of the stream."""
    token = _frame.set(frame_index)
    try:
        yield
    finally:
        _frame.reset(token)


def current_stream() -> str:
    """Return the stream that is worked for; empty outside of any."""
    return _stream.get()


def redacted(text: str) -> str:
    """Return `text` without what looks like a credential or raw bytes, and of bounded length."""
    text = text[:_MAX_TEXT]
    for pattern in _SECRETS:
        text = pattern.sub(r"\1[redacted]", text)
    return text


def configure_logging(settings: LoggingSettings) -> None:
    """Log to standard error. Called once, by the process's entry point."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(FloodFilter())
    handler.setFormatter(JsonFormatter() if settings.format == "json" else HumanFormatter())
    logging.basicConfig(level=settings.level, handlers=[handler])


class FloodFilter(logging.Filter):
    """Leaves out what one line of code warns of again and again; its next record says how much.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._counts: dict[tuple[str, int], tuple[float, int]] = {}

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        place, now = (record.pathname, record.lineno), self._clock()
        begun, count = self._counts.get(place, (now, 0))
        if now - begun >= _FLOOD_S:
            if count > _FLOOD:
                left_out = f"{record.getMessage()} ({count - _FLOOD} like it were left out)"
                record.msg, record.args = left_out, ()
            begun, count = now, 0
        self._counts[place] = (begun, count + 1)
        return count < _FLOOD


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, severity, logger, message, and stream and frame if any."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": _utc(record.created),
            "severity": record.levelname,
            "logger": record.name,
            "message": redacted(record.getMessage()),
            **_subject(),
        }
        if record.exc_info and record.exc_info[1] is not None:
            entry["exception"] = _traceback(record.exc_info[1])
        return json.dumps(entry, ensure_ascii=False)


class HumanFormatter(logging.Formatter):
    """Time, severity, logger, stream and frame if any, message."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        about = "".join(f" {name} {value}:" for name, value in _subject().items())
        text = f"{_utc(record.created)} {record.levelname} {record.name}{about} "
        text += _BREAKS.sub(_escaped, redacted(record.getMessage()))  # nobody forges a line
        if record.exc_info and record.exc_info[1] is not None:
            for line in _traceback(record.exc_info[1]).rstrip("\n").split("\n"):
                text += "\n  " + _BREAKS.sub(_escaped, line)
        return text


def _subject() -> dict[str, str | int]:
    subject: dict[str, str | int] = {}
    if stream := _stream.get():
        subject["stream"] = stream
    if (frame := _frame.get()) is not None:
        subject["frame"] = frame
    return subject


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def _traceback(error: BaseException) -> str:
    # By entries, each from its beginning: the rest of a secret does not look like one.
    entries = map(redacted, traceback.format_exception(error))
    return "".join(entries)[-_MAX_TEXT:]


def _utc(seconds: float) -> str:
    """Return an RFC 3339 time with milliseconds."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"
