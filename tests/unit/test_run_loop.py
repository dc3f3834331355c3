"""The shared loop: learns, logs, stops on a signal, and goes on to the same bits."""

import csv
import resource
import signal

import numpy as np
import pytest
import torch
from torch import nn

from training.errors import InputError
from training.run.config import RunConfig, Split, Stage
from training.run.hardware import Hardware
from training.run.loop import CHECKPOINT, Loop, locate

STAGES = (
    Stage(name="first", steps=6, learning_rate=0.05, warmup_steps=2),
    Stage(name="second", steps=6, learning_rate=0.02, restart=True),
)
CONFIG = RunConfig(
    clips=Split(train=("a",)), device="cpu", ema_decay=0.5, evaluate_steps=4, gradient_clip=1.0
)


class Regression:
    """Learns a line through a real network with dropout and batch statistics."""

    def __init__(self, signal_at=None, number=signal.SIGINT):
        torch.manual_seed(0)
        self.network = nn.Sequential(
            nn.Linear(4, 32), nn.BatchNorm1d(32), nn.Dropout(0.2), nn.ReLU(), nn.Linear(32, 1)
        )
        self._signal_at, self._number, self._drawn = signal_at, number, 0

    def draw(self, stage, rng):
        x = torch.from_numpy(rng.normal(size=(64, 4)).astype(np.float32))
        return {"x": x, "y": x.sum(1, keepdim=True)}

    def loss(self, batch, stage):
        self._drawn += 1
        if self._drawn == self._signal_at:
            signal.raise_signal(self._number)
        return nn.functional.mse_loss(self.network(batch["x"]), batch["y"])

    def scores(self, network):
        assert not network.training
        return {"bias": float(network[-1].bias.detach())}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def weights(loop):
    return torch.cat([value.flatten().double() for value in loop.run().state_dict().values()])


def rows(run, name):
    with (run / name).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def unbroken(tmp_path):
    run = tmp_path / "unbroken"
    run.mkdir()
    return weights(Loop(Regression(), STAGES, CONFIG, run)), run


def test_the_loss_falls_and_every_step_is_logged(unbroken):
    _, run = unbroken
    log = rows(run, "steps.csv")
    assert [int(row["step"]) for row in log] == list(range(1, 13))
    assert [row["stage"] for row in log] == ["first"] * 6 + ["second"] * 6
    assert float(log[-1]["loss"]) < 0.8 * float(log[0]["loss"])
    assert [int(row["step"]) for row in rows(run, "scores.csv")] == [4, 8, 12]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stop", [2, 6, 9])
def test_a_stopped_run_goes_on_to_the_same_bits(unbroken, tmp_path, number, stop):
    expected, other = unbroken
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt):
        Loop(Regression(signal_at=stop, number=number), STAGES, CONFIG, tmp_path).run()
    assert torch.load(tmp_path / CHECKPOINT)["step"] == stop, "the step was finished and saved"
    assert torch.equal(weights(Loop(Regression(), STAGES, CONFIG, tmp_path)), expected)
    losses, unbroken_losses = (
        [(row["step"], row["loss"]) for row in rows(run, "steps.csv")] for run in (tmp_path, other)
    )
    assert losses == unbroken_losses
    assert rows(tmp_path, "scores.csv") == rows(other, "scores.csv")
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_steps_after_the_last_checkpoint_are_done_again_and_logged_once(
    unbroken, tmp_path, monkeypatch
):
    expected, _ = unbroken

    class Killed(BaseException):
        pass

    def die_at_eight(loop, batch, stage, rate, *, restart, update=Loop._update):
        if loop._step == 7:
            raise Killed
        return update(loop, batch, stage, rate, restart=restart)

    frequent = CONFIG.model_copy(update={"checkpoint_seconds": 1e-9})
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_update", die_at_eight)
        with pytest.raises(Killed):
            Loop(Regression(), STAGES, frequent, tmp_path).run()
    assert torch.load(tmp_path / CHECKPOINT)["step"] == 7
    assert not list(tmp_path.glob("*.partial"))
    assert torch.equal(weights(Loop(Regression(), STAGES, CONFIG, tmp_path)), expected)
    assert len(rows(tmp_path, "steps.csv")) == 12


