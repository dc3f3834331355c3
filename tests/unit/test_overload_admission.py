"""Which streams are let in: fabricated pools, real rules."""

import types
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from orchestrator.errors import OverloadedError
from orchestrator.ledger import Ledger
from orchestrator.overload.admission import Admission, credit
from orchestrator.overload.control import LoadControl
from orchestrator.overload.ladder import Level
from orchestrator.settings import OverloadSettings, Settings
from orchestrator.triton.snapshot import PoolSnapshot, ReplicaSnapshot, ReplicaState
from orchestrator.types.frames import Encoding
from orchestrator.types.streams import StreamConfig

LIVE = StreamConfig("live", Encoding.JPEG, is_live=True, latency_budget_s=0.5)
STORED = StreamConfig("stored", Encoding.JPEG)


def pool(name, *, rows_per_s=0.0, capacity=None, slots=0, slots_used=0):
    replica = ReplicaSnapshot("host:1", ReplicaState.READY, 0, slots_used, slots)
    return PoolSnapshot(name, 0, 0, rows_per_s, capacity, True, (replica,))


@dataclass
class Cluster:
    """Models with a known state, and a process that answers `frames_per_s`."""

    pools: list[PoolSnapshot] = field(default_factory=list)
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self):
        self.control = LoadControl(self.settings)
        self.ledger = Ledger(self.settings.server)
        self.admission = Admission(self, self.control, self.settings, self.ledger)

    def snapshot(self):
        return tuple(self.pools)

    def answer(self, frames_per_s):
        for _ in range(round(10 * frames_per_s)):
            self.control.observe({"track": 0.01})


def admit(cluster, stack, config=LIVE, count=1):
    for _ in range(count):
        stack.enter_context(cluster.admission.admit(config))


@pytest.fixture
def clock(monkeypatch):
    """What admission takes the time to be."""
    clock = types.SimpleNamespace(now=1000.0)
    monkeypatch.setattr(
        "orchestrator.overload.admission.time",
        types.SimpleNamespace(monotonic=lambda: clock.now),
    )
    return clock


def admitted(cluster, stack, count):
    """How many of so many live streams are let in at once."""
    for number in range(count):
        try:
            admit(cluster, stack)
        except OverloadedError:
            return number
    return count


def test_as_long_as_no_capacity_is_known_the_number_of_live_streams_doubles_at_most(clock):
    cluster = Cluster([pool("rfdetr_detector"), pool("sam2_tracker")])
    with ExitStack() as stack:
        assert admitted(cluster, stack, 64) == 8
        with pytest.raises(OverloadedError, match="capacity is known yet: at most 8 live streams"):
            admit(cluster, stack)
        admit(cluster, stack, STORED, count=4)  # they yield
        stack.enter_context(cluster.admission.admit(LIVE, is_resumed=True))
        clock.now += 4
        assert admitted(cluster, stack, 64) == 0
        clock.now += 2
        assert [admitted(cluster, stack, 64), admitted(cluster, stack, 64)] == [9, 0]
        clock.now += 6
        assert admitted(cluster, stack, 64) == 18
    with ExitStack() as stack:  # who has left is no newcomer any more
        assert admitted(cluster, stack, 64) == 8


@pytest.mark.parametrize("frames_per_s", [25, 1000])
def test_once_a_capacity_is_known_it_alone_decides_how_many_come_at_once(frames_per_s):
    cluster = Cluster([pool("rfdetr_detector", rows_per_s=frames_per_s, capacity=2000)])
    cluster.answer(frames_per_s)
    with ExitStack() as stack:
        admit(cluster, stack, count=64)


def test_a_capacity_of_a_model_that_frames_do_not_need_tells_nothing(clock):
    cluster = Cluster([pool("siglip_text", rows_per_s=0, capacity=500), pool("sam2_tracker")])
    cluster.answer(25)
    with ExitStack() as stack:
        assert admitted(cluster, stack, 64) == 8


def test_where_no_capacity_is_known_nobody_comes_while_anything_is_left_out():
    cluster = Cluster([pool("sam2_tracker", slots=16)])
    with ExitStack() as stack:
        admit(cluster, stack)
        cluster.control.ladder._enter(Level.IDENTIFY_LESS)
        with pytest.raises(OverloadedError, match="the live streams here are overloaded"):
            admit(cluster, stack)
        admit(cluster, stack, STORED)
    cluster = Cluster([pool("sam2_tracker", rows_per_s=25, capacity=1000)])
    cluster.answer(25)
    with ExitStack() as stack:
        admit(cluster, stack)
        cluster.control.ladder._enter(Level.IDENTIFY_LESS)
        admit(cluster, stack)


def test_live_streams_are_let_in_as_far_as_their_frame_rates_fit_the_slowest_model():
    cluster = Cluster(
        [
            pool("rfdetr_detector", rows_per_s=75, capacity=400),  # 3 rows a frame
            pool("resnet_jersey", rows_per_s=50, capacity=10_000),
        ]
    )
    cluster.answer(25)
    with ExitStack() as stack:
        admit(cluster, stack, count=4)  # 75 rows each, of 360
        with pytest.raises(OverloadedError, match=r"rfdetr_detector is full.*94%.*400.*90%"):
            admit(cluster, stack)
        slow = StreamConfig("slow", Encoding.JPEG, is_live=True, frame_rate=15)
        admit(cluster, stack, slow)
    with ExitStack() as stack:  # and whoever leaves makes room
        admit(cluster, stack, count=4)


