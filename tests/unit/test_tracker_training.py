"""The tracker's training: sees what serving sees, learns, resumes, takes published checkpoints."""

import csv
import errno
import os
import signal

import numpy as np
import pytest
import torch
from sam2_streaming.architecture import CompactConfig, load, random_compact, random_official
from sam2_streaming.engine import StreamingEngine, Target
from sam2_streaming.prompts import Prompt as ServedPrompt

from tests.unit.tiny_footage import write_footage
from training.errors import InputError
from training.run.config import Split
from training.run.journal import Journal
from training.run.loop import CHECKPOINT
from training.tracker.evaluate import evaluate
from training.tracker.network import save, start
from training.tracker.objective import LossWeights, Outputs, loss, mask_iou, track
from training.tracker.prompts import Prompt, Prompts, draw, noisy_boxes
from training.tracker.squares import ROW, extract
from training.tracker.tracklets import MEAN, STD, Difficulty, Tracklets
from training.tracker.train import Config, TrackerStage, TrackerTask, train

SIZES = CompactConfig(image_size=64, channels=64, embed_dim=8, memory_frames=3, pointers=4)
SQUARE_PX = 80
HARD = Difficulty(crowded=1, slipping=1, crossed=1, interrupted=1)
PLAIN = Difficulty(crowded=0, slipping=0, crossed=0, interrupted=0, augmented=False)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    return write_footage(tmp_path_factory.mktemp("footage"), clips=4)


@pytest.fixture
def config():
    stage = TrackerStage(
        name="tiny", steps=12, learning_rate=2e-3, final_learning_rate=1e-3, frames=3,
        difficulty=Difficulty(interrupted=0), prompts=Prompts(box=2, mask=1, click=1),
    )  # fmt: skip
    return Config(
        clips=Split(train=("clip_0", "clip_1"), held_out=("clip_2", "clip_3")),
        device="cpu", stages=(stage,), compact=SIZES, windows=12, gradient_clip=1.0, ema_decay=0.9,
    )  # fmt: skip


