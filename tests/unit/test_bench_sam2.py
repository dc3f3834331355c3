import json

import numpy as np
import pytest
import torch
from sam2_streaming.engine import StreamingEngine, Target
from sam2_streaming.prompts import Prompt
from torch.utils.flop_counter import FlopCounterMode

from tests.bench import sam2
from tests.bench.sam2_contenders import (
    COMPACT,
    Contenders,
    Setting,
    filled,
    gflop,
    random_network,
)
from tests.bench.sam2_memory import bytes_per_frame, official_growth, touchline_growth
from tests.bench.sam2_official import (
    VIDEO_SHAPE,
    Official,
    OfficialStart,
    blank_state,
    player_boxes,
    random_predictor,
)
from tests.bench.sam2_report import OBJECTS, STREAMS, TINY, Row, plot, ratios, table, write_json

SIZE = 64
META = torch.device("meta")
CPU = torch.device("cpu")
KEYS = {"engine", "mode", "size", "objects", "streams", "ms_per_frame", "gflop_per_frame"}


def setting(engine="touchline", mode="frame", size=SIZE, objects=1, streams=1, network=TINY):
    return Setting(network, engine, mode, size, "float32", objects, streams)


@pytest.fixture(scope="module")
def on_meta():
    return Contenders(META)


@pytest.fixture(scope="module")
def on_cpu():
    return Contenders(CPU)


@pytest.fixture(scope="module")
def start():
    return OfficialStart(random_predictor(TINY, SIZE))


def test_a_filled_official_state_costs_and_looks_as_one_tracked_for_real(start):
    filled = Official(start, 1, 1)
    real = blank_state(start.predictor)
    start.predictor.add_new_points_or_box(real, 0, 1, box=player_boxes(1)[0])
    for _ in start.predictor.propagate_in_video(real, 0, 15):
        pass
    assert shapes(real) == shapes(filled.states[0])
    assert operations(lambda: next(start.predictor.propagate_in_video(real, 16, 0))) == operations(
        filled.step
    )


def shapes(state):
    outputs = state["output_dict_per_obj"][0]
    return {
        (kind, frame, name): (value.shape, value.dtype)
        for kind, entries in outputs.items()
        for frame, entry in entries.items()
        for name, value in entry.items()
        if isinstance(value, torch.Tensor)
    }


