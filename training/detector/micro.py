"""RF-DETR micro: rfdetr's own classes at a size that a CPU trains and serves."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from rfdetr import RFDETRNano
from rfdetr.config import RFDETRNanoConfig
from rfdetr.models.backbone import dinov2

ENCODER_WIDTH = 96
RESOLUTION = 512

# rfdetr looks its encoders up by name; an absolute path to the configuration is taken as it is.
# Source: rfdetr 1.11.2, models/backbone/dinov2.py, get_config.
dinov2.size_to_config["micro"] = str(Path(__file__).with_name("dinov2_micro.json"))
dinov2.size_to_width["micro"] = ENCODER_WIDTH


class RFDETRMicroConfig(RFDETRNanoConfig):
    """RF-DETR Nano with a 96 x 4 encoder, without pretrained weights: 1.9 M parameters.

    Attributes:
        group_detr: Parallel query groups in training; one of them serves.
    """

    encoder: Literal["dinov2_windowed_micro"] = "dinov2_windowed_micro"  # type: ignore[assignment]
    out_feature_indexes: list[int] = Field(default=[2, 4])
    hidden_dim: int = ENCODER_WIDTH
    sa_nheads: int = 4
    ca_nheads: int = 8
    num_queries: int = 60
    num_select: int = 60
    group_detr: int = 5
    resolution: int = RESOLUTION
    positional_encoding_size: int = RESOLUTION // 16
    pretrain_weights: str | None = None
    num_classes: int = 2
    device: Literal["cpu"] = "cpu"


class RFDETRMicro(RFDETRNano):
    """The model that loads checkpoints of `RFDETRMicroConfig`, through `pretrain_weights`."""

    size = "rfdetr-micro"
    _model_config_class = RFDETRMicroConfig  # type: ignore[assignment]
