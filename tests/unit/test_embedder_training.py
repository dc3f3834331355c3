"""The embedder's training: batches, learning, resuming, published checkpoints, frozen towers."""

import csv
import json
import signal
from dataclasses import fields

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipModel

from tests.unit.tiny_footage import write_footage
from training.data.crops import CropSet, crop_set
from training.embedder.batches import Batches
from training.embedder.evaluate import evaluate, scores
from training.embedder.towers import Sizes, Towers, load, start
from training.embedder.train import Config, train
from training.errors import InputError
from training.run.config import Split, Stage
from training.run.journal import Journal

SIZES = Sizes(image_size=32, patch_size=8, width=32, heads=2, vision_layers=1, text_layers=1)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    return write_footage(tmp_path_factory.mktemp("footage"))


@pytest.fixture
def config():
    return Config(
        clips=Split(train=("clip_0", "clip_1"), held_out=("clip_2",)),
        device="cpu", network=SIZES, groups=4, wearers=2, gradient_clip=1.0,
        stages=(Stage(name="kits", steps=30, learning_rate=3e-3, warmup_steps=2),),
    )  # fmt: skip


def losses(work):
    with (work / "run" / "steps.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def test_a_run_learns_and_ends_in_two_towers_that_are_scored(config, footage, tmp_path):
    weights = train(config, footage, tmp_path)
    found = losses(tmp_path)
    assert np.mean(found[-5:]) < 0.9 * np.mean(found[:5])
    report = json.loads((tmp_path / "embedder.json").read_text())
    assert report["teams"]["clip_2"]["tracks"] == 2
    assert report["texts"]["kits"] == 2
    towers = load(weights)
    assert towers.image_size == 32
    again = evaluate(weights, footage, ["clip_2"])
    assert again["teams"].keys() == report["teams"].keys()
    cosines = [one["teams"]["clip_2"]["cosine_other_kit"] for one in (again, report)]
    assert cosines[0] == pytest.approx(cosines[1], abs=1e-2), "fp16 on disk"


def test_a_stopped_run_goes_on_to_the_same_bits(config, footage, tmp_path, monkeypatch):
    short = (config.stages[0].model_copy(update={"steps": 5}),)
    config = config.model_copy(update={"stages": short, "clips": Split(train=("clip_0",))})
    unbroken = train(config, footage, tmp_path / "unbroken")

    def step(journal, number, *values, log=Journal.step):
        log(journal, number, *values)
        if number == 3:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "step", step)
        with pytest.raises(KeyboardInterrupt):
            train(config, footage, tmp_path / "stopped")
    assert len(losses(tmp_path / "stopped")) == 3
    resumed = train(config, footage, tmp_path / "stopped")
    for tower in ("vision", "text"):
        file = f"{tower}/model.safetensors"
        assert (resumed / file).read_bytes() == (unbroken / file).read_bytes()


def test_batches_hold_kits_with_their_wearers_and_true_texts(config, footage, tmp_path):
    crops = crop_set(footage, ("clip_0", "clip_1"), tmp_path)
    batches = Batches(crops, Towers.of(*start(None, SIZES)), config)
    batch, again = (batches.draw(np.random.default_rng(2)) for _ in range(2))
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    assert batch["pixels"].shape == (8, 32, 32, 3)
    assert batch["kit"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert batch["is_true"].diagonal().all(), "each crop's own text is true of it"
    assert not batch["is_true"].all()
    assert batch["tokens"].shape == (8, 16)


def test_more_groups_than_real_kits_are_filled_with_invented_ones(config, footage, tmp_path):
    crops = crop_set(footage, ("clip_0",), tmp_path)
    only_real = config.model_copy(update={"invented": 0.0})
    batch = Batches(crops, Towers.of(*start(None, SIZES)), only_real).draw(np.random.default_rng(0))
    assert len(batch["kit"].unique()) == config.groups > len(np.unique(crops.kit))


@pytest.fixture
def checkpoint(tmp_path):
    """Both towers and a tokenizer in one folder, as google/siglip-base-patch16-224 has them."""
    layers = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    shape = {**layers, "num_attention_heads": 2}
    text = {
        **shape, "vocab_size": 60, "max_position_embeddings": 64, "projection_size": 32,
        "pad_token_id": 1, "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip
    torch.manual_seed(0)
    vision = {**shape, "image_size": 32, "patch_size": 16}
    SiglipModel(SiglipConfig(vision_config=vision, text_config=text)).save_pretrained(tmp_path)
    words = ["[UNK]", "[PAD]", "player", "person", "in", "red", "white", "plain", "shirt"]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(tmp_path)
    return tmp_path


def test_a_published_checkpoint_is_fine_tuned_and_its_frozen_tower_kept(
    config, checkpoint, footage, tmp_path
):
    short = (config.stages[0].model_copy(update={"steps": 2}),)
    config = config.model_copy(update={"init": checkpoint, "freeze": ("text",), "stages": short})
    after = load(train(config, footage, tmp_path / "work"))
    before = load(checkpoint)
    assert after.tokens(["Player in RED"])[0, :4].tolist() == [2, 4, 5, 1]
    assert after.tokens(["x"]).shape == (1, 64)
    for tower, is_kept in (("text", True), ("vision", False)):
        pairs = zip(
            getattr(before, tower).parameters(), getattr(after, tower).parameters(), strict=True
        )
        assert all(torch.equal(a.half(), b.half()) for a, b in pairs) == is_kept, tower


def test_checkpoints_that_do_not_load_are_refused_naming_what_is_missing(checkpoint):
    with pytest.raises(InputError, match="nowhere: expected a SigLIP checkpoint"):
        start(checkpoint / "nowhere", SIZES)
    path = checkpoint / "config.json"
    changed = json.loads(path.read_text())
    changed["vision_config"]["num_hidden_layers"] = 2
    path.write_text(json.dumps(changed))
    with pytest.raises(InputError, match=r"missing are .*layers\.1"):
        start(checkpoint, SIZES)


def test_a_missing_tokenizer_is_named(checkpoint):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (checkpoint / name).unlink()
    with pytest.raises(InputError, match="expected a tokenizer beside the weights"):
        start(checkpoint, SIZES)


def test_clips_too_short_for_tracks_have_no_scores_but_do_not_cost_the_run_its_result(
    footage, tmp_path
):
    towers = Towers.of(*start(None, SIZES))
    crops = crop_set(footage, ("clip_0",), tmp_path)
    few = np.flatnonzero(crops.track == 1)[:2]
    others = np.flatnonzero(crops.track != 1)
    referees = np.flatnonzero(crops.track == 3)

    def scored(rows):
        chosen = {field.name: getattr(crops, field.name)[rows] for field in fields(CropSet)}
        return scores(towers, CropSet(**chosen), ("clip_0",))

    assert scored(few)["teams"] == scored(np.concatenate([few, others]))["teams"] == {}
    assert scored(referees) == {"teams": {}, "texts": {}}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_run_on_the_gpu_learns(config, footage, tmp_path):
    train(config.model_copy(update={"device": "cuda"}), footage, tmp_path)
    found = losses(tmp_path)
    assert np.mean(found[-5:]) < np.mean(found[:5])
