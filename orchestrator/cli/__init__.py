"""`touchline`: the command line of the product."""

import argparse
import asyncio
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path

import grpc

from orchestrator.cli.connection import add_client_flags, add_server_flags
from orchestrator.cli.keys import add_keys_command
from orchestrator.cli.offline import COMMANDS, run_offline
from orchestrator.cli.plan import add_plan_command
from orchestrator.cli.sheets import add_sheet_flags
from orchestrator.cli.termination import Terminated, interrupted_by_sigterm
from orchestrator.errors import TouchlineError


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit code: 0 done, 1 failed, 2 wrong usage.

    As from a shell, 130 is Ctrl-C, 143 SIGTERM, and 141 a reader of the output who left, such as
    `head`.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    _replace_closed_outputs()
    try:
        with interrupted_by_sigterm():
            code = _run(arguments)
            sys.stdout.flush()  # not at the exit, where nobody could handle its error
    except Terminated:
        return 143
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except grpc.aio.AioRpcError as error:
        sys.stderr.write(f"touchline: the call ended with {error.code().name}: {error.details()}\n")
    except (TouchlineError, OSError) as error:
        sys.stderr.write(f"touchline: {str(error) or type(error).__name__}\n")
    else:
        return code
    return 1


def _replace_closed_outputs() -> None:
    """Open what the caller has closed (`>&-`), or a socket would take the descriptor's place."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            nowhere = Path(os.devnull).open("w")  # noqa: SIM115  stays open, as what it replaces
            os.set_inheritable(nowhere.fileno(), True)
            setattr(sys, name, nowhere)


def _run(arguments: list[str]) -> int:
    if arguments and arguments[0] in COMMANDS:
        run_offline(arguments)
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    return run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="touchline", description="Recognise soccer players in video."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    recognize = commands.add_parser("recognize", help="recognise a video file")
    recognize.add_argument("video", type=Path, metavar="VIDEO", help="a file that FFmpeg reads")
    recognize.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder for the four result files"
    )
    recognize.add_argument(
        "--live", action="store_true", help="send at the video's pace; late frames are lost"
    )
    recognize.add_argument("--no-video", action="store_true", help="write no annotated.mp4")
    _add_server(recognize)
    add_sheet_flags(recognize)
    add_client_flags(recognize)
    recognize.set_defaults(run=_recognize)

    image = commands.add_parser("image", help="recognise one JPEG or PNG file")
    image.add_argument("image", type=Path, metavar="FILE")
    image.add_argument("--output", type=Path, metavar="FILE.png", help="write the picture drawn on")
    _add_server(image)
    add_client_flags(image)
    image.set_defaults(run=_image)

    up = commands.add_parser("up", help="run the cluster on this machine until Ctrl-C")
    up.add_argument("--port", type=_port, default=50051, help="default 50051; 0 takes a free one")
    _add_cluster(up)
    add_server_flags(up)
    up.set_defaults(run=_up)

    serve = commands.add_parser("serve", help="run an orchestrator, set by TOUCHLINE_* variables")
    serve.set_defaults(run=_serve)

    top = commands.add_parser("top", help="show what running orchestrators are doing")
    top.add_argument("urls", nargs="+", metavar="HOST:PORT", help="metrics port of each process")
    top.add_argument("--interval", type=_seconds, default=2.0, metavar="SECONDS", help="default 2")
    top.add_argument("--once", action="store_true", help="print one interval and end")
    top.set_defaults(run=_top)

    keys = commands.add_parser("keys", help="make, list and revoke API keys")
    add_keys_command(keys)

    plan = commands.add_parser("plan", help="say what a number of streams needs and costs")
    add_plan_command(plan)

    doctor = commands.add_parser("doctor", help="say what this machine lacks")
    doctor.set_defaults(run=_doctor)

    for name, description in COMMANDS.items():
        commands.add_parser(name, help=description)  # for `--help`; never parsed here
    return parser


def _add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--server",
        type=_target,
        metavar="HOST:PORT",
        help="a running server; without it one is started",
    )
    _add_cluster(parser)


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--split", action="store_true", help="one tritonserver per model")
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="MODEL=PATH",
        help="weights of a model of the started cluster, or `random`; may be repeated",
    )


def _target(text: str) -> str:
    host, _, port = text.rpartition(":")
    if host and port != "0" and _is_port(port):  # gRPC would call 99999 modulo 65536
        return text
    raise argparse.ArgumentTypeError(f"expected HOST:PORT, got {text!r}")


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535


def _port(text: str) -> int:
    if _is_port(text):
        return int(text)
    raise argparse.ArgumentTypeError(f"expected 0 to 65535, got {text!r}")


def _seconds(text: str) -> float:
    try:
        if 0 < float(text) < math.inf:
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected more than 0 seconds, got {text!r}")


def _recognize(options: argparse.Namespace) -> int:
    from orchestrator.cli.recognize import recognize_file

    return asyncio.run(recognize_file(options))


def _image(options: argparse.Namespace) -> int:
    from orchestrator.cli.image import recognize_image

    return asyncio.run(recognize_image(options))


def _up(options: argparse.Namespace) -> int:
    from orchestrator.cli.local import run_until_interrupted

    return asyncio.run(run_until_interrupted(options))


def _serve(_: argparse.Namespace) -> int:
    from orchestrator.__main__ import main as serve

    return serve()


def _top(options: argparse.Namespace) -> int:
    from orchestrator.cli.top import watch

    return asyncio.run(watch(options))


def _doctor(_: argparse.Namespace) -> int:
    from orchestrator.cli.local import print_checks

    return print_checks()
