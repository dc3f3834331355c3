"""What scenarios are judged by: gaps, recoveries and ids, as one stream's journal tells them."""

import pytest

from tests.chaos import faults
from tests.chaos.journal import Entry, Journal

FAULT, END = 100.0, 110.0
PEOPLE = frozenset(range(1, 11))
KNOWN = {person: 50 + person for person in PEOPLE}


def journal(times, *, ids=KNOWN, broken=(), gaps=()):
    """Recognitions at these times, of which those from FAULT on have other ids."""
    book = Journal(0)
    book.entries = [
        Entry(at, KNOWN if at < FAULT else ids, PEOPLE, not any(a <= at <= b for a, b in broken))
        for at in times
    ]
    book.gaps = list(gaps)
    return book


def every_100_ms(begin, end):
    return [begin + k / 10 for k in range(1, round(10 * (end - begin)))]


def test_a_stream_that_goes_on_has_no_gap_and_keeps_its_ids():
    book = journal(every_100_ms(96, END))
    assert book.longest_gap_s(FAULT, END, 10) < 0.15
    assert book.recovered_at(FAULT) == FAULT
    assert book.ids_kept(FAULT) == (10, 10)


def test_a_stream_that_is_never_answered_again_has_a_gap_to_its_end_and_keeps_no_id():
    book = journal(every_100_ms(96, FAULT))
    assert book.longest_gap_s(FAULT, END, 10) == pytest.approx(9.9)
    assert book.ids_kept(FAULT) == (0, 10)
    late = journal([*every_100_ms(96, 104)])
    assert late.longest_gap_s(FAULT, END, 10) == pytest.approx(6.0)


def test_who_is_in_sight_and_has_lost_the_track_has_not_kept_the_id():
    book = journal(every_100_ms(96, END), ids={1: 51})
    assert book.ids_kept(FAULT) == (1, 10)
    swapped = journal(every_100_ms(96, END), ids=KNOWN | {1: 52, 2: 51})
    assert swapped.ids_kept(FAULT) == (8, 10)


def test_ids_after_a_standstill_are_those_of_the_first_answers():
    still = [*every_100_ms(96, FAULT), *every_100_ms(103, END)]
    assert journal(still).ids_kept(FAULT) == (10, 10)
    assert journal(still, ids={1: 51}).ids_kept(FAULT) == (1, 10)


def test_trouble_that_begins_late_and_lasts_is_the_fault_s_and_one_late_frame_is_not():
    at = every_100_ms(96, END)
    assert journal(at, broken=[(100.5, 101.5)]).recovered_at(FAULT) == pytest.approx(101.5)
    assert journal(at, broken=[(104, 109)]).recovered_at(FAULT) == pytest.approx(109)
    assert journal(at, gaps=[105.0, 105.1]).recovered_at(FAULT) == FAULT
    assert journal(at, gaps=[99.0]).recovered_at(FAULT) == FAULT


def test_a_metric_that_is_not_there_counts_for_nothing_and_is_said(tmp_path):
    page = tmp_path / "metrics"
    page.write_text('# TYPE cuts counter\ncuts{by="a"} 2\ncuts{by="b"} 1.0\n')
    assert faults._total(page.as_uri(), "cuts") == 3
    with pytest.raises(LookupError, match="expected slots"):
        faults._total(page.as_uri(), "slots")
