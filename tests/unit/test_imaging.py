import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from orchestrator.imaging import (
    clip_boxes,
    crops,
    inside_share,
    iou,
    is_cut_off,
    is_sound,
    merge_tiles,
    resized,
    square_tiles,
    to_source,
)
from orchestrator.types.detections import Detections
from orchestrator.types.pictures import Boxes
from tests.conftest import DATA

COLUMNS = st.integers(1, 4)
SIDE = st.integers(16, 400)


def boxes(*rows: tuple[float, float, float, float]) -> Boxes:
    return np.array(rows, np.float32).reshape(-1, 4)


def found(xyxy: Boxes, confidence: float = 0.9, label: str = "person") -> Detections:
    return Detections(xyxy, np.full(len(xyxy), confidence, np.float32), (label,) * len(xyxy))


@st.composite
def pictures_with_boxes(draw):
    width, height = draw(SIDE), draw(SIDE)
    size = min(width, height) / 5
    centre = hnp.arrays(np.float64, (draw(st.integers(0, 8)), 2), elements=st.floats(0, 1))
    middle = draw(centre) * (width - size, height - size)
    return width, height, np.concatenate((middle, middle + size), axis=1).astype(np.float32)


def test_one_column_is_the_whole_picture_squeezed():
    pixels = np.zeros((72, 128, 3), np.uint8)
    pixels[:, 64:] = 200
    tiles, regions = square_tiles(pixels, 1, 32)
    assert tiles.shape == (1, 32, 32, 3)
    assert regions.tolist() == [[0, 0, 128, 72]]
    assert tiles[0, :, :16].max() == 0
    assert tiles[0, :, 16:].min() == 200


def shrunken(width: int, height: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """A filmed picture, resized by us, and averaged over exact areas."""
    filmed = cv2.imread(str(DATA / "frame.jpg"))
    picture = cv2.resize(filmed, (width, height), interpolation=cv2.INTER_CUBIC)
    exact = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    return resized(picture, side, side), exact


@pytest.mark.parametrize("side", [192, 384, 432, 512])
def test_a_large_picture_is_averaged_over_areas_to_two_grey_levels(side):
    ours, exact = shrunken(1920, 1080, side)
    error = ours.astype(int) - exact
    assert np.sqrt((error**2).mean()) < 2
    assert abs(error.mean()) < 0.5


def test_a_picture_of_odd_height_is_averaged_over_exact_areas():
    ours, exact = shrunken(1920, 1079, 192)
    assert np.array_equal(ours, exact)


def test_two_columns_of_a_broadcast_picture_are_its_left_and_right_square():
    _, regions = square_tiles(np.zeros((720, 1280, 3), np.uint8), 2, 416)
    assert regions.tolist() == [[0, 0, 720, 720], [560, 0, 1280, 720]]


def test_portrait_is_split_along_its_height():
    _, regions = square_tiles(np.zeros((1280, 720, 3), np.uint8), 2, 64)
    assert regions.tolist() == [[0, 0, 720, 720], [0, 560, 720, 1280]]


@given(width=SIDE, height=SIDE, columns=COLUMNS)
def test_tiles_cover_the_picture_and_lie_within_it(width, height, columns):
    tiles, regions = square_tiles(np.zeros((height, width, 3), np.uint8), columns, 24)
    assert tiles.shape == (columns, 24, 24, 3)
    assert tiles.dtype == np.uint8
    covered = np.zeros((height, width), bool)
    for x0, y0, x1, y1 in regions.astype(int):
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        covered[y0:y1, x0:x1] = True
    assert covered.all()


def test_box_of_a_tile_maps_to_the_source():
    mapped = to_source(boxes((0.5, 0.25, 0.5, 0.5)), np.array((100, 0, 300, 100), np.float32))
    assert mapped.tolist() == [[150, 0, 250, 50]]


@given(pictures_with_boxes(), COLUMNS)
def test_every_thing_seen_by_every_tile_is_found_once(picture, columns):
    width, height, truth = picture
    truth = truth[[iou(truth, truth)[row, :row].max(initial=0) < 0.3 for row in range(len(truth))]]
    _, regions = square_tiles(np.zeros((height, width, 3), np.uint8), columns, 16)
    centre = (truth[:, :2] + truth[:, 2:]) / 2
    tiles = [
        found(truth[((centre >= region[:2]) & (centre <= region[2:])).all(axis=1)])
        for region in regions
    ]
    merged = merge_tiles(tiles, regions)
    assert sorted(map(tuple, merged.xyxy)) == sorted(map(tuple, truth))


def test_better_of_two_duplicates_is_kept():
    regions = boxes((0, 0, 72, 72), (56, 0, 128, 72))
    left, right = boxes((60, 10, 70, 30)), boxes((60, 10, 69, 30))
    merged = merge_tiles([found(left, 0.6), found(right, 0.8)], regions)
    assert merged.xyxy.tolist() == right.tolist()


def test_duplicates_of_other_labels_are_both_kept():
    regions = boxes((0, 0, 72, 72), (56, 0, 128, 72))
    same = boxes((60, 10, 70, 30))
    merged = merge_tiles([found(same), found(same, label="ball")], regions)
    assert sorted(merged.label) == ["ball", "person"]


def test_neighbours_within_one_tile_are_both_kept():
    near = boxes((10, 10, 20, 30), (12, 10, 22, 30))
    assert len(merge_tiles([found(near)], boxes((0, 0, 128, 72)))) == 2


def test_two_queries_on_one_person_count_once():
    same = boxes((10, 10, 30, 60), (11, 10, 31, 60))
    assert len(merge_tiles([found(same)], boxes((0, 0, 128, 72)))) == 1


def test_part_seen_at_the_edge_of_a_tile_is_dropped():
    regions = boxes((0, 0, 720, 720), (560, 0, 1280, 720))
    whole, half = boxes((700, 300, 740, 400)), boxes((700, 300, 720, 400))
    merged = merge_tiles([found(half, 0.99), found(whole, 0.5)], regions)
    assert merged.xyxy.tolist() == whole.tolist()


def test_merging_nothing_gives_nothing():
    assert len(merge_tiles([found(boxes())] * 2, boxes((0, 0, 72, 72), (56, 0, 128, 72)))) == 0


def test_crop_of_a_flat_region_keeps_its_colour():
    pixels = np.zeros((60, 80, 3), np.uint8)
    pixels[20:40, 30:40] = (10, 200, 90)
    cut = crops(pixels, boxes((30, 20, 40, 40)), 128, 64)
    assert cut.shape == (1, 128, 64, 3)
    assert (cut == np.array((10, 200, 90))).all()


def test_no_boxes_give_no_crops():
    assert crops(np.zeros((10, 10, 3), np.uint8), boxes(), 8, 4).shape == (0, 8, 4, 3)


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(0, 6), st.just(4)),
        elements=st.floats(-500, 500, width=32) | st.sampled_from([np.nan, np.inf, -np.inf]),
    ),
)
def test_every_sound_box_can_be_cropped(xyxy):
    sound = xyxy[is_sound(xyxy, 40, 30)]
    cut = crops(np.full((30, 40, 3), 7, np.uint8), sound, 16, 8)
    assert cut.shape == (len(sound), 16, 8, 3)
    assert (cut == 7).all()


