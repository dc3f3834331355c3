import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask
from soccer.v1 import player_recognition_pb2 as pb

from orchestrator.cli import annotate
from orchestrator.cli.annotate import (
    ALERT_COLOUR,
    BALL_COLOUR,
    REFEREE_COLOUR,
    TEAM_COLOURS,
    AnnotatedVideo,
    Painter,
)
from orchestrator.cli.graphics import (
    contrasting,
    decode_mask,
    ground_ring,
    layer,
    paste,
    pill_sprite,
    text_sprite,
)
from training.data.footage import read_clip

WIDTH, HEIGHT = 320, 180
GRASS = (60, 110, 50)


def pitch(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    return np.full((height, width, 3), GRASS, np.uint8)


def player(x: float = 100, y: float = 60, **fields: object) -> pb.Player:
    box = pb.PixelBox(x_min=x, y_min=y, x_max=x + 30, y_max=y + 80)
    return pb.Player(track_id=7, box=box, state=pb.TRACK_STATE_CONFIRMED, **fields)


def frame(*players: pb.Player, index: int = 0, ball: tuple[float, float] | None = None):
    recognition = pb.FrameRecognition(frame_index=index, players=players)
    if ball is not None:
        x, y = ball
        box = pb.PixelBox(x_min=x - 3, y_min=y - 3, x_max=x + 3, y_max=y + 3)
        recognition.ball.CopyFrom(pb.Ball(box=box, confidence=0.9))
    return recognition


def mask_of(region: tuple[slice, slice]) -> pb.Mask:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[region] = 1
    return pb.Mask(height=HEIGHT, width=WIDTH, rle_counts=coco_mask.encode(mask)["counts"].decode())


def painter() -> Painter:
    return Painter(WIDTH, HEIGHT, title="clip")


def test_the_clock_knows_no_sixtieth_second(monkeypatch):
    texts = []

    def noted(text: str, size: int, colour: tuple[int, int, int]) -> np.ndarray:
        texts.append(text)
        return text_sprite(text, size, colour)

    monkeypatch.setattr(annotate, "text_sprite", noted)
    for seconds in (59.9875, 59.9958):
        painter().draw(pitch(), frame(), seconds=seconds)
    assert [text.split()[-1] for text in texts if text.startswith("frame")] == [
        "00:59.99",
        "01:00.00",
    ]


def has_colour(pixels: np.ndarray, colour: tuple[int, int, int], tolerance: int = 12) -> bool:
    return bool((np.abs(pixels.astype(int) - colour).max(axis=2) <= tolerance).any())


def test_source_picture_is_left_alone():
    pixels = pitch()
    pixels.flags.writeable = False
    assert not np.array_equal(painter().draw(pixels, frame(player())), pixels)


@pytest.mark.parametrize("team", [pb.TEAM_A, pb.TEAM_B])
def test_players_wear_the_colour_of_their_team(team):
    drawn = painter().draw(pitch(), frame(player(team=team)))
    assert has_colour(drawn[30:], TEAM_COLOURS[team])
    other = TEAM_COLOURS[pb.TEAM_A + pb.TEAM_B - team]
    assert not has_colour(drawn[30:], other)


def test_referees_are_amber_whatever_their_team():
    drawn = painter().draw(pitch(), frame(player(role=pb.ROLE_REFEREE, team=pb.TEAM_A)))
    assert has_colour(drawn[30:], REFEREE_COLOUR)
    assert not has_colour(drawn[30:], TEAM_COLOURS[pb.TEAM_A])


def test_mask_is_tinted_inside_and_untouched_far_outside():
    region = np.s_[70:120, 105:120]
    drawn = painter().draw(pitch(), frame(player(team=pb.TEAM_A, mask=mask_of(region))))
    red = TEAM_COLOURS[pb.TEAM_A][0]
    assert drawn[95, 112, 0] == pytest.approx(0.6 * GRASS[0] + 0.4 * red, abs=2)
    assert (drawn[70:120, 200:] == GRASS).all()


def test_mask_of_another_size_becomes_a_box():
    mask = mask_of(np.s_[70:120, 105:120])
    mask.rle_counts = mask.rle_counts[:-1]
    drawn = painter().draw(pitch(), frame(player(team=pb.TEAM_A, mask=mask)))
    assert (drawn[95, 112] == GRASS).all()
    assert has_colour(drawn[58:64, 98:104], TEAM_COLOURS[pb.TEAM_A], 60)


def test_who_is_on_the_team_sheet_is_named(monkeypatch):
    labels = []

    def noted(text: str, *how: object) -> np.ndarray:
        labels.append(text)
        return pill_sprite(text, *how)

    monkeypatch.setattr(annotate, "pill_sprite", noted)
    people = (
        player(jersey_number=7, player_id="m", team=pb.TEAM_A),
        player(jersey_number=8, player_id="x", team=pb.TEAM_B),
        player(role=pb.ROLE_GOALKEEPER),
    )
    told = Painter(WIDTH, HEIGHT, title="clip", names={"m": "Maria"})
    told.draw(pitch(), frame(*people))
    assert sorted(labels) == ["#7 Maria · A", "#8 · B", "GK"]


def test_number_changes_the_label():
    without = painter().draw(pitch(), frame(player()))
    with_number = painter().draw(pitch(), frame(player(jersey_number=10)))
    assert not np.array_equal(without, with_number)


def test_ball_is_ringed_and_leaves_a_trail_that_ends():
    drawing = painter()
    for index in range(10):
        drawn = drawing.draw(pitch(), frame(index=index, ball=(50 + 10 * index, 120)))
    assert has_colour(drawn[110:130, 130:150], BALL_COLOUR)
    behind = np.s_[118:123, 118:123]
    assert not (drawn[behind] == GRASS).all()
    later = drawing.draw(pitch(), frame(index=40))
    assert (later[behind] == GRASS).all()


def test_banner_is_red_and_only_there_when_asked():
    assert has_colour(painter().draw(pitch(), frame(), banner="UNTRAINED"), ALERT_COLOUR, 25)
    assert not has_colour(painter().draw(pitch(), frame()), ALERT_COLOUR, 25)


def test_gap_is_dimmed_and_says_why():
    drawn = painter().draw_gap(pitch(), 3, 0.12, "decode error")
    assert has_colour(drawn, ALERT_COLOUR, 30)
    assert drawn[150, 300].max() < 0.4 * max(GRASS)


@given(
    st.lists(st.floats(-400, 700, width=32), min_size=4, max_size=4),
    st.tuples(st.floats(-400, 700, width=32), st.floats(-400, 700, width=32)),
)
def test_anything_outside_the_picture_can_be_drawn(corners, ball):
    x0, y0, x1, y1 = corners
    box = pb.PixelBox(x_min=min(x0, x1), y_min=min(y0, y1), x_max=max(x0, x1), y_max=max(y0, y1))
    drawn = painter().draw(pitch(), frame(pb.Player(track_id=1, box=box), ball=ball))
    assert drawn.shape == (HEIGHT, WIDTH, 3)


@given(
    hnp.arrays(
        np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.integers(0, 1)
    )
)
def test_mask_decodes_as_by_pycocotools(mask):
    counts = coco_mask.encode(np.asfortranarray(mask))["counts"].decode()
    placed = decode_mask(counts, *mask.shape)
    if placed is None:
        assert not mask.any()
        return
    restored = np.zeros_like(mask)
    height, width = placed.mask.shape
    restored[placed.y : placed.y + height, placed.x : placed.x + width] = placed.mask
    assert np.array_equal(restored, mask)


@given(st.text(alphabet=[chr(code) for code in range(33, 127)], max_size=12))
def test_damaged_run_lengths_are_no_mask_or_fit_the_picture(counts):
    placed = decode_mask(counts, 20, 30)
    if placed is not None:
        assert placed.y + placed.mask.shape[0] <= 20
        assert placed.x + placed.mask.shape[1] <= 30


@given(st.integers(-60, 60), st.integers(-60, 60))
def test_sprite_is_cut_at_the_edges(x, y):
    canvas = np.zeros((24, 32, 3), np.uint8)
    sprite = np.full((10, 20, 4), 255, np.uint8)
    paste(canvas, sprite, x, y)
    expected = np.zeros((200, 200, 3), np.uint8)
    expected[y + 80 : y + 90, x + 80 : x + 100] = 255
    assert np.array_equal(canvas, expected[80:104, 80:112])


def test_layer_blends_by_its_opacity():
    canvas = np.zeros((10, 10, 3), np.uint8)
    with layer(canvas, 2, 2, 4, 4, opacity=0.5) as (part, origin):
        part[:] = 200
    assert origin == (2, 2)
    assert (canvas[2:5, 2:5] == 100).all()
    assert canvas.sum() == 9 * 3 * 100


def test_ring_is_flat_and_open_at_the_back():
    canvas = np.zeros((100, 100, 3), np.uint8)
    ground_ring(canvas, (50, 50), 30, (255, 255, 255), 2)
    rows, columns = np.nonzero(canvas[:, :, 0] > 128)
    assert np.ptp(columns) > 2 * np.ptp(rows)
    assert canvas[50 + 11, 50, 0] > 128
    assert canvas[50 - 11, 50, 0] < 128


def test_text_is_readable_on_every_ground():
    assert contrasting((255, 236, 64)) == (16, 20, 26)
    assert contrasting((200, 20, 30)) == (255, 255, 255)


def test_labels_grow_with_their_text():
    assert pill_sprite("#10 · A", 12, GRASS, 1).shape[1] > pill_sprite("#1", 12, GRASS, 1).shape[1]
    assert text_sprite("", 12, GRASS).shape[1] >= 1


@pytest.mark.parametrize(("width", "height"), [(WIDTH, HEIGHT), (321, 181)])
def test_video_holds_every_frame(tmp_path, width, height):
    path = tmp_path / "annotated.mp4"
    with AnnotatedVideo(path, width, height, frame_rate=30000 / 1001, title="clip") as video:
        for index in range(6):
            seen = frame(player(team=pb.TEAM_A), index=index)
            video.write(pitch(width, height), seen, index * 1001 / 30000)
        video.write_gap(pitch(width, height), 6, 6 * 1001 / 30000, "decode error")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        pictures = list(container.decode(stream))
        assert len(pictures) == 7
        assert (stream.width, stream.height) == (320, 180)
        assert float(stream.average_rate) == pytest.approx(29.97, abs=0.01)
        assert stream.codec_context.pix_fmt == "yuv420p"
    shown = pictures[0].to_ndarray(format="rgb24")[150:, 200:].astype(int)
    assert np.abs(shown - GRASS).max() <= 4


def test_picture_of_another_size_is_fitted(tmp_path):
    path = tmp_path / "annotated.mp4"
    with AnnotatedVideo(path, WIDTH, HEIGHT, frame_rate=25, title="clip") as video:
        video.write(pitch(), frame(), 0.0)
        video.write_gap(pitch(160, 90), 1, 0.04, "expected 320x180, got 160x90")
    with av.open(str(path)) as container:
        assert [picture.width for picture in container.decode(video=0)] == [WIDTH, WIDTH]


def test_every_frame_is_shown_at_its_own_time(tmp_path):
    path, times = tmp_path / "annotated.mp4", [0.0, 0.04, 0.5, 0.5, 3.0]
    with AnnotatedVideo(path, WIDTH, HEIGHT, frame_rate=25, title="clip") as video:
        for index, seconds in enumerate(times):
            video.write(pitch(), frame(index=index), seconds)
    with av.open(str(path)) as container:
        shown = [picture.time for picture in container.decode(video=0)]
    assert shown == pytest.approx(times, abs=1e-3)


def test_masks_of_a_rendered_clip_decode_as_by_pycocotools(footage):
    masks = read_clip(footage / "rendered", "demo_01").masks(0)
    assert len(masks) > 10
    for full in masks.values():
        counts = coco_mask.encode(np.asfortranarray(full))["counts"].decode()
        placed = decode_mask(counts, *full.shape)
        assert (0 if placed is None else placed.mask.sum()) == full.sum()
