"""Sound data sets, damaged in one place each, and the refusals that they must meet."""

import pytest

from training.data.reading import check, read
from training.errors import InputError


def read_whole(path):
    return [clip.mask_runs for clip in read(path)]


def refused(path, message):
    """A check lists the problem, and reading raises the first of those that the check lists."""
    _, problems = check(path)
    assert any(message in found for found in problems.messages), problems.messages
    with pytest.raises(InputError) as caught:
        read_whole(path)
    assert str(caught.value) == problems.messages[0]


def setting(*keys, value):
    """A damage: put `value` at the place that `keys` lead to; `...` removes what is there."""

    def damage(content):
        *parents, last = keys
        for key in parents:
            content = content[key]
        if value is ...:
            del content[last]
        else:
            content[last] = value

    return damage


NAN = float("nan")
