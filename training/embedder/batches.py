"""Batches for the embedder: kits, several wearers of each, and texts that are true of them.

Most crops are re-dressed in kits that are drawn anew for every batch, so that the net learns to
tell kits apart rather than to know the training clips' kits.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from orchestrator.types.pictures import Pixels
from training.data import augment
from training.data.crops import NUMBER, ROLE, ROLES, SHIRT, SHORTS, CropSet, kit_attributes
from training.data.kits import paint
from training.embedder.texts import draw_statement, phrase, truth_table
from training.embedder.towers import Towers
from training.run.config import RunConfig
from training.run.loop import Batch

_ROLE_SHARES = np.array([0.7, 0.12, 0.18, 0.0])  # of the invented kits
_OCCLUDED = 0.2


class Groups(RunConfig):
    """What a batch is made of."""

    groups: int = Field(default=16, gt=1)
    """Kits in a batch."""
    wearers: int = Field(default=6, gt=1)
    """Crops of each kit."""
    invented: float = Field(default=0.7, ge=0, le=1)
    """Share of the kits that are drawn anew."""


class Batches:
    """Draws batches from a set of crops.

    Args:
        crops: To learn from.
        towers: Whose image size and tokenizer to use.
        config: How.
    """

    def __init__(self, crops: CropSet, towers: Towers, config: Groups) -> None:
        self._crops, self._towers, self._config = crops, towers, config
        self._size = (towers.image_size, towers.image_size)
        role, kit = np.asarray(crops.attributes[:, ROLE]), np.asarray(crops.kit)
        self._by_role = [np.flatnonzero(role == index) for index in range(len(ROLES))]
        self._by_kit = [np.flatnonzero(kit == one) for one in np.unique(kit)]
        shares = _ROLE_SHARES * [len(rows) > 0 for rows in self._by_role]
        self._role_shares = shares / shares.sum()

    def draw(self, rng: np.random.Generator) -> Batch:
        """Return a batch of `n` crops, each with a statement.

        Returns:
            `pixels` uint8 `(n, S, S, 3)`; `tokens` int64 `(n, T)` of the statements; `kit` int64
            `(n,)`, equal for equal kits; `is_true` and `is_known` bool `(n, n)`: which statement
            is true of which crop, and whether that is known.
        """
        samples: list[tuple[Pixels, NDArray[np.int16]]] = []
        # Real kits are not repeated within a batch: two groups of one kit would be called unlike.
        real = iter(rng.permutation(len(self._by_kit)))
        for _ in range(self._config.groups):
            kit = None if rng.random() < self._config.invented else next(real, None)
            samples += self._group(kit, rng)
        attributes = np.stack([facts for _, facts in samples])
        statements = np.stack([draw_statement(facts, rng) for facts in attributes])
        is_true, is_known = truth_table(attributes, statements)
        return {
            "pixels": torch.from_numpy(np.stack([crop for crop, _ in samples])),
            "tokens": self._towers.tokens([phrase(statement, rng) for statement in statements]),
            "kit": torch.arange(self._config.groups).repeat_interleave(self._config.wearers),
            "is_true": torch.from_numpy(is_true),
            "is_known": torch.from_numpy(is_known),
        }

    def _group(
        self, real_kit: int | None, rng: np.random.Generator
    ) -> Iterator[tuple[Pixels, NDArray[np.int16]]]:
        """Yield the crops of one kit, a real or an invented one, and what is true of them."""
        if real_kit is None:
            pool = self._by_role[rng.choice(len(ROLES), p=self._role_shares)]
        else:
            pool = self._by_kit[real_kit]
        rows = pool[rng.integers(len(pool), size=self._config.wearers)]
        kit = augment.dress(int(self._crops.attributes[rows[0], ROLE]), rng)
        for row in rows:
            patch = self._crops.pixels[row].copy()
            attributes = self._crops.attributes[row].copy()
            if real_kit is None:
                paint(patch, self._crops.masks[row], kit)
                attributes[SHIRT : SHORTS + 1] = kit_attributes(kit)
                attributes[NUMBER] = -1  # new clothes may hide it
            if rng.random() < _OCCLUDED:
                other = self._crops.pixels[rng.integers(len(self._crops))]
                augment.occlude(patch, other, rng)
            yield augment.degrade(augment.cut(patch, self._size, rng), rng), attributes
