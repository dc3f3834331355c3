import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask
from sam2_streaming.masks import place
from sam2_streaming.windows import Follower, Window, exclusive

FRAME = (40, 50)
SIZE = 16


def decoded(mask, shape=FRAME):
    return coco_mask.decode({"size": list(shape), "counts": mask.rle_counts.encode()})


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
    placed = place(logits_of(mask), Window(x0, y0, SIZE, SIZE), FRAME)
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
    placed = place(logits_of(np.ones((SIZE, SIZE), bool)), Window(0, 0, 50, 40), FRAME)
    assert decoded(placed).all()
    assert placed.box.tolist() == [0, 0, 50, 40]


def test_an_object_lands_where_it_was_cut():
    frame = np.zeros((200, 300, 3), np.uint8)
    frame[90:130, 140:156] = 255
    window = Follower.at(np.array([140, 90, 156, 130], np.float32)).window()
    cut = window.cut(frame, 64)
    assert cut.shape == (64, 64, 3)
    placed = place(cut[..., 0].astype(np.float32) - 127.5, window, (200, 300))
    np.testing.assert_allclose(placed.box, [140, 90, 156, 130], atol=1)
    box = window.to_window(placed.box, 64)
    rows, columns = np.nonzero(cut[..., 0] > 127)
    seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(box, seen, atol=1)


@pytest.mark.parametrize("window", [Window(-30, -30, 40, 40), Window(290, 190, 40, 40)])
def test_windows_are_black_beyond_the_frame(window):
    cut = window.cut(np.full((200, 300, 3), 255, np.uint8), 40)
    assert (cut > 0).all(axis=2).sum() == 100


def test_windows_outside_the_frame_are_all_black():
    frame = np.full((200, 300, 3), 255, np.uint8)
    for x0, y0 in ((-90, 0), (400, 0), (0, -90), (0, 400)):
        assert not Window(x0, y0, 50, 50).cut(frame, 32).any()


def box_at(x, y, height=40.0):
    return np.array([x - 8, y - height / 2, x + 8, y + height / 2], np.float32)


def test_a_window_leads_a_moving_object():
    follower = Follower.at(box_at(100, 100))
    for step in range(1, 20):
        follower = follower.after(box_at(100 + 6 * step, 100))
    window = follower.window()
    centre = window.x0 + window.width / 2
    expected_next = 100 + 6 * 20
    assert abs(centre - expected_next) <= 2


def test_window_size_changes_slowly():
    follower = Follower.at(box_at(100, 100))
    for _ in range(10):
        follower = follower.after(box_at(100, 100, height=10))
    assert follower.height >= 40 * 0.996**10


def test_a_lost_object_is_awaited_near_where_it_vanished():
    follower = Follower.at(box_at(100, 100))
    for step in range(1, 10):
        follower = follower.after(box_at(100 + 5 * step, 100))
    for _ in range(100):
        follower = follower.after(None)
    assert 145 < follower.centre[0] < 175
    assert follower.speed[0] < 1e-3


def disc(x, y, logit):
    ys, xs = np.mgrid[:64, :64]
    inside = (xs - x) ** 2 + (ys - y) ** 2 < 100
    return np.where(inside, np.float32(logit), np.float32(-8))


def test_the_stronger_claim_keeps_the_pixel_between_windows():
    # The same disc of the frame in two windows that lie 10 px apart.
    logits = torch.from_numpy(np.stack([disc(32, 32, 3.0), disc(22, 32, 6.0)]))
    windows = [Window(0, 0, 64, 64), Window(10, 0, 64, 64)]
    kept = exclusive(logits, windows)
    torch.testing.assert_close(kept[1], logits[1])
    assert (kept[0] > 0).sum() <= 0.05 * (logits[0] > 0).sum()


def test_distant_windows_leave_each_other_alone():
    logits = torch.from_numpy(np.stack([disc(32, 32, 3.0), disc(32, 32, 6.0)]))
    windows = [Window(0, 0, 64, 64), Window(500, 0, 64, 64)]
    torch.testing.assert_close(exclusive(logits, windows), logits)


def test_windows_of_different_sizes_compare_the_same_place():
    # Window 1 is twice as large: its disc of radius 6 covers the one of radius 10 in window 0.
    ys, xs = np.mgrid[:64, :64]
    small = np.where((xs - 32) ** 2 + (ys - 32) ** 2 < 36, np.float32(6), np.float32(-8))
    logits = torch.from_numpy(np.stack([disc(32, 32, 3.0), small]))
    kept = exclusive(logits, [Window(100, 100, 64, 64), Window(68, 68, 128, 128)])
    assert (kept[0] > 0).sum() <= 0.1 * (logits[0] > 0).sum()


def test_equal_claims_in_the_whole_frame_do_not_erase_each_other():
    logits = torch.from_numpy(np.stack([disc(32, 32, 3.0), disc(36, 32, 3.0)]))
    windows = [Window(0, 0, 64, 64)] * 2
    torch.testing.assert_close(exclusive(logits, windows), logits)