def losses(work):
    with (work / "run" / "steps.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def test_training_sees_what_serving_sees():
    torch.manual_seed(0)
    network = random_compact(SIZES)
    network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.data.fill_(5.0)
    images = np.random.default_rng(0).integers(0, 256, (5, 2, 64, 64, 3), np.uint8)
    boxes = np.array([(10, 10, 40, 60), (20, 5, 50, 45)], np.float32)
    pictures = torch.from_numpy((images / 255 - MEAN) / STD).float().permute(0, 1, 4, 2, 3)
    corners = torch.from_numpy(boxes).view(2, 2, 2)
    labels = torch.tensor([[2, 3]] * 2, dtype=torch.int32)
    with torch.no_grad():
        outputs = track(network, pictures, Prompt.at(corners, labels))

    engine = StreamingEngine(network, "cpu", torch.float32)
    memories = [None, None]
    for frame, expected in zip(images, outputs, strict=True):
        shown = [None if memories[k] else ServedPrompt.box(boxes[k]) for k in range(2)]
        targets = [Target(k, memories[k], shown[k]) for k in range(2)]
        estimates = engine.step(frame, targets, lambda logits: logits)
        memories = estimates.memories
        torch.testing.assert_close(estimates.logits, expected.best_logits, atol=1e-2, rtol=0)
        assert expected.best_logits.std() > 0.01


def disc_masks():
    ys, xs = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    disc = (((xs - 30) ** 2 + (ys - 20) ** 2) < 100).float()
    return torch.stack([disc, torch.zeros(64, 64)]).reshape(2, 1, 64, 64)


def said(masks, presence, *others):
    """Frames of one tracklet with the candidates `masks` and `others`."""
    candidates = torch.stack([masks, *others], dim=2) * 16 - 8
    return [
        Outputs(logits, torch.ones(logits.shape[:2]), torch.tensor([present]))
        for logits, present in zip(candidates, presence, strict=True)
    ]


@pytest.mark.parametrize("weights", [LossWeights(), LossWeights(focal_gamma=1, focal_alpha=0.5)])
def test_loss_prefers_the_truth(weights):
    masks = disc_masks()
    shifted = masks.roll(6, -1)
    right = loss(said(masks, [4.0, -4.0]), masks, weights)
    assert right < 0.1
    assert loss(said(shifted, [4.0, -4.0]), masks, weights) > 5 * right
    assert loss(said(masks, [-4.0, 4.0]), masks, weights) > 5 * right


def test_only_the_best_candidate_is_taught_its_mask_but_each_its_iou():
    masks, weights = disc_masks(), LossWeights()
    wrong = 1 - masks
    alone = loss(said(masks, [4.0, -4.0]), masks, weights)
    beside = loss(said(wrong, [4.0, -4.0], masks), masks, weights)
    iou_error = beside - alone  # the wrong candidate claims IoU 1 and has 0: half of the mean
    assert iou_error == pytest.approx(0.5 * weights.iou, abs=1e-3)


def test_prompt_boxes_are_tight_but_for_the_noise():
    masks = disc_masks()[:1, 0].numpy()
    exact = noisy_boxes(masks, 0.0, np.random.default_rng(0))
    assert exact.tolist() == [[[21, 11], [40, 30]]]
    noisy = noisy_boxes(masks, 0.1, np.random.default_rng(0))
    assert 0 < np.abs(noisy - exact).max() < 10


def test_prompts_come_in_their_shares_and_clicks_lie_on_the_mask():
    masks, rng = disc_masks()[:1, 0].numpy(), np.random.default_rng(0)
    kinds = {"box": 0, "mask": 0, "click": 0}
    for _ in range(400):
        drawn = draw(masks, Prompts(box=1, mask=2, click=1), rng)
        prompt = Prompt.of({**drawn, "masks": torch.from_numpy(masks)[None]})
        if prompt.mask is not None:
            kinds["mask"] += 1
            continue
        labels = prompt.points["point_labels"].tolist()
        kinds["box" if labels == [[2, 3]] else "click"] += 1
        if labels == [[1]]:
            x, y = prompt.points["point_coords"][0, 0].int().tolist()
            assert masks[0, y, x] == 1
    assert kinds["mask"] == pytest.approx(200, abs=40)
    assert kinds["box"] == pytest.approx(100, abs=35)


def test_prompts_of_no_kind_are_refused():
    with pytest.raises(ValueError, match="expected box, mask or click above 0"):
        Prompts(box=0)


@pytest.fixture
def squares(tmp_path):
    """Two clips with two people each, 60 frames; a person is a grey block."""
    keys = [(c, p, f) for c in range(2) for p in range(2) for f in range(60)]
    rows = np.zeros(len(keys), ROW)
    rows["clip"], rows["person"], rows["frame"] = np.array(keys).T
    rows["height"], rows["side"], rows["seen"] = 40, 140, 0.5
    rows["cx"] = rows["cy"] = 100
    rows["x0"] = rows["y0"] = 30
    rows["toward_x"] = 0.8
    pixels = np.zeros((len(keys), 160, 160, 4), np.uint8)
    pixels[:, 57:103, 73:87] = (128, 128, 128, 255)
    np.save(tmp_path / "rows.npy", rows)
    np.save(tmp_path / "squares.npy", pixels)
    return tmp_path


def test_tracklets_start_with_a_visible_person_and_repeat_by_seed(squares):
    tracklets = Tracklets(squares, 64)
    pictures, masks = tracklets.batch(np.random.default_rng(3), 8, 6, HARD)
    assert pictures.shape == (6, 8, 3, 64, 64)
    assert masks.shape == (6, 8, 64, 64)
    assert pictures.dtype == masks.dtype == np.float32
    assert (masks[0].sum((-1, -2)) > 100).all()
    assert (masks[1:].sum((-1, -2)) == 0).any(axis=0).all(), "every tracklet is interrupted once"
    again = tracklets.batch(np.random.default_rng(3), 8, 6, HARD)
    np.testing.assert_array_equal(pictures, again[0])
    np.testing.assert_array_equal(masks, again[1])


def test_plain_tracklets_keep_the_person_near_the_middle(squares):
    _, masks = Tracklets(squares, 64).batch(np.random.default_rng(0), 6, 4, PLAIN)
    rows, columns = np.nonzero(masks.reshape(-1, 64, 64))[1:]
    assert abs(rows.mean() - 31.5) < 3
    assert abs(columns.mean() - 31.5) < 3


def test_clips_shorter_than_a_tracklet_are_refused(squares):
    with pytest.raises(InputError, match="stay for the 61 frames"):
        Tracklets(squares, 64).batch(np.random.default_rng(0), 1, 61, PLAIN)


def test_footage_without_masks_is_refused_naming_the_clip(tmp_path):
    footage = write_footage(tmp_path / "footage", clips=1)
    (footage / "clip_0.masks.json.gz").unlink()
    with pytest.raises(InputError, match="expected masks of clip_0"):
        extract(footage, ("clip_0",), tmp_path / "out", SQUARE_PX)


def test_scores_on_footage_without_masks_are_refused_naming_the_clip(tmp_path):
    footage = write_footage(tmp_path / "footage", clips=1)
    (footage / "clip_0.masks.json.gz").unlink()
    weights = save(random_compact(SIZES), None, tmp_path)
    with pytest.raises(InputError, match="expected masks of clip_0"):
        evaluate(weights, footage, ("clip_0:2",))


def test_squares_that_do_not_fit_on_the_disk_are_an_error_and_kill_nobody(
    footage, tmp_path, monkeypatch
):
    """A write to a mapped file would end in SIGBUS; so room is asked for first."""

    def full_disk(descriptor, start, size):
        assert os.fstat(descriptor).st_size == start + size, "room for the whole file"
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full_disk)
    with pytest.raises(OSError, match=r"no space left on device: '.*squares\.npy'"):
        extract(footage, ("clip_0", "clip_1"), tmp_path, SQUARE_PX)
    assert not (tmp_path / "rows.npy").exists()


