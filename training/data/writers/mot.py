"""Writer of MOTChallenge sequences, with SoccerNet's `gameinfo.ini` for roles and numbers."""

from collections.abc import Sequence
from pathlib import Path

from training.data.clips import BALL, Clip, Sighting, role_of_kind
from training.data.writers.stills import write_jpeg
from training.errors import InputError

_PEDESTRIAN = 1


def write(splits: dict[str, Sequence[Clip]], directory: Path, every: int) -> None:
    """Write each clip as `<split>/<clip>/` with `seqinfo.ini`, `gameinfo.ini`, `gt/` and `img1/`.

    Boxes are those of what is visible; masks and pitch positions have no place in the format.

    Args:
        splits: Clips by the split's name, such as `train` and `valid`.
        directory: Folder to write to; must not hold the clips yet.
        every: Must be 1: tracks live on every frame.

    Raises:
        FileExistsError: A clip is there already.
        InputError: `every` is not 1, or a clip has no tracks or no frame rate.
    """
    if every != 1:
        raise InputError("--every: expected 1 for mot, which holds whole videos")
    for split, clips in splits.items():
        for clip in clips:
            _write_clip(clip, directory / split / clip.name)


def _write_clip(clip: Clip, folder: Path) -> None:
    if not clip.is_tracked or clip.frame_rate is None:
        raise InputError(f"{clip.name}: expected a tracked video, since mot holds tracks")
    (folder / "gt").mkdir(parents=True)
    (folder / "img1").mkdir()
    for number, picture in enumerate(clip.frames(), 1):
        write_jpeg(picture, folder / "img1" / f"{number:06d}.jpg")
    lines = (
        _line(number, seen)
        for number, frame in enumerate(clip.sightings, 1)
        for seen in frame
        if seen.box_visible is not None
    )
    (folder / "gt" / "gt.txt").write_text("".join(lines))
    (folder / "seqinfo.ini").write_text(_seqinfo(clip))
    (folder / "gameinfo.ini").write_text(_gameinfo(clip))


def _line(number: int, seen: Sighting) -> str:
    assert seen.box_visible is not None
    x0, y0, x1, y1 = seen.box_visible
    box = ",".join(f"{value:.10g}" for value in (x0, y0, x1 - x0, y1 - y0))
    class_id = -1 if seen.is_ball else _PEDESTRIAN
    return f"{number},{seen.object_id},{box},1,{class_id},-1\n"


def _seqinfo(clip: Clip) -> str:
    return (
        f"[Sequence]\nname={clip.name}\nimDir=img1\nframeRate={clip.frame_rate:g}\n"
        f"seqLength={len(clip.sightings)}\nimWidth={clip.width}\nimHeight={clip.height}\n"
        "imExt=.jpg\n"
    )


def _gameinfo(clip: Clip) -> str:
    kinds = {seen.object_id: seen.kind for frame in clip.sightings for seen in frame}
    tracklets = [f"trackletID_{i}= {_tracklet(clip, i, kinds[i])}\n" for i in sorted(kinds)]
    return "".join(
        [
            f"[Sequence]\nname={clip.name}\ngameID={clip.source}\n",
            f"num_tracklets={len(tracklets)}\n",
            *tracklets,
        ]
    )


def _tracklet(clip: Clip, object_id: int, kind: str) -> str:
    person = clip.people.get(object_id)
    if kind == BALL or person is None:
        return f"{kind};1"
    team = f" team {person.team}" if person.team else ""
    detail = "side" if kind == "assistant_referee" else "x"
    label = role_of_kind(kind)
    return f"{label}{team};{detail if person.jersey_number is None else person.jersey_number}"
