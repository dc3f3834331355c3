"""Pairs are one-to-one, good enough, and no pair is lost to what makes none."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from orchestrator.stages.matching import match

AFFINITIES = arrays(
    np.float32, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(0, 1, width=32)
)


def test_two_that_make_no_pair_do_not_cost_one_that_does():
    affinity = np.array([[0.25, 0.19], [0.19, 0.0]], np.float32)
    assert match(affinity, np.zeros((2, 2), np.float32), 0.2) == [(0, 0)]


@given(AFFINITIES)
def test_pairs_are_one_to_one_good_enough_and_nobody_left_over_fits_anybody(affinity):
    pairs = match(affinity, np.zeros_like(affinity), 0.2)
    rows, columns = [row for row, _ in pairs], [column for _, column in pairs]
    assert len(set(rows)) == len(set(columns)) == len(pairs)
    assert all(affinity[pair] >= 0.2 for pair in pairs)
    rest = np.delete(np.delete(affinity, rows, axis=0), columns, axis=1)
    assert (rest < 0.2).all()
