"""Kit colours and the made-up embedding space in which the same kit lies together."""

import numpy as np
from numpy.typing import NDArray

Embedding = NDArray[np.float32]

KITS = {
    "black": (20, 20, 22),
    "white": (240, 240, 240),
    "grey": (130, 130, 130),
    "red": (200, 30, 35),
    "orange": (240, 130, 20),
    "yellow": (240, 205, 20),
    "green": (150, 220, 20),
    "cyan": (80, 200, 235),
    "blue": (20, 60, 190),
    "purple": (110, 40, 140),
    "pink": (240, 110, 165),
}
"""RGB by the names, and in the order, of the contract's `KIT_COLOURS`."""

_COLOURS = np.array(list(KITS.values()), np.float64)
_PERSONAL = 0.25
"""What of an embedding is a person's own, beside the kit's 1: teammates have a cosine of 0.94."""


def nearest_kit(rgb: NDArray[np.float64]) -> int:
    """Return which kit a colour is nearest to, an index into `KITS`."""
    return int(np.linalg.norm(_COLOURS - rgb, axis=1).argmin())


def embed_person(kit: int, person_id: int | None, width: int) -> Embedding:
    """Return a person's L2-normalised embedding `(width,)`; `width` exceeds the number of kits."""
    embedding = np.zeros(width, np.float32)
    embedding[kit] = 1.0
    if person_id is not None:
        embedding[len(KITS) + person_id % (width - len(KITS))] = _PERSONAL
    return embedding / np.linalg.norm(embedding)


def embed_text(text: str, width: int) -> Embedding:
    """Return the embedding `(width,)` of the kits that a text names, of all if it names none."""
    named = np.array([name in text.lower() for name in KITS], np.float32)
    kits = named if named.any() else np.ones(len(KITS), np.float32)
    embedding = np.concatenate([kits, np.zeros(width - len(KITS), np.float32)])
    return np.asarray(embedding / np.linalg.norm(embedding), np.float32)
