"""Draws recognitions on pictures like broadcast graphics, and writes them as a video."""

from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction
from math import hypot
from pathlib import Path
from typing import Self

import av
import cv2
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter
from soccer.v1 import player_recognition_pb2 as pb

from orchestrator.cli.graphics import (
    INK,
    WHITE,
    Colour,
    Point,
    corner_brackets,
    decode_mask,
    dot,
    ground_ring,
    layer,
    paste,
    pill_sprite,
    pointer,
    ring,
    text_sprite,
    tint,
)
from orchestrator.types.pictures import Pixels

ALERT_COLOUR: Colour = (200, 20, 30)
BALL_COLOUR: Colour = (255, 236, 64)
UNKNOWN_COLOUR: Colour = (205, 208, 214)
REFEREE_COLOUR: Colour = (255, 190, 30)
TEAM_COLOURS: dict[int, Colour] = {pb.TEAM_A: (236, 64, 58), pb.TEAM_B: (58, 160, 255)}

_TRAIL_FRAMES = 12
_ROLE_TAGS: dict[int, str] = {
    pb.ROLE_GOALKEEPER: "GK",
    pb.ROLE_REFEREE: "REF",
    pb.ROLE_OTHER: "STAFF",
}
_TEAM_TAGS: dict[int, str] = {pb.TEAM_A: "A", pb.TEAM_B: "B"}
_TICK = Fraction(1, 90000)
_X264_OPTIONS = {"preset": "veryfast", "crf": "20"}


