"""Train a small SigLIP on person crops and texts about them, from scratch.

`python -m training.embedder.train --footage DIR --work DIR --minutes 10` trains transformers'
`SiglipModel` on the rendered clips, prints its scores on held-out clips and writes `vision/` and
`text/`, laid out as `SiglipVisionModel.from_pretrained` and `SiglipTextModel.from_pretrained` want
them, and `embedder.json` (the scores) into the work folder.

Two sigmoid losses: crop against text, where every text that is true of a crop is a positive; and
crop against crop, where the wearers of one kit are positives. Most crops are re-dressed in kits
that are drawn anew for every batch, so that the net learns to tell kits apart rather than to know
the training clips' kits.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)
from typing_extensions import override

from training.data import augment
from training.data.crops import (
    HELD_OUT,
    NUMBER,
    ROLE,
    ROLES,
    SHIRT,
    SHORTS,
    TRAINING,
    CropSet,
    Pixels,
    crop_set,
    kit_attributes,
)
from training.data.kits import paint
from training.embedder.evaluate import IMAGE_SIZE, normalise, scores
from training.embedder.texts import MAX_TOKENS, draw_statement, phrase, tokenizer, truth_table
from training.jersey.train import one_cycle

WIDTH = 128

_GROUPS, _GROUP_SIZE = 16, 6  # kits in a batch, wearers of each
_INVENTED = 0.7  # share of the kits that are invented
_ROLE_SHARES = (0.7, 0.12, 0.18, 0.0)
_PEAK_RATE = 1.5e-3
_WEIGHT_DECAY = 0.05


@dataclass(frozen=True, slots=True)
class Batch:
    """Crops with a true statement each; `n` rows.

    Attributes:
        pixels: RGB uint8 `(n, IMAGE_SIZE, IMAGE_SIZE, 3)`.
        attributes: int16 `(n, 6)`, see `CropSet.attributes`.
        kit: int64 `(n,)`; equal for equal kits.
        statements: int16 `(n, 6)`, see `training.embedder.texts`.
        texts: The statements in English.
    """

    pixels: Tensor
    attributes: NDArray[np.int16]
    kit: Tensor
    statements: NDArray[np.int16]
    texts: list[str]


def network(vocabulary: int) -> SiglipModel:
    """Return an untrained SigLIP with `WIDTH` features, 4 vision and 2 text layers."""
    shape = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_attention_heads": 4,
    }
    return SiglipModel(
        SiglipConfig(
            vision_config={
                **shape, "num_hidden_layers": 4, "image_size": IMAGE_SIZE, "patch_size": 8,
            },
            text_config={
                **shape, "num_hidden_layers": 2, "vocab_size": vocabulary,
                "max_position_embeddings": MAX_TOKENS, "projection_size": WIDTH,
                "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None,
            },
        )
    )  # fmt: skip


def batches(crops: CropSet, rng: np.random.Generator) -> Iterator[Batch]:
    """Yield batches of `_GROUPS` kits for ever."""
    role = np.asarray(crops.attributes[:, ROLE])
    by_role = [np.flatnonzero(role == i) for i in range(len(ROLES))]
    by_kit = [
        rows for kit in range(crops.kit.max() + 1) if len(rows := np.flatnonzero(crops.kit == kit))
    ]
    while True:
        samples: list[tuple[Pixels, NDArray[np.int16]]] = []
        kits: list[int] = []
        real = rng.permutation(len(by_kit))
        for group in range(_GROUPS):
            is_invented = rng.random() < _INVENTED
            pool = (
                by_role[rng.choice(len(ROLES), p=_ROLE_SHARES)]
                if is_invented
                else by_kit[real[group]]
            )
            samples += _group(
                crops, pool[rng.integers(len(pool), size=_GROUP_SIZE)], is_invented, rng
            )
            kits += [group] * _GROUP_SIZE
        attributes = np.stack([facts for _, facts in samples])
        statements = np.stack([draw_statement(facts, rng) for facts in attributes])
        yield Batch(
            pixels=torch.from_numpy(np.stack([crop for crop, _ in samples])),
            attributes=attributes,
            kit=torch.tensor(kits),
            statements=statements,
            texts=[phrase(statement, rng) for statement in statements],
        )


def _group(
    crops: CropSet, rows: NDArray[np.int64], is_invented: bool, rng: np.random.Generator
) -> Iterator[tuple[Pixels, NDArray[np.int16]]]:
    """Yield the crops of a group, one kit each group, and what is true of them."""
    kit = augment.dress(int(crops.attributes[rows[0], ROLE]), rng)
    for row in rows:
        patch, attributes = crops.pixels[row].copy(), crops.attributes[row].copy()
        if is_invented:
            paint(patch, crops.masks[row], kit)
            attributes[SHIRT : SHORTS + 1] = kit_attributes(kit)
            attributes[NUMBER] = -1  # new clothes may hide it
        if rng.random() < 0.2:
            augment.occlude(patch, crops.pixels[rng.integers(len(crops))], rng)
        crop = augment.degrade(augment.cut(patch, (IMAGE_SIZE, IMAGE_SIZE), rng), rng)
        yield crop, attributes


class ContrastiveLoss(nn.Module):
    """The sigmoid loss of SigLIP with any number of positives, crops against texts and crops.

    Source: Zhai et al. 2023, arXiv 2303.15343, equation 1; there each crop has one positive.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kit_scale = nn.Parameter(torch.tensor(np.log(10.0), dtype=torch.float32))
        self.kit_bias = nn.Parameter(torch.tensor(-5.0))

    @override
    def forward(self, model: SiglipModel, batch: Batch, tokens: Tensor) -> Tensor:
        """Return the loss of a batch; `tokens`, int64 `(n, MAX_TOKENS)`, are its texts."""
        with torch.autocast("cpu", torch.bfloat16):
            crops = model.vision_model(normalise(batch.pixels)).pooler_output
            texts = model.text_model(tokens).pooler_output
        crops = functional.normalize(crops.float(), dim=1)
        texts = functional.normalize(texts.float(), dim=1)
        is_true, is_known = map(torch.from_numpy, truth_table(batch.attributes, batch.statements))
        by_text = crops @ texts.T * model.logit_scale.exp() + model.logit_bias
        by_kit = crops @ crops.T * self.kit_scale.exp() + self.kit_bias
        other = ~torch.eye(len(crops), dtype=torch.bool)
        same = batch.kit[:, None] == batch.kit
        return _sigmoid_loss(by_text, is_true, is_known) + _sigmoid_loss(by_kit, same, other)