@pytest.mark.parametrize(
    "box",
    [
        (np.nan, 0, 5, 5),
        (0, 0, np.inf, 5),
        (5, 0, 5, 5),
        (6, 0, 5, 5),
        (-9, 0, 0, 5),
        (40, 0, 50, 5),
        (0, 30, 5, 31),
    ],
)
def test_box_without_area_in_the_picture_is_not_sound(box):
    assert is_sound(boxes(box), 40, 30).tolist() == [False]


def test_box_that_sticks_out_is_sound_and_clipped():
    box = boxes((-5, -5, 50, 10))
    assert is_sound(box, 40, 30).tolist() == [True]
    assert clip_boxes(box, 40, 30).tolist() == [[0, 0, 40, 10]]


def test_iou_of_known_boxes():
    a = boxes((0, 0, 2, 2), (0, 0, 0, 0))
    b = boxes((0, 0, 2, 2), (1, 0, 3, 2), (5, 5, 6, 6), (0, 0, 0, 0))
    expected = [[1, 1 / 3, 0, 0], [0, 0, 0, 0]]
    assert iou(a, b) == pytest.approx(np.array(expected, np.float32))


def test_share_of_a_box_inside_others():
    others = boxes((0, 0, 2, 8), (1, 1, 5, 9), (-9, -9, 9, 9), (5, 5, 6, 6), (1, 9, 3, 10))
    assert inside_share(boxes((0, 0, 4, 8))[0], others).tolist() == [0.5, 21 / 32, 1, 0, 0]
    assert inside_share(boxes((3, 3, 3, 3))[0], others).tolist() == [0] * 5


@pytest.mark.parametrize("box", [(2, 9, 20, 20), (9, 2, 20, 20), (9, 9, 38, 20), (9, 9, 20, 28)])
def test_a_box_near_any_edge_of_the_picture_may_be_cut_off(box):
    pixels = np.zeros((30, 40, 3), np.uint8)
    assert is_cut_off(boxes(box, (3, 3, 37, 27)), pixels).tolist() == [True, False]


@given(pictures_with_boxes())
def test_iou_is_symmetric_and_one_with_itself(picture):
    _, _, some = picture
    overlap = iou(some, some)
    assert overlap == pytest.approx(overlap.T)
    assert np.diag(overlap) == pytest.approx(1)