def operations(step):
    """By kind; attention itself is not counted on a CPU, but all that depends on its length is."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_flop_counts()["Global"]


def test_a_filled_touchline_memory_is_as_one_tracked_for_real():
    engine = StreamingEngine(random_network(COMPACT, SIZE), "cpu", torch.float32)
    limits = engine._reader.limits
    picture = np.zeros((1, SIZE, SIZE, 3), np.uint8)

    def memory_after(target):
        return engine.step(picture, [target], lambda logits: logits).memories[0]

    real = born = memory_after(Target(0, prompt=Prompt.box(player_boxes(1)[0] / 40)))
    for _ in range(limits.pointers):
        assert real.fill != limits
        real = memory_after(Target(0, real))
    made = filled(born, limits)
    assert (made.fill, made.age, made.nbytes) == (real.fill, real.age, real.nbytes)


def test_both_engines_have_equal_weights(on_cpu, start):
    ours = on_cpu.make(setting()).tracker._engine._network.state_dict()
    theirs = start.predictor.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_frame_mode_needs_the_operations_of_the_official_predictor(on_meta):
    ours = gflop(on_meta.make(setting(objects=2)))
    theirs = gflop(on_meta.make(setting("official", objects=2)))
    assert ours == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize("engine", ["official", "touchline"])
def test_operations_of_streams_add_up(on_meta, engine):
    one, three = (gflop(on_meta.make(setting(engine, streams=n))) for n in (1, 3))
    assert three == pytest.approx(3 * one, rel=1e-4)


def test_attention_is_counted_on_the_meta_device():
    class Attention:
        def step(self):
            query, key = (
                torch.empty(2, 4, 30, 16, device=META),
                torch.empty(2, 4, 50, 16, device=META),
            )
            torch.nn.functional.scaled_dot_product_attention(query, key, key)

    assert gflop(Attention()) * 1e9 == 2 * 2 * (2 * 4 * 30 * 50 * 16)


def test_a_tiny_run_times_both_engines_and_leaves_the_rest_untimed(on_cpu, on_meta):
    chosen = [
        setting("official"),
        setting(objects=2),
        setting(mode="window", network=COMPACT),
        setting(objects=2, streams=8),
    ]
    rows = sam2.timed(sam2.counted(chosen, on_meta), on_cpu)
    assert [row.setting for row in rows] == chosen
    assert [row.repeats for row in rows] == [3, 3, 3, 0]
    for row in rows[:3]:
        assert row.ms_per_frame > 0
        assert row.cpu_ms_per_frame > 0
    assert rows[3].ms_per_frame is None
    assert not rows[3].as_dict()["timed"]


def test_the_cross_product_is_whole_and_each_setting_occurs_once():
    chosen = sam2.settings(TINY)
    assert len(set(chosen)) == len(chosen)
    for engine, mode, size in (("official", "frame", 1024), ("touchline", "window", 256)):
        found = {
            (one.objects, one.streams)
            for one in chosen
            if (one.engine, one.mode, one.size, one.dtype) == (engine, mode, size, "bfloat16")
        }
        assert found == {(objects, streams) for objects in OBJECTS for streams in STREAMS}
    assert all(sam2.is_timed(one, torch.device("cuda")) for one in chosen)


def measured(engine, mode, size, objects, ms):
    one = Setting(TINY, engine, mode, size, "bfloat16", objects, 1)
    return Row(one, 12.345678, ms, ms, 3 if ms else 0)


ROWS = [
    measured("official", "frame", 1024, 22, 3000.0),
    measured("touchline", "window", 256, 22, 250.0),
    measured("touchline", "window", 256, 1, 100.0),
    measured("touchline", "window", 128, 22, None),
]


def test_ratios_come_from_timed_rows_only():
    found = ratios(ROWS)
    assert found["official_1024_over_window_256_at_22"] == 12
    assert found["window_256_at_22_over_1"] == 2.5
    assert found["official_1024_over_window_128_at_22"] is None
    assert found["frame_over_official_1024_at_22"] is None


def test_the_json_has_one_row_a_line_and_the_table_one_line_a_view(tmp_path):
    path = tmp_path / "new" / "sam2.json"
    write_json({"threads": 1, "rows": [row.as_dict() for row in ROWS]}, path)
    written = json.loads(path.read_text())
    assert len(path.read_text().splitlines()) == len(ROWS) + 5
    assert written["threads"] == 1
    assert all(row.keys() > KEYS for row in written["rows"])
    assert [row["ms_per_frame"] for row in written["rows"]] == [3000, 250, 100, None]
    _, _, official, window, untimed = table(ROWS).splitlines()
    assert "| 3000 (12.3) |" in official
    assert "| 100 (12.3) |" in window
    assert "| 250 (12.3) |" in window
    assert "| - (12.3) |" in untimed


def test_the_plot_is_small(tmp_path):
    plot(ROWS, tmp_path / "sam2.png")
    assert 1_000 < (tmp_path / "sam2.png").stat().st_size < 100_000


def test_our_streams_stop_growing_and_the_official_ones_do_not(start):
    ours = touchline_growth(CPU, objects=2, frames=100)
    assert [held.frame for held in ours] == [10, 100]
    # Its memories are constant; beside them it keeps the last mask, which may change its outline.
    assert 0 < ours[1].state_bytes < 1.1 * ours[0].state_bytes
    theirs = official_growth(start, frames=3)
    # At least its mask memory in bf16 and its low-resolution mask in fp32, for every frame.
    assert bytes_per_frame(theirs) >= 64 * (SIZE // 16) ** 2 * 2 + (SIZE // 4) ** 2 * 4


def test_objects_lie_within_the_frame():
    boxes = player_boxes(44)
    height, width = VIDEO_SHAPE
    assert (boxes >= 0).all()
    assert (boxes <= [width, height, width, height]).all()
    assert len(boxes) == 44


def test_a_lost_object_ends_the_measurement(on_cpu):
    contender = on_cpu.make(setting(mode="window", objects=2, network=COMPACT))
    contender.tracker.end(1)
    with pytest.raises(Exception, match="not known"):
        contender.step()
