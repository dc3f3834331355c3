"""Wall clocks jump; nothing but what is meant for people, or for another party, may read one."""

import ast
from pathlib import Path

import orchestrator

ROOT = Path(orchestrator.__file__).parent
WALL_CLOCKS = {
    ("time", "time"),
    ("time", "time_ns"),
    ("time", "localtime"),
    ("time", "gmtime"),
    ("time", "clock_gettime"),
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("datetime", "today"),
    ("date", "today"),
}
ALLOWED = {
    "logs.py": "when something was logged, for people",
    "profiling.py": "the name of a file, for people",
    "security/audit.py": "when an event took place, for people",
    "security/auth.py": "a token's end is a wall-clock time that its issuer has set",
    "security/files.py": "when a file was changed is a wall-clock time; if it jumps, nothing waits",
    "security/keys.py": "when a key was made, for people",
    "security/tls.py": "a certificate's end is a wall-clock time that its issuer has set",
}


def wall_clocks(path: Path) -> list[int]:
    """Lines that read a wall clock, or import one under a name of its own."""
    lines = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else None
            owner = node.value.id if isinstance(node.value, ast.Name) else owner
            if (owner, node.attr) in WALL_CLOCKS:
                lines.append(node.lineno)
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            lines += [node.lineno for name in node.names if ("time", name.name) in WALL_CLOCKS]
    return lines


def test_a_wall_clock_is_found_however_it_is_reached(tmp_path):
    source = tmp_path / "module.py"
    for text in ("time.time()", "datetime.datetime.now()", "from time import time", "f(time.time)"):
        source.write_text(text)
        assert wall_clocks(source) == [1], text
    source.write_text("time.monotonic(); loop.time()")
    assert wall_clocks(source) == []


def test_no_decision_depends_on_a_wall_clock():
    found = {
        str(path.relative_to(ROOT)): lines
        for path in ROOT.rglob("*.py")
        if (lines := wall_clocks(path))
    }
    assert set(found) <= set(ALLOWED), found
