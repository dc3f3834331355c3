"""JSON Web Tokens of an OpenID Connect provider, checked with its published keys."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from orchestrator.errors import SettingError, UnauthenticatedError
from orchestrator.security.files import WatchedFiles
from orchestrator.settings import JwtSettings

if TYPE_CHECKING:
    from jwt.algorithms import AllowedPublicKeys

_JWKS = "security.jwt.jwks_file"
_LEAST_RSA_BITS = 2048

_Key: TypeAlias = "jwt.PyJWK | AllowedPublicKeys"
"""A key for the one algorithm that it names, or a bare one for all of its kind that we accept."""
_Keys = dict[str | None, _Key]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Claims:
    """What a valid token says.

    Attributes:
        tenant: Name of the tenant.
        expires: When it ends, in seconds since the Unix epoch.
    """

    tenant: str
    expires: float


class TokenVerifier:
    """Checks tokens against the keys of a file.

    Args:
        settings: What is accepted; `jwks_file` is set.
        reload_s: How often the file is looked at, in seconds.

    Raises:
        SettingError: A setting is missing, or the file is no set of public keys.
    """

    def __init__(self, settings: JwtSettings, *, reload_s: float) -> None:
        for name in ("issuer", "audience"):
            if not getattr(settings, name):
                raise SettingError(f"security.jwt.{name}", f"expected with {_JWKS}")
        assert settings.jwks_file is not None
        self._settings = settings
        self._files = WatchedFiles({_JWKS: settings.jwks_file}, _parse, reload_s=reload_s)

    def verify(self, token: str) -> Claims:
        """Return what a token says.

        Raises:
            UnauthenticatedError: It is no valid token of the issuer for us, now.
        """
        settings = self._settings
        try:
            claims = jwt.decode(
                token,
                self._key(token),
                algorithms=list(settings.algorithms),
                issuer=settings.issuer,
                audience=settings.audience,
                leeway=settings.leeway_s,
                options={"require": ["exp", "iss", "aud"]},
            )
            expires = float(claims["exp"])
        except (jwt.PyJWTError, TypeError, ValueError, OverflowError) as error:
            # Not PyJWT's own: claims that the issuer signed, but of types that nobody foresaw.
            raise UnauthenticatedError(f"token: {type(error).__name__}") from error
        tenant = claims.get(settings.tenant_claim)
        if not isinstance(tenant, str):
            raise UnauthenticatedError(f"token: no claim {settings.tenant_claim}")
        return Claims(tenant, expires)

    def _key(self, token: str) -> _Key:
        """Return the key that a token names; one without a name fits where there is one key."""
        keys = self._files.current()
        key_id = jwt.get_unverified_header(token).get("kid")
        if key_id is None and len(keys) == 1:
            return next(iter(keys.values()))
        if key_id not in keys:
            raise UnauthenticatedError("token: signed with an unknown key")
        return keys[key_id]


def _parse(contents: Mapping[str, bytes]) -> _Keys:
    try:
        entries = json.loads(contents[_JWKS])["keys"]
        signing = [entry for entry in entries if entry.get("use", "sig") == "sig"]
    except (ValueError, TypeError, KeyError, AttributeError):
        # Without the cause: its text may quote a key.
        raise SettingError(_JWKS, "expected a JSON Web Key Set") from None
    usable = [
        (key.key_id, key if entry.get("alg") else key.key)
        for entry in signing
        if (key := _usable(entry)) is not None
    ]
    keys = dict(usable)
    if not keys or len(keys) < len(usable):
        raise SettingError(_JWKS, "expected one key or more, each with a `kid` of its own")
    return keys


def _usable(entry: Mapping[str, object]) -> jwt.PyJWK | None:
    """Return a key; None if it is of a kind unknown here: a provider may try new ones."""
    if entry.get("kty") == "oct" or "d" in entry:
        raise SettingError(_JWKS, "expected public keys only; this file holds a secret")
    has_name = isinstance(entry.get("kid"), str | None)
    try:
        key = jwt.PyJWK.from_dict(dict(entry)) if has_name else None
    except (ValueError, TypeError, NotImplementedError, jwt.PyJWTError):
        key = None
    if key is None:
        log.warning("%s: passed over a key that cannot be used: %r", _JWKS, entry.get("kid"))
        return None
    if isinstance(key.key, RSAPublicKey) and key.key.key_size < _LEAST_RSA_BITS:
        raise SettingError(_JWKS, f"expected RSA keys of {_LEAST_RSA_BITS} bits or more")
    return key
