"""The jersey network's training: learning, a real signal, torchvision's weights."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import resnet18

from tests.unit.tiny_footage import write_footage
from training.data.crops import NUMBER, crop_set
from training.errors import InputError
from training.jersey.batches import IGNORED, _cover, close_up_batch, whole_batch
from training.jersey.checkpoints import load, save, start
from training.jersey.evaluate import calibrate, evaluate, torch_reader
from training.jersey.net import HEADS, JerseyNet
from training.jersey.train import Config, loss, train
from training.run import config as run_config
from training.run.loop import CHECKPOINT

ROOT = Path(__file__).parents[2]
CONFIG = """
device = "cpu"
batch_size = 4
checkpoint_seconds = 1000
[clips]
train = ["clip_0", "clip_1"]
calibration = ["clip_2"]
held_out = ["clip_2"]
[[stages]]
name = "close-ups"
steps = 5
learning_rate = 2e-3
close_ups = 1.0
[[stages]]
name = "whole crops"
steps = 5
learning_rate = 2e-3
natural = 0.5
restart = true
"""


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    return write_footage(tmp_path_factory.mktemp("footage"))


@pytest.fixture(scope="module")
def crops(footage, tmp_path_factory):
    return crop_set(footage, ("clip_0", "clip_1"), tmp_path_factory.mktemp("crops"))


@pytest.fixture
def config_file(tmp_path):
    (tmp_path / "tiny.toml").write_text(CONFIG)
    return tmp_path / "tiny.toml"


def losses(work):
    with (work / "run" / "steps.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def start_training(config_file, footage, work):
    command = ["train", "jersey", "--footage", footage, "--work", work, "--config", config_file]
    path = f"{ROOT}{os.pathsep}{ROOT / 'model_repository' / 'sam2_tracker'}"
    return subprocess.Popen(
        [sys.executable, "-m", "training", *map(str, command)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for_steps(process, work, steps):
    log = work / "run" / "steps.csv"
    while not (log.exists() and len(log.read_text().splitlines()) > steps):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def test_a_real_interrupt_loses_nothing_and_the_rest_repeats_to_the_bit(
    config_file, footage, tmp_path
):
    process = start_training(config_file, footage, tmp_path / "stopped")
    wait_for_steps(process, tmp_path / "stopped", 2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130, err
    assert out + err == "", "no terminal, no bar"
    done = torch.load(tmp_path / "stopped" / "run" / CHECKPOINT)["step"]
    assert done == len(losses(tmp_path / "stopped"))
    assert 2 <= done < 10

    config = run_config.load(Config, config_file)
    resumed = train(config, footage, tmp_path / "stopped")
    unbroken = train(config, footage, tmp_path / "unbroken")
    assert losses(tmp_path / "stopped") == losses(tmp_path / "unbroken")
    ours, theirs = load(resumed).state_dict(), load(unbroken).state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    report = json.loads((tmp_path / "unbroken" / "jersey.json").read_text())
    assert set(report["temperatures"]) == set(HEADS)
    assert evaluate(unbroken, footage, ["clip_2"])["role"] == report["role"]


def test_a_run_learns(config_file, footage, tmp_path):
    learning = ["batch_size=8", "stages.0.learning_rate=2e-3", "clips.calibration=[]"]
    config = run_config.load(Config, config_file, [*learning, "clips.held_out=[]"])
    stage = config.stages[0].model_copy(update={"steps": 14})
    train(config.model_copy(update={"stages": (stage,)}), footage, tmp_path)
    found = losses(tmp_path)
    assert np.mean(found[-4:]) < np.mean(found[:4])


@pytest.mark.parametrize("stage", ["close-ups", "whole"])
def test_batches_repeat_by_seed_and_tell_numbers(crops, stage):
    def drawn():
        rng = np.random.default_rng(5)
        if stage == "whole":
            return whole_batch(crops, 16, 0.5, rng)
        return close_up_batch(crops, 16, rng)

    batch, again = drawn(), drawn()
    assert batch.keys() == {"crops", *HEADS}
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    assert batch["crops"].dtype == torch.uint8
    numbered = batch["units"] != IGNORED
    assert numbered[8:].float().mean() > 0.7, "most of the second half shows readable numbers"
    assert (batch["role"][8:] == IGNORED).all(), "roles are learnt at their true frequency"


def test_clips_without_a_readable_number_are_refused(crops):
    attributes = crops.attributes.copy()
    attributes[:, NUMBER] = IGNORED
    blind = replace(crops, attributes=attributes)
    with pytest.raises(InputError, match="back numbers can be read"):
        whole_batch(blind, 4, 0.5, np.random.default_rng(0))


def test_what_hair_hides_has_no_digits_and_is_not_called_readable():
    attributes = np.array([0, 0, 0, 0, 0, 17], np.int16)
    assert [_cover(share, attributes) for share in (0.1, 0.4)] == [1, IGNORED]
    assert attributes[NUMBER] == 17
    assert _cover(0.6, attributes) == 0
    assert attributes[NUMBER] == IGNORED


def test_unknown_truth_carries_no_loss():
    logits = {name: torch.randn(3, width, requires_grad=True) for name, width in HEADS.items()}
    truth = {name: torch.full((3,), IGNORED) for name in HEADS}
    assert loss(logits, truth) == 0
    truth["units"] = torch.tensor([IGNORED, 4, IGNORED])
    loss(logits, truth).backward()
    gradient = logits["units"].grad
    assert gradient[1].any()
    assert not gradient[[0, 2]].any()


def test_torchvision_s_weights_start_a_network_and_ours_go_on(tmp_path):
    official = resnet18(weights=None).state_dict()
    torch.save(official, tmp_path / "resnet18.pth")
    net = start("resnet18", tmp_path / "resnet18.pth")
    assert torch.equal(net.backbone.layer4[1].conv2.weight, official["layer4.1.conv2.weight"])
    save(net, tmp_path / "jersey.pt")
    again = start("resnet18", tmp_path / "jersey.pt")
    assert all(
        torch.equal(a, b)
        for a, b in zip(again.state_dict().values(), net.state_dict().values(), strict=True)
    )


def test_weights_that_do_not_fit_are_refused_naming_the_file(tmp_path):
    save(JerseyNet("resnet10"), tmp_path / "jersey.pt")
    torch.save(JerseyNet("resnet10").backbone.state_dict(), tmp_path / "other.pth")
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    for name, message in {
        "jersey.pt": "expected backbone resnet18, not resnet10",
        "other.pth": "expected torchvision's state dict",
        "broken.pth": "expected a PyTorch state dict",
        "none.pth": "expected a file of weights",
    }.items():
        with pytest.raises(InputError, match=rf"{name}: {message}"):
            start("resnet18", tmp_path / name)
    with pytest.raises(InputError, match=r"other\.pth: expected a jersey\.pt"):
        load(tmp_path / "other.pth")


def test_calibration_makes_loud_beliefs_as_sure_as_they_are_right(footage, tmp_path):
    torch.manual_seed(0)
    net = JerseyNet("resnet10").eval()
    with torch.no_grad():
        net.heads["role"].weight.mul_(50)
    held_out = crop_set(footage, ("clip_2",), tmp_path)
    temperatures = calibrate(net, held_out)
    assert temperatures["role"] > 1
    assert temperatures.keys() == HEADS.keys()
    assert len(torch_reader(net)(np.zeros((2, 128, 64, 3), np.uint8))) == len(HEADS)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_run_on_the_gpu_ends(config_file, footage, tmp_path):
    config = run_config.load(Config, config_file, ["device=cuda", "workers=2"])
    train(config, footage, tmp_path)
    found = losses(tmp_path)
    assert len(found) == 10
    assert np.isfinite(found).all()
