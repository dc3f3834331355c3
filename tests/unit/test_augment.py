"""What is done to patches of people before a network learns from them."""

import cv2
import numpy as np
import pytest

from training.data import augment
from training.data.crops import PATCH_HEIGHT, PATCH_WIDTH

BOX = np.array([30, 40, 60, 80], np.float32)


def plain(value=255):
    return np.full((PATCH_HEIGHT, PATCH_WIDTH, 3), value, np.uint8)


def test_occluders_cover_much_but_never_the_number():
    number_box = np.array([30, 40, 66, 80], np.float32)
    blank, other = plain(0), plain(255)
    covered = []
    for seed in range(40):
        patch = blank.copy()
        augment.occlude(patch, other, np.random.default_rng(seed), keep=number_box)
        assert not patch[40:80, 30:66].any()
        covered.append((patch > 0).mean())
    assert max(covered) > 0.3
    assert np.mean(np.array(covered) > 0.1) > 0.5


def counting(function, name, called):
    def counted(*values, **named):
        called[name] += 1
        return function(*values, **named)

    return counted


def test_hair_falls_over_a_number_and_tells_how_much_it_hides():
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(200):
        patch = plain()
        shares.append(augment.grow_hair(patch, BOX, rng))
        changed = (patch[40:80, 30:60] < 200).any(axis=2).mean()
        assert changed == pytest.approx(shares[-1], abs=0.15)
    assert min(shares) < 0.3
    assert max(shares) > 0.5


def test_crops_are_scaled_blurred_and_compressed(monkeypatch):
    called = dict.fromkeys(("resize", "GaussianBlur", "imencode"), 0)
    for name in called:
        monkeypatch.setattr(cv2, name, counting(getattr(cv2, name), name, called))
    crop = np.random.default_rng(0).integers(0, 256, (128, 64, 3), np.uint8)
    sharpness = []
    for seed in range(100):
        degraded = augment.degrade(crop, np.random.default_rng(seed))
        assert degraded.shape == crop.shape
        assert degraded.dtype == np.uint8
        sharpness.append(np.abs(np.diff(degraded.astype(int), axis=1)).mean())
    assert called["resize"] == pytest.approx(80, abs=30), "down and up again"
    assert called["GaussianBlur"] == pytest.approx(25, abs=15)
    assert called["imencode"] == pytest.approx(40, abs=20)
    assert min(sharpness) < 0.4 * max(sharpness)


@pytest.mark.parametrize("number", [7, 11, 88])
def test_a_number_stands_out_about_its_box_and_nowhere_else(number):
    seen = []
    for seed in range(40):
        patch = plain(120)
        augment.draw_number(patch, BOX, number, np.random.default_rng(seed))
        changed = (np.abs(patch.astype(int) - 120) > 20).any(axis=2)
        rows, columns = np.nonzero(changed)
        assert 25 < rows.min() < rows.max() < 95
        assert 10 < columns.min() < columns.max() < 80
        seen.append(changed[40:80, 30:60].mean())
    assert min(seen) > 0.05
    assert max(seen) > min(seen) + 0.1, "thin faces and bold ones"


def test_the_same_seed_prints_the_same_number():
    first, second = plain(90), plain(90)
    for patch in (first, second):
        augment.draw_number(patch, BOX, 23, np.random.default_rng(3))
    np.testing.assert_array_equal(first, second)
    assert (first != plain(90)).any()


def test_a_shirt_s_stripes_do_not_shine_through_its_number(monkeypatch):
    monkeypatch.setattr(augment, "_contrasting", lambda *_: np.full(3, 150.0))
    monkeypatch.setattr(augment, "_glyphs", lambda *_: np.full((64, 64), 255, np.uint8))
    striped = plain(40)
    striped[:, ::4] = striped[:, 1::4] = 200
    rng = np.random.default_rng(0)
    augment.draw_number(striped, BOX, 8, rng)
    inside = striped[56:64, 42:48].astype(int)
    assert np.ptp(inside) < 50, "the shirt itself differs by 160"


def test_a_number_is_never_of_its_shirt_s_colour():
    rng, shirt = np.random.default_rng(0), np.array([230.0, 230, 230])
    distances = [np.linalg.norm(augment._contrasting(shirt, rng) - shirt) for _ in range(200)]
    assert min(distances) > 60


def test_colours_change_places_and_shapes_stay():
    rng, patch = np.random.default_rng(0), plain(0)
    patch[40:80, 30:60] = (250, 120, 10)
    for _ in range(20):
        exchanged = augment.exchange_colours(patch, rng)
        inside = exchanged[40:80, 30:60].reshape(-1, 3)
        assert len(np.unique(inside, axis=0)) == 1
        assert sorted(inside[0]) in ([10, 120, 250], [5, 135, 245])
    assert (patch[0, 0] == 0).all(), "the patch itself is left alone"
