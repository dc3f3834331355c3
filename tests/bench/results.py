"""The JSON that a measurement leaves: when, where, how, and what was found."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def write_results(path: Path, rows: "Sequence[DataclassInstance]", **facts: Any) -> None:
    """Write rows, after the date, the class of machine and what else is to be known of them."""
    write_report(path, **facts, rows=[asdict(row) for row in rows])


def write_report(path: Path, **facts: Any) -> None:
    """Write facts of a run, after the date and the class of machine."""
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores {platform.machine()}, no GPU, shared",
        **facts,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")