def test_strangers_need_a_second_clip_that_shows_somebody_well(footage, tmp_path):
    extract(footage, ("clip_0", "clip_1"), tmp_path, SQUARE_PX)
    rows = np.load(tmp_path / "rows.npy")
    rows["seen"][rows["clip"] == 1] = 0.1
    np.save(tmp_path / "rows.npy", rows)
    with pytest.raises(InputError, match="well seen in two clips"):
        Tracklets(tmp_path, 64)


def test_a_run_learns_scores_and_ends_in_weights_that_are_served(
    config, footage, tmp_path, monkeypatch
):
    monkeypatch.setattr("training.tracker.train._SCORED_BATCHES", 1)
    weights = train(config, footage, tmp_path)
    assert weights == tmp_path / "tracker.safetensors"
    found = losses(tmp_path)
    assert len(found) == 12
    assert np.mean(found[-3:]) < 0.8 * np.mean(found[:2])
    with (tmp_path / "run" / "scores.csv").open(newline="") as file:
        scores = {row["score"]: float(row["value"]) for row in csv.DictReader(file)}
    assert {"iou_all_0", "iou_interrupted_5", "presence_recall", "absence_recall"} <= set(scores)
    assert load(weights).image_size == 64
    report = evaluate(weights, footage, ["clip_2:10"])
    assert report["ages"][0]["age"] == "1-1"
    assert report["ages"][0]["objects"] == 3
    assert 0 <= report["ages"][-1]["mean_iou"] <= 1


def test_a_stopped_run_goes_on_to_the_same_bits(config, footage, tmp_path, monkeypatch):
    stages = (config.stages[0].model_copy(update={"steps": 3}),)
    config = config.model_copy(
        update={"stages": stages, "clips": Split(train=("clip_0", "clip_1"))}
    )
    unbroken = train(config, footage, tmp_path / "unbroken").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "step", stop_after_two(Journal.step))
        with pytest.raises(KeyboardInterrupt):
            train(config, footage, tmp_path / "stopped")
    assert torch.load(tmp_path / "stopped" / "run" / CHECKPOINT)["step"] == 2
    assert train(config, footage, tmp_path / "stopped").read_bytes() == unbroken


