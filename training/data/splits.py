"""Which clips train and which are held out: by kit and source, never by frame.

A network that has seen a kit, or a match, knows more about the next clip of it than about a new
one. So clips that share either go to the same side.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse.csgraph import connected_components

from training.data.clips import Clip
from training.errors import InputError


@dataclass(frozen=True, slots=True)
class Split:
    """Names of the clips on each side.

    Attributes:
        train: Clips to train on, by name.
        held_out: Clips never trained on, by name.
        leaks: One sentence for each training clip that shares a kit or source with a held-out one;
            only named clips can bring that about.
    """

    train: tuple[str, ...]
    held_out: tuple[str, ...]
    leaks: tuple[str, ...] = ()


def split_by_share(clips: Sequence[Clip], share: float, seed: int) -> Split:
    """Hold out whole groups of clips, drawn by `seed`, until they have `share` of all frames.

    Raises:
        InputError: `share` is not in `[0, 1)`, or all clips are one group.
    """
    if not 0 <= share < 1:
        raise InputError(f"held-out share: expected 0 or more and less than 1, got {share}")
    families = groups(clips)
    wanted = share * sum(len(clip.sightings) for clip in clips)
    held_out: list[Clip] = []
    for index in np.random.default_rng(seed).permutation(len(families))[:-1]:
        if sum(len(clip.sightings) for clip in held_out) < wanted:
            held_out += families[index]
    if wanted and not held_out:
        raise InputError("held-out share: all clips share a kit or source; expected two groups")
    return split_by_name(clips, [clip.name for clip in held_out])


def split_by_name(clips: Sequence[Clip], names: Collection[str]) -> Split:
    """Hold out the clips named, and tell what leaks.

    Raises:
        InputError: No clip has one of the names.
    """
    by_name = {clip.name: clip for clip in sorted(clips, key=lambda clip: clip.name)}
    unknown = sorted(set(names) - set(by_name))
    if unknown:
        raise InputError(f"held-out clips: expected names of clips, got {', '.join(unknown)}")
    train = [clip for name, clip in by_name.items() if name not in names]
    held_out = [clip for name, clip in by_name.items() if name in names]
    leaks = tuple(
        f"{learnt.name} trains, but shares {what} with held-out {kept.name}"
        for kept in held_out
        for learnt in train
        if (what := shared(learnt, kept))
    )
    return Split(tuple(c.name for c in train), tuple(c.name for c in held_out), leaks)


def groups(clips: Sequence[Clip]) -> list[list[Clip]]:
    """Return the clips in groups, by name; clips of two groups share nothing."""
    ordered = sorted(clips, key=lambda clip: clip.name)
    is_linked = np.array([[bool(shared(a, b)) for b in ordered] for a in ordered])
    count, label = connected_components(is_linked.reshape(len(ordered), -1), directed=False)
    return [[c for c, n in zip(ordered, label, strict=True) if n == i] for i in range(count)]


def shared(a: Clip, b: Clip) -> str:
    """Return what two clips share, kits or source, in words; empty if nothing."""
    kits = sorted(a.kits & b.kits)
    if kits:
        return f"the shirt {' and '.join(kits)}"
    return f"the source {a.source}" if a.source == b.source else ""
