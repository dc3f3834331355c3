"""Train the demo weights anew and hold their scores against those of the committed ones.

    python -m training.demo --footage DIR --work DIR [MODEL ...]

Each model is trained with its committed config, exported as it is served, and scored on clips that
it never saw. Scores may fall short of the committed ones by the noise stated beside them in
demo_scores.json: trainings with other seeds or other machines differ by about that much. A training
that is finished in WORK is not repeated, an interrupted one goes on.

--smoke shows in minutes that the whole chain runs: a few steps on four clips, scores not judged.
--record writes the scores of the committed weights into demo_scores.json, after they were renewed.
"""

import argparse
import json
import math
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from training.data.crops import HELD_OUT, HELD_OUT_UNCUT
from training.errors import InputError
from training.run.signals import handed_on
from training.weights.registry import MODEL_REPOSITORY

SCORES = Path(__file__).with_name("demo_scores.json")
CONFIGS = Path(__file__).with_name("configs")
PRECISION = "fp16-stored"
"""The form in which ONNX demo weights are served."""

_INTERRUPTED = (130, 143, -signal.SIGINT, -signal.SIGTERM)
_SMOKE_LEARNT = ("dev_01", "dev_02")
_SMOKE_UNSEEN = ("dev_18", "demo_01")


@dataclass(frozen=True, slots=True)
class Model:
    """One of the demo models.

    Attributes:
        name: As `touchline train` knows it.
        clips: Clips to score on; none of them are learnt.
        committed: Weights in the model repository, by the name that scoring asks for; under `""`
            a single file.
        is_exported: Whether a checkpoint must become ONNX before it is served.
    """

    name: str
    clips: tuple[str, ...]
    committed: Mapping[str, str]
    is_exported: bool = False


MODELS = (
    Model("detector", HELD_OUT, {"": "rfdetr_detector/weights/demo.onnx"}, is_exported=True),
    Model(
        "tracker",
        HELD_OUT_UNCUT,
        {"": "sam2_tracker/weights/demo.safetensors"},
    ),
    Model("jersey", HELD_OUT[3:], {"": "resnet_jersey/weights/demo.onnx"}, is_exported=True),
    Model(
        "embedder",
        HELD_OUT,
        {"vision": "siglip_embedder/weights/demo", "text": "siglip_text/weights/demo"},
    ),
)


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class Figure:
    """A score of the committed weights.

    Attributes:
        value: Higher is better.
        noise: What another training may fall short of it by.
    """

    value: float
    noise: float


Scores = dict[str, dict[str, Figure]]
"""By model and by the dotted path of a figure in what `touchline evaluate --of` writes."""

_SCORES = TypeAdapter(Scores)


def read_scores(path: Path = SCORES) -> Scores:
    """Read the committed scores.

    Raises:
        InputError: The file is not as expected; names it and each field.
    """
    try:
        return _SCORES.validate_json(path.read_bytes())
    except ValidationError as error:
        raise InputError(f"{path}: {error}") from error


def shortfalls(found: Mapping[str, Any], expected: Mapping[str, Figure]) -> dict[str, float]:
    """Return by path by how much figures fall short of the committed ones beyond their noise."""
    by_path = {path: figure.value - _at(found, path) for path, figure in expected.items()}
    # Written so that NaN is short.
    return {path: gap for path, gap in by_path.items() if not gap <= expected[path].noise}


def table(name: str, found: Mapping[str, Any], expected: Mapping[str, Figure]) -> str:
    """Return the comparison as rows of a Markdown table."""
    short = shortfalls(found, expected)
    rows = [
        f"| {name} | {path} | {figure.value:.3f} | {_at(found, path):.3f} | {figure.noise:.3f} "
        f"| {'SHORT' if path in short else 'reached'} |"
        for path, figure in expected.items()
    ]
    return "\n".join(rows)


def _at(metrics: Any, path: str) -> float:
    for part in path.split("."):
        metrics = metrics[int(part) if isinstance(metrics, list) else part]
    return math.nan if metrics is None else float(metrics)  # None: there was nothing to count


def train(model: Model, footage: Path, work: Path, *, smoke: bool) -> Path:
    """Train and export one model; return the weights as they are served."""
    options = [f"--set={assignment}" for assignment in (_smoke(model) if smoke else ())]
    places = ["--footage", str(footage), "--work", str(work)]
    weights = Path(_touchline("train", model.name, *places, *options).splitlines()[-1])
    if not model.is_exported:
        return weights
    # A network of a few steps answers with noise, which no rounding leaves as it is.
    precision = "fp32" if smoke else PRECISION
    pictures = ["--pictures", str(footage / f"{HELD_OUT[-1]}.mp4"), "--precision", precision]
    target = work / "export"
    _touchline("export", model.name, str(weights), "--output", str(target), *pictures)
    (exported,) = target.glob(f"*.{precision}.onnx")
    return exported


