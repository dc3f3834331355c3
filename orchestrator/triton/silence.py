"""Whether a server that answers no request hangs, or is merely slow.

No model, however long its batch, keeps a server from saying that it lives. Where the machine, the
network or this very process is what is slow, that answer is late, too; so another server is asked
at the same time, and only one that is silent while the other speaks is taken to hang. A server with
no other beside it is given the longest time that a request may take: nothing that could be asked of
it alone tells a hang from a machine that stands still.
"""

import asyncio

from orchestrator.triton.connection import Connection
from orchestrator.triton.probe import Answer, answer


async def hangs(suspect: Connection, witness: Connection, timeout_s: float) -> bool:
    """Whether a server says nothing for so long, in seconds, while another one speaks."""
    own, other = await asyncio.gather(_life(suspect, timeout_s), _life(witness, timeout_s))
    return own is Answer.NONE and other is Answer.YES


async def _life(connection: Connection, timeout_s: float) -> Answer:
    """Ask a server whether it lives, which it answers however busy its models are.

    Whether a model is ready it may have to ask the model's process for (Triton from 2026 on), which
    is no sign of life of its own.
    """
    return await answer(connection.client.is_server_live(client_timeout=timeout_s))
