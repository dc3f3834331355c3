"""Score the embedder on clips and kits that it never saw."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from torch.nn import functional

from training.data.crops import NUMBER, ROLE, ROLES, CropSet, crop_set
from training.embedder.texts import phrase
from training.embedder.towers import Towers, load, normalise
from training.run.crops import exact_batches

_MIN_CROPS = 3  # of a track that counts

Embeddings = NDArray[np.float32]


def evaluate(weights: Path, footage: Path, clips: Sequence[str]) -> dict[str, Any]:
    """Score two towers.

    Args:
        weights: Folder with `vision/` and `text/`, as training writes it, or a checkpoint of both
            in the layout of its hub.
        footage: Folder of rendered clips with masks.
        clips: Names of the clips, none of which were learnt.

    Returns:
        See `scores`.
    """
    with tempfile.TemporaryDirectory() as cache:
        return scores(load(weights), crop_set(footage, tuple(clips), Path(cache)), clips)


def embed_crops(towers: Towers, crops: CropSet) -> Embeddings:
    """Return L2-normalised embeddings of all crops, cut exactly, float32 `(n, width)`."""
    chunks = []
    for batch in exact_batches(crops, (towers.image_size, towers.image_size)):
        pixels = torch.from_numpy(batch).to(towers.device)
        with torch.inference_mode():
            chunks.append(towers.vision(normalise(pixels)).pooler_output)
    return np.asarray(functional.normalize(torch.cat(chunks).float(), dim=1).cpu().numpy())


def embed_texts(towers: Towers, texts: list[str]) -> Embeddings:
    """Return L2-normalised embeddings of texts, float32 `(n, width)`."""
    with torch.inference_mode():
        pooled = towers.text(towers.tokens(texts).to(towers.device)).pooler_output
    return np.asarray(functional.normalize(pooled.float(), dim=1).cpu().numpy())


def scores(towers: Towers, held_out: CropSet, clips: Sequence[str]) -> dict[str, Any]:
    """Return the scores of teams by clip, and of texts over all held-out kits.

    A clip counts if two kits are known in it, each by a track of some length.

    Args:
        towers: The network.
        held_out: Crops of `clips`, in their order.
        clips: Their names.
    """
    embeddings = embed_crops(towers, held_out)
    is_player = held_out.attributes[:, ROLE] == ROLES.index("player")
    clip = held_out.track // 100
    teams = {}
    for index, name in enumerate(clips):
        rows = is_player & (clip == index)
        kit = np.asarray(held_out.kit[rows])
        is_counted = np.isin(held_out.track[rows], _counted(held_out.track[rows]))
        if len(np.unique(kit)) == len(np.unique(kit[is_counted])) == 2:
            teams[name] = team_scores(embeddings[rows], held_out.track[rows], kit)
    texts = text_scores(towers, embeddings, held_out, is_player) if is_player.any() else {}
    return {"teams": teams, "texts": texts}


def team_scores(
    embeddings: Embeddings, track: NDArray[np.int32], kit: NDArray[np.int16]
) -> dict[str, float]:
    """Score two clusters over the mean embeddings of one clip's tracks.

    Args:
        embeddings: float32 `(n, width)` of the clip's outfield players.
        track: int32 `(n,)`.
        kit: int16 `(n,)`, two different values.

    Returns:
        Share of tracks in the right cluster, mean cosine between crops of one kit and of the two
        kits, and the share of single crops that lie nearer to the mean of their own kit.
    """
    names = _counted(track)
    means = np.stack([_unit(embeddings[track == one].mean(axis=0)) for one in names])
    team = np.array([kit[track == one][0] for one in names])
    _, cluster = kmeans2(means, 2, iter=50, minit="++", seed=0)
    agreement = float(((team == team[0]) == (cluster == cluster[0])).mean())
    is_first = kit == team[0]
    centres = [_unit(embeddings[rows].mean(axis=0)) for rows in (is_first, ~is_first)]
    cosine, same = embeddings @ embeddings.T, is_first[:, None] == is_first
    return {
        "tracks": len(names),
        "clustering_accuracy": max(agreement, 1 - agreement),
        "cosine_same_kit": float(cosine[same].mean()),
        "cosine_other_kit": float(cosine[~same].mean()),
        "nearest_kit_accuracy": float(
            ((embeddings @ centres[0] > embeddings @ centres[1]) == is_first).mean()
        ),
    }


def text_scores(
    towers: Towers, embeddings: Embeddings, held_out: CropSet, is_player: NDArray[np.bool_]
) -> dict[str, float]:
    """Score how well the full text about a kit finds the mean embedding of its wearers."""
    kits = np.unique(held_out.kit[is_player])
    rows = [np.flatnonzero(is_player & (held_out.kit == kit)) for kit in kits]
    means = np.stack([_unit(embeddings[row].mean(axis=0)) for row in rows])
    statements = np.stack([held_out.attributes[row[0]] for row in rows])
    statements[:, NUMBER] = -1
    similarity = embed_texts(towers, [phrase(statement) for statement in statements]) @ means.T
    clip = np.array([held_out.track[row[0]] // 100 for row in rows])
    own = similarity.diagonal()
    rival = np.where((clip[:, None] == clip) & ~np.eye(len(kits), dtype=bool), similarity, -1)
    return {
        "kits": len(kits),
        "right_of_all_kits": float((similarity.argmax(axis=1) == np.arange(len(kits))).mean()),
        "right_of_the_clips_two": float((own > rival.max(axis=1)).mean()),
    }


def _counted(track: NDArray[np.int32]) -> list[np.int32]:
    return [one for one in np.unique(track) if (track == one).sum() >= _MIN_CROPS]


def _unit(vector: Embeddings) -> Embeddings:
    return np.asarray(vector / np.linalg.norm(vector), np.float32)
