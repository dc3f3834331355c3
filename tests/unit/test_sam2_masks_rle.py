import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask
from sam2_streaming import rle
from sam2_streaming.rle import Silhouette

shapes = st.tuples(st.integers(1, 20), st.integers(1, 20))


def coco(mask):
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]


@given(hnp.arrays(bool, shapes), st.integers(0, 5), st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_pixels_are_written_as_pycocotools_writes_the_whole_frame(pixels, x, y):
    frame = np.zeros((pixels.shape[0] + y + 2, pixels.shape[1] + x + 3), bool)
    frame[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
    assert rle.encode(pixels, x, y, frame.shape).encode() == coco(frame)


@given(hnp.arrays(bool, shapes))
@settings(max_examples=150, deadline=None)
def test_a_silhouette_covers_the_pixels_of_its_mask_and_no_others(mask):
    height, width = mask.shape
    silhouette = Silhouette.decode(coco(mask), mask.shape)
    assert silhouette.area == mask.sum()
    x, y = np.arange(-2, width + 2)[None], np.arange(-2, height + 2)[:, None]
    np.testing.assert_array_equal(silhouette.covers(x, y), np.pad(mask, 2))


def test_long_runs_are_read():
    mask = np.zeros((3000, 4000), bool)
    mask[1000:2900, 100:3900] = True
    silhouette = Silhouette.decode(coco(mask), mask.shape)
    assert silhouette.area == mask.sum()
    x, y = np.array([[99, 100, 3899, 3900]]), np.array([[999], [1000], [2899], [2900]])
    np.testing.assert_array_equal(silhouette.covers(x, y), mask[y, x])


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"P",  # a number that goes on after its end
        b"\xff\x00",
        b"PPPPPPPPPPPPPPPPPPPP1",  # more bits than any run has
        b"o" * 8 + b"0",
        b"0" * 1000,  # more runs than the frame has pixels
        coco(np.ones((9, 10), bool)),  # another frame
        b"m0",  # a negative run
        coco(np.ones((10, 10), bool)) + b"1",
    ],
)
def test_damaged_run_lengths_are_refused(text):
    with pytest.raises(ValueError, match="expected .*run lengths"):
        Silhouette.decode(text, (10, 10))


@given(st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_whatever_is_accepted_fills_the_frame(text):
    try:
        silhouette = Silhouette.decode(text, (10, 10))
    except ValueError:
        return
    assert 0 <= silhouette.area <= 100
    assert (np.diff(silhouette.edges) >= 0).all()


def five_bits_each(number):
    """COCO's text of a number of 35 bits."""
    parts = [(number >> (5 * k)) & 31 for k in range(7)]
    return bytes(part + 48 + 32 * (k < 6) for k, part in enumerate(parts))


def test_runs_that_would_overflow_their_sum_are_refused():
    # Two chains of runs climb to 2 ** 48 and back: 2 ** 64 pixels, and then those of the frame.
    shape, step, count = (1000, 1000), 2**33, 2**15
    climb = five_bits_each(step) * 2 * count + five_bits_each(-step) * 2 * count
    text = b"0" + climb + five_bits_each(shape[0] * shape[1])
    with pytest.raises(ValueError, match="expected run lengths that fill 1000x1000 px"):
        Silhouette.decode(text, shape)
