"""Shares that know when there is nothing to share."""


def share(part: float, whole: float) -> float | None:
    """Return `part / whole`, or None where `whole` is 0: nothing was there to be measured."""
    return part / whole if whole else None
