"""Texts about people and their kits, as structured facts, as English, and as tokens.

A statement is one int16 row with the columns of `CropSet.attributes`, -1 where it says nothing.
Knowing what a text says tells for every crop of a batch, not only its own, whether it is true.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from orchestrator.contracts import KIT_COLOURS
from training.data.crops import NUMBER, PATTERN, PATTERNS, ROLE, ROLES, SECOND, SHIRT, SHORTS

MAX_TOKENS = 16

_COLOUR_WORDS = {
    "grey": ("grey", "gray"),
    "cyan": ("cyan", "sky blue", "light blue"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "magenta"),
    "yellow": ("yellow", "gold"),
}
_ROLE_WORDS = {"goalkeeper": ("goalkeeper", "keeper"), "referee": ("referee", "official")}
_SHIRT_WORDS = ("shirt", "jersey")
_SHIRT_PHRASES = {
    "plain": "plain {first} {shirt}",
    "stripes": "{first} and {second} striped {shirt}",
    "hoops": "{first} and {second} hooped {shirt}",
    "half": "{first} and {second} halved {shirt}",
    "sash": "{first} {shirt} with {second} sash",
    "sleeves": "{first} {shirt} with {second} sleeves",
    "band": "{first} {shirt} with {second} band",
    "pin": "{first} {shirt} with {second} pinstripes",
}
_FRAME_WORDS = ("person", "in", "a", "the", "team", "shorts", "number", "wearing")

Statements = NDArray[np.int16]


def draw_statement(attributes: NDArray[np.int16], rng: np.random.Generator) -> Statements:
    """Draw a true statement about a crop, int16 `(6,)`, that leaves some of its facts out."""
    said = np.full(6, -1, np.int16)
    knows_kit = attributes[SHIRT] >= 0
    if not knows_kit or rng.random() < 0.5:
        said[ROLE] = attributes[ROLE]
    if knows_kit:
        said[SHIRT] = attributes[SHIRT]
        if rng.random() < 0.6:
            said[SECOND], said[PATTERN] = attributes[SECOND], attributes[PATTERN]
        if rng.random() < 0.4:
            said[SHORTS] = attributes[SHORTS]
    if rng.random() < 0.15:
        said[NUMBER] = attributes[NUMBER]
    return said


def truth_table(
    attributes: NDArray[np.int16], statements: Statements
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which statement is true of which crop, and where that is known.

    Args:
        attributes: int16 `(crops, 6)`.
        statements: int16 `(texts, 6)`.

    Returns:
        Two bool `(crops, texts)`. Unknown are statements about the kit of a crop without known kit.
    """
    said = statements[None] >= 0
    is_true = (~said | (attributes[:, None] == statements[None])).all(axis=2)
    knows_kit = attributes[:, SHIRT] >= 0
    return is_true, knows_kit[:, None] | ~said[..., SHIRT]


def phrase(statement: Statements, rng: np.random.Generator | None = None) -> str:
    """Put a statement into lower-case English; with `rng` the words vary."""
    words = [
        _choose(_ROLE_WORDS, ROLES[statement[ROLE]], rng) if statement[ROLE] >= 0 else "person"
    ]
    if statement[SHIRT] >= 0:
        words.append(f"in {_shirt(statement, rng)}")
    text = " ".join(words)
    if statement[SHORTS] >= 0:
        text += f", {_colour(statement[SHORTS], rng)} shorts"
    if statement[NUMBER] >= 0:
        text += f", number {statement[NUMBER]}"
    return text


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a word tokenizer of everything that `phrase` can say, padding to `MAX_TOKENS`."""
    words = {"[PAD]": 0, "[UNK]": 1}
    for word in _vocabulary():
        words.setdefault(word, len(words))
    inner = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    inner.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(",", " "), normalizers.Replace("-", " ")]
    )
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=inner,
        pad_token="[PAD]",
        unk_token="[UNK]",
        model_max_length=MAX_TOKENS,
    )


def _vocabulary() -> list[str]:
    phrases = [
        template.format(first="", second="", shirt="") for template in _SHIRT_PHRASES.values()
    ]
    aliases = [
        alias for group in (_COLOUR_WORDS, _ROLE_WORDS) for row in group.values() for alias in row
    ]
    texts = [*_FRAME_WORDS, *_SHIRT_WORDS, *ROLES, *KIT_COLOURS, *phrases, *aliases]
    return [word for text in texts for word in text.split()] + [str(n) for n in range(100)]


def _shirt(statement: Statements, rng: np.random.Generator | None) -> str:
    shirt = _SHIRT_WORDS[0 if rng is None else rng.integers(2)]
    first = _colour(statement[SHIRT], rng)
    if statement[PATTERN] < 0:
        return f"{first} {shirt}"
    second = "" if statement[SECOND] < 0 else _colour(statement[SECOND], rng)
    return _SHIRT_PHRASES[PATTERNS[statement[PATTERN]]].format(
        first=first, second=second, shirt=shirt
    )


def _colour(index: int, rng: np.random.Generator | None) -> str:
    return _choose(_COLOUR_WORDS, KIT_COLOURS[index], rng)


def _choose(
    aliases: Mapping[str, tuple[str, ...]], name: str, rng: np.random.Generator | None
) -> str:
    options = aliases.get(name, (name,))
    return options[0 if rng is None else rng.integers(len(options))]
