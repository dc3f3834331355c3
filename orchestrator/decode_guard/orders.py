"""What the nursery is asked for, and what it answers."""

from orchestrator.decode_guard.wire import Message


class Fork(Message):
    """Make a worker. Its channel and the ring's memory come along as descriptors.

    Attributes:
        encoding: Name of the stream's `Encoding`.
        max_pixels: Largest picture, width x height.
        slots: Number of slots in the ring.
        cpu_limit_s: Most CPU time for one frame.
        memory_bytes: Most memory beyond what the worker starts with.
    """

    encoding: str
    max_pixels: int
    slots: int
    cpu_limit_s: float
    memory_bytes: int


class Born(Message):
    """A worker runs.

    Attributes:
        pid: Its process id; None if the host has no process to spare now.
    """

    pid: int | None


class End(Message):
    """Kill a worker and forget it."""

    pid: int


class Ended(Message):
    """A worker is gone.

    Attributes:
        exit_code: 0 or more as it exited; minus the number of the signal that ended it; None if it
            was not this nursery's.
    """

    exit_code: int | None
