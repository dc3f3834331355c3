"""`touchline keys`: make, list and revoke API keys."""

import argparse
from pathlib import Path


def add_keys_command(parser: argparse.ArgumentParser) -> None:
    """Add the three actions to the parser of `touchline keys`."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    add = actions.add_parser("add", help="make a key, print it once, and store its hash")
    add.add_argument("tenant", metavar="TENANT")
    add.set_defaults(run=_add)
    listing = actions.add_parser("list", help="show id, tenant and age of all keys")
    listing.set_defaults(run=_list)
    revoke = actions.add_parser("revoke", help="take a key out; its streams end within seconds")
    revoke.add_argument("id", metavar="ID", help="as `touchline keys list` shows it")
    revoke.set_defaults(run=_revoke)
    for action in (add, listing, revoke):
        action.add_argument(
            "--file", type=Path, required=True, help="as the server's security.api_keys_file"
        )


def _add(options: argparse.Namespace) -> int:
    from orchestrator.security.keys import add_key

    print(add_key(options.file, options.tenant))
    return 0


def _list(options: argparse.Namespace) -> int:
    from orchestrator.security.keys import list_keys

    for key in list_keys(options.file):
        print(f"{key.id}  {key.created:%Y-%m-%d %H:%M}  {key.tenant}")
    return 0


def _revoke(options: argparse.Namespace) -> int:
    from orchestrator.security.keys import revoke_key

    revoke_key(options.file, options.id)
    return 0
