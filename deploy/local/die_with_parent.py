"""Become a command that dies with its caller, however that ends, together with its own children.

Run as a script, `python die_with_parent.py CALLER_PID COMMAND ARGUMENT…`; the command leads a
process group of its own. No signal handler or `atexit` hook in the caller could do this: neither
runs after a SIGKILL.

    caller ── dies ──▶ kernel kills the command ──▶ kernel wakes the guard ──▶ it kills the group

The guard is needed because tritonserver's model processes notice the death of their server only
between two calls: one that loads weights would live on for minutes.

The "caller" is the thread that starts the command (`man 2 prctl`): start it from a thread that
lives as long as the command should, such as that of the event loop.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""Source: linux/prctl.h."""


def prefix() -> list[str]:
    """Return what goes in front of a command that is to die with this process."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid())]


def main() -> None:
    """Bind this process to the caller, leave a guard behind and turn into the command."""
    caller_pid, *command = sys.argv[1:]
    own_pid = os.getpid()
    if os.getpgrp() != own_pid:  # the guard must not kill the caller's group
        os.setpgrp()
    _request_signal_at_death_of(int(caller_pid), signal.SIGKILL)
    if os.fork() == 0:
        _guard(own_pid)
    os.execv(command[0], command)


def _guard(leader_pid: int) -> None:
    """Wait until the leader of this process group has ended, then kill the group."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    _request_signal_at_death_of(leader_pid, signal.SIGUSR1)
    signal.sigwait({signal.SIGUSR1})
    os.killpg(0, signal.SIGKILL)


def _request_signal_at_death_of(parent_pid: int, number: signal.Signals) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, number) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent_pid:  # it died before the request was in force
        os.kill(os.getpid(), number)


if __name__ == "__main__":
    main()
