"""What a server says when it is asked about a model; requests to the model are another matter."""

from collections.abc import Awaitable
from enum import Enum, auto

from tritonclient.utils import InferenceServerException

from orchestrator.contracts import ModelContract
from orchestrator.errors import ModelUnavailableError
from orchestrator.settings import TritonSettings
from orchestrator.triton.codec import LiveModel
from orchestrator.triton.connection import Connection
from orchestrator.triton.faults import ReplicaDownError
from orchestrator.triton.live_model import read_model
from orchestrator.triton.transport import SharedMemoryPool


class Answer(Enum):
    """How a server answered a question."""

    YES = auto()
    NO = auto()
    NONE = auto()
    """Nothing came in time."""
    ERROR = auto()
    """Nobody is there, or it is about to end."""


class Probe:
    """Asks one server about one model."""

    def __init__(
        self,
        contract: ModelContract,
        connection: Connection,
        memory: SharedMemoryPool,
        settings: TritonSettings,
    ) -> None:
        self._contract = contract
        self._connection = connection
        self._memory = memory
        self._settings = settings

    async def is_ready(self) -> Answer:
        """Ask whether the model is ready."""
        name, timeout_s = self._contract.name, self._settings.probe_timeout_s
        return await answer(self._connection.client.is_model_ready(name, client_timeout=timeout_s))

    async def model(self) -> LiveModel:
        """Find out whether the model can be used, and what it is like.

        Raises:
            ModelUnavailableError: It is not ready, or the transport that the settings ask for does
                not work.
            TensorContractError: It differs from its contract.
        """
        name, timeout_s = self._contract.name, self._settings.probe_timeout_s
        client = self._connection.client
        try:
            if not await client.is_model_ready(name, client_timeout=timeout_s):
                raise ReplicaDownError(name, "not ready")
            model = await read_model(client, self._contract, timeout_s)
        except InferenceServerException as error:
            if _is_late(error):
                self._connection.renew()
            raise ReplicaDownError(name, error.message()) from error
        await self._try_shared_memory()
        return model

    async def _try_shared_memory(self) -> None:
        if self._settings.transport == "grpc":
            return
        shares = await self._connection.probe_shared_memory(self._memory)
        if not shares and self._settings.transport == "shared_memory":
            raise ModelUnavailableError(
                self._connection.address,
                "triton.transport is shared_memory, but this server cannot open a region of "
                "this host; expected both in one IPC namespace with room in /dev/shm",
            )


async def answer(question: Awaitable[bool]) -> Answer:
    """Await a question to a server that has a timeout of its own."""
    try:
        return Answer.YES if await question else Answer.NO
    except InferenceServerException as error:
        return Answer.NONE if _is_late(error) else Answer.ERROR


def _is_late(error: InferenceServerException) -> bool:
    return "DEADLINE_EXCEEDED" in (error.status() or "")
