"""A detector is fine-tuned by rfdetr's own trainer, and no step is lost or repeated."""

import errno
import json
import shutil
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from training.detector.checkpoints import SIZES, labels, load, model_config
from training.detector.dataset import ANNOTATIONS, CocoFolder, check_coco
from training.detector.export import to_onnx
from training.detector.tiles import Target
from training.detector.train import Config, DetectorStage, train
from training.errors import InputError
from training.run.command import CONFIGS
from training.run.config import Split
from training.run.config import load as load_config
from training.weights.registry import read_registry

SOCCER = ("player", "goalkeeper", "referee", "ball")
PUBLISHED = ("nano", "small", "medium", "large")
ROOT = Path(__file__).parents[2]


def coco_folder(root: Path, names: tuple[str, ...]) -> Path:
    """Two pictures a split, with one object of each label."""
    rng = np.random.default_rng(0)
    for split in ("train", "valid"):
        folder = CocoFolder(root / split, names)
        for _ in range(2):
            picture = rng.integers(0, 256, (64, 64, 3), np.uint8)
            boxes = [(4.0 + 12 * i, 8.0, 14.0 + 12 * i, 40.0) for i in range(len(names))]
            folder.add(picture, [Target(*one, 300) for one in zip(names, boxes, strict=True)])
        folder.close()
    return root


def tiny(**changes: object) -> Config:
    stage = DetectorStage(name="only", resolution=64, epochs=3, epoch_steps=5, learning_rate=1e-3)
    values = {"labels": ("person", "ball"), "batch_size": 2, "validate_epochs": 3, "device": "cpu"}
    return Config.model_validate({"stages": (stage,), **values, **changes})


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """A file in the layout of the published checkpoints: 90 classes of COCO at 384 px."""
    torch.manual_seed(0)
    model = SIZES["nano"](pretrain_weights=None, num_classes=90, device="cpu")
    path = tmp_path_factory.mktemp("weights") / "published.pth"
    args = Namespace(class_names=[f"class {i}" for i in range(90)])
    torch.save({"model": model.model.model.state_dict(), "args": args}, path)
    return path


@pytest.mark.filterwarnings("ignore")
def test_a_published_checkpoint_is_fine_tuned_to_soccer_labels(published, tmp_path):
    footage = coco_folder(tmp_path / "coco", SOCCER)
    stage = DetectorStage(name="only", resolution=64, epochs=1, epoch_steps=2, learning_rate=1e-3)
    config = tiny(size="nano", labels=SOCCER, stages=(stage,), init=published)
    model = load("nano", train(config, footage, tmp_path / "work"))

    assert labels(model) == list(SOCCER)
    assert model.model_config.resolution == 64
    before = torch.load(published, weights_only=False)["model"]
    after = model.model.model.state_dict()
    encoder = "backbone.0.encoder.encoder.encoder.layer.0.mlp.fc1.weight"
    change = (after[encoder] - before[encoder]).abs().max()
    assert 0 < change < 0.02  # moved, and from these weights
    assert after["class_embed.bias"].shape == (5,)
    graph = to_onnx(model).graph
    sides = [[d.dim_value for d in one.type.tensor_type.shape.dim] for one in graph.input]
    assert sides == [[0, 64, 64, 3]]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_goes_on_from_the_very_step_and_a_killed_one_from_its_epoch(number, tmp_path):
    footage, work = coco_folder(tmp_path / "coco", ("person", "ball")), tmp_path / "work"
    path = tmp_path / "tiny.json"
    path.write_text(tiny().model_dump_json())
    code = (
        "import sys; from pathlib import Path\n"
        "from training.detector.train import Config, train\n"
        "config, footage, work = map(Path, sys.argv[1:])\n"
        "train(Config.model_validate_json(config.read_text()), footage, work)\n"
    )
    command = [sys.executable, "-c", code, path, footage, work]
    last = work / "run" / "only" / "last.ckpt"
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not last.exists():
            time.sleep(0.02)
        time.sleep(0.1)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    if number == signal.SIGINT:
        assert errors.rstrip().endswith("KeyboardInterrupt")
        assert 5 < _steps(last) < 15
    else:
        assert _steps(last) in (5, 10)
    assert not (last.parent / "last_ema.pth").exists()

    weights = train(tiny(), footage, work)
    assert _steps(last) == 15
    assert weights.is_file()
    log = (last.parent / "metrics.csv").read_text().splitlines()
    assert log[1].startswith("0,")  # what was logged before the interruption
    assert train(tiny(), footage, work) == weights  # nothing left to do


