"""Is the model behind this tritonserver alive? A liveness check: exit code 0, or 1 with the reason.

    model_alive.py [MODEL] [--server http://127.0.0.1:8000] [--seconds 10] [--ready]

MODEL is $MODEL if it is not named. With --ready Triton is only asked whether it is ready: a check
of start-up and readiness where HTTP is open within the pod alone.

Triton reports a model as ready for ever, even after its process was killed or its GPU context was
lost, and never starts it again. So this check asks the model for one real, tiny inference. Dead is
a model that answers with an internal error, or that gives no answer in time and answers nobody else
meanwhile. A refusal, such as that of a tracker without a free slot, is a sign of life; so is work
for others: a busy model must not be restarted for being busy.
"""

import argparse
import json
import math
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

FREE_DIMENSION = 64
"""Size of a dimension that the config leaves open, such as the width of a frame."""

_ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "INT8", "UINT8"), 1),
    **dict.fromkeys(("INT16", "UINT16", "FP16", "BF16"), 2),
    **dict.fromkeys(("INT32", "UINT32", "FP32"), 4),
    **dict.fromkeys(("INT64", "UINT64", "FP64"), 8),
    "BYTES": 4,  # a length of zero: the empty string
}


class DeadModelError(Exception):
    """The model does not work any more; its text says how that showed."""


def check(server: str, model: str, seconds: float) -> str:
    """Ask a model for one inference.

    Args:
        server: `http://host:port` of Triton.
        model: The model's name.
        seconds: How long an answer may take.

    Returns:
        The sign of life.

    Raises:
        DeadModelError: The model, or the whole server, does not work any more.
    """
    url = f"{server}/v2/models/{model}"
    try:
        before = _answered(url, seconds)
        header, body = probe_request(_get(f"{url}/config", seconds))
        try:
            return _infer(f"{url}/infer", header, body, seconds)
        except TimeoutError:
            return _sign_of_other_work(before, _answered(url, seconds), seconds)
    except urllib.error.HTTPError as error:
        return _refusal(error)
    except OSError as error:
        raise DeadModelError(f"the server does not answer: {error}") from error


def check_ready(server: str, seconds: float) -> str:
    """Ask Triton whether it is ready, all models loaded.

    Raises:
        DeadModelError: It is not, or not yet.
    """
    try:
        with urllib.request.urlopen(f"{server}/v2/health/ready", timeout=seconds):
            return "ready"
    except OSError as error:
        raise DeadModelError(f"not ready: {error}") from error


def probe_request(config: dict[str, Any]) -> tuple[bytes, bytes]:
    """Return JSON header and binary tensors of a request of one row of zeros.

    All inputs that the config requires are sent; where all are optional, the first one. A sequence
    begins and ends with this one request.
    """
    wanted = [one for one in config["input"] if not one.get("optional")] or config["input"][:1]
    tensors = list(_zeros(wanted, has_batch=config.get("max_batch_size", 0) > 0))
    parameters: dict[str, Any] = {"binary_data_output": True}
    if "sequence_batching" in config:
        sequence = 1 + int.from_bytes(os.urandom(6), "big")
        parameters |= {"sequence_id": sequence, "sequence_start": True, "sequence_end": True}
    header = json.dumps({"inputs": [head for head, _ in tensors], "parameters": parameters})
    return header.encode(), b"".join(data for _, data in tensors)


def _zeros(inputs: list[dict[str, Any]], *, has_batch: bool) -> Iterator[tuple[Any, bytes]]:
    for one in inputs:
        dims = [int(dim) for dim in one["dims"]]  # 64-bit numbers are texts in protobuf's JSON
        shape = [1] * has_batch + [FREE_DIMENSION if dim < 0 else dim for dim in dims]
        datatype = one["data_type"].removeprefix("TYPE_").replace("STRING", "BYTES")
        data = bytes(math.prod(shape) * _ITEM_BYTES[datatype])
        size = {"binary_data_size": len(data)}
        yield {"name": one["name"], "shape": shape, "datatype": datatype, "parameters": size}, data


def _infer(url: str, header: bytes, body: bytes, seconds: float) -> str:
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(header)),
    }
    request = urllib.request.Request(url, header + body, headers, method="POST")
    with urllib.request.urlopen(request, timeout=seconds) as reply:
        reply.read()
    return "it answered"


def _refusal(error: urllib.error.HTTPError) -> str:
    text = error.read().decode(errors="replace").strip()
    if error.code == HTTPStatus.INTERNAL_SERVER_ERROR:
        raise DeadModelError(f"it fails: {text}") from error
    return f"it refused: {text}"


def _sign_of_other_work(before: int, after: int, seconds: float) -> str:
    if after == before:
        raise DeadModelError(f"it answered nobody within {seconds:g} s")
    return "it is busy with others"


def _answered(url: str, seconds: float) -> int:
    """Return the number of rows answered since the start."""
    statistics = _get(f"{url}/stats", seconds)["model_stats"]
    return sum(int(version["inference_count"]) for version in statistics)


def _get(url: str, seconds: float) -> Any:
    with urllib.request.urlopen(url, timeout=seconds) as reply:
        return json.load(reply)


def main(arguments: list[str] | None = None) -> int:
    """Run the check of the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Liveness check of a model.")
    parser.add_argument("model", nargs="?", default=os.environ.get("MODEL"), metavar="MODEL")
    parser.add_argument("--server", default="http://127.0.0.1:8000", metavar="URL")
    parser.add_argument("--seconds", type=float, default=10.0, help="longest wait for an answer")
    parser.add_argument("--ready", action="store_true", help="only ask whether Triton is ready")
    options = parser.parse_args(arguments)
    if not (options.model or options.ready):
        parser.error("MODEL: expected a name, here or in $MODEL")
    try:
        if options.ready:
            sign = check_ready(options.server, options.seconds)
        else:
            sign = check(options.server, options.model, options.seconds)
    except DeadModelError as error:
        sys.stderr.write(f"{options.model}: {error}\n")
        return 1
    sys.stdout.write(f"{options.model}: {sign}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
