"""The audit log: who started, ended or was refused what. JSON lines; never keys, tokens, frames."""

import asyncio
import json
import logging
import logging.handlers
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from typing_extensions import override

from orchestrator.errors import SettingError, TouchlineError
from orchestrator.security.rates import TokenBucket
from orchestrator.telemetry import StreamStats

_SETTING = "security.audit_file"
_REFUSALS_PER_S = 20.0
"""Refusals written in the mean; a flood of them must not fill the disk. Five times that at once."""
_LONGEST_TEXT = 256

_Value = str | int | bool | None | Mapping[str, int]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """One call as the log names it.

    Attributes:
        id: The server's id of the call or stream.
        method: Name of the method.
        tenant: Whom the caller belongs to.
        peer: The client's address as gRPC writes it.
    """

    id: str
    method: str
    tenant: str
    peer: str


@dataclass(slots=True)
class Record:
    """What becomes of a call while it runs."""

    call: Call
    """As it is named; once a stream has started, by that stream's id."""
    stats: StreamStats | None = None
    """Totals of the stream; None until it has started."""


class AuditLog:
    """Writes one JSON object a line: `time`, `event` and the facts.

    Args:
        path: The file, opened anew if it was rotated; None writes to standard error.

    Raises:
        SettingError: The file cannot be opened.
    """

    def __init__(self, path: Path | None) -> None:
        self._log = logging.Logger("touchline.audit")  # apart from the tree: no other handler
        self._handler = _handler(path)
        self._log.addHandler(self._handler)
        self._refusals = TokenBucket(_REFUSALS_PER_S, 5 * _REFUSALS_PER_S)
        self._suppressed = 0

    @contextmanager
    def following(self, call: Call) -> Iterator[Record]:
        """Note how a call ends: a started stream with its totals, another only if it failed."""
        record, reason = Record(call), ""
        try:
            yield record
        except TouchlineError as error:
            reason = str(error)
            raise
        except asyncio.CancelledError:
            reason = "cancelled by the client or lost"
            raise
        except BaseException:
            reason = "internal error"
            raise
        finally:
            if record.stats is not None:
                self._ended(record.call, record.stats, reason or "completed")
            elif reason:
                self.refused(call.method, call.peer, reason, tenant=call.tenant)

    def started(self, call: Call, record: Record, stats: StreamStats, *, name: str) -> None:
        """Note that a stream began, or went on; `name` is the client's name for it."""
        record.call, record.stats = call, stats
        self._write("started", **_named(call), name=name)

    def refused(self, method: str, peer: str, reason: str, *, tenant: str | None = None) -> None:
        """Note that a call was turned away; in a flood only some are written, with their number."""
        if self._refusals.is_empty:
            self._suppressed += 1
            return
        self._refusals.take(1)
        suppressed, self._suppressed = self._suppressed, 0
        self._write(
            "refused", method=method, tenant=tenant, peer=peer, reason=reason, suppressed=suppressed
        )

    def close(self) -> None:
        """Close the file."""
        with _warning():
            self._handler.close()

    def _ended(self, call: Call, stats: StreamStats, reason: str) -> None:
        self._write(
            "ended",
            **_named(call),
            reason=reason,
            received=stats.received,
            recognized=stats.recognized,
            gaps={gap.name: count for gap, count in stats.gaps.items()},
        )

    def _write(self, event: str, **facts: _Value) -> None:
        record: dict[str, _Value] = {"time": datetime.now(UTC).isoformat(), "event": event}
        for name, value in facts.items():
            record[name] = value[:_LONGEST_TEXT] if isinstance(value, str) else value
        with _warning():
            self._log.info("%s", json.dumps(record))


class _File(logging.handlers.WatchedFileHandler):
    @override
    def handleError(self, record: logging.LogRecord) -> None:
        raise  # what `emit` failed with


@contextmanager
def _warning() -> Iterator[None]:
    """Log what the disk refuses: neither calls nor the server's end must hang on it."""
    try:
        yield
    except OSError as error:
        log.warning("%s: cannot write: %s", _SETTING, error.strerror)


def _named(call: Call) -> dict[str, str]:
    return {"stream": call.id, "method": call.method, "tenant": call.tenant, "peer": call.peer}


def _handler(path: Path | None) -> logging.Handler:
    if path is None:
        return logging.StreamHandler(sys.stderr)
    try:
        return _File(path, encoding="utf-8")
    except OSError as error:
        raise SettingError(_SETTING, f"cannot write {path}: {error.strerror}") from error
