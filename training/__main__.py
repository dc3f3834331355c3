"""`touchline data|train|evaluate|export|engine|weights`: the offline half of the command line.

`touchline` starts this as a process of its own (`orchestrator.cli.offline`), so that nothing which
serves imports training code. A command's module is imported only when it is asked for.
"""

import argparse
import importlib
import sys

from orchestrator.cli.termination import Terminated, interrupted_by_sigterm
from training.errors import InputError

COMMANDS = {
    "data": "training.data.command",
    "train": "training.run.command",
    "evaluate": "training.evaluation.command",
    "export": "training.export.command",
    "engine": "training.engine.command",
    "weights": "training.weights.command",
}
"""By name, the module with `add_arguments(parser)`, which sets `run(options) -> exit code`."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit code: 0 done, 1 failed, 2 wrong usage.

    130 is Ctrl-C, or a training that was stopped and has saved its state; 143 is SIGTERM.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] not in COMMANDS:
        sys.stderr.write(f"touchline: expected one of the commands {', '.join(COMMANDS)}\n")
        return 2
    command = importlib.import_module(COMMANDS[arguments[0]])
    parser = argparse.ArgumentParser(
        prog=f"touchline {arguments[0]}",
        description=command.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    options = parser.parse_args(arguments[1:])
    try:
        with interrupted_by_sigterm():
            return int(options.run(options))
    except Terminated:
        return 143
    except KeyboardInterrupt:
        return 130
    except (InputError, OSError) as error:
        sys.stderr.write(f"touchline: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