@pytest.mark.filterwarnings("ignore")
def test_half_a_result_or_checkpoint_is_never_taken_for_a_whole_one(tmp_path, monkeypatch):
    """A full disk, or a kill, while rfdetr writes a stage's weights, or Lightning its state."""
    footage, work = coco_folder(tmp_path / "coco", ("person", "ball")), tmp_path / "work"
    config = tiny(stages=[tiny().stages[0].model_copy(update={"epochs": 1, "epoch_steps": 2})])
    folder, save = work / "run" / "only", torch.save

    def stop_within(name):
        def half(content, file):
            path = Path(file.name if hasattr(file, "write") else file)
            if path.name.startswith(name):
                path.write_bytes(b"half")
                raise OSError(errno.ENOSPC, "no space left on device")
            save(content, file)

        return half

    for name in ("last.ckpt", "last_ema.pth"):
        with monkeypatch.context() as patch:
            patch.setattr(torch, "save", stop_within(name))
            with pytest.raises(OSError, match="no space"):
                train(config, footage, work)
        assert (folder / "last.ckpt").exists() == (name != "last.ckpt")
    assert (folder / "last_ema.pth").read_bytes() == b"half"

    assert "model" in torch.load(train(config, footage, work), weights_only=False)
    assert _steps(folder / "last.ckpt") == 2


def _steps(checkpoint: Path) -> int:
    return int(torch.load(checkpoint, map_location="cpu", weights_only=False)["global_step"])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"labels": ("player", "ball")}, r"expected the categories \['player', 'ball'\]"),
        ({"init": Path("nowhere.pth")}, "init: expected a checkpoint, found none at nowhere.pth"),
        ({"init": Path(__file__)}, "test_detector_training.py: expected a PyTorch state dict"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_before_training(changes, complaint, tmp_path):
    footage = coco_folder(tmp_path / "coco", ("person", "ball"))
    with pytest.raises(InputError, match=complaint):
        train(tiny(**changes), footage, tmp_path / "work")
    assert not (tmp_path / "work").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a machine without GPU")
def test_a_missing_gpu_is_not_replaced_by_the_cpu(tmp_path):
    with pytest.raises(InputError, match="device: expected auto or cpu"):
        train(tiny(device="cuda"), tmp_path, tmp_path / "work")


def test_rendered_clips_need_a_split_and_their_labels(tmp_path):
    with pytest.raises(InputError, match="clips: expected train and held_out"):
        train(tiny(), tmp_path, tmp_path / "work")
    split = Split(train=("dev_01",), held_out=("dev_05",))
    with pytest.raises(InputError, match="labels: expected those of rendered clips"):
        train(tiny(clips=split, labels=("keeper", "ball")), tmp_path, tmp_path / "work")


def test_missing_stills_are_told_before_the_stages_that_need_none(tmp_path):
    stages = [
        *tiny().stages,
        tiny().stages[0].model_copy(update={"name": "real", "stills": tmp_path / "no"}),
    ]
    split = Split(train=("dev_01",), held_out=("dev_05",))
    with pytest.raises(InputError, match=r"stages.real.stills: .*no: expected labelled footage"):
        train(tiny(clips=split, stages=stages), tmp_path, tmp_path / "work")
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("name", "labels", "complaint"),
    [
        ("dev_05", ("person", "ball"), "expected no pictures of the held-out clip dev_05"),
        ("other", ("player", "goalkeeper", "referee", "ball"), r"found \['person'\] in other"),
    ],
)
def test_stills_of_a_held_out_clip_or_of_other_labels_are_refused(
    name, labels, complaint, tmp_path
):
    footage = coco_folder(tmp_path / "stills", ("person", "ball")) / "valid"
    annotations = (footage / ANNOTATIONS).read_text()
    for number in range(2):
        (footage / f"00000{number}.jpg").rename(footage / f"{name}_00000{number}.jpg")
    (footage / ANNOTATIONS).write_text(annotations.replace("00000", f"{name}_00000"))
    shutil.rmtree(tmp_path / "stills" / "train")
    stages = [tiny().stages[0].model_copy(update={"stills": tmp_path / "stills"})]
    split = Split(train=("dev_01",), held_out=("dev_05",))
    with pytest.raises(InputError, match=rf"stages.only.stills: .*{complaint}"):
        train(tiny(clips=split, labels=labels, stages=stages), tmp_path, tmp_path / "work")


