"""Who may connect, and how connections are protected."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from orchestrator.settings.group import Group

JwtAlgorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]


class JwtSettings(Group):
    """Tokens of an OpenID Connect provider; taken once `jwks_file` is set."""

    jwks_file: Path | None = None
    """JSON Web Key Set with the provider's public keys."""
    issuer: str = ""
    """What the claim `iss` must say; needed with `jwks_file`."""
    audience: str = ""
    """What the claim `aud` must hold; needed with `jwks_file`."""
    tenant_claim: str = Field(default="tenant", min_length=1)
    """Claim that names the tenant."""
    algorithms: tuple[JwtAlgorithm, ...] = Field(default=("RS256", "ES256", "EdDSA"), min_length=1)
    """Signatures that are accepted; all have a public key, so nothing here is worth stealing."""
    leeway_s: float = Field(default=30.0, ge=0, le=300)
    """How far the provider's clock may differ from ours, in seconds."""
    stream_grace_s: float = Field(default=4 * 3600.0, ge=0)
    """How long a running stream may outlive its token, in seconds: a match outlasts most tokens."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.jwks_file is None and (self.issuer or self.audience):
            raise ValueError("jwks_file: expected with issuer and audience")
        return self


class SecuritySettings(Group):
    """Who may connect and how the connection is protected. Secrets are files, never values.

    All files are read again when they change; a file that became unusable leaves the old one valid.
    """

    certificate_file: Path | None = None
    """PEM chain of the public port, leaf first; with `private_key_file` it turns TLS on."""
    private_key_file: Path | None = None
    """PEM private key of `certificate_file`, without a passphrase."""
    client_ca_file: Path | None = None
    """PEM certificates that sign those of clients; with `require_client_certificate`."""
    require_client_certificate: bool = False
    """Whether clients without a certificate of `client_ca_file` are turned away (mutual TLS)."""
    api_keys_file: Path | None = None
    """Hashed API keys, written by `touchline keys`."""
    jwt: JwtSettings = JwtSettings()
    tenants_file: Path | None = None
    """TOML with the tenants, their weights and quotas; needed with API keys or tokens. Quotas hold
    for a server with all its workers; further servers (pods) grant the same again."""
    allow_plaintext: bool = False
    """Listen beyond this host without TLS: for pods whose mesh or proxy encrypts."""
    allow_anonymous: bool = False
    """Listen beyond this host without API keys, tokens or client certificates: for a port that the
    network itself guards."""
    reflection: bool = True
    """Whether gRPC reflection is served."""
    audit_file: Path | None = None
    """Where the audit log goes, one JSON object a line; None writes it to standard error."""
    reload_s: float = Field(default=5.0, gt=0)
    """How often files are looked at for changes, and running streams for withdrawn credentials, in
    seconds."""
