"""The forms of the committed demo graphs keep the contract's tensors and the graph's answers."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from training.errors import InputError
from training.export.agreement import violations
from training.export.families import DETECTOR, JERSEY, family_of, input_side
from training.export.graph import onnx_runner
from training.export.inputs import detector_inputs, jersey_inputs, read_pictures
from training.export.precision import Precision, converted
from training.export.storage import restore_fp32

ROOT = Path(__file__).parents[2]
CLIP = ROOT / "tests" / "data" / "demo_01.mp4"
FAMILIES = [DETECTOR, JERSEY]
SMALLER = [Precision.FP16, Precision.FP16_STORED, Precision.INT8]


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.contract.name)
def demo(request):
    """A family, its demo graph in fp32, inputs, and the graph's answers."""
    family = request.param
    path = ROOT / "model_repository" / family.contract.name / "weights" / "demo.onnx"
    graph = restore_fp32(onnx.load(path))
    rows = family.inputs(read_pictures(CLIP, 12), input_side(graph))
    return family, graph, rows, onnx_runner(graph)(rows)


@pytest.fixture(scope="module")
def forms(demo):
    """The demo graph in every smaller precision."""
    return {precision: converted(demo[1], precision) for precision in SMALLER}


def tensor_types(graph):
    inferred = onnx.shape_inference.infer_shapes(graph, strict_mode=True).graph
    values = (*inferred.value_info, *inferred.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


@pytest.mark.parametrize("precision", SMALLER)
def test_every_form_answers_as_the_fp32_graph_within_its_limits(demo, forms, precision):
    family, _, rows, expected = demo
    found = onnx_runner(forms[precision])(rows)
    assert violations(family.compare(expected, found), family.limits[precision]) == []


@pytest.mark.parametrize("precision", SMALLER)
def test_every_form_is_smaller_and_leaves_its_original_alone(demo, forms, precision):
    _, graph, _, _ = demo
    assert forms[precision].ByteSize() < 0.6 * graph.ByteSize()
    types = {weight.data_type for weight in graph.graph.initializer}
    assert types <= {TensorProto.FLOAT, TensorProto.INT64}


def test_the_fp16_form_computes_in_fp16_between_uint8_and_fp32(forms):
    form = forms[Precision.FP16]
    onnx.checker.check_model(form, full_check=True)
    types = tensor_types(form)
    heavy = [n for n in form.graph.node if n.op_type in {"Conv", "MatMul", "Gemm"}]
    assert len(heavy) > 10
    assert {types[node.output[0]] for node in heavy} == {TensorProto.FLOAT16}
    assert {v.type.tensor_type.elem_type for v in form.graph.input} == {TensorProto.UINT8}
    assert {v.type.tensor_type.elem_type for v in form.graph.output} == {TensorProto.FLOAT}


def test_what_is_computed_after_the_last_layer_is_not_rounded_to_fp16(demo, forms):
    family, _, rows, _ = demo
    if family is JERSEY:
        pytest.skip("its logits come straight from a layer")
    boxes = onnx_runner(forms[Precision.FP16])(rows)["boxes"]
    assert (boxes != boxes.astype(np.float16)).mean() > 0.9


def test_the_int8_form_multiplies_integers(demo, forms):
    count = Counter(node.op_type for node in forms[Precision.INT8].graph.node)
    assert count["ConvInteger" if demo[0] is JERSEY else "MatMulInteger"] >= 10


def test_restored_weights_are_the_stored_ones(demo):
    _, graph, _, _ = demo
    stored = converted(graph, Precision.FP16_STORED)
    restored = restore_fp32(stored)
    assert {weight.data_type for weight in restored.graph.initializer} >= {TensorProto.FLOAT}
    assert TensorProto.FLOAT16 not in {weight.data_type for weight in restored.graph.initializer}
    assert len(restored.graph.node) == len(graph.graph.node)


def test_a_graph_s_family_is_known_by_its_tensors(demo):
    family, graph, _, _ = demo
    assert family_of(graph) is family
    graph = onnx.ModelProto.FromString(graph.SerializeToString())
    graph.graph.output[0].name = "masks"
    with pytest.raises(
        InputError, match="expected the tensors of rfdetr_detector or resnet_jersey"
    ):
        family_of(graph)


def test_a_clip_gives_squares_for_the_detector_and_busy_windows_for_the_jersey_net(clip):
    pictures = read_pictures(clip, 3)
    assert len(pictures) == 3
    assert not np.array_equal(pictures[0], pictures[2])
    assert detector_inputs(pictures, 96).shape == (6, 96, 96, 3)
    windows = jersey_inputs(pictures, per_picture=5)
    assert windows.shape == (15, 128, 64, 3)
    assert windows.std(axis=(1, 2)).mean() > pictures[0][300:600].std(axis=(0, 1)).mean()


@pytest.mark.parametrize("shape", [(7, 20, 3), (1, 2, 3)])
def test_a_picture_of_a_few_pixels_still_gives_crops(shape):
    assert jersey_inputs([np.zeros(shape, np.uint8)]).shape[1:] == (128, 64, 3)


def test_a_portrait_picture_is_one_crop():
    assert jersey_inputs([np.zeros((90, 40, 3), np.uint8)]).shape == (1, 128, 64, 3)


def test_a_folder_without_pictures_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path}: expected pictures"):
        read_pictures(tmp_path, 3)
    with pytest.raises(InputError, match="gone.mp4"):
        read_pictures(tmp_path / "gone.mp4", 3)
