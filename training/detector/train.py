"""Fine-tune RF-DETR with rfdetr's own trainer, on tiles of rendered clips or on a COCO folder.

The ball is a few pixels wide. It is learnt from tiles as high as the picture instead of from the
whole squeezed picture, and from crops round it at a still larger scale.
"""

import sys
from pathlib import Path
from typing import Any, Literal, Self

import pytorch_lightning as lightning
import torch
from pydantic import Field, model_validator
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities.exceptions import SIGTERMException
from rfdetr.config import MultiScale, TrainConfig
from rfdetr.training import RFDETRDataModule, RFDETRModelModule, build_trainer
from typing_extensions import override

from training.data.files import files_below
from training.data.reading import read
from training.detector.checkpoints import model_config
from training.detector.checkpoints import read as read_checkpoint
from training.detector.dataset import check_coco, is_coco, write_tiles
from training.detector.micro import RESOLUTION
from training.detector.tiles import LABELS, ROLE_LABELS, Recipe, label_of
from training.errors import InputError
from training.run.config import Frozen, Split
from training.run.folder import data_folder, open_run, stamp
from training.run.signals import Interruption, deferred
from training.torch_file import save_torch
from training.whole_file import write_whole

RESULT = "last_ema.pth"
"""rfdetr's name of the averaged weights at the end; it is written when a stage is over."""

_LAST = "last.ckpt"
_FINISHED = "finished"
"""Empty file of a stage whose `RESULT` is complete: a kill can leave half of one."""


class DetectorStage(Frozen):
    """A stretch of training with one resolution and one fall of the learning rate."""

    name: str = Field(pattern=r"^[\w-]+$")
    """For the log, and of the stage's folder."""
    resolution: int = Field(default=RESOLUTION, gt=0, multiple_of=32)
    """Side of the network's square input, in pixels."""
    recipe: Recipe = Recipe()
    """The tiles that rendered clips are cut into."""
    stills: Path | None = None
    """Further labelled pictures, in any format of `touchline data`, cut into tiles beside the
    clips; `touchline data label` makes some of a video."""
    epochs: int = Field(gt=0)
    """Checkpoints are written between two epochs."""
    epoch_steps: int | None = Field(default=None, gt=0)
    """Most steps of an epoch; absent: an epoch shows each picture once."""
    learning_rate: float = Field(gt=0)
    """Highest learning rate; it falls to 0 on a cosine."""
    encoder_learning_rate: float | None = Field(default=None, gt=0)
    """The same of the image encoder; absent: that of the rest."""
    warmup_epochs: float = Field(default=0.0, ge=0)
    """Epochs of linear rise at the start."""


class Config(Frozen):
    """How a detector is trained."""

    size: Literal["micro", "nano", "small", "medium", "large"] = "micro"
    """`micro` is ours and starts from nothing; the others are rfdetr's."""
    labels: tuple[str, ...] = LABELS
    """What it tells apart; in a COCO folder, its categories in the order of their ids."""
    clips: Split | None = None
    """Needed for rendered clips; a COCO folder is divided already."""
    stages: tuple[DetectorStage, ...] = Field(min_length=1)
    init: Path | None = None
    """Checkpoint to start from, of any labels and resolution; absent: start from nothing."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Factor on the learning rate per encoder layer further from the output; protects pretrained
    layers."""
    component_decay: float = Field(default=1.0, gt=0, le=1)
    """The same per component: decoder, then encoder."""
    batch_size: int = Field(default=4, gt=0)
    """Pictures in a batch."""
    ema_decay: float = Field(default=0.993, gt=0, lt=1)
    """Memory of the averaged weights, which are the result."""
    ema_tau: int = Field(default=100, gt=0)
    """Steps over which that memory builds up."""
    multi_scale: bool = False
    """Change the input's size from batch to batch; tiles come in all scales already."""
    validate_epochs: int = Field(default=1, gt=0)
    """Epochs between two scores on the held-out pictures."""
    tensorboard: bool = False
    """Log for TensorBoard beside `metrics.csv`; needs the package tensorboard."""
    seed: int = Field(default=0, ge=0)
    """Of first weights, tiles and the order of pictures."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes an NVIDIA GPU where there is one."""
    precision: Literal["mixed", "fp32"] = "mixed"
    """`mixed` is bf16 or fp16 on a GPU; on a CPU all is fp32."""
    workers: int = Field(default=0, ge=0)
    """Processes that read pictures ahead; 0 reads in the training process."""

    @model_validator(mode="after")
    def _stages_have_names_of_their_own(self) -> Self:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stages: expected a name for each, got {names}")
        return self


