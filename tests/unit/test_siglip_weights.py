"""The SigLIP towers load what the published checkpoints look like, and refuse what does not fit."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipModel

REPOSITORY = Path(__file__).parents[2] / "model_repository"
S, D = 32, 48


def module_beside(model, name):
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / model / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


vision_tower = module_beside("siglip_embedder", "vision_tower")
text_tower = module_beside("siglip_text", "text_tower")


def siglip(vocabulary=100, tokens=64):
    layers = {"hidden_size": D, "intermediate_size": 64, "num_hidden_layers": 2}
    shape = {**layers, "num_attention_heads": 2}
    torch.manual_seed(0)
    return SiglipModel(
        SiglipConfig(
            vision_config={**shape, "image_size": S, "patch_size": 16},
            text_config={
                **shape,
                "vocab_size": vocabulary,
                "max_position_embeddings": tokens,
                "projection_size": D,
                "pad_token_id": 1,
                "bos_token_id": None,
                "eos_token_id": None,
            },
        )
    ).eval()


def write_checkpoint(folder, model):
    """Both towers in one file, as google/siglip-base-patch16-224 has them."""
    model.save_pretrained(folder)
    words = {"[UNK]": 0, "[PAD]": 1, "player": 2, "in": 3, "red": 4, "blue": 5}
    inner = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(folder)


@pytest.fixture(params=["siglip", "siglip2"])
def checkpoint(request, tmp_path):
    # Fixed-size SigLIP 2 is the same class with a larger vocabulary.
    model = siglip(vocabulary=100 if request.param == "siglip" else 5000)
    write_checkpoint(tmp_path / "weights", model)
    return tmp_path, model


@pytest.fixture
def crops():
    return torch.randint(0, 256, (3, S, S, 3), dtype=torch.uint8)


def test_a_published_layout_gives_the_full_model_s_image_embeddings(checkpoint, crops):
    directory, model = checkpoint
    tower = vision_tower.load("weights", directory, image_size=S, width=D)
    pixels = (crops.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    with torch.inference_mode():
        expected = model.get_image_features(pixels).pooler_output
        found = tower(crops)
    torch.testing.assert_close(found, torch.nn.functional.normalize(expected, dim=1))


def test_a_published_layout_gives_the_full_model_s_text_embeddings(checkpoint):
    directory, model = checkpoint
    tower = text_tower.load("weights", directory, width=D)
    # "Player in red" and 61 times padding, and the same in blue.
    tokens = torch.ones(2, 64, dtype=torch.int64)
    tokens[:, :3] = torch.tensor([[2, 3, 4], [2, 3, 5]])
    with torch.inference_mode():
        expected = model.get_text_features(tokens).pooler_output
        found = tower.embed(["Player in RED", "player in blue"])
    torch.testing.assert_close(found, torch.nn.functional.normalize(expected, dim=1))


def test_a_text_longer_than_the_model_is_cut_off(tmp_path):
    write_checkpoint(tmp_path / "weights", siglip(tokens=4))
    tower = text_tower.load("weights", tmp_path, width=D)
    with torch.inference_mode():
        long, short = tower.embed(["red " * 500, "red red red red"])
    assert torch.equal(long, short)


def test_an_absolute_path_is_taken_as_it_is(checkpoint, crops):
    directory, _ = checkpoint
    tower = vision_tower.load(str(directory / "weights"), Path("elsewhere"), S, D)
    assert tower(crops).shape == (3, D)


def test_sizes_that_differ_from_the_config_are_refused_naming_both(checkpoint):
    directory, _ = checkpoint
    with pytest.raises(ValueError, match=rf"\({S}, {D}\).*\(224, 768\)"):
        vision_tower.load("weights", directory, image_size=224, width=768)
    with pytest.raises(ValueError, match=rf"is {D}.*say 768"):
        text_tower.load("weights", directory, width=768)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(checkpoint, name):
    directory, _ = checkpoint
    (directory / "weights" / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        vision_tower.load("weights", directory, S, D)
    with pytest.raises(FileNotFoundError, match=name):
        text_tower.load("weights", directory, D)


def test_a_missing_tokenizer_is_named(checkpoint):
    directory, _ = checkpoint
    (directory / "weights" / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json or spiece\.model"):
        text_tower.load("weights", directory, D)


def test_weights_that_lack_layers_are_refused_and_not_drawn_at_random(checkpoint):
    directory, _ = checkpoint
    path = directory / "weights" / "config.json"
    config = json.loads(path.read_text())
    config["vision_config"]["num_hidden_layers"] = 3
    config["text_config"]["num_hidden_layers"] = 3
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"missing are encoder\.layers\.2"):
        vision_tower.load("weights", directory, S, D)
    with pytest.raises(ValueError, match=r"missing are encoder\.layers\.2"):
        text_tower.load("weights", directory, D)


def test_random_towers_fit_the_config_and_give_unit_vectors(crops):
    with torch.inference_mode():
        images = vision_tower.load("random", Path(), image_size=S, width=D)(crops)
        texts = text_tower.load("random", Path(), width=D).embed(["player in red", "é"])
    for embeddings, rows in ((images, 3), (texts, 2)):
        assert embeddings.shape == (rows, D)
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(rows))
    assert not torch.allclose(texts[0], texts[1])
