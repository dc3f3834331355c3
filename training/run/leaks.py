"""That nothing is scored which has been learnt."""

from pathlib import Path

from training.data.readers.rendered import read_clip
from training.data.splits import shared
from training.errors import InputError
from training.run.config import Split


def check_split(clips: Split, footage: Path) -> list[str]:
    """Hold the clips to learn against those of every other side.

    Args:
        clips: Names of rendered clips by side.
        footage: Folder of all of them.

    Returns:
        One sentence for each learnt clip that shares a shirt with one of another side.

    Raises:
        InputError: A learnt clip is of the same recording as one of another side, under whatever
            name; or a clip is missing or not as expected.
    """
    sides = [side for side in type(clips).model_fields if side != "train"]
    learnt = [read_clip(footage, name) for name in clips.train]
    leaks = []
    for side in sides:
        for kept in (read_clip(footage, name) for name in getattr(clips, side)):
            for clip in learnt:
                if clip.source == kept.source:
                    raise InputError(
                        f"clips.train: expected other recordings than those of {side}, but "
                        f"{clip.name} and {kept.name} are both of {kept.source}"
                    )
                if what := shared(clip, kept):
                    leaks.append(f"{clip.name} trains, but shares {what} with {kept.name} ({side})")
    return leaks
