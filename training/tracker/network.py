"""Where a tracker's training starts from, and the file that it ends in."""

from pathlib import Path

import torch
from sam2.modeling.sam2_base import SAM2Base
from sam2_streaming.architecture import (
    OFFICIAL_CONFIGS,
    CompactConfig,
    WeightsError,
    load,
    random_compact,
    save_compact,
)

from training.errors import InputError
from training.torch_file import save_torch
from training.whole_file import whole

_IN_SIGHT_LOGIT = 3.0


def start(init: Path | None, compact: CompactConfig, image_size: int | None) -> SAM2Base:
    """Return the network to train.

    Args:
        init: A published checkpoint under its own name (`sam2.1_hiera_tiny.pt`), whose name tells
            the architecture, or a compact one (`*.safetensors`); None starts from nothing.
        compact: Sizes of the network that starts from nothing.
        image_size: Side of the windows for a published checkpoint; None: its own 1024.

    Raises:
        InputError: The file is missing, damaged or of another network.
    """
    if init is None:
        network = random_compact(compact)
        # Start as "in sight": a network that says "absent" gets no gradient for its mask.
        head = network.sam_mask_decoder.pred_obj_score_head
        torch.nn.init.constant_(head.layers[-1].bias, _IN_SIGHT_LOGIT)
        return network
    try:
        return load(init, image_size)
    except WeightsError as error:
        raise InputError(f"init: {error}") from error


def save(network: SAM2Base, init: Path | None, folder: Path) -> Path:
    """Write the weights as the served tracker loads them; return the file.

    A published architecture keeps its published name, a compact one becomes `tracker.safetensors`.
    """
    published = init.stem if init is not None and init.stem in OFFICIAL_CONFIGS else None
    path = folder / (f"{published}.pt" if published else "tracker.safetensors")
    if published:
        save_torch({"model": network.state_dict()}, path)
    else:
        with whole(path) as partial:
            save_compact(network, _sizes(network), partial)
    return path


def _sizes(network: SAM2Base) -> CompactConfig:
    return CompactConfig(
        image_size=network.image_size,
        channels=network.hidden_dim,
        embed_dim=network.image_encoder.trunk.patch_embed.proj.out_channels,
        memory_frames=network.num_maskmem,
        pointers=network.max_obj_ptrs_in_encoder,
    )
