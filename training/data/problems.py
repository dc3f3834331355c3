"""What is wrong with a data set: the first problem raised for training, all of them for a check."""

from collections.abc import Iterator
from contextlib import contextmanager

from training.errors import InputError

LIMIT = 1000
"""Most problems kept; more are only counted."""


class Problems:
    """Collects problems, or raises the first.

    Args:
        is_strict: Raise on the first problem.

    Attributes:
        messages: What was found, in order; at most `LIMIT`.
        count: How many were found.
    """

    def __init__(self, *, is_strict: bool) -> None:
        self._is_strict = is_strict
        self.messages: list[str] = []
        self.count = 0

    def add(self, message: str) -> None:
        """Note a problem; `message` names file, line or field, and what was expected.

        Raises:
            InputError: Always, if strict.
        """
        if self._is_strict:
            raise InputError(message)
        self.count += 1
        if len(self.messages) < LIMIT:
            self.messages.append(message)

    @contextmanager
    def each(self) -> Iterator[None]:
        """Note an InputError of the body and go on after it; if strict, let it pass."""
        try:
            yield
        except InputError as error:
            if self._is_strict:
                raise
            self.add(str(error))
