"""A replica's record, and the figures of a pool, by a clock that tests turn."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.settings import TritonSettings
from orchestrator.triton.health import Health
from orchestrator.triton.meter import Capacity, Latency, Rate

SETTINGS = TritonSettings(eject_after=3, ejection_s=1, max_ejection_s=8, probe_interval_s=2)


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def in_use():
    clock = Clock()
    health = Health(SETTINGS, clock)
    health.come_back()
    return clock, health


def test_only_failures_in_a_row_count():
    _, health = in_use()
    assert [health.failed(), health.failed()] == [False, False]
    health.answered()
    assert [health.failed() for _ in range(3)] == [False, False, True]


def test_a_replica_that_flaps_stays_out_ever_longer_and_one_failure_is_enough():
    clock, health = in_use()
    stays = []
    for _ in range(6):
        health.eject("down")
        assert health.is_out
        stays.append(round(health.remaining_s, 6))
        clock.now += health.remaining_s
        health.come_back()
        assert not health.is_out
        assert health.failed()
    assert stays == [1, 2, 4, 8, 8, 8]


def test_after_a_good_time_the_slate_is_clean():
    clock, health = in_use()
    for _ in range(4):
        health.eject("down")
        clock.now += health.remaining_s
        health.come_back()
    clock.now += 8.1
    health.eject("down")
    assert round(health.remaining_s, 6) == 1


def test_a_hopeless_replica_is_tried_most_rarely():
    _, health = in_use()
    health.eject("its process died", is_hopeless=True)
    assert health.remaining_s == 8


def test_one_that_is_mended_is_asked_at_once_but_serves_its_time_out_if_it_failed_before():
    clock, health = in_use()
    health.eject("its process died")
    health.stay_out("loaded anew")
    assert health.remaining_s < 0.5
    clock.now += health.remaining_s
    health.come_back()
    for expected_s in (2, 4, 8, 8):
        health.eject("its process died")
        clock.now += 0.25
        health.stay_out("loaded anew")
        assert health.remaining_s == expected_s - 0.25
        clock.now += health.remaining_s
        health.come_back()


def test_one_that_is_still_unfit_is_probed_soon_and_then_at_the_interval():
    clock, health = in_use()
    health.eject("down")
    waits = []
    for _ in range(7):
        clock.now += health.remaining_s
        health.stay_out("not ready")
        waits.append(health.remaining_s)
    assert waits[0] < 0.5
    assert waits == sorted(waits)
    assert abs(waits[-1] - 2) < 1e-6


@given(st.lists(st.floats(0.001, 5), min_size=1, max_size=40))
def test_a_moving_mean_begins_with_the_first_and_follows_the_latest(seconds):
    latency = Latency()
    assert latency.mean_s == 0
    latency.add(seconds[0])
    assert latency.mean_s == seconds[0]
    for value in seconds:
        latency.add(value)
    assert min(seconds) <= latency.mean_s * (1 + 1e-9)
    assert latency.mean_s <= max(seconds) * (1 + 1e-9)
    for _ in range(60):
        latency.add(7.0)
    assert abs(latency.mean_s - 7) < 0.02


def test_a_rate_is_that_of_the_last_ten_seconds():
    clock = Clock()
    rate = Rate(clock)
    for _ in range(100):
        rate.add(6)
        clock.now += 0.5
    assert abs(rate.per_s() - 12) < 1.5
    clock.now += 20
    assert rate.per_s() == 0


def test_capacity_is_measured_only_while_work_is_waiting():
    clock = Clock()
    capacity = Capacity(clock)
    for _ in range(50):  # one request at a time: says nothing of what it could do
        clock.now += 0.1
        capacity.add(1, is_saturated=False)
    assert capacity.rows_per_s() is None
    for _ in range(200):
        clock.now += 0.1
        capacity.add(8, is_saturated=True)
    assert abs(capacity.rows_per_s() - 80) < 1
    clock.now += 0.1
    capacity.add(8, is_saturated=False)
    clock.now += 100  # a pause is not slowness
    capacity.add(8, is_saturated=True)
    assert abs(capacity.rows_per_s() - 80) < 1


def test_answers_that_come_by_the_batch_do_not_look_like_more_than_they_are():
    clock = Clock()
    capacity = Capacity(clock)
    for _ in range(2000):  # a short queue whenever a batch ends, and none a moment later
        clock.now += 0.1
        for row in range(8):
            capacity.add(1, is_saturated=row < 3)
            clock.now += 0.0005
    assert capacity.rows_per_s() is None
    for _ in range(100):
        clock.now += 0.1
        for _ in range(8):
            capacity.add(1, is_saturated=True)
    assert abs(capacity.rows_per_s() - 80) < 2


def test_an_outage_is_not_slowness():
    clock = Clock()
    capacity = Capacity(clock)
    for _ in range(100):
        clock.now += 0.1
        capacity.add(8, is_saturated=True)
    clock.now += 60
    capacity.add(8, is_saturated=False)  # for want of a replica
    capacity.add(8, is_saturated=True)
    assert abs(capacity.rows_per_s() - 80) < 2
