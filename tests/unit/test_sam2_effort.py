import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sam2_streaming.effort import (
    LOW_SCORE,
    ODD_MOTION,
    RESTLESS_WEIGHT,
    YOUNG_FRAMES,
    Candidate,
    Effort,
    chosen,
)


def calm(object_id, x=None, **changes):
    """An object on its own, 40 px high, that motion describes well."""
    left = 100 * object_id if x is None else x
    box = np.array([left, 100, left + 16, 140], np.float32)
    settled = {"age": YOUNG_FRAMES, "score": 0.9, "surprise": 0.0, "waited": 1}
    return Candidate(object_id, box, **(settled | changes))


def test_without_a_limit_everybody_is_looked_at():
    assert chosen([calm(k) for k in range(1, 5)], 0, Effort()) == [0, 1, 2, 3]
    assert chosen([], 0, Effort(3, 2)) == []


def test_calm_objects_take_turns():
    seen = [chosen([calm(k) for k in range(1, 7)], frame, Effort(3)) for frame in range(3)]
    assert [len(indices) for indices in seen] == [2, 2, 2]
    assert sorted(k for indices in seen for k in indices) == list(range(6))


@pytest.mark.parametrize(
    "restless",
    [
        {"is_prompted": True},
        {"age": YOUNG_FRAMES - 1},
        {"score": LOW_SCORE - 0.01},
        {"surprise": ODD_MOTION + 0.01},
        {"waited": 4},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_an_object_in_need_is_looked_at_out_of_turn(restless):
    # Frame 1 of 4 is the turn of objects 3, 7 and so on.
    assert chosen([calm(1), calm(2)], 1, Effort(4)) == []
    assert chosen([calm(1), calm(2, **restless)], 1, Effort(4)) == [1]


def test_objects_that_touch_are_both_looked_at():
    assert chosen([calm(1, x=100), calm(2, x=130), calm(4, x=300)], 1, Effort(4)) == [0, 1]
    assert chosen([calm(1, x=100), calm(2, x=140), calm(4, x=300)], 1, Effort(4)) == []


def test_the_budget_goes_to_prompts_then_need_then_the_longest_wait():
    objects = [
        calm(1, waited=5),
        calm(2, score=0.1, waited=2),
        calm(3, is_prompted=True),
        calm(4, waited=7),
    ]
    order = [2, 3, 1, 0]
    for most in (1, 2, 3, 4):
        assert chosen(objects, 0, Effort(1, most)) == sorted(order[:most])


def test_prompts_never_wait_for_the_budget():
    objects = [calm(k, is_prompted=True) for k in (1, 2, 3)] + [calm(4)]
    assert chosen(objects, 0, Effort(1, 2)) == [0, 1, 2]


@given(
    st.integers(1, 12),
    st.floats(0, 1),
    st.integers(1, 4),
    st.integers(1, 6),
    st.integers(0, 100),
)
@settings(max_examples=150, deadline=None)
def test_nobody_starves(count, share_in_need, rest_frames, most, seed):
    """Whoever waits has overtaken all others after so many frames, however needy these are."""
    rounds = -(-count // most)
    longest = max(rest_frames, RESTLESS_WEIGHT * rounds) + rounds
    rng = np.random.default_rng(seed)
    waited = dict.fromkeys(range(count), 1)
    for frame in range(4 * longest):
        is_needy = rng.random(count) < share_in_need
        objects = [calm(k + 1, waited=waited[k], score=0.1 if is_needy[k] else 0.9) for k in waited]
        looked_at = chosen(objects, frame, Effort(rest_frames, most))
        assert looked_at == sorted(set(looked_at))
        assert len(looked_at) <= most
        waited = {k: 1 if k in looked_at else frames + 1 for k, frames in waited.items()}
        assert max(waited.values()) <= longest