def test_stills_beside_a_coco_folder_are_refused_and_not_forgotten(tmp_path):
    footage = coco_folder(tmp_path / "coco", ("person", "ball"))
    stages = [tiny().stages[0].model_copy(update={"stills": footage})]
    with pytest.raises(InputError, match="stages.only.stills: expected none beside a COCO folder"):
        train(tiny(stages=stages), footage, tmp_path / "work")


def test_a_coco_folder_that_was_divided_frame_by_frame_is_told(tmp_path):
    footage = coco_folder(tmp_path / "coco", ("person", "ball"))
    for split in ("train", "valid"):
        path = footage / split / ANNOTATIONS
        name = f"match_3_{split == 'train':d}_png.rf.0a1b"  # as Roboflow exports frame 0 or 1
        path.write_text(path.read_text().replace("000000", name).replace("000001", f"{split}_1"))
    assert check_coco(footage, ("person", "ball")) == ["match_3"]


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda path: path.unlink(), "expected COCO annotations: No such file"),
        (lambda path: path.write_text("{"), "expected COCO annotations: JSONDecodeError"),
        (lambda path: path.write_text("{}"), "expected COCO annotations: KeyError"),
    ],
)
def test_a_broken_coco_folder_is_named(damage, complaint, tmp_path):
    footage = coco_folder(tmp_path / "coco", ("person", "ball"))
    damage(footage / "valid" / ANNOTATIONS)
    with pytest.raises(InputError, match=f"valid/{ANNOTATIONS}: {complaint}"):
        train(tiny(), footage, tmp_path / "work")


def test_a_category_that_only_groups_others_is_no_label(tmp_path):
    """As exports of labelling tools have it."""
    footage = coco_folder(tmp_path / "coco", ("person", "ball"))
    for split in ("train", "valid"):
        path = footage / split / ANNOTATIONS
        content = json.loads(path.read_text())
        for one in (*content["categories"], *content["annotations"]):
            key = "category_id" if "category_id" in one else "id"
            one[key] += 1
            one["supercategory"] = "football"
        content["categories"].append({"id": 0, "name": "football", "supercategory": "none"})
        path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"found \['person', 'ball'\]"):
        train(tiny(labels=("football", "person", "ball")), footage, tmp_path / "work")


@pytest.mark.parametrize("name", ["detector", "detector_finetune"])
def test_the_committed_configs_are_valid(name):
    config = load_config(Config, CONFIGS / f"{name}.toml")
    assert config.clips is None or not set(config.clips.train) & set(config.clips.held_out)


@pytest.mark.filterwarnings("ignore")
def test_every_size_starts_from_its_registered_checkpoint():
    registered = [
        entry.source.removeprefix("rfdetr:")
        for entry in read_registry().entries
        if entry.source.startswith("rfdetr:")
    ]
    kinds = [
        type(model_config(size, labels=SOCCER, resolution=64, init=None)) for size in PUBLISHED
    ]
    assert registered == [kind.model_fields["pretrain_weights"].default for kind in kinds]


def test_two_stages_of_one_name_are_refused():
    stage = tiny().stages[0]
    with pytest.raises(ValueError, match="stages: expected a name for each"):
        tiny(stages=(stage, stage))
