from pathlib import Path

import pytest
import torch
from google.protobuf import text_format
from sam2_streaming.effort import Effort
from sam2_streaming.parameters import Parameters
from tritonclient.grpc.model_config_pb2 import ModelConfig

MODEL = Path(__file__).parents[2] / "model_repository" / "sam2_tracker"


def config(variant, **changes):
    parsed = text_format.Parse((MODEL / variant).read_text(), ModelConfig())
    texts = {key: value.string_value for key, value in parsed.parameters.items()} | changes
    return {"parameters": {key: {"string_value": text} for key, text in texts.items()}}


@pytest.mark.parametrize("variant", ["config.pbtxt", "configs/cpu.pbtxt"])
def test_the_committed_configurations_look_at_everybody_through_windows(variant):
    parameters = Parameters.of(config(variant))
    assert parameters.mode == "window"
    assert parameters.context == 2.0
    assert parameters.effort == Effort()


def test_parameters_are_read():
    changes = {"rest_frames": "3", "max_observed": "12", "context": "3.5", "dtype": "float32"}
    parameters = Parameters.of(config("configs/cpu.pbtxt", image_size="256", **changes))
    assert parameters.effort == Effort(rest_frames=3, max_observed=12)
    assert (parameters.context, parameters.image_size) == (3.5, 256)
    assert parameters.dtype == torch.float32


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("rest_frames", "0"),
        ("max_observed", "-1"),
        ("context", "0.5"),
        ("context", "nan"),
        ("slots", "0"),
        ("ttl_s", "0"),
        ("threads", "many"),
        ("threads", "1.5"),
        ("image_size", "100"),
        ("image_size", "large"),
        ("image_size", "0"),
    ],
)
def test_a_number_out_of_range_is_refused(key, text):
    with pytest.raises(ValueError, match=f"parameter {key}: expected .*got {text}"):
        Parameters.of(config("configs/cpu.pbtxt", **{key: text}))


@pytest.mark.parametrize("key", ["mode", "dtype"])
def test_an_unknown_word_is_refused(key):
    with pytest.raises(ValueError, match=rf"parameter {key}: expected one of \[.*\], got both"):
        Parameters.of(config("configs/cpu.pbtxt", **{key: "both"}))
