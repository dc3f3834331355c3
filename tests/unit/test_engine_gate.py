"""The gate on real weights: sound fp16 passes, damage of every kind is refused and named.

No GPU is needed: the gate takes anything that runs, and here onnxruntime runs both sides.
"""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from training.engine.gate import GateError, pass_gate, thresholds
from training.export.families import DETECTOR, JERSEY, input_side
from training.export.graph import onnx_runner
from training.export.inputs import read_pictures
from training.export.precision import Precision, converted
from training.export.storage import restore_fp32

ROOT = Path(__file__).parents[2]
FRAME = ROOT / "tests" / "data" / "frame.jpg"


class Case:
    """A family with its demo graph and the graph's answers on real pictures."""

    def __init__(self, family):
        path = ROOT / "model_repository" / family.contract.name / "weights" / "demo.onnx"
        self.family = family
        self.graph = restore_fp32(onnx.load(path))
        self.rows = family.inputs(read_pictures(FRAME, 1), input_side(self.graph))
        self.answers = onnx_runner(self.graph)(self.rows)

    def judge(self, candidate):
        return pass_gate(lambda _rows: self.answers, candidate, self.family, self.rows)

    def judge_graph(self, graph):
        return self.judge(onnx_runner(graph))

    def weights(self, graph):
        """Weights of layers by name, the largest first; float32 or float16 alike."""
        floats = {TensorProto.FLOAT, TensorProto.FLOAT16}
        layers = [w for w in graph.graph.initializer if w.data_type in floats and len(w.dims) > 1]
        return sorted(layers, key=lambda w: -np.prod(w.dims))


@pytest.fixture(scope="module", params=[DETECTOR, JERSEY], ids=lambda f: f.contract.name)
def case(request):
    return Case(request.param)


def damaged(case, precision, damage, layer=0):
    graph = converted(case.graph, precision)
    weight = case.weights(graph)[layer]
    values = numpy_helper.to_array(weight).copy()
    damage(values)
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    return graph


def test_a_sound_fp16_graph_passes_with_its_figures(case):
    figures = case.judge_graph(converted(case.graph, Precision.FP16))
    kinds = {name.rpartition(".")[2] for name in figures}
    assert kinds == set(thresholds(case.family))


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
def test_noise_on_one_layer_is_refused(case, precision):
    def noise(values):
        spread = np.random.default_rng(0).normal(0, values.std(), values.shape)
        values += spread.astype(values.dtype)

    with pytest.raises(GateError, match="at (least|most)"):
        case.judge_graph(damaged(case, precision, noise))


def test_a_zeroed_channel_is_refused(case):
    layer = 0 if case.family is JERSEY else 4  # the largest convolution; the patch embedding

    def zero(values):
        channels = np.abs(values).reshape(len(values), -1).sum(1)
        values[channels.argmax()] = 0

    with pytest.raises(GateError, match="at (least|most)"):
        case.judge_graph(damaged(case, Precision.FP16, zero, layer))


def test_swapped_heads_are_refused(case):
    def swapped(rows):
        found = dict(onnx_runner(converted(case.graph, Precision.FP16))(rows))
        if case.family is DETECTOR:
            found["logits"] = found["logits"][..., [1, 0, 2]]
        else:
            found["tens"], found["kit_colour"] = found["kit_colour"], found["tens"]
        return found

    expected = "matched 0" if case.family is DETECTOR else r"tens\.top1 .* kit_colour\.top1"
    with pytest.raises(GateError, match=expected):
        case.judge(swapped)


def test_saturated_fp16_is_refused_as_not_finite(case):
    """What an fp16 engine does whose activations leave the range: inf, and nan after it."""

    def saturate(values):
        wide = values.astype(np.float32)
        values[:] = 60000 * wide / np.abs(wide).max()

    # onnxruntime keeps sums in fp32 on a CPU, so what leaves the range is cut here.
    graph = onnx_runner(damaged(case, Precision.FP16, saturate))

    def engine(rows):
        with np.errstate(over="ignore"):
            return {
                name: v.astype(np.float16).astype(np.float32) for name, v in graph(rows).items()
            }

    with pytest.raises(GateError, match="finite"):
        case.judge(engine)


def test_answers_for_other_pictures_are_refused(case):
    mirrored = np.ascontiguousarray(case.rows[:, ::-1])
    with pytest.raises(GateError):
        case.judge(lambda _rows: onnx_runner(case.graph)(mirrored))
