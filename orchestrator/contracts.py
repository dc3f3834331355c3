"""THE tensor contracts: what every variant of a Triton model takes and gives.

Each name, dtype and shape is written by hand twice: here and in the model's pbtxt files.
`tests/contract` proves all pbtxt files equal to this module; `orchestrator.triton` refuses a live
server that differs, and checks every tensor that passes.

Dims are ints, or symbols such as "R" whose size belongs to the weights. Equal symbols within one
contract stand for equal sizes. `-1` means the size may differ from request to request.
"""

from dataclasses import dataclass

Dim = int | str


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of a model, without the batch dimension."""

    name: str
    dtype: str
    """Triton's name: UINT8, INT32, INT64, FP32, BOOL or BYTES."""
    dims: tuple[Dim, ...]
    meaning: str
    is_optional: bool = False


@dataclass(frozen=True, slots=True)
class ModelContract:
    """One Triton model; every request has a leading batch dimension."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    is_sequence: bool = False

    def tensor(self, name: str) -> TensorSpec:
        """Return the input or output called `name`; KeyError if there is none."""
        for spec in (*self.inputs, *self.outputs):
            if spec.name == name:
                return spec
        raise KeyError(f"{self.name} has no tensor {name!r}")


RFDETR_DETECTOR = ModelContract(
    name="rfdetr_detector",
    inputs=(
        TensorSpec(
            "image",
            "UINT8",
            ("R", "R", 3),
            "RGB pixels of a picture or of one tile of it, resized to the square without keeping "
            "its aspect; normalisation is inside the graph",
        ),
    ),
    outputs=(
        TensorSpec("boxes", "FP32", ("Q", 4), "(cx, cy, w, h) as a share of the input's side"),
        TensorSpec(
            "logits",
            "FP32",
            ("Q", "L"),
            "one column per label of the config parameter `labels`, then one for background; "
            "sigmoid, not softmax",
        ),
    ),
)

SAM2_TRACKER = ModelContract(
    name="sam2_tracker",
    is_sequence=True,
    inputs=(
        TensorSpec("frame", "UINT8", (-1, -1, 3), "RGB pixels, (height, width, 3)", True),
        TensorSpec("frame_jpeg", "BYTES", (1,), "the frame as JPEG instead of `frame`", True),
        TensorSpec(
            "prompt_object_ids",
            "INT64",
            (-1,),
            "objects to start, or to correct when already tracked; 1 or more, unique",
            True,
        ),
        TensorSpec(
            "prompt_boxes", "FP32", (-1, 4), "xyxy in frame pixels, one row per prompt id", True
        ),
        TensorSpec(
            "prompt_masks",
            "BYTES",
            (-1,),
            "COCO compressed RLE counts of the whole frame, one per prompt id; with a mask the box "
            "only places the window, and an empty one lets the box count",
            True,
        ),
        TensorSpec(
            "click_object_ids",
            "INT64",
            (-1,),
            "object of each click: tracked, or prompted by a box in this request",
            True,
        ),
        TensorSpec(
            "clicks",
            "FP32",
            (-1, 3),
            "x and y in frame pixels, then 1 on the object or 0 beside it",
            True,
        ),
        TensorSpec("forget_object_ids", "INT64", (-1,), "objects to drop before this frame", True),
        TensorSpec(
            "max_observed",
            "INT32",
            (1,),
            "most objects to look for in this frame, prompts first; 0 for all of them",
            True,
        ),
    ),
    outputs=(
        TensorSpec("object_ids", "INT64", (-1,), "tracked objects, ascending"),
        TensorSpec(
            "boxes", "FP32", (-1, 4), "xyxy of each mask in frame pixels; all zero if it is empty"
        ),
        TensorSpec(
            "scores", "FP32", (-1,), "belief that the object is in sight and the mask right, [0, 1]"
        ),
        TensorSpec("masks", "BYTES", (-1,), "COCO compressed RLE counts of the full-frame mask"),
        TensorSpec(
            "observed", "BOOL", (-1,), "looked for in this frame, or predicted from its motion"
        ),
    ),
)

SIGLIP_EMBEDDER = ModelContract(
    name="siglip_embedder",
    inputs=(
        TensorSpec(
            "crops",
            "UINT8",
            ("S", "S", 3),
            "RGB pixels of one person's box, resized to the square; normalised by the model",
        ),
    ),
    outputs=(TensorSpec("embedding", "FP32", ("D",), "L2-normalised, same space as siglip_text"),),
)

SIGLIP_TEXT = ModelContract(
    name="siglip_text",
    inputs=(TensorSpec("text", "BYTES", (1,), "UTF-8 description of a person or kit"),),
    outputs=(TensorSpec("embedding", "FP32", ("D",), "L2-normalised, as of siglip_embedder"),),
)

JERSEY_CROP = (128, 64)
"""Height and width in pixels."""

RESNET_JERSEY = ModelContract(
    name="resnet_jersey",
    inputs=(
        TensorSpec(
            "crops",
            "UINT8",
            (*JERSEY_CROP, 3),
            "RGB pixels of one person's box, resized to 128x64; normalised inside the graph",
        ),
    ),
    outputs=(
        TensorSpec("number_visible", "FP32", (1,), "logit: the number can be read in this crop"),
        TensorSpec("tens", "FP32", (11,), "logits of the tens digit 0-9; column 10: no tens digit"),
        TensorSpec("units", "FP32", (10,), "logits of the units digit"),
        TensorSpec("role", "FP32", (4,), "logits of player, goalkeeper, referee, other"),
        TensorSpec("kit_colour", "FP32", (11,), "logits of the shirt's colour, see KIT_COLOURS"),
    ),
)

KIT_COLOURS = (
    "black", "white", "grey", "red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink",
)  # fmt: skip

CONTRACTS = (RFDETR_DETECTOR, SAM2_TRACKER, SIGLIP_EMBEDDER, SIGLIP_TEXT, RESNET_JERSEY)
