from collections.abc import Iterator
from contextlib import closing

import pytest

from orchestrator.decode_guard.nursery import Nursery
from orchestrator.types.frames import Encoding
from tests.fuzz.decoder_media import damaged, originals
from tests.fuzz.decoders import SETTINGS, Tally, fuzz, is_sound


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with closing(Nursery()) as made:
        yield made


@pytest.mark.parametrize("encoding", [e for e in Encoding if e is not Encoding.RGB24])
def test_damaged_units_are_all_answered_in_bounded_time_and_memory(encoding, nursery):
    tally = fuzz(encoding, 800, seed=2, nursery=nursery)
    assert tally.inputs == tally.pictures + tally.lost == 800
    assert tally.unanswered == 0
    assert tally.pictures > 30
    assert tally.lost > 30
    assert tally.worker_peak_bytes < SETTINGS.memory_bytes


def test_an_input_can_be_made_again_from_its_number():
    units = originals(Encoding.PNG)
    late = list(damaged(units, 5, range(40)))[30:]
    assert list(damaged(units, 5, range(30, 40))) == late
    assert list(damaged(units, 6, range(30, 40))) != late


@pytest.mark.parametrize(
    "fault",
    [
        {"processes_left": 1},
        {"parent_growth_bytes": 1 << 30},
        {"encodings": {"PNG": {"unanswered": 1}}},
        {"encodings": {"PNG": {"slowest_s": 99.0}}},
        {"encodings": {"PNG": {"worker_peak_bytes": 1 << 30}}},
    ],
)
def test_a_report_with_a_broken_bound_is_not_sound(fault):
    sound = {"processes_left": 0, "parent_growth_bytes": 0, "encodings": {"PNG": vars(Tally())}}
    assert is_sound(sound)
    assert not is_sound(sound | fault)
