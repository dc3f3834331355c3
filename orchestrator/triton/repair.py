"""Repair of a model whose process died: Triton never restarts it, but can load it anew."""

import asyncio
import contextlib
import random

from tritonclient.grpc import aio as triton_aio

_CALL_S = 5.0
RELOAD_S = 120.0
"""Longest time for one reload: large weights take their time."""
_UNLOAD_S = 3.0
"""Longest wait until a model is unloaded; usually a second. One that died while it executed a batch
stays "unloading" for good (Triton 2.51), and can be loaded all the same."""
_POLL_S = 0.1
_SPREAD_S = 0.5


async def reload(
    client: triton_aio.InferenceServerClient, model: str, *, is_first: bool = True
) -> None:
    """Unload a model, let it go, and load it: `load` alone may change nothing.

    Where several orchestrators find the same dead process, one repairs and the others see that.

    Args:
        client: Of the server.
        model: Name of the model.
        is_first: Whether a model that is not ready must be in others' hands; else it may be one
            that was unloaded and did not load, here or by somebody who is gone.

    Raises:
        TimeoutError: It took too long, here or in others' hands.
        InferenceServerException: The server refused, or runs without model control.
    """
    await asyncio.sleep(random.uniform(0, _SPREAD_S))
    async with asyncio.timeout(RELOAD_S):
        if "READY" in await _states(client, model):  # loaded, that is; its process may be dead
            await _unload(client, model)
        elif is_first:
            await _reloaded(client, model)
            return
        await client.load_model(model)


async def _reloaded(client: triton_aio.InferenceServerClient, model: str) -> None:
    """Wait for a model that somebody else is at."""
    while "READY" not in await _states(client, model):  # noqa: ASYNC110  only polling tells
        await asyncio.sleep(_POLL_S)


async def _unload(client: triton_aio.InferenceServerClient, model: str) -> None:
    await client.unload_model(model, client_timeout=_CALL_S)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_UNLOAD_S):
            # Any version may be ready, or still unloading.
            while await _states(client, model) - {"", "UNAVAILABLE"}:  # noqa: ASYNC110
                await asyncio.sleep(_POLL_S)


async def _states(client: triton_aio.InferenceServerClient, model: str) -> set[str]:
    """Return the states of a model's versions."""
    index = await client.get_model_repository_index(client_timeout=_CALL_S)
    return {entry.state for entry in index.models if entry.name == model}
