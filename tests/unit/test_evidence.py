"""What is gathered about a person can be revised, however long it was gathered."""

import numpy as np
import pytest

from orchestrator.settings import NumberSettings
from orchestrator.stages.evidence import Person
from orchestrator.types.people import Role
from tests.unit.recorded_match import KIT, reading, track

SECONDS_PER_READING = 0.12
SECONDS_PER_EMBEDDING = 0.5
SETTINGS = NumberSettings()


def person() -> Person:
    return Person(1, 1, 0, np.array([0, 10, 20, 60], np.float32))


def read(one: Person, number: int, seconds: float, role: int = 0) -> None:
    for _ in range(round(seconds / SECONDS_PER_READING)):
        one.read(reading(number, role=role))


def look(one: Person, kit: int, seconds: float) -> None:
    for _ in range(round(seconds / SECONDS_PER_EMBEDDING)):
        one.embed(KIT[kit])


@pytest.mark.parametrize("half_hours", [0, 1])
def test_a_number_read_clearly_for_a_minute_replaces_any_before(half_hours):
    one = person()
    read(one, 7, max(20, 1800 * half_hours))
    assert one.number(SETTINGS, None)[0] == 7
    read(one, 9, 60)
    assert one.number(SETTINGS, None)[0] == 9


def test_a_few_seconds_of_another_number_change_nothing():
    one = person()
    read(one, 7, 1800)
    read(one, 9, 5)
    assert one.number(SETTINGS, None)[0] == 7


def test_a_role_and_a_kit_are_revised_within_two_minutes_of_a_half():
    one = person()
    for _ in range(25 * 60):
        one.see(track(1, label="player"), 0, 0)
    read(one, 7, 2700)
    look(one, 0, 2700)
    read(one, 7, 120, role=2)
    look(one, 1, 120)
    assert one.role(SETTINGS)[0] is Role.REFEREE
    assert float(one.embedding @ KIT[1]) > float(one.embedding @ KIT[0])


@pytest.mark.parametrize("official", ["referee", "assistant_referee"])
def test_a_role_by_the_detector_alone_is_revised_within_two_minutes(official):
    one = person()
    for label, seconds in (("player", 600), (official, 120)):
        for _ in range(25 * seconds):
            one.see(track(1, label=label), 0, 0)
    assert one.role(SETTINGS)[0] is Role.REFEREE


def test_merged_evidence_is_bounded_like_any_other():
    one, other = person(), person()
    for each in (one, other):
        read(each, 7, 60)
        look(each, 0, 120)
    for _ in range(10):
        one.absorb(other)
    read(one, 9, 60)
    look(one, 1, 120)
    assert one.number(SETTINGS, None)[0] == 9
    assert float(one.embedding @ KIT[1]) > float(one.embedding @ KIT[0])


def test_of_merged_evidence_the_greater_part_decides():
    one, other = person(), person()
    for each, number, seconds in ((one, 7, 1), (other, 9, 20)):
        read(each, number, seconds)
        look(each, number % 7, seconds)
    one.absorb(other)
    assert one.number(SETTINGS, None)[0] == 9
    assert float(one.embedding @ KIT[2]) > 0.9 > 0.1 > float(one.embedding @ KIT[0]) > 0
