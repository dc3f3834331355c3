"""Build real `sam2` networks and load their weights; the only module that knows weight files."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sam2  # noqa: F401  registers the package's hydra configurations
import torch
from hydra import compose
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

OFFICIAL_CONFIGS = {
    "sam2.1_hiera_tiny": "configs/sam2.1/sam2.1_hiera_t.yaml",
    "sam2.1_hiera_small": "configs/sam2.1/sam2.1_hiera_s.yaml",
    "sam2.1_hiera_base_plus": "configs/sam2.1/sam2.1_hiera_b+.yaml",
    "sam2.1_hiera_large": "configs/sam2.1/sam2.1_hiera_l.yaml",
}
"""Configuration inside the `sam2` package by the file stem of the published checkpoint."""

SIZE_STEP = 32
"""Sides of pictures are multiples of this: the encoder halves them five times."""

_COMPACT_BASE = OFFICIAL_CONFIGS["sam2.1_hiera_tiny"]
_METADATA_KEY = "architecture"


class WeightsError(ValueError):
    """A weights file is missing, damaged, or of another network; names file and expectation."""


@dataclass(frozen=True, slots=True)
class CompactConfig:
    """Sizes of the small network for windows around single players.

    Attributes:
        image_size: Side of the square input in pixels, a multiple of 32.
        channels: Width of the neck, the memory attention and the decoder.
        embed_dim: Width of the first encoder stage; doubles from stage to stage.
        memory_frames: Mask memories an object attends to, the prompted one included.
        pointers: Object pointers an object attends to, the prompted one included.

    Raises:
        ValueError: One of them is too small; names it.
    """

    image_size: int = 128
    channels: int = 128
    embed_dim: int = 32
    memory_frames: int = 4
    pointers: int = 5

    def __post_init__(self) -> None:
        if self.image_size < 1 or self.image_size % SIZE_STEP:
            raise ValueError(
                f"image_size: expected a multiple of {SIZE_STEP}, got {self.image_size}"
            )
        for name in ("memory_frames", "pointers"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name}: expected 2 or more, got {getattr(self, name)}")


def load(weights: Path, image_size: int | None = None) -> SAM2Base:
    """Return the network of a weights file in evaluation mode, fp32 on CPU.

    Args:
        weights: A published checkpoint `sam2.1_hiera_{tiny,small,base_plus,large}.pt`, or a file
            of `save_compact`, or a directory with exactly one of these.
        image_size: Input side for a published checkpoint (None: its own 1024). A compact network
            has the size it was trained at and accepts no other.

    Raises:
        WeightsError: There is no such file, or it does not fit its network.
    """
    path = _find(weights)
    if path.suffix == ".safetensors":
        return _load_compact(path, image_size)
    return _load_official(path, image_size)


def random_official(name: str, image_size: int = 1024) -> SAM2Base:
    """Return a published architecture with random weights, for tests and speed measurements.

    Args:
        name: A key of `OFFICIAL_CONFIGS`.
        image_size: Input side in pixels, a multiple of 32.
    """
    # What upstream's own video predictor adds to the files.
    # Source: sam2 1.1.0, build_sam.build_sam2_video_predictor(apply_postprocessing=True).
    decoder = "sam_mask_decoder_extra_args.dynamic_multimask"
    return _build(
        OFFICIAL_CONFIGS[name],
        {
            "image_size": image_size,
            f"{decoder}_via_stability": True,
            f"{decoder}_stability_delta": 0.05,
            f"{decoder}_stability_thresh": 0.98,
            "binarize_mask_from_pts_for_mem_enc": True,
        },
    )


def random_compact(config: CompactConfig) -> SAM2Base:
    """Return a compact network with random weights, for training and tests."""
    return _build(_COMPACT_BASE, _compact_overrides(config))


def save_compact(network: SAM2Base, config: CompactConfig, path: Path) -> None:
    """Write a compact network as fp16 safetensors that carry their own architecture."""
    tensors = {k: v.detach().half().contiguous() for k, v in network.state_dict().items()}
    save_file(tensors, path, metadata={_METADATA_KEY: json.dumps(asdict(config))})


def _find(weights: Path) -> Path:
    if weights.is_file():
        return weights
    known = [f"{name}.pt" for name in OFFICIAL_CONFIGS]
    if not weights.is_dir():
        raise WeightsError(f"{weights}: no such file; expected *.safetensors or one of {known}")
    found = [p for p in sorted(weights.iterdir()) if p.suffix == ".safetensors" or p.name in known]
    if len(found) != 1:
        names = [p.name for p in found] or "none"
        raise WeightsError(f"{weights}: expected one weights file, found {names}")
    return found[0]


def _load_official(path: Path, image_size: int | None) -> SAM2Base:
    if path.stem not in OFFICIAL_CONFIGS:
        raise WeightsError(f"{path}: expected a file name {sorted(OFFICIAL_CONFIGS)} + '.pt'")
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)["model"]
    except Exception as error:
        raise WeightsError(f"{path}: expected a checkpoint {{'model': tensors}}") from error
    return _filled(random_official(path.stem, image_size or 1024), tensors, path)


def _load_compact(path: Path, image_size: int | None) -> SAM2Base:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise WeightsError(f"{path}: expected complete safetensors: {error}") from error
    try:
        config = CompactConfig(**json.loads(metadata[_METADATA_KEY]))
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path}: expected metadata {_METADATA_KEY!r} of {CompactConfig}"
        ) from error
    if image_size not in (None, config.image_size):
        raise WeightsError(
            f"{path}: was trained at image_size {config.image_size}, not {image_size}"
        )
    return _filled(random_compact(config), tensors, path)


def _filled(network: SAM2Base, tensors: dict[str, Tensor], path: Path) -> SAM2Base:
    try:
        network.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        first = str(error).split("\n\t")[1] if "\n\t" in str(error) else str(error)
        raise WeightsError(f"{path}: does not fit its network: {first}") from error
    return network


def _build(config_name: str, overrides: dict[str, Any]) -> SAM2Base:
    lines = [f"++model.{key}={value}" for key, value in overrides.items()]
    config = compose(config_name, overrides=lines)
    OmegaConf.resolve(config)
    return instantiate(config.model, _recursive_=True).eval()


def _compact_overrides(config: CompactConfig) -> dict[str, Any]:
    width, embed, grid = config.channels, config.embed_dim, config.image_size // 16
    stage_widths = f"[{embed * 8},{embed * 4},{embed * 2},{embed}]"
    overrides: dict[str, Any] = {
        "image_size": config.image_size,
        "num_maskmem": config.memory_frames,
        "max_obj_ptrs_in_encoder": config.pointers,
        "image_encoder.trunk.embed_dim": embed,
        "image_encoder.trunk.stages": "[1,2,3,1]",
        "image_encoder.trunk.global_att_blocks": "[5]",
        "image_encoder.trunk.window_spec": f"[8,4,{grid},{max(4, grid // 2)}]",
        "image_encoder.neck.d_model": width,
        "image_encoder.neck.position_encoding.num_pos_feats": width,
        "image_encoder.neck.backbone_channel_list": stage_widths,
        "memory_attention.d_model": width,
        "memory_attention.num_layers": 2,
        "memory_attention.layer.d_model": width,
        "memory_attention.layer.dim_feedforward": width * 3,
        "memory_attention.layer.dropout": 0.0,
        "memory_encoder.in_dim": width,
        "memory_encoder.mask_downsampler.embed_dim": width,
        "memory_encoder.fuser.layer.dim": width,
        # 1e-6 suits the long published schedule only.
        "memory_encoder.fuser.layer.layer_scale_init_value": 0.1,
        "multimask_output_in_sam": False,
        "multimask_output_for_tracking": False,
    }
    for attention in ("self_attention", "cross_attention"):
        key = f"memory_attention.layer.{attention}"
        overrides |= {
            f"{key}.embedding_dim": width,
            f"{key}.feat_sizes": f"[{grid},{grid}]",
            f"{key}.dropout": 0.0,
        }
    return overrides