class Painter:
    """Draws on the upright pictures of one video, in order: it remembers the ball's way.

    Args:
        width: Width of the pictures in pixels.
        height: Height of the pictures in pixels.
        title: Shown at the left of the header.
        names: Of people on the team sheets, by player id.
    """

    def __init__(
        self, width: int, height: int, *, title: str, names: Mapping[str, str] | None = None
    ) -> None:
        self._title = title
        self._names = names or {}
        side = min(width, height)
        self._text_px = max(9, round(side / 56))
        self._line_px = max(1, round(side / 480))
        self._trail: list[tuple[int, Point]] = []

    def draw(
        self,
        pixels: Pixels,
        recognition: pb.FrameRecognition,
        *,
        seconds: float | None = None,
        banner: str | None = None,
    ) -> Pixels:
        """Return a copy of a picture with what was recognised in it.

        Args:
            pixels: The picture.
            recognition: What to draw.
            seconds: Time in the video, for the clock in the header; None for a single picture.
            banner: A warning to show across the picture.
        """
        canvas = pixels.copy()
        far_to_near = sorted(recognition.players, key=lambda player: player.box.y_max)
        for player in far_to_near:
            self._draw_ground(canvas, player)
        for player in far_to_near:
            self._draw_body(canvas, pixels, player)
        for player in far_to_near:
            self._draw_label(canvas, player)
        self._draw_ball(canvas, recognition)
        self._draw_header(canvas, recognition.frame_index, seconds, recognition.players)
        if banner:
            label = pill_sprite(banner, round(self._text_px * 1.6), ALERT_COLOUR, 0.92)
            paste(canvas, label, (canvas.shape[1] - label.shape[1]) // 2, 3 * self._text_px)
        return canvas

    def draw_gap(self, pixels: Pixels, frame_index: int, seconds: float, reason: str) -> Pixels:
        """Return a dimmed copy of a picture that says why it was not recognised."""
        canvas = np.asarray(cv2.convertScaleAbs(pixels, alpha=0.35), np.uint8)
        label = pill_sprite(reason, round(self._text_px * 1.4), ALERT_COLOUR, 0.9)
        x, y = (canvas.shape[1] - label.shape[1]) // 2, (canvas.shape[0] - label.shape[0]) // 2
        paste(canvas, label, max(x, 0), y)
        self._draw_header(canvas, frame_index, seconds, ())
        return canvas

    def _draw_ground(self, canvas: Pixels, player: pb.Player) -> None:
        box = player.box
        feet = ((box.x_min + box.x_max) / 2, box.y_max - 0.03 * (box.y_max - box.y_min))
        # By height, since the width of a box swings with every stride.
        radius = max(4.0, 0.3 * (box.y_max - box.y_min))
        ground_ring(canvas, feet, radius, _colour(player), self._line_px)

    def _draw_body(self, canvas: Pixels, pixels: Pixels, player: pb.Player) -> None:
        height, width = pixels.shape[:2]
        mask = decode_mask(player.mask.rle_counts, height, width)
        if mask is None:
            box = player.box
            corners = (box.x_min, box.y_min, box.x_max, box.y_max)
            corner_brackets(canvas, corners, _colour(player), self._line_px)
        else:
            tint(canvas, pixels, mask, _colour(player))

    def _draw_label(self, canvas: Pixels, player: pb.Player) -> None:
        opacity = 0.92 if player.state == pb.TRACK_STATE_CONFIRMED else 0.55
        label = pill_sprite(_tag(player, self._names), self._text_px, _colour(player), opacity)
        x = (player.box.x_min + player.box.x_max - label.shape[1]) / 2
        y = player.box.y_min - label.shape[0] - 2 * self._line_px
        paste(canvas, label, round(x), max(round(y), 2 * self._text_px))

    def _draw_ball(self, canvas: Pixels, recognition: pb.FrameRecognition) -> None:
        frame_index = recognition.frame_index
        self._trail = [
            (seen, place) for seen, place in self._trail if 0 < frame_index - seen < _TRAIL_FRAMES
        ]
        if not recognition.HasField("ball"):
            return
        box = recognition.ball.box
        centre = ((box.x_min + box.x_max) / 2, (box.y_min + box.y_max) / 2)
        radius = max(box.x_max - box.x_min, box.y_max - box.y_min) / 2 + 3 * self._line_px
        for seen, place in self._trail:
            age = (frame_index - seen) / _TRAIL_FRAMES
            if hypot(place[0] - centre[0], place[1] - centre[1]) > radius:  # keeps the ball clear
                dot(canvas, place, self._line_px * (2.4 - 1.6 * age), BALL_COLOUR, 0.75 * (1 - age))
        self._trail.append((frame_index, centre))
        ring(canvas, centre, radius, BALL_COLOUR, self._line_px)
        pointer(canvas, (centre[0], centre[1] - radius), 3.5 * self._line_px, BALL_COLOUR)

    def _draw_header(
        self,
        canvas: Pixels,
        frame_index: int,
        seconds: float | None,
        players: Iterable[pb.Player],
    ) -> None:
        pad = self._text_px
        with layer(canvas, 0, 0, canvas.shape[1], 2 * pad - 1, opacity=0.72) as (part, _):
            part[:] = INK
        y = round(0.38 * pad)
        title = text_sprite(self._title, pad, WHITE)
        paste(canvas, title, pad, y)
        x = title.shape[1] + 3 * pad
        for name, colour, count in _counts(players):
            dot(canvas, (x, pad), 0.36 * pad, colour, 1.0)
            sprite = text_sprite(f"{name} {count}", pad, WHITE)
            paste(canvas, sprite, x + round(0.8 * pad), y)
            x += sprite.shape[1] + 2 * pad
        if seconds is not None:
            seconds = round(seconds, 2)
            clock = f"frame {frame_index}   {int(seconds // 60):02d}:{seconds % 60:05.2f}"
            sprite = text_sprite(clock, pad, WHITE)
            paste(canvas, sprite, canvas.shape[1] - sprite.shape[1] - pad, y)


class AnnotatedVideo:
    """Writes annotated frames as an H.264 MP4, each at its own time; a context manager.

    The file appears with the first frame.

    Args:
        path: File to write.
        width: Width of the pictures in pixels; an odd column at the right is cut off.
        height: Height of the pictures in pixels; an odd row at the bottom is cut off.
        frame_rate: Frames per second, on average.
        title: Shown in every frame.
        pixel_aspect: Width of a pixel over its height, where it is shown.
        names: Of people on the team sheets, by player id.
    """

    def __init__(
        self,
        path: Path,
        width: int,
        height: int,
        *,
        frame_rate: float,
        title: str,
        pixel_aspect: Fraction = Fraction(1),
        names: Mapping[str, str] | None = None,
    ) -> None:
        self._painter = Painter(width, height, title=title, names=names)
        self._ticks = -1
        self._reformatter = VideoReformatter()
        rate = Fraction(frame_rate).limit_denominator(1001)
        self._container = av.open(str(path), "w", options={"movflags": "faststart"})
        self._stream = self._container.add_stream("libx264", rate, options=_X264_OPTIONS)
        self._stream.width, self._stream.height = width // 2 * 2, height // 2 * 2
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.time_base = _TICK
        context.sample_aspect_ratio = pixel_aspect
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._container:
            self._container.mux(self._stream.encode(None))

    def write(
        self,
        pixels: Pixels,
        recognition: pb.FrameRecognition,
        seconds: float,
        *,
        banner: str | None = None,
    ) -> None:
        """Append a frame with what was recognised in it; `banner` warns across the picture."""
        self._encode(
            self._painter.draw(pixels, recognition, seconds=seconds, banner=banner), seconds
        )

    def write_gap(self, pixels: Pixels, frame_index: int, seconds: float, reason: str) -> None:
        """Append a frame that was not recognised, dimmed and with the reason."""
        self._encode(self._painter.draw_gap(pixels, frame_index, seconds, reason), seconds)

    def _encode(self, canvas: Pixels, seconds: float) -> None:
        height, width = canvas.shape[0] // 2 * 2, canvas.shape[1] // 2 * 2
        even = np.ascontiguousarray(canvas[:height, :width])
        # Players take untagged HD for BT.709, whereas swscale would write BT.601.
        picture = self._reformatter.reformat(
            av.VideoFrame.from_ndarray(even, format="rgb24"),
            self._stream.width,
            self._stream.height,
            "yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
        )
        self._ticks = max(self._ticks + 1, round(seconds / _TICK))
        picture.pts, picture.time_base = self._ticks, _TICK
        self._container.mux(self._stream.encode(picture))


def _colour(player: pb.Player) -> Colour:
    if player.role == pb.ROLE_REFEREE:
        return REFEREE_COLOUR
    return TEAM_COLOURS.get(player.team, UNKNOWN_COLOUR)


def _tag(player: pb.Player, names: Mapping[str, str]) -> str:
    """Return the label: shirt number and name if known, else role, else track id; then the team."""
    if player.HasField("jersey_number"):
        name = f"#{player.jersey_number} {names.get(player.player_id, '')}".rstrip()
    else:
        name = _ROLE_TAGS.get(player.role) or f"id {player.track_id}"
    team = _TEAM_TAGS.get(player.team)
    return f"{name} · {team}" if team else name


def _counts(players: Iterable[pb.Player]) -> list[tuple[str, Colour, int]]:
    count = Counter(_colour(player) for player in players)
    names = {
        "A": TEAM_COLOURS[pb.TEAM_A],
        "B": TEAM_COLOURS[pb.TEAM_B],
        "officials": REFEREE_COLOUR,
        "others": UNKNOWN_COLOUR,
    }
    return [(name, colour, count[colour]) for name, colour in names.items() if count[colour]]
