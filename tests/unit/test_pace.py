"""A stream's time is told by its frames' indices, whatever steps they are numbered in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.stages.pace import Pace


def paced(*indices: int) -> list[int]:
    pace = Pace()
    return [pace.advance(index) for index in indices]


def test_frames_in_a_row_follow_each_other_by_one():
    assert paced(7, 8, 9) == [1, 1, 1]


def test_lost_frames_count():
    assert paced(0, 1, 2, 6, 7, 757) == [1, 1, 1, 4, 1, 750]


@pytest.mark.parametrize("stride", [2, 5, 3600])
def test_whoever_numbers_in_larger_steps_loses_nothing(stride):
    assert paced(0, stride, 2 * stride, 5 * stride) == [1, 1, 1, 3]


def test_times_instead_of_numbers_may_be_rounded():
    assert paced(0, 33, 67, 100, 200) == [1, 1, 1, 1, 3]


def test_frames_that_a_resumed_stream_repeats_count_one_each():
    assert paced(10, 11, 12, 10, 11, 12, 13) == [1] * 7


@given(st.lists(st.integers(1, 400), min_size=1), st.integers(1, 5000))
def test_once_an_ordinary_step_was_seen_no_frame_is_missed(steps, stride):
    pace = Pace()
    pace.advance(0)
    pace.advance(stride)
    index, counted = stride, 0
    for step in steps:
        index += step * stride
        counted += pace.advance(index)
    assert counted == sum(steps)
