"""Upstream's own predictor, as `make bench-sam2` runs it: without a file, with full memories."""

from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sam2.build_sam import build_sam2_video_predictor
from sam2.modeling.sam2_base import SAM2Base
from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2_streaming import architecture
from torch import Tensor, nn

VIDEO_SHAPE = (1080, 1920)
"""Height and width in pixels of the frames that both engines return masks for."""

_FULL_AGE = 15
"""Frames after which an object of the published networks has 7 mask memories and 16 pointers."""
_ENDLESS = 1_000_000


def random_predictor(network: str, size: int) -> SAM2VideoPredictor:
    """Return upstream's predictor with the same weights as `random_network`, fp32 on CPU."""
    torch.manual_seed(0)
    predictor = build_sam2_video_predictor(
        architecture.OFFICIAL_CONFIGS[network],
        device="cpu",
        hydra_overrides_extra=[f"++model.image_size={size}"],
    )
    predictor.fill_hole_area = 0  # needs a CUDA extension; without it the predictor does less
    return in_sight(predictor)


def in_sight(network: SAM2Base) -> Any:
    """Make a random network believe in its objects, or every mask were one constant."""
    nn.init.constant_(network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias, 5.0)
    return network


class OfficialStart:
    """What one object of the official predictor leaves behind on a prompted and a tracked frame.

    Attributes:
        predictor: The network.
        prompted: Entry of `cond_frame_outputs`.
        tracked: Entry of `non_cond_frame_outputs`.
    """

    def __init__(self, predictor: SAM2VideoPredictor) -> None:
        self.predictor = predictor
        state = blank_state(predictor)
        predictor.add_new_points_or_box(state, 0, 1, box=player_boxes(1)[0])
        for _ in predictor.propagate_in_video(state, 0, 1):
            pass
        outputs = state["output_dict_per_obj"][0]
        self.prompted: dict[str, Any] = outputs["cond_frame_outputs"][0]
        self.tracked: dict[str, Any] = outputs["non_cond_frame_outputs"][1]


class Official:
    """Streams of upstream's predictor, which takes objects and streams one after the other.

    A state is what `init_state` makes of a video file, with one picture standing for every frame:
    reading, resizing and normalising frames is not counted against it.
    """

    def __init__(self, start: OfficialStart, objects: int, streams: int) -> None:
        self._predictor = start.predictor
        self.states = [full_state(start, objects) for _ in range(streams)]
        self._frame = _FULL_AGE

    def step(self) -> None:
        """See `Contender`."""
        self._frame += 1
        for state in self.states:
            ((_, object_ids, masks),) = self._predictor.propagate_in_video(state, self._frame, 0)
            if masks.shape != (len(object_ids), 1, *VIDEO_SHAPE):
                raise RuntimeError(
                    f"expected masks of {len(object_ids)} objects, got {masks.shape}"
                )


def blank_state(predictor: SAM2VideoPredictor) -> dict[str, Any]:
    """Return what `init_state` returns, for an endless video of one picture.

    Source: sam2 1.1.0, `SAM2VideoPredictor.init_state`.
    """
    device = predictor.device
    picture = torch.rand(3, predictor.image_size, predictor.image_size, device=device)
    return {
        "images": [picture] * _ENDLESS, "num_frames": _ENDLESS, "device": device,
        "storage_device": device, "offload_video_to_cpu": False, "offload_state_to_cpu": False,
        "video_height": VIDEO_SHAPE[0], "video_width": VIDEO_SHAPE[1], "cached_features": {},
        "constants": {}, "obj_id_to_idx": OrderedDict(), "obj_idx_to_id": OrderedDict(),
        "obj_ids": [], "point_inputs_per_obj": {}, "mask_inputs_per_obj": {},
        "output_dict_per_obj": {}, "temp_output_dict_per_obj": {}, "frames_tracked_per_obj": {},
    }  # fmt: skip


def full_state(start: OfficialStart, objects: int) -> dict[str, Any]:
    """Return the state of a stream whose objects were prompted `_FULL_AGE` frames ago."""
    state = blank_state(start.predictor)
    for object_id in range(1, objects + 1):
        index = start.predictor._obj_id_to_idx(state, object_id)
        state["output_dict_per_obj"][index] = {
            "cond_frame_outputs": {0: _copy(start.prompted)},
            "non_cond_frame_outputs": {k: _copy(start.tracked) for k in range(1, _FULL_AGE + 1)},
        }
    return state


def _copy(entry: dict[str, Any]) -> dict[str, Any]:
    """Copy the tensors of an entry; the positions stay shared, as upstream shares them."""
    return {k: v.clone() if isinstance(v, Tensor) else v for k, v in entry.items()}


def player_boxes(count: int) -> NDArray[np.float32]:
    """Return boxes of people scattered over a frame, some side by side, xyxy `(count, 4)`."""
    height, width = VIDEO_SHAPE
    size = np.array([40, 90])
    corners = np.random.default_rng(0).uniform(0, [width, height] - size, (count, 2))
    return np.concatenate([corners, corners + size], axis=1).astype(np.float32)
