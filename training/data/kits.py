"""Kit recolouring: new shirts, shorts and socks painted inside exact masks.

A clip shows two kits only, and a network trained on few clips learns their colours by heart. Here
everyone of one side gets the same invented kit, drawn within the person's mask and keeping the
shading, so that shape and not colour is what remains to be learnt.
"""

import colorsys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.types.pictures import Pixels
from training.data.footage import Person

Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]

# Rows of a standing person, as a share of the mask's height from the top.
_SHIRT_ROWS = (0.17, 0.50)
_SHORTS_ROWS = (0.50, 0.68)
_SOCKS_ROWS = (0.82, 0.95)

_KEEP_KIT = 0.08  # share of kits left as filmed
_CHANGE_LIGHT = 0.5  # share of pictures with another exposure and white balance
_SHADE_OFFSET = 25.0  # lifts the dark end, or the grain of a black shirt would be blown up


class Pattern(Enum):
    """How the second colour lies on the shirt."""

    PLAIN = auto()
    STRIPES = auto()
    HOOPS = auto()
    HALVES = auto()
    SASH = auto()
    SLEEVES = auto()


# Plain shirts are the most usual ones, so they are drawn twice as often as any other.
_PATTERNS = (Pattern.PLAIN, *Pattern)


@dataclass(frozen=True, slots=True)
class Kit:
    """One invented kit; colours are RGB float32 `(3,)` in `[0, 255]`.

    Attributes:
        opacity: Share of the new colour in the result, in `(0, 1]`.
        band_count: Stripes across the width; hoops are thrice as many over the whole height.
        band_phase: Where the first band begins, in bands, `[0, 1)`.
    """

    shirt: Floats
    second: Floats
    shorts: Floats
    socks: Floats
    pattern: Pattern
    opacity: float
    band_count: int
    band_phase: float


def draw_kit(rng: np.random.Generator) -> Kit:
    """Draw a random kit."""
    return Kit(
        shirt=_draw_colour(rng),
        second=_draw_colour(rng),
        shorts=_draw_colour(rng),
        socks=_draw_colour(rng),
        pattern=_PATTERNS[rng.integers(len(_PATTERNS))],
        opacity=float(rng.uniform(0.7, 0.97)),
        band_count=int(rng.integers(3, 7)),
        band_phase=float(rng.random()),
    )


def recolour(
    picture: Pixels,
    masks: Mapping[int, NDArray[np.uint8]],
    people: Mapping[int, Person],
    rng: np.random.Generator,
) -> Pixels:
    """Return the picture with new kits, and half of the time in another light.

    Args:
        picture: RGB uint8 `(height, width, 3)`; not changed.
        masks: Visible mask, 0/1 `(height, width)`, by object id; ids that are not in `people`
            (the ball) keep their colours.
        people: The clip's people by id; sides, their keepers and the officials dress alike.
        rng: Source of all randomness.

    Returns:
        A new picture of the same shape.
    """
    painted = picture.copy()
    wardrobe: dict[tuple[str | None, bool], Kit | None] = {}
    for object_id, mask in masks.items():
        person = people.get(object_id)
        if person is None:
            continue
        side = (person.team, person.kind == "goalkeeper")
        if side not in wardrobe:
            wardrobe[side] = None if rng.random() < _KEEP_KIT else draw_kit(rng)
        kit = wardrobe[side]
        if kit is not None:
            paint(painted, mask, kit)
    return _relight(painted, rng) if rng.random() < _CHANGE_LIGHT else painted


def paint(picture: Pixels, mask: NDArray[np.uint8], kit: Kit) -> None:
    """Dress one person, in place.

    Args:
        picture: RGB uint8 `(height, width, 3)`.
        mask: The person's visible pixels, 0/1 `(height, width)`; may be empty.
        kit: What to put on.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    patch, inside = picture[box], mask[box].astype(bool)
    height, width = inside.shape
    v = np.broadcast_to(((np.arange(height) + 0.5) / height)[:, None], inside.shape)
    u = np.broadcast_to((np.arange(width) + 0.5) / width, inside.shape)
    shirt = np.where(_second_colour(kit, u, v)[..., None], kit.second, kit.shirt)
    for (top, bottom), colour in (
        (_SHIRT_ROWS, shirt),
        (_SHORTS_ROWS, np.broadcast_to(kit.shorts, patch.shape)),
        (_SOCKS_ROWS, np.broadcast_to(kit.socks, patch.shape)),
    ):
        _dye(patch, inside & (v >= top) & (v < bottom), colour, kit.opacity)


def _dye(patch: Pixels, region: Bools, colour: NDArray[Any], opacity: float) -> None:
    if region.sum() < 3:  # too few pixels to tell shading from colour
        return
    old = patch[region].astype(np.float32)
    grey = old.mean(axis=1) + _SHADE_OFFSET
    shade = np.clip(grey / grey.mean(), 0.5, 1.5)[:, None]
    new = old * (1 - opacity) + colour[region] * shade * opacity
    patch[region] = np.clip(new, 0, 255).astype(np.uint8)


def _second_colour(kit: Kit, u: NDArray[Any], v: NDArray[Any]) -> Bools:
    """Return where the shirt has its second colour; `u`, `v` in `[0, 1]` over the mask's box."""
    down = v - _SHIRT_ROWS[0]
    second: NDArray[Any] = np.zeros(u.shape, bool)
    match kit.pattern:
        case Pattern.STRIPES:
            second = np.floor(u * kit.band_count + kit.band_phase) % 2 == 1
        case Pattern.HOOPS:
            second = np.floor(down * kit.band_count * 3 + kit.band_phase) % 2 == 1
        case Pattern.HALVES:
            second = u < 0.5
        case Pattern.SASH:
            second = np.abs(down / (_SHIRT_ROWS[1] - _SHIRT_ROWS[0]) - u) < 0.2
        case Pattern.SLEEVES:
            second = np.abs(u - 0.5) > 0.3
        case Pattern.PLAIN:
            pass
    return np.asarray(second, bool)


def _draw_colour(rng: np.random.Generator) -> Floats:
    """Draw whites and blacks as often as kits have them, and greens that hide on the pitch."""
    kind = rng.random()
    if kind < 0.12:
        rgb: NDArray[Any] = np.array([235.0, 235.0, 230.0]) * rng.uniform(0.85, 1.0)
    elif kind < 0.22:
        rgb = np.array([20.0, 20.0, 24.0]) * rng.uniform(0.6, 1.6)
    else:
        hue = rng.random() if rng.random() < 0.85 else rng.uniform(0.2, 0.45)
        rgb = 255 * np.array(colorsys.hsv_to_rgb(hue, rng.uniform(0.45, 1), rng.uniform(0.25, 1)))
    return np.asarray(rgb, np.float32)


def _relight(picture: Pixels, rng: np.random.Generator) -> Pixels:
    gain = rng.uniform(0.8, 1.2) * rng.uniform(0.94, 1.06, 3)
    return np.clip(picture * gain, 0, 255).astype(np.uint8)
