"""Wait until a tracker has no live sequence: a preStop hook, run before SIGTERM.

    drain_sequences.py [--metrics http://127.0.0.1:8002/metrics] [--seconds 90] [--settle 5]

From the moment that a pod is deleted its endpoint is marked as terminating; the orchestrators see
that and start each stream's sequence anew on another replica. They need this server for as long as
that takes, and after SIGTERM a newer Triton takes no further message. The exit code is always 0:
there is nothing that Kubernetes could do about a late stream, which then is restored as after a
crash.
"""

import argparse
import re
import sys
import time
import urllib.request
from collections.abc import Callable

_GAUGE = re.compile(r"^sam2_active_sequences(?:\{[^}]*\})? (\S+)$", re.MULTILINE)
_POLL_S = 0.5


def active_sequences(metrics: str) -> float:
    """Return the number of live sequences of all instances on a metrics page.

    Raises:
        ConnectionError: The server is gone.
        OSError: It did not answer.
        LookupError: The page has no such gauge.
    """
    try:
        with urllib.request.urlopen(metrics, timeout=5.0) as page:
            found = _GAUGE.findall(page.read().decode())
    except OSError as error:
        reason = getattr(error, "reason", error)  # what urllib has wrapped
        raise reason if isinstance(reason, ConnectionError) else error from error
    if not found:
        raise LookupError(f"{metrics}: expected the gauge sam2_active_sequences")
    return sum(map(float, found))


def wait_until_drained(
    read: Callable[[], float],
    seconds: float,
    settle: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Wait until there has been no live sequence for a while.

    Args:
        read: Returns the number of live sequences; see `active_sequences`.
        seconds: Longest wait.
        settle: How long there must be none, in seconds: orchestrators that have not yet heard of
            the end may start one.
        clock: Seconds of a clock that never goes back.
        sleep: Waits.

    Returns:
        How the wait ended.
    """
    begun = empty_since = clock()
    while (now := clock()) - begun < seconds:
        try:
            active = read()
        except ConnectionError:
            return "the server is gone"
        except OSError:  # too busy to answer: that is no sign of an end
            active = 1.0
        if active:
            empty_since = now
        elif now - empty_since >= settle:
            return f"drained after {now - begun:.0f} s"
        sleep(_POLL_S)
    return f"gave up after {seconds:g} s"


def main(arguments: list[str] | None = None) -> int:
    """Run the hook of the command line; return the exit code, always 0."""
    parser = argparse.ArgumentParser(description="Wait until a tracker has no live sequence.")
    parser.add_argument("--metrics", default="http://127.0.0.1:8002/metrics", metavar="URL")
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--settle", type=float, default=5.0)
    options = parser.parse_args(arguments)
    try:
        end = wait_until_drained(
            lambda: active_sequences(options.metrics), options.seconds, options.settle
        )
    except LookupError as error:
        end = str(error)
    sys.stdout.write(f"drain: {end}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
