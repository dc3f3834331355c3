"""Sides are found among outsiders, and keep their names."""

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from orchestrator.stages.teams import TeamBelief, TeamClusters
from orchestrator.types.people import Team

UNKNOWN = TeamBelief(None, 0.0)


def unit(rows):
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def squad(direction: int, count: int, rng: np.random.Generator, noise: float = 0.1):
    centre = np.eye(8, dtype=np.float32)[direction]
    return unit(centre + noise * rng.normal(size=(count, 8)).astype(np.float32))


def teams_of(clusters: TeamClusters, rows):
    return [clusters.belief(row, UNKNOWN).team for row in rows]


def test_two_kits_are_told_apart_from_officials():
    rng = np.random.default_rng(0)
    a, b, officials = squad(0, 10, rng), squad(1, 9, rng), squad(2, 3, rng)
    clusters = TeamClusters(margin=0.1)
    clusters.fit(np.concatenate([a, officials, b]))
    assert teams_of(clusters, a) == [Team.A] * 10
    assert teams_of(clusters, b) == [Team.B] * 9
    assert teams_of(clusters, officials) == [None] * 3


def test_two_odd_crops_are_no_side():
    rng = np.random.default_rng(3)
    a, b = (unit(3 * np.eye(8)[2] + squad(kit, n, rng)) for kit, n in ((0, 9), (1, 7)))
    odd = squad(7, 2, rng)
    clusters = TeamClusters(margin=0.09)
    clusters.fit(np.concatenate([odd[:1], a, odd[1:], b]))
    assert (teams_of(clusters, a), teams_of(clusters, b)) == ([Team.A] * 9, [Team.B] * 7)


def test_kits_much_alike_are_told_apart_all_the_same():
    rng = np.random.default_rng(4)
    a, b = (unit(3 * np.eye(8)[2] + squad(kit, 9, rng, 0.05)) for kit in (0, 1))
    clusters = TeamClusters(margin=0.09)
    clusters.fit(np.concatenate([a, b]))
    assert (teams_of(clusters, a), teams_of(clusters, b)) == ([Team.A] * 9, [Team.B] * 9)


def test_nothing_is_said_before_there_are_enough_people():
    clusters = TeamClusters(margin=0.1)
    clusters.fit(squad(0, 3, np.random.default_rng(0)))
    assert teams_of(clusters, squad(0, 3, np.random.default_rng(0))) == [None] * 3


def test_kit_descriptions_decide_which_side_is_which():
    rng = np.random.default_rng(1)
    a, b = squad(0, 6, rng), squad(1, 6, rng)
    clusters = TeamClusters(margin=0.1, awaits_kits=True)
    clusters.learn_kits(np.stack([b[0], a[0]]))
    clusters.fit(np.concatenate([a, b]))
    assert teams_of(clusters, a) == [Team.B] * 6


def test_where_one_kit_is_likest_to_both_descriptions_the_other_one_tells():
    rng = np.random.default_rng(1)
    a, b = squad(0, 6, rng), squad(1, 6, rng)
    like_a, like_both = unit([1, 0, 0, 0, 0, 0, 0, 0]), unit([1, 0.8, 0, 0, 0, 0, 0, 0])
    for kits, side in (([like_a, like_both], Team.A), ([like_both, like_a], Team.B)):
        clusters = TeamClusters(margin=0.1)
        clusters.fit(np.concatenate([b, a]))
        clusters.learn_kits(np.stack(kits))
        assert teams_of(clusters, a) == [side] * 6


def test_in_doubt_the_previous_belief_stands():
    rng = np.random.default_rng(2)
    a, b = squad(0, 6, rng), squad(1, 6, rng)
    clusters = TeamClusters(margin=1.5)  # more than any two kits differ
    clusters.fit(np.concatenate([a, b]))
    previous = TeamBelief(Team.B, 0.9)
    assert clusters.belief(a[0], previous) is previous


def test_whoever_lies_between_the_kits_is_on_neither_side():
    rng = np.random.default_rng(2)
    clusters = TeamClusters(margin=0.1)
    clusters.fit(np.concatenate([squad(0, 6, rng), squad(1, 6, rng)]))
    between = unit([1, 1, 0, 0, 0, 0, 0, 0])
    assert clusters.belief(between, TeamBelief(Team.B, 0.9)).team is None


def test_the_nearer_a_kit_the_surer_the_side():
    rng = np.random.default_rng(2)
    clusters = TeamClusters(margin=0.1)
    clusters.fit(np.concatenate([squad(0, 6, rng, 0.3), squad(1, 6, rng, 0.3)]))
    looks = unit([[1, share, 0, 0, 0, 0, 0, 0] for share in (0, 0.3, 0.6)])
    beliefs = [clusters.belief(row, UNKNOWN) for row in looks]
    assert {belief.team for belief in beliefs} == {Team.A}
    sure = [belief.confidence for belief in beliefs]
    assert 1 >= sure[0] > 0.9 > sure[1] > sure[2] > 0.5


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**16), st.integers(2, 11), st.integers(2, 11), st.integers(0, 3))
def test_names_survive_every_later_fit_in_any_order(seed, n_a, n_b, n_others):
    rng = np.random.default_rng(seed)
    a, b, others = squad(0, n_a, rng), squad(1, n_b, rng), squad(2, n_others, rng)
    clusters = TeamClusters(margin=0.1)
    clusters.fit(np.concatenate([a, b]))
    named = teams_of(clusters, a), teams_of(clusters, b)
    # Two of one side among a dozen may pass for odd crops: one in six hundred of these examples.
    assume(named == ([Team.A] * n_a, [Team.B] * n_b))
    if n_others < min(n_a, n_b):
        rows = np.concatenate([a, b, others])
        clusters.fit(rng.permutation(rows))
        assert (teams_of(clusters, a), teams_of(clusters, b)) == named


def test_equal_distances_between_three_kits_are_no_reason_to_fail():
    clusters = TeamClusters(margin=0.1)
    clusters.fit(np.repeat(np.eye(8, dtype=np.float32)[:3], (3, 3, 1), axis=0))
    assert len(set(teams_of(clusters, np.eye(8, dtype=np.float32)[:3]))) == 3


def test_one_kit_alone_in_sight_is_not_cut_in_two():
    alone = squad(0, 14, np.random.default_rng(5))
    clusters = TeamClusters(margin=0.15)
    clusters.fit(alone)
    assert teams_of(clusters, alone) == [None] * 14
    assert not any(clusters.is_apart(row) for row in alone)


def test_a_while_with_one_side_only_leaves_both_known():
    rng = np.random.default_rng(6)
    a, b = squad(0, 10, rng), squad(1, 10, rng)
    clusters = TeamClusters(margin=0.15)
    clusters.fit(np.concatenate([a, b]))
    clusters.fit(a)
    assert teams_of(clusters, a) == [Team.A] * 10
    assert teams_of(clusters, b) == [Team.B] * 10
    assert not any(clusters.is_apart(row) for row in b)
