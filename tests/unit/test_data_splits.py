"""No kit and no match is on both sides of a split."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.clips import Clip
from training.data.pictures import ImageFiles
from training.data.reading import read
from training.data.splits import groups, shared, split_by_name, split_by_share
from training.errors import InputError


def clip(name, kits=(), source="", frames=10):
    return Clip(
        name=name,
        width=64,
        height=48,
        frame_rate=25,
        people={},
        sightings=((),) * frames,
        pictures=ImageFiles(()),
        is_tracked=True,
        source=source or name,
        kits=frozenset(kits),
    )


some_clips = st.lists(
    st.tuples(st.sets(st.sampled_from("rgbwky"), max_size=2), st.sampled_from("123456")),
    min_size=2,
    max_size=12,
).map(lambda facts: [clip(f"c{i:02d}", kits, f"m{m}") for i, (kits, m) in enumerate(facts)])


@given(some_clips, st.floats(0, 0.9), st.integers(0, 99))
def test_a_drawn_split_shares_nothing_and_loses_nothing(clips, share, seed):
    if len(groups(clips)) < 2:
        return
    split = split_by_share(clips, share, seed)
    assert sorted(split.train + split.held_out) == sorted(c.name for c in clips)
    assert split.train
    assert split.leaks == ()
    by_name = {c.name: c for c in clips}
    assert not any(shared(by_name[a], by_name[b]) for a in split.train for b in split.held_out)


@given(some_clips, st.integers(0, 99), st.randoms())
def test_a_draw_depends_on_the_seed_and_not_on_the_order(clips, seed, random):
    if len(groups(clips)) < 2:
        return
    mixed = list(clips)
    random.shuffle(mixed)
    assert split_by_share(clips, 0.3, seed) == split_by_share(mixed, 0.3, seed)


def test_seeds_draw_different_clips():
    clips = [clip(f"c{i}") for i in range(10)]
    assert len({split_by_share(clips, 0.2, seed).held_out for seed in range(20)}) > 3


def test_clips_linked_through_a_third_stay_together():
    clips = [clip("a", "rg"), clip("b", "gb"), clip("c", "bk"), clip("d", "w"), clip("e")]
    assert [[c.name for c in g] for g in groups(clips)] == [["a", "b", "c"], ["d"], ["e"]]


def test_held_out_names_win_and_what_leaks_is_told():
    clips = [clip("a", "r"), clip("b", "r"), clip("c", source="m"), clip("d", source="m")]
    split = split_by_name(clips, ["b", "d"])
    assert (split.train, split.held_out) == (("a", "c"), ("b", "d"))
    assert split.leaks == (
        "a trains, but shares the shirt r with held-out b",
        "c trains, but shares the source m with held-out d",
    )


def test_wrong_names_shares_and_undividable_data_are_refused():
    clips = [clip("a", "r"), clip("b", "r")]
    with pytest.raises(InputError, match="expected names of clips, got x"):
        split_by_name(clips, ["x"])
    with pytest.raises(InputError, match="less than 1"):
        split_by_share(clips, 1.0, 0)
    with pytest.raises(InputError, match="expected two groups"):
        split_by_share(clips, 0.5, 0)


def test_of_the_rendered_clips_only_two_plain_shirts_are_on_both_sides(footage):
    held_out = ("dev_05", "dev_13", "dev_14", "dev_18", "dev_22", "demo_01")
    leaks = split_by_name(read(footage / "rendered"), held_out).leaks
    assert {leak.split()[0] + " " + leak.split()[-1] for leak in leaks} == {
        "dev_04 demo_01",
        "dev_06 demo_01",
        "dev_02 dev_18",
        "dev_29 dev_18",
    }
