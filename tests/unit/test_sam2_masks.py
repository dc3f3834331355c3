import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask
from sam2_streaming.masks import NO_MASK, FrameMask, place
from sam2_streaming.windows import Window

FRAME = (40, 50)
SIZE = 16


def placed_at(logits, window, shape=FRAME):
    (mask,) = place(torch.from_numpy(logits)[None], [window], shape)
    return mask


def decoded(mask, shape=FRAME):
    counts = mask.rle_counts(shape).encode()
    return coco_mask.decode({"size": list(shape), "counts": counts})


def logits_of(mask):
    return np.where(mask, np.float32(8), np.float32(-8))


def largest_component(mask):
    """The slow way: flood fill with 8 neighbours."""
    left, best = {tuple(p) for p in np.argwhere(mask)}, set()
    while left:
        found, todo = set(), [left.pop()]
        while todo:
            y, x = todo.pop()
            found.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            todo += near
        best = max(best, found, key=len)
    return best


@given(
    hnp.arrays(bool, (SIZE, SIZE)),
    st.integers(-20, 55),
    st.integers(-20, 45),
)
@settings(max_examples=100, deadline=None)
def test_masks_survive_the_round_trip_through_run_lengths(mask, x0, y0):
    placed = placed_at(logits_of(mask), Window(x0, y0, SIZE, SIZE))
    whole = np.zeros(FRAME, bool)
    for y, x in np.argwhere(mask):
        if 0 <= y + y0 < FRAME[0] and 0 <= x + x0 < FRAME[1]:
            whole[y + y0, x + x0] = True
    expected = largest_component(whole)
    result = decoded(placed)
    if len(expected) < 6:
        assert placed.is_empty
        assert not result.any()
    else:
        rows, columns = np.nonzero(result)
        assert len(rows) == len(expected)
        assert whole[rows, columns].all()
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_array_equal(placed.box, box)


def test_a_mask_of_the_whole_frame_has_one_run():
    placed = placed_at(logits_of(np.ones((SIZE, SIZE), bool)), Window(0, 0, 50, 40))
    assert decoded(placed).all()
    assert placed.box.tolist() == [0, 0, 50, 40]


def test_objects_of_a_batch_land_in_windows_of_their_own():
    wide, none, small = np.zeros((3, SIZE, SIZE), bool)
    wide[4:12, 2:14] = True
    small[6:10, 6:10] = True
    windows = [Window(0, 0, 32, 32), Window(5, 5, 16, 16), Window(20, 10, 16, 16)]
    logits = torch.from_numpy(np.stack([logits_of(mask) for mask in (wide, none, small)]))
    first, second, third = place(logits, windows, FRAME)
    np.testing.assert_allclose(first.box, [4, 8, 28, 24], atol=1)
    assert second.is_empty
    assert not second.box.any()
    np.testing.assert_array_equal(third.box, [26, 16, 30, 20])


@given(
    hnp.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))),
    *(st.integers(low, high) for low, high in ((0, 30), (0, 20), (-60, 60), (-60, 60))),
)
@settings(max_examples=100, deadline=None)
def test_a_moved_mask_keeps_what_stays_in_the_frame(pixels, x, y, dx, dy):
    pixels[0, 0] = pixels[-1, -1] = True
    moved = FrameMask(pixels, x, y).moved(dx, dy, FRAME)
    expected = np.zeros(FRAME, bool)
    for row, column in np.argwhere(pixels):
        if 0 <= y + dy + row < FRAME[0] and 0 <= x + dx + column < FRAME[1]:
            expected[y + dy + row, x + dx + column] = True
    np.testing.assert_array_equal(decoded(moved), expected)
    assert moved.is_empty == (not expected.any())
    if expected.any():
        rows, columns = np.nonzero(expected)
        tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_array_equal(moved.box, tight)


def test_no_mask_has_no_box_and_no_pixels():
    assert not NO_MASK.box.any()
    assert not decoded(NO_MASK).any()
    assert NO_MASK.nbytes == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
def test_masks_made_on_the_gpu_are_those_of_the_cpu():
    mask = np.zeros((SIZE, SIZE), bool)
    mask[4:12, 2:14] = True
    logits = torch.from_numpy(logits_of(mask))[None]
    window = Window(3, -4, 37, 37)
    (on_cpu,), (on_gpu,) = (place(one, [window], FRAME) for one in (logits, logits.cuda()))
    np.testing.assert_array_equal(decoded(on_gpu), decoded(on_cpu))
