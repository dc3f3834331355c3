"""Flags that say how to connect to a server, and how a server of ours is to be protected."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import InvalidRequestError

if TYPE_CHECKING:
    from orchestrator.client import RecognitionClient

_KEY_FLAG = "--api-key-file"
_SERVER_FLAGS = {
    "--tls-cert": ("certificate_file", "PEM certificate: serve with TLS"),
    "--tls-key": ("private_key_file", "PEM private key of --tls-cert"),
    "--tls-ca": ("client_ca_file", "let in only clients with a certificate of these authorities"),
    "--api-keys": ("api_keys_file", "let in only callers with a key of `touchline keys`"),
    "--tenants": ("tenants_file", "TOML with tenants and quotas; needed with --api-keys"),
}
"""Flag to attribute of `SecuritySettings` and help."""


def add_client_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of commands that connect to `--server`."""
    group = parser.add_argument_group("connection to --server")
    group.add_argument("--tls", action="store_true", help="TLS, trusting this system's authorities")
    group.add_argument("--tls-ca", type=Path, metavar="PEM", help="TLS, trusting these authorities")
    group.add_argument("--tls-cert", type=Path, metavar="PEM", help="our certificate: mutual TLS")
    group.add_argument("--tls-key", type=Path, metavar="PEM", help="private key of --tls-cert")
    group.add_argument(
        _KEY_FLAG, type=Path, metavar="FILE", help="holds our API key or token; read for each call"
    )


def client_flags(options: argparse.Namespace) -> dict[str, object]:
    """Return the flags of `add_client_flags` with what they were given."""
    return {
        "--tls": options.tls,
        "--tls-ca": options.tls_ca,
        "--tls-cert": options.tls_cert,
        "--tls-key": options.tls_key,
        _KEY_FLAG: options.api_key_file,
    }


def add_server_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of commands that serve to others."""
    group = parser.add_argument_group("protection of the port")
    for flag, (setting, text) in _SERVER_FLAGS.items():
        group.add_argument(flag, dest=setting, type=Path, metavar="FILE", help=text)


def server_settings(options: argparse.Namespace) -> dict[str, str]:
    """Return the server's flags as `TOUCHLINE_*` variables."""
    given = {setting: getattr(options, setting, None) for setting, _ in _SERVER_FLAGS.values()}
    prefix = "TOUCHLINE_SECURITY__"
    variables = {f"{prefix}{k.upper()}": str(v.resolve()) for k, v in given.items() if v}
    if given["client_ca_file"]:
        variables[f"{prefix}REQUIRE_CLIENT_CERTIFICATE"] = "true"
    return variables


def connect(target: str, options: argparse.Namespace) -> "RecognitionClient":
    """Return a client for a server, not yet connected.

    Raises:
        SettingError: A file cannot be used; names its flag.
        InvalidRequestError: The API key would cross a network in the clear.
    """
    from orchestrator.client import RecognitionClient
    from orchestrator.security.tls import channel_credentials, is_loopback

    files = (options.tls_ca, options.tls_cert, options.tls_key)
    credentials = channel_credentials(*files) if options.tls or any(files) else None
    key_file: Path | None = options.api_key_file
    if key_file is None:
        return RecognitionClient(target, credentials=credentials)
    if credentials is None and not is_loopback(target.rpartition(":")[0]):
        raise InvalidRequestError(_KEY_FLAG, f"expected with --tls or --tls-ca: {target} is remote")
    return RecognitionClient(target, credentials=credentials, bearer=lambda: _key(key_file))


def _key(path: Path) -> str:
    from orchestrator.security.files import read

    key = read(_KEY_FLAG, path).decode("ascii", "replace").strip()
    if not key.isascii() or not key.isprintable() or not key:
        raise InvalidRequestError(_KEY_FLAG, f"expected one line with a key or token in {path}")
    return key
