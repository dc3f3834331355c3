"""Authentication: metadata of a call to the principal behind it.

A call carries `authorization: Bearer CREDENTIAL` or `x-api-key: CREDENTIAL`, where the credential
is an API key or, after Bearer, a JSON Web Token. It is checked before any message is read.
"""

import math
import time
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
from typing_extensions import override

from orchestrator import metrics
from orchestrator.errors import (
    PermissionDeniedError,
    SettingError,
    TouchlineError,
    UnauthenticatedError,
    status_code,
)
from orchestrator.ledger import Ledger
from orchestrator.security.audit import AuditLog
from orchestrator.security.files import WatchedFiles
from orchestrator.security.keys import PREFIX, SETTING, parse_keys
from orchestrator.security.tenants import Tenant, Tenants
from orchestrator.security.tls import is_loopback
from orchestrator.security.tokens import TokenVerifier
from orchestrator.settings import SecuritySettings

_OPEN_METHODS = "/grpc.health.v1.Health/"
"""Probes of load balancers and kubelets have no credentials."""

_STREAM_METHOD = "/RecognizeStream"
_NOBODY = ""
"""The tenant, in metrics, of whom none is known."""

_Metadata = Iterable[tuple[str, str | bytes]]
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who makes a call.

    Attributes:
        tenant: Whom it belongs to.
        key_id: Public part of its API key; None if it has another credential or none.
        expires: When its token ends, in seconds since the Unix epoch.
    """

    tenant: Tenant
    key_id: str | None = None
    expires: float = math.inf


_principal: ContextVar[Principal] = ContextVar("principal")


def is_open(method: str) -> bool:
    """Whether anybody may call a method, so that there is no principal."""
    return method.startswith(_OPEN_METHODS)


def current_principal() -> Principal:
    """Return who makes the call that is being served."""
    return _principal.get()


class Authenticator:
    """Knows the credentials of this server.

    Args:
        settings: Files and what is accepted.
        ledger: Has the tenants' accounts.

    Raises:
        SettingError: A file cannot be used; names its setting.
    """

    def __init__(self, settings: SecuritySettings, ledger: Ledger) -> None:
        self._grace_s = settings.jwt.stream_grace_s
        self._tenants = Tenants(settings.tenants_file, ledger, reload_s=settings.reload_s)
        self._keys = self._tokens = None
        if settings.api_keys_file is not None:
            paths = {SETTING: settings.api_keys_file}
            self._keys = WatchedFiles(paths, parse_keys, reload_s=settings.reload_s)
        if settings.jwt.jwks_file is not None:
            self._tokens = TokenVerifier(settings.jwt, reload_s=settings.reload_s)
        if self.is_on and settings.tenants_file is None:
            raise SettingError("security.tenants_file", "expected where callers are authenticated")

    @property
    def is_on(self) -> bool:
        """Whether callers are asked for credentials at all."""
        return self._keys is not None or self._tokens is not None

    def authenticate(self, metadata: _Metadata) -> Principal:
        """Return who makes a call.

        Raises:
            UnauthenticatedError: The credentials are missing, wrong or expired.
            PermissionDeniedError: They name a tenant that this server does not know.
        """
        if not self.is_on:
            return Principal(self._tenants.default)
        key, token = _credentials(metadata)
        if key is not None:
            return self._by_key(key)
        if token is not None:
            return self._by_token(token)
        raise UnauthenticatedError("no credentials")

    def is_valid(self, principal: Principal) -> bool:
        """Whether a stream that was let in may go on: tenant and key are there, the token lives."""
        if not self.is_on:
            return True
        if self._tenants.get(principal.tenant.name) is not principal.tenant:
            return False
        if principal.key_id is not None:
            return self._keys is not None and self._keys.current().has(principal.key_id)
        return time.time() < principal.expires + self._grace_s

    def _by_key(self, key: str) -> Principal:
        stored = self._keys.current().find(key) if self._keys is not None else None
        if stored is None:
            raise UnauthenticatedError("unknown API key")
        return Principal(self._tenant(stored.tenant), key_id=stored.id)

    def _by_token(self, token: str) -> Principal:
        if self._tokens is None:
            raise UnauthenticatedError("a token, but only API keys are taken")
        claims = self._tokens.verify(token)
        return Principal(self._tenant(claims.tenant), expires=claims.expires)

    def _tenant(self, name: str) -> Tenant:
        tenant = self._tenants.get(name)
        if tenant is None:
            raise PermissionDeniedError("the caller's tenant may not use this server")
        return tenant


class AuthenticationInterceptor(grpc.aio.ServerInterceptor):
    """Lets calls through to their handler with `current_principal` set, and refuses the others.

    Args:
        authenticator: Knows who is who.
        audit: Takes the refusals.
    """

    def __init__(self, authenticator: Authenticator, audit: AuditLog) -> None:
        self._authenticator = authenticator
        self._audit = audit

    @override
    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        if is_open(handler_call_details.method):
            return await continuation(handler_call_details)
        try:
            metadata = handler_call_details.invocation_metadata
            _principal.set(self._authenticator.authenticate(metadata))
        except (UnauthenticatedError, PermissionDeniedError) as error:
            return self._refusal(handler_call_details.method, error)
        return await continuation(handler_call_details)

    def _refusal(self, method: str, error: TouchlineError) -> _Handler:
        async def refuse(_: Any, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
            if method.endswith(_STREAM_METHOD):
                metrics.STREAM_STARTS.labels(_NOBODY, status_code(error).name.lower()).inc()
            reason = error.reason if isinstance(error, UnauthenticatedError) else str(error)
            self._audit.refused(method, context.peer(), reason)
            await context.abort(status_code(error), str(error))

        # A stream of requests whatever the method is: nothing that the caller sends is then read.
        return grpc.stream_stream_rpc_method_handler(refuse)


def check_exposure(host: str, settings: SecuritySettings) -> None:
    """Check that a port which others can reach is protected, or is meant not to be.

    Raises:
        SettingError: It is not; names the settings that would do.
    """
    if is_loopback(host):
        return
    if settings.certificate_file is None and not settings.allow_plaintext:
        raise SettingError(
            "server.host",
            f"{host} can be reached from other machines: set security.certificate_file and "
            "security.private_key_file, or security.allow_plaintext where a mesh encrypts",
        )
    names_callers = (
        settings.api_keys_file is not None
        or settings.jwt.jwks_file is not None
        or settings.require_client_certificate
    )
    if not names_callers and not settings.allow_anonymous:
        raise SettingError(
            "server.host",
            f"{host} can be reached from other machines: set security.api_keys_file, "
            "security.jwt.jwks_file or security.require_client_certificate, or "
            "security.allow_anonymous where the network itself guards the port",
        )


def _credentials(metadata: _Metadata) -> tuple[str | None, str | None]:
    """Find the API key or the token of a call; the first of several counts."""
    for name, value in metadata:
        if isinstance(value, bytes):
            continue
        if name == "x-api-key":
            return value, None
        scheme, _, credential = value.partition(" ")
        if name == "authorization" and scheme.lower() == "bearer":
            is_key = credential.startswith(PREFIX)
            return (credential, None) if is_key else (None, credential)
    return None, None