def train(config: Config, footage: Path, work: Path) -> Path:
    """Train all stages, each from the averaged weights of the one before.

    Args:
        config: How.
        footage: Folder of rendered clips, or a roboflow-COCO folder.
        work: Folder for tiles, checkpoints and logs; a run that lies there is gone on with.

    Returns:
        The checkpoint of the averaged weights at the end.

    Raises:
        InputError: Config, footage or an earlier run are not as expected.
        KeyboardInterrupt: SIGINT or SIGTERM came; the state after the last step is saved.
    """
    _check(config, footage)
    run = open_run(config, work)
    weights = config.init
    for stage in config.stages:
        folder = run / stage.name
        if not (folder / _FINISHED).is_file():
            pictures = _pictures(config, stage, footage, work)
            _train_stage(config, stage, weights, pictures, folder)
            write_whole(folder / _FINISHED, b"")
        weights = folder / RESULT
    assert weights is not None, "there is a stage at least"
    return weights


def _check(config: Config, footage: Path) -> None:
    if config.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device: expected auto or cpu, since PyTorch finds no NVIDIA GPU")
    if config.init is not None:
        _check_init(config.init)
    if is_coco(footage):
        _check_pictures(config, footage)
    elif config.clips is None or not config.clips.held_out:
        raise InputError("clips: expected train and held_out, since the footage is rendered clips")
    elif set(config.labels) not in (set(LABELS), set(ROLE_LABELS)):
        raise InputError(
            f"labels: expected those of rendered clips, {LABELS} or {ROLE_LABELS}, "
            f"got {config.labels}"
        )
    else:
        for stage in config.stages:
            if stage.stills is not None:
                _check_stills(stage.stills, f"stages.{stage.name}.stills", config)


def _check_init(init: Path) -> None:
    if not init.is_file():
        raise InputError(f"init: expected a checkpoint, found none at {init}")
    read_checkpoint(init)


def _check_pictures(config: Config, footage: Path) -> None:
    """Check a COCO folder, which is learnt and scored as it is."""
    for stage in config.stages:
        if stage.stills is not None:
            raise InputError(f"stages.{stage.name}.stills: expected none beside a COCO folder")
    for source in check_coco(footage, config.labels):
        sys.stderr.write(
            f"touchline: warning: {footage}: pictures of {source} are in train/ and in valid/, "
            "whose scores will flatter; `touchline data convert` divides anew by source\n"
        )


def _check_stills(stills: Path, key: str, config: Config) -> None:
    """Refuse stills now rather than after hours of the stages before.

    Raises:
        InputError: They are missing or broken, show what the labels lack, or a held-out clip.
    """
    try:
        clips = read(stills)
    except InputError as error:
        raise InputError(f"{key}: {error}") from error
    held_out = set() if config.clips is None else set(config.clips.held_out)
    for clip in clips:
        if held_out & {clip.name, clip.source}:
            raise InputError(f"{key}: expected no pictures of the held-out clip {clip.source}")
        kinds = {seen.kind for frame in clip.sightings for seen in frame}
        if unknown := sorted(kind for kind in kinds if label_of(kind, config.labels) is None):
            raise InputError(f"{key}: expected {config.labels}, found {unknown} in {clip.name}")


def _pictures(config: Config, stage: DetectorStage, footage: Path, work: Path) -> Path:
    """Return the folder that a stage is trained from; writes the tiles if there are none yet."""
    if is_coco(footage) or config.clips is None:
        return footage
    clips, recipe = config.clips, stage.recipe
    settings = [*config.labels, recipe.model_dump_json(), str(config.seed), str(stage.stills)]
    if (stills := stage.stills) is not None:
        settings += map(stamp, files_below(stills if stills.is_dir() else stills.parent, "*"))
    names = [*clips.train, "held out", *clips.held_out]
    folder = data_folder(work, f"tiles-{stage.resolution}", footage, names, *settings)
    write_tiles(
        footage,
        folder,
        clips=clips,
        labels=config.labels,
        recipe=recipe,
        resolution=stage.resolution,
        seed=config.seed,
        stills=stage.stills,
    )
    return folder


