import cv2
import numpy as np
import pytest
import torch
from sam2_streaming.masks import place
from sam2_streaming.windows import Follower, Window, cut, exclusive

FRAME = (720, 1280)


def cut_one(frame, window, size):
    (picture,) = cut(torch.from_numpy(frame), [window], size)
    return picture.numpy()


def test_an_object_lands_where_it_was_cut():
    frame = np.zeros((200, 300, 3), np.uint8)
    frame[90:130, 140:156] = 255
    window = Follower.at(np.array([140, 90, 156, 130], np.float32)).window((200, 300))
    picture = cut_one(frame, window, 64)
    assert picture.shape == (64, 64, 3)
    logits = torch.from_numpy(picture[..., 0].astype(np.float32) - 127.5)
    (placed,) = place(logits[None], [window], (200, 300))
    np.testing.assert_allclose(placed.box, [140, 90, 156, 130], atol=1)
    box = window.to_window(placed.box.reshape(2, 2), 64).reshape(4)
    rows, columns = np.nonzero(picture[..., 0] > 127)
    seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(box, seen, atol=1)


@pytest.mark.parametrize("window", [Window(-30, -30, 40, 40), Window(290, 190, 40, 40)])
def test_windows_are_black_beyond_the_frame(window):
    picture = cut_one(np.full((200, 300, 3), 255, np.uint8), window, 40)
    assert (picture > 0).all(axis=2).sum() == 100


def test_windows_outside_the_frame_are_all_black():
    frame = np.full((200, 300, 3), 255, np.uint8)
    for x0, y0 in ((-90, 0), (400, 0), (0, -90), (0, 400)):
        assert not cut_one(frame, Window(x0, y0, 50, 50), 32).any()


def box_at(x, y, height=40.0):
    return np.array([x - 8, y - height / 2, x + 8, y + height / 2], np.float32)


def test_a_window_leads_a_moving_object():
    follower = Follower.at(box_at(100, 100))
    for step in range(1, 20):
        follower = follower.after(box_at(100 + 6 * step, 100))
    window = follower.window(FRAME)
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


def test_a_large_object_competes_with_a_small_one_at_the_edge_of_the_frame():
    # One looks at the whole frame of 256x128 px, the other at a window in its corner.
    whole = np.full((64, 64), -8, np.float32)
    whole[4:12, 2:6] = 6.0
    logits = torch.from_numpy(np.stack([whole, disc(32, 32, 3.0)]))
    kept = exclusive(logits, [Window(0, 0, 256, 128), Window(0, 0, 32, 32)])
    torch.testing.assert_close(kept[0], logits[0])
    assert (kept[1] > 0).sum() <= 0.3 * (logits[1] > 0).sum()


def test_pictures_shrink_without_flicker():
    # Every pixel of the window counts: single bright columns keep their share of light.
    frame = np.zeros((200, 300, 3), np.uint8)
    frame[:, ::4] = 200
    picture = cut_one(frame, Window(20, 20, 160, 160), 40)
    assert abs(float(picture[4:-4, 4:-4].mean()) - 50) < 3
    expected = cv2.resize(frame[20:180, 20:180], (40, 40), interpolation=cv2.INTER_AREA)
    assert np.abs(picture[4:-4, 4:-4].astype(int) - expected[4:-4, 4:-4]).mean() < 12


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
def test_pictures_cut_on_the_gpu_are_those_of_the_cpu():
    frame = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8))
    windows = [Window(-20, 30, 77, 77), Window(100, 100, 20, 20), Window(0, 0, 300, 200)]
    on_cpu, on_gpu = cut(frame, windows, 32), cut(frame.cuda(), windows, 32)
    assert on_gpu.is_cuda
    assert (on_gpu.cpu().int() - on_cpu.int()).abs().max() <= 1


