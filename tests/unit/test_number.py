"""Digits combine into numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from orchestrator.stages.number import number_probabilities

LOGITS = st.floats(-30, 30, width=32)


@pytest.mark.parametrize(
    ("tens", "units", "number"), [(10, 7, 7), (0, 7, 7), (1, 0, 10), (9, 9, 99)]
)
def test_clear_digits_give_their_number(tens, units, number):
    t, u = np.zeros(11, np.float32), np.zeros(10, np.float32)
    t[tens], u[units] = 12, 12
    p = number_probabilities(t, u)
    assert p.argmax() == number
    assert p[number] > 0.99


@given(arrays(np.float32, 11, elements=LOGITS), arrays(np.float32, 10, elements=LOGITS))
def test_any_logits_give_a_distribution_without_zero(tens, units):
    p = number_probabilities(tens, units)
    assert p.shape == (100,)
    assert p[0] == 0
    assert np.isfinite(p).all()
    assert p.sum() == pytest.approx(1, abs=1e-3)


def test_digits_that_say_nothing_but_zero_are_no_number():
    tens, units = np.zeros(11, np.float32), np.zeros(10, np.float32)
    tens[0], units[0] = 500, 500
    assert not number_probabilities(tens, units).any()