def _train_stage(
    config: Config, stage: DetectorStage, init: Path | None, pictures: Path, folder: Path
) -> None:
    lightning.seed_everything(config.seed)
    last = folder / _LAST
    network = model_config(
        config.size, labels=config.labels, resolution=stage.resolution, init=init
    )
    training = _train_config(config, stage, pictures, folder)
    with deferred() as interruption:
        trainer = _trainer(config, stage, network, training, _Stop(interruption, last))
        try:
            trainer.fit(
                RFDETRModelModule(network, training),
                RFDETRDataModule(network, training),
                ckpt_path=str(last) if last.exists() else None,
                weights_only=False,  # our own file, and it holds optimizer state beside the weights
            )
        except SystemExit as stopped:  # Lightning leaves with exit code 1
            raise KeyboardInterrupt from stopped


def _trainer(
    config: Config, stage: DetectorStage, network: Any, training: TrainConfig, stop: "_Stop"
) -> Any:
    device = {"auto": "auto", "cpu": "cpu", "cuda": "gpu"}[config.device]
    limit: dict[str, Any] = {}
    if stage.epoch_steps is not None:
        limit["limit_train_batches"] = stage.epoch_steps
    trainer: Any = build_trainer(
        training, network, accelerator=device, plugins=[_WholeCheckpoints()], **limit
    )
    trainer.callbacks.append(stop)  # an argument `callbacks` would replace rfdetr's own
    return trainer


def _train_config(
    config: Config, stage: DetectorStage, pictures: Path, folder: Path
) -> TrainConfig:
    last = folder / _LAST
    return TrainConfig(
        dataset_dir=str(pictures),
        output_dir=str(folder),
        class_names=list(config.labels),
        resume=str(last) if last.exists() else None,  # keeps the log of the run so far
        epochs=stage.epochs,
        batch_size=config.batch_size,
        lr=stage.learning_rate,
        lr_encoder=stage.encoder_learning_rate or stage.learning_rate,
        lr_vit_layer_decay=config.layer_decay,
        lr_component_decay=config.component_decay,
        lr_scheduler="cosine",
        warmup_epochs=stage.warmup_epochs,
        ema_decay=config.ema_decay,
        ema_tau=config.ema_tau,
        multi_scale=MultiScale.PER_BATCH if config.multi_scale else MultiScale.OFF,
        scale_jitter=config.multi_scale,
        amp_dtype="auto" if config.precision == "mixed" else None,
        num_workers=config.workers,
        seed=config.seed,
        eval_backend="faster_coco_eval",  # the default one needs numpy 2
        eval_interval=config.validate_epochs,
        run_test=False,
        tensorboard=config.tensorboard,
        progress_bar="rich" if sys.stderr.isatty() else None,
        checkpoint_interval=1000,  # `last.ckpt` is written after every epoch anyway
    )


class _WholeCheckpoints(TorchCheckpointIO):
    """Replaces a checkpoint at once.

    Lightning's own way is by the system's temporary folder: from another disk, a kill while it is
    copied would leave half a checkpoint and none before it.
    """

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint so that the file appears complete or not at all."""
        save_torch(checkpoint, Path(path))


class _Stop(lightning.Callback):
    """Stops between two steps when asked to, and saves what has been reached."""

    def __init__(self, interruption: Interruption, checkpoint: Path) -> None:
        self._interruption = interruption
        self._checkpoint = checkpoint

    @override
    def on_train_batch_start(self, *_: Any) -> None:
        """Leave before a step begins."""
        if self._interruption.is_wanted:
            raise KeyboardInterrupt

    @override
    def on_exception(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        """Save after an interruption; the state after an error is no good."""
        if isinstance(exception, KeyboardInterrupt | SIGTERMException):
            trainer.save_checkpoint(self._checkpoint)
