"""What a served crop suffers, done to patches: box noise, occluders, blur, light; and new numbers.

Pictures are RGB uint8 `(height, width, 3)`; all randomness comes from the numpy generator given.
"""

from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from orchestrator.types.pictures import Pixels
from training.data.crops import GROWTH, PATCH_HEIGHT, PATCH_WIDTH, ROLES
from training.data.kits import Kit, Pattern, draw_kit

_BOX_NOISE = 0.04  # standard deviation of a detected edge, as a share of the box's side
_NEGATIVE = 1 / 3
_BLACK = np.array([20, 20, 22], np.float32)
_HAIR = ((18, 16, 16), (45, 32, 24), (95, 62, 36), (190, 155, 100))
_MIN_CONTRAST = 70.0  # distance in RGB between a number and its shirt
_GLYPH_SIZE = 64  # pixels; numbers are drawn large, then shrunk
_BOLDEST = 4  # pixels that a face's strokes may grow by, on either side
_OUTLINE = 4  # pixels of another colour about a glyph
_OUTLINED = 0.2  # share of the numbers that have such an outline
_FOLD = 5.0  # pixels; folds and light change more slowly than a shirt's pattern
_FONTS = (  # shipped with matplotlib, so the same on every machine
    "DejaVuSans-Bold.ttf",
    "DejaVuSansMono-Bold.ttf",
    "DejaVuSans.ttf",
    "DejaVuSerif-Bold.ttf",
    "STIXGeneralBol.ttf",
    "cmb10.ttf",
    "cmss10.ttf",
)


def cut(patch: Pixels, size: tuple[int, int], rng: np.random.Generator | None = None) -> Pixels:
    """Return the person's box of a patch, resized to `size`, (height, width).

    With `rng` the box is off by as much as a detector's, without it is exact.
    """
    margin = (1 - 1 / GROWTH) / 2
    edges = np.array([margin, margin, 1 - margin, 1 - margin])
    if rng is not None:
        edges += rng.normal(0, _BOX_NOISE / GROWTH, 4)
    x0, y0, x1, y1 = edges * np.array([PATCH_WIDTH, PATCH_HEIGHT] * 2)
    height, width = size
    scale_x, scale_y = width / (x1 - x0), height / (y1 - y0)
    transform = np.array([[scale_x, 0, -x0 * scale_x], [0, scale_y, -y0 * scale_y]])
    crop = cv2.warpAffine(patch, transform, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(crop, np.uint8)


def dress(role: int, rng: np.random.Generator) -> Kit:
    """Draw a kit as `role`, an index into `ROLES`, wears it in the clips.

    Keepers wear one colour from head to foot, officials a plain shirt over black shorts and socks.
    """
    kit = draw_kit(rng)
    match ROLES[role]:
        case "goalkeeper":
            return replace(kit, shorts=kit.shirt, socks=kit.shirt, pattern=Pattern.PLAIN)
        case "referee":
            return replace(kit, shorts=_BLACK, socks=_BLACK, pattern=Pattern.PLAIN)
        case _:
            return kit


def occlude(
    patch: Pixels,
    other: Pixels,
    rng: np.random.Generator,
    keep: NDArray[np.float32] | None = None,
) -> None:
    """Cover one side, or the legs, of a patch by the same part of another patch, in place.

    A part that meets the box `keep`, xyxy in patch pixels, is left as it is.
    """
    across, down = int(PATCH_WIDTH * rng.uniform(0.15, 0.4)), int(PATCH_HEIGHT * 0.65)
    part = (np.s_[:, :across], np.s_[:, -across:], np.s_[down:])[rng.integers(3)]
    covered = np.zeros(patch.shape[:2], bool)
    covered[part] = True
    x0, y0, x1, y1 = (0, 0, 0, 0) if keep is None else keep.round().astype(int)
    if not covered[max(y0, 0) : y1, max(x0, 0) : x1].any():
        patch[part] = other[part]


def grow_hair(patch: Pixels, number_box: NDArray[np.float32], rng: np.random.Generator) -> float:
    """Let a ponytail of any natural colour fall over the box of a number, in place.

    Returns:
        The share of the box that it covers, in `[0, 1]`.
    """
    x0, y0, x1, y1 = number_box
    thickness = max(1, round((x1 - x0) * rng.uniform(0.12, 0.45)))
    heights = np.linspace(y0 - (y1 - y0), y0 + (y1 - y0) * rng.uniform(0.2, 1.1), 8)
    sway = (x0 + x1) / 2 + np.cumsum(rng.normal(0, 0.06 * (x1 - x0), 8))
    strand = np.zeros(patch.shape[:2], np.uint8)
    points = np.stack([sway + rng.normal(0, 0.12 * (x1 - x0)), heights], axis=1)
    cv2.polylines(strand, [points.round().astype(np.int32)], False, (255,), thickness)
    low, high = np.clip([(x0, y0), (x1, y1)], 0, (PATCH_WIDTH, PATCH_HEIGHT)).round().astype(int)
    covered = float((strand[low[1] : high[1], low[0] : high[0]] > 0).mean())
    alpha = cv2.GaussianBlur(strand, (0, 0), 0.8)[..., np.newaxis] / 255
    colour = np.array(_HAIR[rng.integers(len(_HAIR))]) * rng.uniform(0.6, 1.2)
    colour = colour + rng.normal(0, 8, patch.shape)
    patch[:] = np.clip(patch * (1 - alpha) + colour * alpha, 0, 255).astype(np.uint8)
    return covered


def exchange_colours(patch: Pixels, rng: np.random.Generator) -> Pixels:
    """Return a patch whose colours changed places, in one of three cases as a negative."""
    exchanged = patch[..., rng.permutation(3)]
    return np.bitwise_not(exchanged) if rng.random() < _NEGATIVE else exchanged.copy()


def degrade(crop: Pixels, rng: np.random.Generator) -> Pixels:
    """Return the crop as from a smaller, softer, compressed and differently lit picture."""
    height, width = crop.shape[:2]
    if rng.random() < 0.4:
        share = rng.uniform(0.35, 1.0)
        small = cv2.resize(crop, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
        crop = np.asarray(cv2.resize(small, (width, height)), np.uint8)
    if rng.random() < 0.25:
        crop = np.asarray(cv2.GaussianBlur(crop, (0, 0), rng.uniform(0.4, 1.3)), np.uint8)
    light = crop * (rng.uniform(0.65, 1.35) * rng.uniform(0.93, 1.07, 3)) + rng.uniform(-15, 15)
    light += rng.normal(0, rng.uniform(0, 6), crop.shape)
    crop = np.clip(light, 0, 255).astype(np.uint8)
    if rng.random() < 0.4:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 95))]
        crop = np.asarray(cv2.imdecode(cv2.imencode(".jpg", crop, quality)[1], 1), np.uint8)
    return crop