def test_a_checkpoint_that_does_not_fit_on_the_disk_leaves_the_one_before(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        Loop(Regression(signal_at=3), STAGES, CONFIG, tmp_path).run()
    before = (tmp_path / CHECKPOINT).read_bytes()

    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(OSError, match=rf"too large: '.*{CHECKPOINT}'"):
            Loop(Regression(signal_at=2), STAGES, CONFIG, tmp_path).run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("step", [4, 12])
def test_scores_that_a_kill_cut_short_are_made_up_for(unbroken, tmp_path, step):
    _, other = unbroken
    task = Regression()
    task.scores = lambda network: 1 / 0 if loop._step == step else Regression.scores(task, network)
    loop = Loop(task, STAGES, CONFIG, tmp_path)
    with pytest.raises(ZeroDivisionError):
        loop.run()
    assert torch.load(tmp_path / CHECKPOINT)["step"] == step
    Loop(Regression(), STAGES, CONFIG, tmp_path).run()
    assert rows(tmp_path, "scores.csv") == rows(other, "scores.csv")


def test_a_log_that_a_full_disk_cut_short_goes_on_without_its_torn_line(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        Loop(Regression(signal_at=3), STAGES, CONFIG, tmp_path).run()
    whole_log = (tmp_path / "steps.csv").read_text()
    (tmp_path / "steps.csv").write_text(f"{whole_log}\n2,fir")
    Loop(Regression(), STAGES, CONFIG, tmp_path).run()
    assert [int(row["step"]) for row in rows(tmp_path, "steps.csv")] == list(range(1, 13))


@pytest.mark.parametrize("damage", [lambda raw: raw[:-100], lambda _: b"", lambda _: b"junk"])
def test_a_damaged_checkpoint_is_named(unbroken, damage):
    _, run = unbroken
    (run / CHECKPOINT).write_bytes(damage((run / CHECKPOINT).read_bytes()))
    with pytest.raises(InputError, match=rf"{CHECKPOINT}: expected a PyTorch state dict"):
        Loop(Regression(), STAGES, CONFIG, run)


def test_batches_drawn_by_workers_are_the_same(unbroken, tmp_path):
    expected, _ = unbroken
    config = CONFIG.model_copy(update={"workers": 2})
    assert torch.equal(weights(Loop(Regression(), STAGES, config, tmp_path)), expected)


def test_a_finished_run_is_not_trained_further(unbroken):
    expected, run = unbroken
    before = (run / CHECKPOINT).stat().st_mtime_ns
    assert torch.equal(weights(Loop(Regression(), STAGES, CONFIG, run)), expected)
    assert (run / CHECKPOINT).stat().st_mtime_ns == before


def test_a_restart_begins_from_the_average_with_a_fresh_optimizer(unbroken, tmp_path):
    expected, _ = unbroken
    plain = (STAGES[0], STAGES[1].model_copy(update={"restart": False}))
    assert not torch.equal(weights(Loop(Regression(), plain, CONFIG, tmp_path)), expected)


def test_without_averaging_the_last_weights_are_the_result(tmp_path):
    task, config = Regression(), CONFIG.model_copy(update={"ema_decay": 0.0})
    result = Loop(task, STAGES, config, tmp_path).run()
    for key, value in result.state_dict().items():
        assert torch.equal(value, task.network.state_dict()[key]), key


def test_another_seed_draws_other_batches(unbroken, tmp_path):
    expected, _ = unbroken
    config = CONFIG.model_copy(update={"seed": 1})
    assert not torch.equal(weights(Loop(Regression(), STAGES, config, tmp_path)), expected)


def test_a_loss_that_is_not_finite_stops_the_run_and_spares_the_weights(tmp_path):
    task = Regression()
    task.draw = lambda stage, rng: {"x": torch.full((4, 4), torch.inf), "y": torch.zeros(4, 1)}
    with pytest.raises(InputError, match=r"step 0: expected a finite loss.*stage first"):
        Loop(task, STAGES, CONFIG, tmp_path).run()
    assert all(torch.isfinite(weight).all() for weight in task.network.parameters())


def test_frozen_weights_stay_as_they_are(tmp_path):
    task = Regression()
    task.network[0].requires_grad_(False)
    before = task.network[0].weight.clone()
    result = Loop(task, STAGES, CONFIG, tmp_path).run()
    assert torch.equal(result[0].weight, before)
    assert not torch.equal(result[-1].weight, Regression().network[-1].weight)


def test_a_terminal_is_needed_for_the_bar(tmp_path, capsys):
    Loop(Regression(), STAGES, CONFIG, tmp_path).run()
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


def test_steps_belong_to_their_stages():
    assert [(locate(STAGES, step)[0].name, locate(STAGES, step)[1]) for step in (0, 5, 6, 11)] == [
        ("first", 0), ("first", 5), ("second", 0), ("second", 5),
    ]  # fmt: skip


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="device: expected auto or cpu"):
        Hardware.of(CONFIG.model_copy(update={"device": "cuda"}))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_run_on_the_gpu_learns_and_goes_on(tmp_path, precision):
    config = CONFIG.model_copy(update={"device": "cuda", "precision": precision})
    with pytest.raises(KeyboardInterrupt):
        Loop(Regression(signal_at=5), STAGES, config, tmp_path).run()
    result = Loop(Regression(), STAGES, config, tmp_path).run()
    assert next(result.parameters()).is_cuda
    log = rows(tmp_path, "steps.csv")
    assert len(log) == 12
    assert float(log[-1]["loss"]) < float(log[0]["loss"])