def score(model: Model, weights: Path, footage: Path, work: Path, *, smoke: bool) -> dict[str, Any]:
    """Return the scores of some weights on the model's clips."""
    clips = _SMOKE_UNSEEN if smoke else model.clips
    places = ["--truth", str(footage), "--output", str(work)]
    _touchline("evaluate", str(weights), "--of", model.name, *places, "--clips", *clips)
    metrics: dict[str, Any] = json.loads((work / "metrics.json").read_text())
    return metrics


def _smoke(model: Model) -> Iterator[str]:
    """Yield changes to a config that leave a few steps on few clips."""
    config = tomllib.loads((CONFIGS / f"{model.name}.toml").read_text())
    for split in config["clips"]:
        clips = _SMOKE_LEARNT if split == "train" else _SMOKE_UNSEEN
        yield f"clips.{split}={json.dumps(clips)}"
    if model.name == "detector":
        yield from _smoke_of_detector(len(config["stages"]))
        return
    for number in range(len(config["stages"])):
        yield f"stages.{number}.steps=2"


def _smoke_of_detector(stages: int) -> Iterator[str]:
    """The same for the detector, which has to find something or its export is refused."""
    yield "ema_decay=0.9"
    yield "ema_tau=1"
    for number in range(stages):
        yield f"stages.{number}.epochs={1 if number else 16}"
        yield f"stages.{number}.epoch_steps={2 if number else 10}"
        yield f"stages.{number}.recipe={{frame_step=60, ball_crops=0, zoomed_crops=1}}"


@contextmanager
def _committed(model: Model) -> Iterator[Path]:
    """Give the committed weights in the layout that scoring asks for."""
    places = {name: MODEL_REPOSITORY / path for name, path in model.committed.items()}
    if "" in places:
        yield places[""]
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, path in places.items():
            (Path(folder) / name).symlink_to(path)
        yield Path(folder)


def _touchline(*arguments: str) -> str:
    """Run one offline command as a process of its own; return what it prints.

    Raises:
        InputError: It failed; it has said why.
        KeyboardInterrupt: SIGINT or SIGTERM came; the command has saved what it had.
    """
    command = [str(Path(sys.executable).with_name("touchline")), *arguments]
    sys.stderr.write(f"$ touchline {' '.join(arguments)}\n")
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0) as process,
        handed_on(process),
    ):
        printed, _ = process.communicate()
    if process.returncode in _INTERRUPTED:
        raise KeyboardInterrupt
    if process.returncode:
        raise InputError(f"touchline {arguments[0]}: failed with exit code {process.returncode}")
    return printed


def _record(models: Sequence[Model], footage: Path, work: Path) -> int:
    scores = read_scores()
    for model in models:
        with _committed(model) as weights:
            found = score(model, weights, footage, work / model.name / "committed", smoke=False)
        scores[model.name] = {
            path: Figure(round(_at(found, path), 4), figure.noise)
            for path, figure in scores[model.name].items()
        }
    SCORES.write_bytes(_SCORES.dump_json(scores, indent=1) + b"\n")
    return 0


def _reproduce(models: Sequence[Model], footage: Path, work: Path, *, smoke: bool) -> int:
    expected, rows, is_short = read_scores(), [], False
    for model in models:
        weights = train(model, footage, work / model.name, smoke=smoke)
        found = score(model, weights, footage, work / model.name / "scores", smoke=smoke)
        if not smoke:
            rows.append(table(model.name, found, expected[model.name]))
            is_short |= bool(shortfalls(found, expected[model.name]))
    head = "| model | figure | committed | found | noise | |\n|---|---|---|---|---|---|"
    sys.stdout.write("\n".join([head, *rows, ""]) if rows else "every step of the chain ran\n")
    return int(is_short)


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 if all scores are reached, 1 if one falls short or a step failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help="default: all four")
    parser.add_argument("--footage", type=Path, required=True, help="folder of rendered clips")
    parser.add_argument("--work", type=Path, required=True, help="folder for all that is made")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--smoke", action="store_true")
    mode.add_argument("--record", action="store_true")
    options = parser.parse_args(arguments)
    unknown = set(options.models) - {model.name for model in MODELS}
    if unknown:
        parser.error(f"expected models of {[model.name for model in MODELS]}, got {unknown}")
    models = [model for model in MODELS if not options.models or model.name in options.models]
    try:
        if options.record:
            return _record(models, options.footage, options.work)
        return _reproduce(models, options.footage, options.work, smoke=options.smoke)
    except KeyboardInterrupt:
        return 130
    except (InputError, OSError) as error:
        sys.stderr.write(f"training.demo: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
