"""SigLIP: a few crops of people a second become embeddings; kit descriptions, too."""

import asyncio

import numpy as np
from numpy.typing import NDArray

from orchestrator.contracts import SIGLIP_EMBEDDER, SIGLIP_TEXT
from orchestrator.errors import TensorContractError
from orchestrator.imaging import crops, stacked
from orchestrator.settings import IdentifySettings
from orchestrator.stages.cadence import Cadence
from orchestrator.triton.client import TritonClient
from orchestrator.types.frames import Frame
from orchestrator.types.streams import StreamConfig
from orchestrator.types.tracks import Tracks

Embedding = NDArray[np.float32]
"""L2-normalised, float32, shape `(D,)`."""
Kits = NDArray[np.float32]
"""Embeddings of the kits of A and B, `(2, D)`."""


class Identifier:
    """Embeds the people of one stream at a cadence."""

    def __init__(
        self, triton: TritonClient, settings: IdentifySettings, *, frame_rate: float
    ) -> None:
        self._triton = triton
        self._cadence = Cadence(
            interval_s=settings.interval_s,
            frame_rate=frame_rate,
            max_crops=settings.max_crops_per_frame,
        )

    async def embed(
        self, frame: Frame, tracks: Tracks, frame_count: int, *, stretch: int = 1
    ) -> dict[int, Embedding]:
        """Embed the tracks that are due, by the frame's deadline; arguments as of `Cadence.due`.

        Returns:
            Embedding by object id, all of them finite; empty if nobody is due.

        Raises:
            ModelError: The embedder gave no answer.
        """
        due = self._cadence.due(tracks.seen, frame_count, stretch)
        if not due:
            return {}
        boxes = stacked([track.xyxy for track in due])
        size = self._triton.model(SIGLIP_EMBEDDER).sizes["S"]
        pixels = await asyncio.to_thread(crops, frame.pixels, boxes, height=size, width=size)
        reply = await self._triton.infer(
            SIGLIP_EMBEDDER, {"crops": pixels}, deadline=frame.deadline
        )
        embeddings = reply["embedding"].astype(np.float32)
        # One that is not finite would spoil a person's mean for good.
        return {
            track.object_id: row
            for track, row in zip(due, embeddings, strict=True)
            if np.isfinite(row).all()
        }


async def embed_kits(triton: TritonClient, config: StreamConfig) -> Kits:
    """Embed the kit descriptions, of which there is one at least, into the space of the crops.

    Returns:
        Both kits; a side without a description is the other's opposite.

    Raises:
        TensorContractError: The text model's space is not that of the crops, or a kit's embedding
            is not finite.
        ModelError: It gave no answer, or the model of the crops is not known yet.
    """
    space, text_space = (triton.model(m).sizes["D"] for m in (SIGLIP_EMBEDDER, SIGLIP_TEXT))
    if text_space != space:
        expected = f"embedding: expected {space} dimensions, as of {SIGLIP_EMBEDDER.name}"
        raise TensorContractError(SIGLIP_TEXT.name, f"{expected}, got {text_space}")
    texts = [config.team_a.kit_description, config.team_b.kit_description]
    batch = np.array([[text.encode()] for text in texts if text], np.object_)
    reply = await triton.infer(SIGLIP_TEXT, {"text": batch})
    embedded = reply["embedding"].astype(np.float32)
    if not np.isfinite(embedded).all():  # it would name the sides at random, and for good
        raise TensorContractError(SIGLIP_TEXT.name, "embedding: expected finite numbers")
    if len(embedded) == 2:
        return embedded
    return np.concatenate([embedded, -embedded] if texts[0] else [-embedded, embedded])