@pytest.mark.parametrize("cover", [1.5, 2.5, 4.0])
def test_context_is_the_side_of_the_window_in_heights(cover):
    window = Follower.at(box_at(300, 300)).window(FRAME, cover)
    assert window.width == window.height == 40 * cover
    assert (window.x0 + window.width / 2, window.y0 + window.height / 2) == (300, 300)


def test_an_object_too_large_for_a_window_sees_the_whole_frame():
    follower = Follower.at(box_at(300, 300, height=350))
    assert follower.window(FRAME) == Window(300 - 350, 300 - 350, 700, 700)
    follower = Follower.at(box_at(300, 300, height=370))
    assert follower.window(FRAME) == Window(0, 0, 1280, 720)


def test_motion_carries_an_object_that_nobody_looks_at():
    follower = Follower.at(box_at(100, 100))
    for step in range(1, 20):
        follower = follower.after(box_at(100 + 5 * step, 100))
    seen = follower
    for _ in range(2):
        follower = follower.coasted()
    assert follower.unseen == 2
    assert not follower.is_lost
    assert abs(follower.centre[0] - (seen.centre[0] + 2 * 5)) < 3
    found = follower.after(box_at(100 + 5 * 22, 100))
    assert found.unseen == 0
    np.testing.assert_allclose(found.speed, [5, 0], atol=0.2)


def test_a_lost_object_comes_to_rest_also_when_nobody_looks():
    follower = Follower.at(box_at(100, 100))
    for step in range(1, 10):
        follower = follower.after(box_at(100 + 5 * step, 100))
    follower = follower.after(None)
    for _ in range(100):
        follower = follower.coasted()
    assert follower.is_lost
    assert 145 < follower.centre[0] < 175


def test_a_correction_places_the_window_and_keeps_the_speed():
    follower = Follower.at(box_at(100, 100))
    for step in range(1, 10):
        follower = follower.after(box_at(100 + 5 * step, 100))
    moved = follower.moved_to(box_at(400, 200, height=60))
    window = moved.window(FRAME)
    assert (window.x0, window.y0, window.width) == (400 - 60, 200 - 60, 120)
    np.testing.assert_allclose(moved.after(box_at(400, 200)).speed, follower.speed, rtol=0.2)


def crowd(count):
    """Objects whose windows all overlap."""
    logits = np.stack([disc(20 + 4 * k, 32, 3.0 + k % 3) for k in range(count)])
    return torch.from_numpy(logits), [Window(3 * k, 0, 64, 64 + k % 2) for k in range(count)]


def test_a_crowd_is_parted_in_bounded_memory(monkeypatch):
    logits, places = crowd(7)
    whole = exclusive(logits, places)
    assert not torch.equal(whole, logits)
    pairs, sample = [], torch.nn.functional.grid_sample
    monkeypatch.setattr("sam2_streaming.windows._PAIRS_AT_ONCE", 5)
    monkeypatch.setattr(
        "sam2_streaming.windows.functional.grid_sample",
        lambda maps, *rest, **options: pairs.append(len(maps)) or sample(maps, *rest, **options),
    )
    assert torch.equal(exclusive(logits, places), whole)
    assert pairs == [5] * 8 + [2]


@pytest.mark.parametrize("cover", [1.0, 1.6, 2.0, 4.0])
@pytest.mark.parametrize(("width", "height"), [(120, 30), (90, 40), (40, 90), (300, 1)])
def test_a_window_holds_the_box_that_showed_its_object(cover, width, height):
    # A keeper in full stretch is wider than tall.
    box = np.array([500, 300, 500 + width, 300 + height], np.float32)
    for follower in (Follower.at(box, cover), Follower.at(box_at(9, 9)).moved_to(box, cover)):
        corners = follower.window(FRAME, cover).to_window(box.reshape(2, 2), 64)
        assert ((corners >= -1) & (corners <= 65)).all()


def test_a_box_that_fits_does_not_widen_its_window():
    for box in (box_at(300, 300), np.array([300, 300, 380, 340], np.float32)):
        assert Follower.at(box).window(FRAME).width == 80
