"""SigLIP: a few crops of people a second become embeddings; kit descriptions, too."""

import asyncio

import numpy as np
from numpy.typing import NDArray

from orchestrator.contracts import SIGLIP_EMBEDDER, SIGLIP_TEXT
from orchestrator.imaging import crops, stacked
from orchestrator.settings import IdentifySettings
from orchestrator.stages.cadence import Cadence
from orchestrator.triton.client import TritonClient
from orchestrator.types.frames import Frame
from orchestrator.types.tracks import Tracks

Embedding = NDArray[np.float32]
"""L2-normalised, float32, shape `(D,)`."""


class Identifier:
    """Embeds the people of one stream at a cadence."""

    def __init__(
        self, triton: TritonClient, settings: IdentifySettings, *, frame_rate: float
    ) -> None:
        self._triton = triton
        self._size = triton.model(SIGLIP_EMBEDDER).sizes["S"]
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
        pixels = await asyncio.to_thread(
            crops, frame.pixels, boxes, height=self._size, width=self._size
        )
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


async def embed_texts(triton: TritonClient, texts: list[str]) -> list[Embedding]:
    """Embed descriptions into the space of the crops.

    Raises:
        ModelError: The text model gave no answer.
    """
    batch = np.array([[text.encode()] for text in texts], np.object_)
    reply = await triton.infer(SIGLIP_TEXT, {"text": batch})
    return list(reply["embedding"].astype(np.float32))
