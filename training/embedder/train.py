"""Fine-tune SigLIP on person crops and texts about them, both towers together.

Two sigmoid losses: crop against text, where every text that is true of a crop is a positive; and
crop against crop, where the wearers of one kit are positives.
"""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from transformers import SiglipModel
from typing_extensions import override

from training.data.crops import CropSet
from training.embedder.batches import Batches, Groups
from training.embedder.evaluate import scores
from training.embedder.towers import Sizes, Towers, normalise, save, start
from training.run.config import Stage
from training.run.crops import run_crops
from training.run.hardware import Hardware
from training.run.loop import Batch, Loop, begin
from training.whole_file import write_whole


class Config(Groups):
    """How an embedder is trained."""

    stages: tuple[Stage, ...] = Field(min_length=1)
    init: Path | None = None
    """Checkpoint with tokenizer in the layout of its hub; absent: start from nothing."""
    network: Sizes = Sizes()
    """Sizes of the towers that start from nothing."""
    freeze: tuple[Literal["vision", "text"], ...] = ()
    """Towers that stay as they are."""


class ContrastiveNet(nn.Module):
    """SigLIP with its sigmoid loss for any number of positives, against texts and other crops.

    Source: Zhai et al. 2023, arXiv 2303.15343, equation 1; there each crop has one positive.

    Args:
        model: Both towers.
        freeze: Towers that stay as they are.
    """

    def __init__(self, model: SiglipModel, freeze: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.model = model
        model.vision_model.requires_grad_("vision" not in freeze)
        model.text_model.requires_grad_("text" not in freeze)
        self.kit_scale = nn.Parameter(torch.tensor(np.log(10.0), dtype=torch.float32))
        self.kit_bias = nn.Parameter(torch.tensor(-5.0))

    @override
    def forward(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return embeddings of crops and texts, `(n, width)` each, not normalised."""
        crops = self.model.vision_model(normalise(pixels)).pooler_output
        return crops, self.model.text_model(tokens).pooler_output

    def loss(self, crops: Tensor, texts: Tensor, batch: Batch) -> Tensor:
        """Return the loss of a batch of `Batches.draw` from its embeddings."""
        crops = functional.normalize(crops.float(), dim=1)
        texts = functional.normalize(texts.float(), dim=1)
        by_text = crops @ texts.T * self.model.logit_scale.exp() + self.model.logit_bias
        by_kit = crops @ crops.T * self.kit_scale.exp() + self.kit_bias
        other = ~torch.eye(len(crops), dtype=torch.bool, device=crops.device)
        same = batch["kit"][:, None] == batch["kit"]
        return _sigmoid_loss(by_text, batch["is_true"], batch["is_known"]) + _sigmoid_loss(
            by_kit, same, other
        )


def _sigmoid_loss(logits: Tensor, is_positive: Tensor, counts: Tensor) -> Tensor:
    signed = torch.where(is_positive, logits, -logits)
    return -(functional.logsigmoid(signed) * counts).sum() / len(logits)


class EmbedderTask:
    """SigLIP on crops of players.

    Args:
        config: How.
        network: The towers with their loss.
        tokenizer: Of the text tower.
        training: Crops to learn.
        held_out: Crops to be scored on, if any.
    """

    def __init__(
        self,
        config: Config,
        network: ContrastiveNet,
        tokenizer: Any,
        training: CropSet,
        held_out: CropSet | None,
    ) -> None:
        self.network = network
        self._tokenizer, self._hardware = tokenizer, Hardware.of(config)
        self._batches = Batches(training, Towers.of(network.model, tokenizer), config)
        self._held_out, self._clips = held_out, config.clips.held_out

    def draw(self, stage: Stage, rng: np.random.Generator) -> Batch:  # noqa: ARG002  all alike
        """Return a batch of `Batches.draw`."""
        return self._batches.draw(rng)

    def loss(self, batch: Batch, stage: Stage) -> Tensor:  # noqa: ARG002  the same for all
        """Return the loss of a batch of crops and texts."""
        with self._hardware.autocast():
            crops, texts = self.network(batch["pixels"], batch["tokens"])
        return self.network.loss(crops, texts, batch)

    def scores(self, network: Any) -> dict[str, float]:
        """Return the scores of teams, averaged over the clips, and of texts."""
        if self._held_out is None:
            return {}
        towers = Towers.of(network.model, self._tokenizer)
        found = scores(towers, self._held_out, self._clips)
        teams = list(found["teams"].values())
        means = {name: float(np.mean([team[name] for team in teams])) for name in dict(*teams[:1])}
        return {**means, **found["texts"]}


def train(config: Config, footage: Path, work: Path) -> Path:
    """Train both towers, going on with an earlier run of the same config in `work`.

    Args:
        config: How.
        footage: Folder of rendered clips with masks.
        work: Folder of the crops, the run's state and the result.

    Returns:
        The folder `embedder/` with `vision/` and `text/`, laid out as `from_pretrained` of
        transformers wants them; `embedder.json` beside it holds their scores.

    Raises:
        InputError: Config, `init` or footage do not fit, or `work` holds another run.
    """
    run, clips = begin(config, work), config.clips
    model, tokenizer = start(config.init, config.network)
    training = run_crops(footage, clips.train, work)
    held_out = run_crops(footage, clips.held_out, work) if clips.held_out else None
    network = ContrastiveNet(model, config.freeze)
    task = EmbedderTask(config, network, tokenizer, training, held_out)
    trained: Any = Loop(task, config.stages, config, run).run().cpu()
    towers = Towers.of(trained.model, tokenizer)
    report = {} if held_out is None else scores(towers, held_out, clips.held_out)
    write_whole(work / "embedder.json", json.dumps(report, indent=1).encode())
    return save(towers, work / "embedder")
