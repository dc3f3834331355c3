"""List, fetch, verify and choose weights.

    touchline weights list                          what there is, and what of it is here
    touchline weights pull sam2.1-hiera-tiny        fetch a published checkpoint
    touchline weights pull NAME --from DIR|URL      the same without the internet
    touchline weights verify [NAME ...]             read all bytes; exit code 1 if any is wrong
    touchline weights use demo-detector             serve registered weights
    touchline weights use rfdetr_detector=my.onnx   serve your own
    touchline weights record [NAME ...]             note the hashes of retrained demo weights

Published checkpoints are kept in $TOUCHLINE_WEIGHTS, by default ~/.cache/touchline/weights. Copy
that folder to a machine without internet and name it with --from or $TOUCHLINE_WEIGHTS_MIRROR.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from training.weights.registry import (
    MANIFEST,
    MODEL_REPOSITORY,
    Entry,
    default_store,
    differences,
    read_registry,
    record,
    state,
)
from training.whole_file import write_whole


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands of `touchline weights`."""
    commands = parser.add_subparsers(required=True, metavar="list|pull|verify|use|record")
    listed = commands.add_parser("list", help="what there is, and what of it is here")
    listed.set_defaults(run=_list)
    pulled = commands.add_parser("pull", help="fetch published checkpoints")
    pulled.add_argument("names", nargs="+", metavar="NAME")
    pulled.add_argument("--from", dest="source", metavar="DIR|URL", help="folder or http mirror")
    pulled.add_argument(
        "--limit", type=float, default=3600.0, metavar="SECONDS", help="for what comes over HTTP"
    )
    pulled.set_defaults(run=_pull)
    verified = commands.add_parser("verify", help="read all bytes and compare the hashes")
    verified.add_argument("names", nargs="*", metavar="NAME")
    verified.set_defaults(run=_verify)
    used = commands.add_parser("use", help="make a model serve other weights")
    used.add_argument("choice", metavar="NAME|MODEL=PATH")
    used.add_argument("--variant", choices=("cpu", "default"), default="cpu", help="whose config")
    used.set_defaults(run=_use)
    recorded = commands.add_parser("record", help="note the hashes of retrained demo weights")
    recorded.add_argument("names", nargs="*", metavar="NAME")
    recorded.set_defaults(run=_record)
    for command in (listed, pulled, verified, used, recorded):
        _add_places(command)


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", type=Path, default=default_store(), metavar="DIR")
    parser.add_argument("--registry", type=Path, default=MANIFEST, metavar="FILE")
    parser.add_argument("--model-repository", type=Path, default=MODEL_REPOSITORY, metavar="DIR")


def _list(options: argparse.Namespace) -> int:
    table = Table("name", "for", "use", "licence", "publisher", "MB", "state")
    for entry in read_registry(options.registry).entries:
        megabytes = sum(file.size for file in entry.files) / 1e6
        found = state(entry, _folder(entry, options), hashing=False)
        models = ", ".join(entry.models)
        row = (entry.name, models, entry.role, entry.licence, entry.publisher)
        table.add_row(*row, f"{megabytes:.1f}", found)
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    return 0


def _pull(options: argparse.Namespace) -> int:
    from training.weights.fetch import pull

    for entry in read_registry(options.registry).find(options.names):
        folder = pull(entry, options.store, source=options.source, limit_s=options.limit)
        print(f"{entry.name}: {folder} ({entry.licence}, {entry.publisher})")
    return 0


def _verify(options: argparse.Namespace) -> int:
    """Return 1 if any file is wrong, or one that was asked for by name is missing."""
    failed = False
    for entry in read_registry(options.registry).find(options.names):
        folder = _folder(entry, options)
        found = state(entry, folder, hashing=True)
        print(f"{entry.name}: {found}")
        if found in ("changed", "incomplete") or (found == "missing" and options.names):
            failed = True
            print("\n".join(f"  {line}" for line in differences(entry, folder)))
    return int(failed)


def _use(options: argparse.Namespace) -> int:
    from training.weights.choose import use_entry, use_path

    model, is_path, path = options.choice.partition("=")
    repository, variant = options.model_repository, options.variant
    if is_path:
        configs = [use_path(repository, model, Path(path).expanduser(), variant)]
    else:
        (entry,) = read_registry(options.registry).find([options.choice])
        configs = use_entry(entry, _folder(entry, options), repository, variant)
    for config in configs:
        print(f"{config}: now names these weights; `touchline up` serves them")
    return 0


def _record(options: argparse.Namespace) -> int:
    renewed = record(read_registry(options.registry), options.names, options.model_repository)
    content = renewed.model_dump_json(indent=1, exclude_none=True) + "\n"
    write_whole(options.registry, content.encode())
    return 0


def _folder(entry: Entry, options: argparse.Namespace) -> Path:
    return entry.folder(options.store, options.model_repository)