def _sigmoid_loss(logits: Tensor, is_positive: Tensor, counts: Tensor) -> Tensor:
    signed = torch.where(is_positive, logits, -logits)
    return -(functional.logsigmoid(signed) * counts).sum() / len(logits)


def train(crops: CropSet, minutes: float, seed: int) -> SiglipModel:
    """Train for a wall time; the rate follows one cycle over that time."""
    torch.manual_seed(seed)
    words = tokenizer()
    model = network(len(words)).train()
    with torch.no_grad():
        model.logit_scale.fill_(np.log(10.0))
        model.logit_bias.fill_(-5.0)
    criterion = ContrastiveLoss()
    parameters = [*model.parameters(), *criterion.parameters()]
    optimizer = torch.optim.AdamW(parameters, weight_decay=_WEIGHT_DECAY)
    start = time.monotonic()
    for step, batch in enumerate(batches(crops, np.random.default_rng(seed))):
        progress = (time.monotonic() - start) / (60 * minutes)
        if progress >= 1:
            break
        optimizer.param_groups[0]["lr"] = one_cycle(progress, _PEAK_RATE)
        tokens = words(batch.texts, padding="max_length", truncation=True, return_tensors="pt")
        value = criterion(model, batch, tokens["input_ids"])
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 50 == 0:
            print(f"{progress:.0%} step {step} loss {value.item():.3f}", flush=True)  # noqa: T201
    model.eval()
    return model  # type: ignore[no-any-return]


def save(model: SiglipModel, out: Path) -> None:
    """Write both towers as fp16 with the image processor and the tokenizer beside them."""
    model.half()  # type: ignore[no-untyped-call]
    model.vision_model.save_pretrained(out / "vision")
    side = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    SiglipImageProcessor(size=side).save_pretrained(out / "vision")
    model.text_model.save_pretrained(out / "text")
    tokenizer().save_pretrained(out / "text")
    model.float()  # type: ignore[no-untyped-call]


def main() -> None:
    """Train, save and score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--footage", type=Path, required=True, help="folder of rendered clips")
    parser.add_argument("--work", type=Path, required=True, help="folder for crops and results")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cache = options.work / "crops"
    crops = crop_set(options.footage, TRAINING, cache / "training")
    model = train(crops, options.minutes, options.seed)
    save(model, options.work)
    report = scores(model, crop_set(options.footage, HELD_OUT, cache / "held_out"))
    (options.work / "embedder.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
