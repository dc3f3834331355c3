"""The guard at the public port: all of this folder, put together once per process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc

from orchestrator.errors import SettingError, UnauthenticatedError
from orchestrator.ledger import Ledger
from orchestrator.security.audit import AuditLog
from orchestrator.security.auth import (
    AuthenticationInterceptor,
    Authenticator,
    Principal,
    check_exposure,
)
from orchestrator.security.messages import WellFormedInterceptor
from orchestrator.security.tls import server_credentials
from orchestrator.settings import Settings


class Guard:
    """Protects one server as its settings say.

    Attributes:
        ledger: What the server's worker processes use together.
        audit: The audit log.
        interceptors: What every call passes on its way to its handler.

    Raises:
        SettingError: A file cannot be used, or the port would be open to others unprotected.
    """

    def __init__(self, settings: Settings) -> None:
        security = settings.security
        check_exposure(settings.server.host, security)
        self._reload_s = security.reload_s
        self._credentials = server_credentials(security)
        self.ledger = Ledger(settings.server)
        self._authenticator = Authenticator(security, self.ledger)
        self.audit = AuditLog(security.audit_file)
        self.interceptors = (
            AuthenticationInterceptor(self._authenticator, self.audit),
            WellFormedInterceptor(),
        )

    def listen(self, server: grpc.aio.Server, address: str) -> int:
        """Open the port, with TLS if there is a certificate, and return its number.

        Raises:
            SettingError: The port cannot be had.
        """
        try:
            if self._credentials is None:
                return server.add_insecure_port(address)
            return server.add_secure_port(address, self._credentials)
        except RuntimeError as error:
            raise SettingError("server.port", f"cannot listen on {address}: {error}") from error

    def close(self) -> None:
        """Close the audit log, and leave the ledger."""
        self.audit.close()
        self.ledger.close()

    @contextlib.asynccontextmanager
    async def watching(self, principal: Principal) -> AsyncIterator[None]:
        """Run a block for as long as the credentials hold that let a caller in.

        Raises:
            UnauthenticatedError: The key was revoked, the tenant removed, or the token's grace is
                over; noticed within `security.reload_s`.
        """
        block = asyncio.timeout(None)
        try:
            async with block:
                watch = asyncio.create_task(self._watch(principal, block))
                try:
                    yield
                finally:
                    watch.cancel()
        except TimeoutError as error:
            if not block.expired():
                raise
            raise UnauthenticatedError("withdrawn while the stream ran") from error

    async def _watch(self, principal: Principal, block: asyncio.Timeout) -> None:
        # Files are looked at, nothing announces their change.
        while self._authenticator.is_valid(principal):  # noqa: ASYNC110
            await asyncio.sleep(self._reload_s)
        block.reschedule(asyncio.get_running_loop().time())
