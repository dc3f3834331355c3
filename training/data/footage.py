"""Clips by folder and name: the rendered ones with exact truth, which the demo weights use, first.

Of a folder of rendered clips only those asked for are read; of any other format, all are.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from training.data.clips import Clip, Person, Sighting
from training.data.readers import rendered
from training.data.readers.rendered import BALL_ID, read_clip
from training.data.reading import read
from training.errors import InputError

__all__ = ["BALL_ID", "Clip", "Person", "Sighting", "read_clip", "read_clips"]


def read_clips(footage: Path, names: Sequence[str]) -> Iterator[Clip]:
    """Yield the clips of these names, or all if there are none, of footage in any format.

    Raises:
        InputError: A clip is missing or not as expected.
    """
    if names and rendered.find(footage):
        yield from (read_clip(footage, name) for name in names)
        return
    clips = {clip.name: clip for clip in read(footage)}
    for name in names or clips:
        if name not in clips:
            raise InputError(f"{footage}: expected a clip {name}, found {', '.join(clips)}")
        yield clips[name]
