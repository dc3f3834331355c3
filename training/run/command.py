"""Fine-tune one of the four models on labelled footage.

Without --config the committed config of the demo weights is used. Whatever lies in WORK/run is gone
on with, so the same command resumes an interrupted run: Ctrl-C finishes the step, saves, and exits
with code 130.
"""

import argparse
import importlib
import shutil
import sys
from pathlib import Path

from training.data.readers import rendered
from training.errors import InputError
from training.run.config import Split, load
from training.run.folder import RUN, sole_use
from training.run.leaks import check_split

MODELS = {
    "detector": "training.detector.train",
    "tracker": "training.tracker.train",
    "jersey": "training.jersey.train",
    "embedder": "training.embedder.train",
}
"""By name, the module with `Config` and `train(config, footage, work) -> Path` of the weights."""

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
"""Folder with `<model>.toml`, the configs of the demo weights."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `touchline train`."""
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--footage", type=Path, required=True, help="folder of labelled clips")
    parser.add_argument("--work", type=Path, required=True, help="folder for data, state, result")
    parser.add_argument("--config", type=Path, help="TOML file; default: that of the demo weights")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one key of the config, such as seed=1 or stages.0.steps=100",
    )
    parser.add_argument("--restart", action="store_true", help="delete WORK/run and begin anew")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Train; print where the weights lie.

    Raises:
        InputError: Config, footage or an earlier run in the work folder is not as expected.
    """
    if not options.footage.is_dir():
        raise InputError(f"{options.footage}: expected a folder of labelled clips")
    module = importlib.import_module(MODELS[options.model])
    path = options.config or CONFIGS / f"{options.model}.toml"
    config = load(module.Config, path, options.set)
    with sole_use(options.work):
        if options.restart and (options.work / RUN).exists():
            shutil.rmtree(options.work / RUN)
        if not (options.work / RUN).exists():
            _warn_of_leaks(config.clips, options.footage)
        weights = module.train(config, options.footage, options.work)
    print(weights)
    return 0


def _warn_of_leaks(clips: Split | None, footage: Path) -> None:
    """Check a split of rendered clips; a folder of pictures is divided already."""
    if clips is not None and rendered.find(footage):
        for leak in check_split(clips, footage):
            sys.stderr.write(f"touchline: warning: {leak}\n")