def test_stored_streams_need_no_capacity_only_a_place():
    cluster = Cluster([pool("rfdetr_detector", rows_per_s=75, capacity=80)])
    cluster.answer(25)
    with ExitStack() as stack:
        admit(cluster, stack, STORED, count=6)
        with pytest.raises(OverloadedError, match="rfdetr_detector is full"):
            admit(cluster, stack, LIVE)


def test_what_a_frame_costs_is_remembered_while_nobody_streams():
    cluster = Cluster([pool("rfdetr_detector", rows_per_s=250, capacity=100)])
    cluster.answer(25)
    with ExitStack() as stack, pytest.raises(OverloadedError):
        admit(cluster, stack)
    cluster.control._answered._seconds.clear()
    cluster.pools = [pool("rfdetr_detector", rows_per_s=0, capacity=100)]
    with ExitStack() as stack, pytest.raises(OverloadedError):
        admit(cluster, stack)


def test_what_a_frame_costs_is_not_learnt_from_frames_that_lacked_something():
    cluster = Cluster([pool("sam2_tracker", rows_per_s=25, capacity=20)])
    cluster.answer(25)
    with ExitStack() as stack, pytest.raises(OverloadedError):
        admit(cluster, stack)
    cluster.control.ladder._enter(Level.BOXES_ONLY)
    cluster.pools = [pool("sam2_tracker", rows_per_s=0.0, capacity=20)]
    cluster.control.ladder.reset()  # the last seconds' frames were still boxes only
    with ExitStack() as stack, pytest.raises(OverloadedError, match="125%"):
        admit(cluster, stack)


@pytest.mark.parametrize("config", [LIVE, STORED])
def test_a_stream_needs_a_slot_of_the_tracker(config):
    cluster = Cluster([pool("sam2_tracker", slots=3, slots_used=1)])
    with ExitStack() as stack:
        admit(cluster, stack, config, count=3)
        with pytest.raises(OverloadedError, match="sam2_tracker is full: all 3 slots"):
            admit(cluster, stack, config)
    cluster.pools = [pool("sam2_tracker", slots=3, slots_used=3)]
    with pytest.raises(OverloadedError), cluster.admission.admit(config):
        pass


def test_the_slots_of_the_tracker_are_those_of_all_workers(tmp_path):
    common = {"workers": 2, "worker_directory": tmp_path}
    first, second = (
        Cluster([pool("sam2_tracker", slots=3)], Settings(server={"worker": n, **common}))
        for n in (0, 1)
    )
    with ExitStack() as stack:
        admit(first, stack, count=2)
        admit(second, stack)
        for cluster in (first, second):
            with pytest.raises(OverloadedError, match="all 3 slots"):
                admit(cluster, stack)
    first.ledger.close()
    with ExitStack() as stack:
        stack.callback(second.ledger.close)
        admit(second, stack, count=3)


def test_frames_under_way_of_all_streams_must_fit_into_memory():
    settings = Settings(overload=OverloadSettings(memory_bytes=1 << 30))
    cluster = Cluster(settings=settings)
    uhd = StreamConfig("uhd", Encoding.JPEG, width=3840, height=2160)
    assert credit(uhd, settings) == 8  # 190 MiB a stream
    with ExitStack() as stack:
        admit(cluster, stack, uhd, count=5)
        with pytest.raises(OverloadedError, match="memory is full: .* of 1024 MiB"):
            admit(cluster, stack, uhd)
        admit(cluster, stack, STORED)


def test_while_live_streams_get_boxes_only_no_other_is_let_in(monkeypatch):
    cluster = Cluster()
    with ExitStack() as stack:
        admit(cluster, stack)
        cluster.control.ladder._enter(Level.BOXES_ONLY)
        with pytest.raises(OverloadedError, match="overloaded"):
            admit(cluster, stack)
        admit(cluster, stack, STORED)
    assert cluster.control.ladder.level is Level.NORMAL  # the last one has left


def test_a_stream_on_the_air_comes_back_even_if_others_have_taken_the_room():
    cluster = Cluster(
        [
            pool("sam2_tracker", slots=1),
            pool("rfdetr_detector", rows_per_s=75, capacity=80),
        ]
    )
    cluster.answer(25)
    with ExitStack() as stack:
        admit(cluster, stack, STORED)
        cluster.control.ladder._enter(Level.THIN_FRAMES)
        stack.enter_context(cluster.admission.admit(LIVE, is_resumed=True))


def test_a_refused_stream_leaves_no_trace():
    cluster = Cluster([pool("sam2_tracker", slots=1)])
    for _ in range(3):
        with ExitStack() as stack:
            admit(cluster, stack)
            with pytest.raises(OverloadedError):
                admit(cluster, stack)
