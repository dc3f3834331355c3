"""Every rule proves itself: a fault is seeded into good manifests, and that rule speaks.

A schema would let all of these pass.
"""

import copy

import pytest

from tests.deploy import pod_faults, wiring_faults  # noqa: F401  they register themselves
from tests.deploy.manifests import KUBERNETES, Cluster, render
from tests.deploy.seeding import FAULTS
from tests.deploy.test_overlays import RULES, problems


@pytest.fixture(scope="module")
def production():
    """What runs in a cluster, and an engine's Job."""
    folders = ("overlays/production", "engine-job/rfdetr")
    return [one for folder in folders for one in render(KUBERNETES / folder)]


@pytest.mark.parametrize(
    ("rule", "seed"), [(r, s) for _, r, s in FAULTS], ids=[f[0] for f in FAULTS]
)
def test_a_seeded_fault_is_found(production, rule, seed):
    cluster = Cluster(copy.deepcopy(production))
    seed(cluster)
    assert any(found.startswith(f"{rule}: ") for found in problems(cluster))


def test_without_a_fault_nothing_is_found(production):
    assert problems(Cluster(production)) == []


def test_every_rule_has_found_a_fault():
    assert {rule.__name__ for rule in RULES} == {rule for _, rule, _ in FAULTS}
