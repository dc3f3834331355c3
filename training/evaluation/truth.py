"""The truth that a run is held against."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from training.data.clips import Clip, Person, role_of_kind
from training.data.readers.rendered import SUFFIX
from training.data.reading import read
from training.errors import InputError
from training.evaluation.runs import Run


def role_of(person: Person) -> str:
    """Return the role that a run should report: assistants are referees."""
    return role_of_kind(person.kind)


def has_ball(clip: Clip) -> bool:
    """Return whether a clip's labels tell of a ball, seen or hidden."""
    return any(seen.is_ball for sightings in clip.sightings for seen in sightings)


def truth_of(runs: Sequence[Run], paths: Sequence[Path]) -> list[Clip]:
    """Return the clip of each run.

    Args:
        runs: The runs.
        paths: One folder, where each clip is found by the name of its run's video, be it
            `<clip>.gt.json.gz` or a folder `<clip>`, which the folder itself may be; or the truth
            of each run, one to one, in any format that `training.data.reading` knows.

    Raises:
        InputError: A clip is not there, is given twice, or does not fit its run.
    """
    if len(paths) == 1 and paths[0].is_dir():
        paths = [_named_by_video(run, paths[0]) for run in runs]
    if len(paths) != len(runs):
        raise InputError(
            f"--truth: expected one folder or {len(runs)} paths, one for each of the results"
        )
    clips = [_read(path) for path in paths]
    for run, clip in zip(runs, clips, strict=True):
        _check(run, clip)
        if sum(clip.name == other.name for other in clips) > 1:
            raise InputError(f"{run.path}: clip {clip.name} has several results; expected one")
    return clips


def _named_by_video(run: Run, folder: Path) -> Path:
    if run.video is None:
        raise InputError(
            f"{run.path}: summary.json with `video` is missing beside it; "
            "give the file of the labels itself: --truth CLIP.gt.json.gz"
        )
    name = Path(run.video).stem
    for path in (folder / f"{name}{SUFFIX}", folder / name):
        if path.exists():
            return path
    if folder.resolve().name == name:
        return folder
    raise InputError(
        f"{folder / name}{SUFFIX}: expected the truth of {run.video} ({run.path}), or a folder "
        f"{name}; of any other name, give the file of the labels itself"
    )


def _read(path: Path) -> Clip:
    clips = read(path)
    if len(clips) != 1 or not clips[0].is_tracked:
        raise InputError(
            f"{path}: expected the truth of one video, with the same ids in all frames"
        )
    return _with_everybody(clips[0])


def _with_everybody(clip: Clip) -> Clip:
    """Add those of whom the labels tell no more than their sightings."""
    seen = [sighting for frame in clip.sightings for sighting in frame if not sighting.is_ball]
    unknown = {one.object_id: Person(one.object_id, one.kind, None, None) for one in seen}
    return replace(clip, people=unknown | clip.people)


def _check(run: Run, clip: Clip) -> None:
    size = clip.width, clip.height
    for frame in run.frames.values():
        where = f"{run.path}: frame_index {frame.index}"
        if not 0 <= frame.index < len(clip.sightings):
            raise InputError(f"{where}: the truth of {clip.name} has {len(clip.sightings)} frames")
        if (frame.width, frame.height) != size:
            raise InputError(
                f"{where}: {frame.width}x{frame.height} px, but the truth of {clip.name} is "
                f"{size[0]}x{size[1]}"
            )
