"""Pictures in shared memory: never written while held, and given back when let go."""

import gc
import os

import pytest

from orchestrator.decode_guard.ring import PictureRing
from tests.unit.coded_media import HEIGHT, MAX_PIXELS, WIDTH


def test_pictures_that_are_let_go_cost_the_memory_of_one():
    ring = PictureRing(4, MAX_PIXELS * 3)
    slots = set()
    for _ in range(20):
        slots.add(ring.free_slot)
        pixels = ring.take(ring.free_slot, HEIGHT, WIDTH)
        part = pixels[1:, :, 0].T
        del pixels
        slots.add(ring.free_slot)
        assert part.shape == (WIDTH, HEIGHT - 1)
        del part
        gc.collect()
    assert len(slots) == 2


def test_a_ring_is_given_back_with_its_last_picture():
    ring = PictureRing(2, MAX_PIXELS * 3)
    descriptor, pixels = ring.descriptor, ring.take(ring.free_slot, HEIGHT, WIDTH)
    del ring
    assert pixels.sum() == 0
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_whoever_holds_the_memory_cannot_take_it_away():
    ring = PictureRing(2, MAX_PIXELS * 3)
    for size in (0, ring.slots * ring.slot_bytes + 1):
        with pytest.raises(PermissionError):
            os.ftruncate(ring.descriptor, size)
    assert ring.take(ring.free_slot, HEIGHT, WIDTH).sum() == 0


@pytest.mark.parametrize(("height", "width"), [(0, 5), (HEIGHT + 99, WIDTH)])
def test_a_picture_outside_its_slot_is_refused(height, width):
    ring = PictureRing(2, MAX_PIXELS * 3)
    with pytest.raises(ValueError, match="bytes"):
        ring.take(ring.free_slot, height, width)
