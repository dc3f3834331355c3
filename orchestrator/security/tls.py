"""TLS of the public port and of clients, from PEM files."""

import ipaddress
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from orchestrator.errors import SettingError
from orchestrator.security.files import WatchedFiles, read
from orchestrator.settings import SecuritySettings

_CERTIFICATE = "security.certificate_file"
_KEY = "security.private_key_file"
_CLIENT_CA = "security.client_ca_file"
_REQUIRE = "security.require_client_certificate"


def server_credentials(settings: SecuritySettings) -> grpc.ServerCredentials | None:
    """Return the credentials of the public port; None if it is to be served in the clear.

    Every new connection gets the files as they are then; open ones keep what they began with.

    Raises:
        SettingError: A file is missing, is no PEM, or key and certificate do not match.
    """
    if settings.certificate_file is None and settings.private_key_file is None:
        _expect_no_client_tls(settings)
        return None
    if settings.require_client_certificate and settings.client_ca_file is None:
        raise SettingError(_CLIENT_CA, f"expected with {_REQUIRE}")
    if settings.client_ca_file is not None and not settings.require_client_certificate:
        # gRPC asks clients for a certificate only where it requires one.
        raise SettingError(_REQUIRE, f"expected with {_CLIENT_CA}, which nothing else uses")
    files = WatchedFiles(_paths(settings), _configuration, reload_s=settings.reload_s)
    return grpc.dynamic_ssl_server_credentials(
        files.current(), files.current, settings.require_client_certificate
    )


def channel_credentials(
    ca_file: Path | None,
    certificate_file: Path | None = None,
    private_key_file: Path | None = None,
    *,
    settings: tuple[str, str, str] = ("--tls-ca", "--tls-cert", "--tls-key"),
) -> grpc.ChannelCredentials:
    """Return the credentials of a client.

    Args:
        ca_file: PEM certificates to trust; None trusts the system's.
        certificate_file: PEM chain of the client, for mutual TLS.
        private_key_file: PEM key of `certificate_file`.
        settings: What the three are called where they are set, for errors.

    Raises:
        SettingError: A file is missing, is no PEM, or key and certificate do not match.
    """
    ca_name, certificate_name, key_name = settings
    authorities = None if ca_file is None else read(ca_name, ca_file)
    if authorities is not None:
        _certificates(ca_name, authorities)
    if certificate_file is None and private_key_file is None:
        return grpc.ssl_channel_credentials(authorities)
    if certificate_file is None or private_key_file is None:
        missing = certificate_name if certificate_file is None else key_name
        raise SettingError(missing, f"expected both {certificate_name} and {key_name}, or neither")
    chain, key = read(certificate_name, certificate_file), read(key_name, private_key_file)
    _check_pair(certificate_name, chain, key_name, key)
    return grpc.ssl_channel_credentials(authorities, key, chain)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address; a name other than localhost counts as no."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _expect_no_client_tls(settings: SecuritySettings) -> None:
    if settings.require_client_certificate or settings.client_ca_file is not None:
        raise SettingError(_CERTIFICATE, "expected where client certificates are asked for")


def _paths(settings: SecuritySettings) -> dict[str, Path]:
    paths = {
        _CERTIFICATE: settings.certificate_file,
        _KEY: settings.private_key_file,
    }
    for setting, path in paths.items():
        if path is None:
            raise SettingError(setting, f"expected both {_CERTIFICATE} and {_KEY}, or neither")
    paths[_CLIENT_CA] = settings.client_ca_file
    return {setting: path for setting, path in paths.items() if path is not None}


def _configuration(contents: Mapping[str, bytes]) -> grpc.ServerCertificateConfiguration:
    chain, key = contents[_CERTIFICATE], contents[_KEY]
    _check_pair(_CERTIFICATE, chain, _KEY, key)
    authorities = contents.get(_CLIENT_CA)
    if authorities is not None:
        _certificates(_CLIENT_CA, authorities)
    return grpc.ssl_server_certificate_configuration([(key, chain)], authorities)


def _check_pair(certificate_name: str, chain: bytes, key_name: str, key: bytes) -> None:
    """Check what gRPC would only show by refusing every connection."""
    leaf = _certificates(certificate_name, chain)[0]
    try:
        private = load_pem_private_key(key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Without the cause: its text may quote the key.
        raise SettingError(key_name, "expected a PEM private key without passphrase") from None
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if private.public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
        raise SettingError(key_name, f"expected the key of {certificate_name}'s first certificate")
    if leaf.not_valid_after_utc < datetime.now(UTC):
        raise SettingError(certificate_name, f"expired on {leaf.not_valid_after_utc:%Y-%m-%d}")


def _certificates(setting: str, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise SettingError(setting, "expected PEM certificates") from error