def erase_number(patch: Pixels, number_box: NDArray[np.float32]) -> None:
    """Fill the box, xyxy in patch pixels, from what surrounds it, in place."""
    region = np.zeros(patch.shape[:2], np.uint8)
    x0, y0, x1, y1 = number_box.round().astype(int)
    region[max(y0 - 1, 0) : y1 + 1, max(x0 - 1, 0) : x1 + 1] = 1
    patch[:] = cv2.inpaint(patch, region, 3, cv2.INPAINT_TELEA)


def draw_number(
    patch: Pixels, number_box: NDArray[np.float32], number: int, rng: np.random.Generator
) -> None:
    """Print a number in a random face, weight, colour, size and slant over the box, in place."""
    font, weight = _FONTS[rng.integers(len(_FONTS))], int(rng.integers(_BOLDEST + 1))
    glyphs = _glyphs(number, font, weight)
    x0, y0, x1, y1 = number_box.round().astype(int)
    shirt = np.median(patch[max(y0, 0) : y1, max(x0, 0) : x1].reshape(-1, 3), axis=0)
    layers = [(glyphs, _contrasting(shirt, rng))]
    if rng.random() < _OUTLINED:
        wide = _glyphs(number, font, weight + _OUTLINE)
        layers.insert(0, (wide, _contrasting(layers[0][1], rng)))
    place, shade = _place(number_box, glyphs.shape, rng), _shade(patch, shirt)
    opacity, blur = rng.uniform(0.8, 1.0), rng.uniform(0.5, 1.7)
    for layer, colour in layers:
        ink = _lay(layer, place, blur, (patch.shape[1], patch.shape[0]))
        alpha = (ink.astype(np.float32) / 255 * opacity)[..., np.newaxis]
        patch[:] = np.clip(patch * (1 - alpha) + colour * shade * alpha, 0, 255).astype(np.uint8)


def _shade(patch: Pixels, shirt: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the light on the shirt about the mean, without its pattern, `(height, width, 1)`."""
    grey = cv2.GaussianBlur(patch.mean(axis=2).astype(np.float32), (0, 0), _FOLD)
    return np.asarray(np.clip((grey[..., np.newaxis] + 40) / (shirt.mean() + 40), 0.6, 1.3))


@cache
def _glyphs(number: int, font: str, weight: int) -> Pixels:
    """Return the number in white on black, cut tight, strokes bolder by `weight` pixels."""
    face = ImageFont.truetype(Path(mpl.get_data_path(), "fonts", "ttf", font), _GLYPH_SIZE)
    box = face.getbbox(str(number), stroke_width=weight)
    left, top, right, bottom = (int(edge) for edge in box)
    canvas = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(canvas).text(
        (-left, -top), str(number), fill=255, font=face, stroke_width=weight
    )
    return np.asarray(canvas)


def _place(
    box: NDArray[np.float32], shape: tuple[int, ...], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw how glyphs of `shape` lie over the box: squeezed, slanted and turned.

    Returns:
        The affine map, `(2, 3)`, from pixels about the middle of the glyphs to the patch.
    """
    height, width = shape
    box_width, box_height = box[2] - box[0], box[3] - box[1]
    tall = box_height * rng.uniform(0.75, 1.0)
    wide = min(box_width * rng.uniform(0.75, 1.0), tall * width / height * 1.2)
    slant, turn = rng.normal(0, 0.2), rng.normal(0, 0.12)
    linear = np.array([[1, -turn - slant], [turn, 1]]) @ np.diag([wide / width, tall / height])
    return np.column_stack([linear, [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]])


def _lay(glyphs: Pixels, place: NDArray[np.float64], blur: float, size: tuple[int, int]) -> Pixels:
    """Lay glyphs by a map of `_place` in black of `size`, (width, height), blurred by pixels."""
    linear = place[:, :2]
    shift = place[:, 2] - linear @ (np.array(glyphs.shape[::-1]) / 2)
    # Shrinking several times over would alias, and filmed numbers are soft.
    soft = cv2.GaussianBlur(glyphs, (0, 0), blur / float(np.linalg.norm(linear[:, 1])))
    return np.asarray(cv2.warpAffine(soft, np.column_stack([linear, shift]), size), np.uint8)


def _contrasting(shirt: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw white, black or any colour that stands out from the shirt, float `(3,)`."""
    while True:
        kind = rng.random()
        colour = rng.uniform(0, 255, 3) if kind < 0.4 else np.full(3, 235.0 if kind < 0.75 else 20)
        if np.linalg.norm(colour - shirt) > _MIN_CONTRAST:
            return colour
