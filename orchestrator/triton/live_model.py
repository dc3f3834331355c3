"""What a server says of its models, held against the contracts."""

from tritonclient.grpc import aio as triton_aio
from tritonclient.grpc import model_config_pb2, service_pb2

from orchestrator.contracts import ModelContract
from orchestrator.errors import TensorContractError
from orchestrator.triton.codec import LiveModel, bind

_LABELS = "labels"
"""Parameter that says what the columns of a tensor mean."""


async def read_model(
    client: triton_aio.InferenceServerClient, contract: ModelContract, timeout_s: float
) -> LiveModel:
    """Ask a server about a model.

    Raises:
        TensorContractError: The model differs from its contract.
        InferenceServerException: The server gave no answer.
    """
    name = contract.name
    metadata = await client.get_model_metadata(name, client_timeout=timeout_s)
    config = (await client.get_model_config(name, client_timeout=timeout_s)).config
    sizes: dict[str, int] = {}
    check_metadata(contract, metadata, sizes)
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    return LiveModel(contract, config.max_batch_size, sizes, parameters, _instances(config))


def check_metadata(
    contract: ModelContract, metadata: service_pb2.ModelMetadataResponse, sizes: dict[str, int]
) -> None:
    """Compare a live model with its contract, binding the contract's symbols in `sizes`.

    Raises:
        TensorContractError: Names the model, the tensor and both shapes.
    """
    for kind, specs, live in (
        ("input", contract.inputs, metadata.inputs),
        ("output", contract.outputs, metadata.outputs),
    ):
        found = {tensor.name: tensor for tensor in live}
        names = {spec.name for spec in specs}
        if names != found.keys():
            raise TensorContractError(
                contract.name, f"{kind}s: expected {sorted(names)}, live server has {sorted(found)}"
            )
        for spec in specs:
            tensor = found[spec.name]
            shape = tuple(tensor.shape)
            if tensor.datatype != spec.dtype or not bind((-1, *spec.dims), shape, sizes):
                raise TensorContractError(
                    contract.name,
                    f"{kind} {spec.name}: expected {spec.dtype} "
                    f"[-1, {', '.join(map(str, spec.dims))}] with {sizes}, "
                    f"live server has {tensor.datatype} {list(shape)}",
                )


def check_replica(expected: LiveModel, found: LiveModel) -> None:
    """Compare a further replica with the model that streams were opened with.

    Raises:
        TensorContractError: Its tensors have other sizes or labels, or it takes smaller batches.
    """
    labels, other = (model.parameters.get(_LABELS) for model in (expected, found))
    if labels != other:
        raise TensorContractError(
            expected.contract.name,
            f"expected labels {labels} as of the other replicas, live server has {other}",
        )
    if found.sizes != expected.sizes or found.max_batch_size < expected.max_batch_size:
        raise TensorContractError(
            expected.contract.name,
            f"expected {dict(expected.sizes)} and batches of {expected.max_batch_size} as of the "
            f"other replicas, live server has {dict(found.sizes)} and {found.max_batch_size}",
        )


def _instances(config: model_config_pb2.ModelConfig) -> int:
    """Executions that run at once: each group's count on each of its GPUs."""
    return sum(max(1, group.count) * max(1, len(group.gpus)) for group in config.instance_group)
