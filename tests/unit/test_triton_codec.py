"""Tensors and live models are held to the contracts, by name and with both shapes."""

import numpy as np
import pytest
from tritonclient.grpc import InferResult, service_pb2

from orchestrator.contracts import (
    CONTRACTS,
    RFDETR_DETECTOR,
    SAM2_TRACKER,
    SIGLIP_EMBEDDER,
    ModelContract,
)
from orchestrator.errors import TensorContractError
from orchestrator.triton.codec import LiveModel, check, decode
from orchestrator.triton.live_model import check_metadata, check_replica

DETECTOR = LiveModel(RFDETR_DETECTOR, 8, {"R": 416, "Q": 100, "L": 3})


def metadata(contract: ModelContract, sizes: dict[str, int]) -> service_pb2.ModelMetadataResponse:
    def tensors(specs):
        return [
            {
                "name": spec.name,
                "datatype": spec.dtype,
                "shape": [-1, *(d if isinstance(d, int) else sizes[d] for d in spec.dims)],
            }
            for spec in specs
        ]

    return service_pb2.ModelMetadataResponse(
        name=contract.name, inputs=tensors(contract.inputs), outputs=tensors(contract.outputs)
    )


SIZES = {"R": 416, "Q": 100, "L": 3, "S": 64, "D": 128}


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.name)
def test_a_model_that_keeps_its_contract_binds_its_sizes(contract):
    bound: dict[str, int] = {}
    check_metadata(contract, metadata(contract, SIZES), bound)
    assert bound == {key: SIZES[key] for key in bound}


def test_one_changed_dim_is_named_with_both_shapes():
    live = metadata(RFDETR_DETECTOR, SIZES)
    live.inputs[0].shape[2] = 400
    with pytest.raises(TensorContractError) as caught:
        check_metadata(RFDETR_DETECTOR, live, {})
    text = str(caught.value)
    assert "rfdetr_detector" in text
    assert "input image" in text
    assert "[-1, R, R, 3]" in text
    assert "[-1, 416, 400, 3]" in text


def test_another_dtype_is_refused():
    live = metadata(SIGLIP_EMBEDDER, SIZES)
    live.inputs[0].datatype = "FP32"
    with pytest.raises(TensorContractError, match="expected UINT8.*live server has FP32"):
        check_metadata(SIGLIP_EMBEDDER, live, {})


@pytest.mark.parametrize(("sizes", "batch"), [({"R": 400, "Q": 100, "L": 3}, 8), ({}, 4)])
def test_a_replica_unlike_the_others_is_refused(sizes, batch):
    check_replica(DETECTOR, LiveModel(RFDETR_DETECTOR, 16, DETECTOR.sizes))
    with pytest.raises(TensorContractError, match="batches of 8 as of the other replicas"):
        check_replica(DETECTOR, LiveModel(RFDETR_DETECTOR, batch, sizes or DETECTOR.sizes))


def test_a_missing_output_is_named():
    live = metadata(SAM2_TRACKER, SIZES)
    del live.outputs[-1]
    with pytest.raises(TensorContractError, match="outputs: expected .*masks"):
        check_metadata(SAM2_TRACKER, live, {})


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((1, 416, 400, 3), np.uint8),
        np.zeros((416, 416, 3), np.uint8),
        np.zeros((1, 416, 416, 3), np.float32),
    ],
)
def test_an_array_that_breaks_the_contract_is_refused(array):
    with pytest.raises(TensorContractError, match=r"tensor image: expected UINT8 \[batch, 416"):
        check(DETECTOR, "image", array)


def test_an_unknown_tensor_is_refused():
    with pytest.raises(TensorContractError, match="has no tensor 'picture'"):
        check(DETECTOR, "picture", np.zeros((1, 416, 416, 3), np.uint8))


@pytest.mark.parametrize(
    ("contract", "name", "datatype"),
    [(SIGLIP_EMBEDDER, "embedding", "FP32"), (SAM2_TRACKER, "masks", "BYTES")],
)
def test_an_output_whose_bytes_do_not_fill_it_is_named(contract, name, datatype):
    sizes = {"S": 64, "D": 128}
    reply = service_pb2.ModelInferResponse(model_name=contract.name)
    for spec in contract.outputs:
        shape = [1, *(d if isinstance(d, int) and d > 0 else 0 for d in spec.dims)]
        reply.outputs.add(name=spec.name, datatype=spec.dtype, shape=shape)
        reply.raw_output_contents.append(b"")
    index = [output.name for output in reply.outputs].index(name)
    reply.outputs[index].shape[:] = [1, 128]
    reply.raw_output_contents[index] = b"\x09\x00"  # as of a model whose numpy is too new
    with pytest.raises(TensorContractError, match=rf"output {name}: .*{datatype} \[1, 128\]"):
        decode(LiveModel(contract, 8, sizes), InferResult(reply), rows=1)


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_an_answer_about_more_or_fewer_rows_than_were_asked_about_is_refused(rows):
    reply = service_pb2.ModelInferResponse(model_name=SIGLIP_EMBEDDER.name)
    reply.outputs.add(name="embedding", datatype="FP32", shape=[rows, 2])
    reply.raw_output_contents.append(bytes(4 * rows * 2))
    model = LiveModel(SIGLIP_EMBEDDER, 8, {"S": 64, "D": 2})
    expected = rf"expected FP32 \[2, 2\], got FP32 \[{rows}, 2\]"
    with pytest.raises(TensorContractError, match=expected):
        decode(model, InferResult(reply), rows=2)


def test_sizes_that_may_differ_do():
    model = LiveModel(SAM2_TRACKER, 8)
    for height in (90, 1080):
        check(model, "frame", np.zeros((1, height, 160, 3), np.uint8))
    assert model.dims(SAM2_TRACKER.tensor("frame")) == (-1, -1, 3)