def stop_after_two(log):
    def step(journal, number, *values):
        log(journal, number, *values)
        if number == 2:
            signal.raise_signal(signal.SIGINT)

    return step


def test_a_published_checkpoint_is_fine_tuned_from_any_prompt(footage, tmp_path):
    torch.manual_seed(0)
    init = tmp_path / "sam2.1_hiera_tiny.pt"
    torch.save({"model": random_official("sam2.1_hiera_tiny", 64).state_dict()}, init)
    kinds = (Prompts(), Prompts(box=0, mask=1), Prompts(box=0, click=1))
    stages = tuple(
        TrackerStage(name="fine", steps=1, learning_rate=1e-4, frames=2, prompts=prompts)
        for prompts in kinds
    )
    config = Config(
        clips=Split(train=("clip_0", "clip_1")), device="cpu", stages=stages, windows=2,
        init=init, image_size=64, freeze_encoder=True,
    )  # fmt: skip
    weights = train(config, footage, tmp_path / "work")
    assert weights.name == init.name
    before, after = (torch.load(path)["model"] for path in (init, weights))
    assert before.keys() == after.keys()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert not any(key.startswith("image_encoder") for key in changed)
    assert any(key.startswith("memory_encoder") for key in changed), "memory was trained"
    assert any(key.startswith("sam_mask_decoder") for key in changed)


def test_a_compact_checkpoint_is_gone_on_with(config, footage, tmp_path):
    torch.manual_seed(3)
    one = config.stages[0].model_copy(update={"steps": 1})
    config = config.model_copy(
        update={"stages": (one,), "clips": Split(train=("clip_0", "clip_1"))}
    )
    first = train(config, footage, tmp_path / "first")
    network = start(first, CompactConfig(), None)
    assert network.image_size == 64
    again = train(config.model_copy(update={"init": first}), footage, tmp_path / "again")
    key = "image_encoder.trunk.patch_embed.proj.weight"
    learnt = load(again).state_dict()[key] - load(first).state_dict()[key]
    assert 0 < learnt.abs().max() < 0.01, "one step from where the first run ended"


@pytest.mark.parametrize("name", ["sam2.1_hiera_tiny.pt", "my.pt", "gone.safetensors"])
def test_weights_that_do_not_load_are_refused_naming_the_file(tmp_path, name):
    (tmp_path / name).write_bytes(b"x") if "gone" not in name else None
    with pytest.raises(InputError, match=f"init: .*{name}"):
        start(tmp_path / name, SIZES, 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clips": {"train": ["a"]}}, "expected two or more clips.train"),
        ({"clips": {"train": ["a", "b"], "held_out": ["c"]}}, "and clips.held_out"),
        ({"windows": 2}, "expected windows to be at least the frames"),
        ({"image_size": 100}, "multiple of 32"),
        ({"compact": {"depth": 2}}, "compact.depth"),
    ],
)
def test_configs_that_cannot_work_are_refused(config, change, message):
    with pytest.raises(ValueError, match=message):
        Config.model_validate(config.model_dump() | change)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_run_on_the_gpu_learns(config, footage, tmp_path):
    train(config.model_copy(update={"device": "cuda", "workers": 2}), footage, tmp_path)
    found = losses(tmp_path)
    assert np.mean(found[-3:]) < np.mean(found[:2])


def test_the_mean_iou_of_truth_is_one(footage, tmp_path, config):
    extract(footage, ("clip_0", "clip_1"), tmp_path, SQUARE_PX)
    tracklets = Tracklets(tmp_path, 64)
    task = TrackerTask(config, random_compact(SIZES), tracklets, None)
    batch = task.draw(config.stages[0], np.random.default_rng(0))
    masks = batch["masks"]
    assert (mask_iou(masks * 2 - 1, masks)[masks.sum((-1, -2)) > 0] == 1).all()
    assert task.scores(random_compact(SIZES)) == {}
