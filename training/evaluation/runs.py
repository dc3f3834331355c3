"""A recorded pipeline run, read from `results.jsonl` into typed frames.

`touchline recognize` writes the file (one `RecognizeStreamResponse` a line, as protobuf JSON) and a
`summary.json` beside it, which names the video.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from google.protobuf.json_format import Parse, ParseError
from soccer.v1 import player_recognition_pb2 as pb

from orchestrator.merged_ids import MergedIds, begins_anew
from training.data.clips import Box
from training.errors import InputError

_ROLES = {
    pb.ROLE_PLAYER: "player",
    pb.ROLE_GOALKEEPER: "goalkeeper",
    pb.ROLE_REFEREE: "referee",
    pb.ROLE_OTHER: "other",
}
_ROUNDING = 1e-6
"""A belief of 1 may come as the next larger float32."""
_TEAMS = {pb.TEAM_A: "A", pb.TEAM_B: "B"}


@dataclass(frozen=True, slots=True)
class Identity:
    """What is said of a person; None where nothing is said.

    Attributes:
        role: player, goalkeeper, referee or other.
        team: `A` or `B`.
        jersey_number: 1 to 99.
        number_confidence: Belief in the number, in `[0, 1]`.
    """

    role: str | None
    team: str | None
    jersey_number: int | None
    number_confidence: float


@dataclass(frozen=True, slots=True)
class Player:
    """One reported person of one frame; `mask` is COCO's compressed run lengths, or None."""

    track_id: int
    box: Box
    confidence: float
    identity: Identity
    mask: str | None


@dataclass(frozen=True, slots=True)
class Ball:
    """The reported ball of one frame."""

    box: Box
    confidence: float


@dataclass(frozen=True, slots=True)
class Frame:
    """One answered frame; sizes are those of the picture in pixels."""

    index: int
    width: int
    height: int
    players: tuple[Player, ...]
    ball: Ball | None


@dataclass(frozen=True)
class Run:
    """One recorded run.

    Attributes:
        path: The results file.
        video: File name of the video, from `summary.json`; None without that file.
        frames: The answered frames by index; frames that lie in gaps are not there.
        tracks: The final word on each track: of the summary, else of its last frame.
        merged: Which tracks turned out to be others that had been lost.
    """

    path: Path
    video: str | None
    frames: dict[int, Frame]
    tracks: dict[int, Identity]
    merged: MergedIds = field(default_factory=MergedIds)

    def revised(self) -> "Run":
        """Return the run with the track ids that everybody had in the end."""
        frames = {index: self._revised_frame(frame) for index, frame in self.frames.items()}
        return replace(self, frames=frames)

    def _revised_frame(self, frame: Frame) -> Frame:
        players = tuple(
            replace(player, track_id=self.merged.final(player.track_id)) for player in frame.players
        )
        return replace(frame, players=players)


def read_run(path: Path) -> Run:
    """Read a run.

    Args:
        path: A `results.jsonl`, or the directory that holds it.

    Raises:
        InputError: A file is missing, a line is not a response, or the stream was begun anew;
            names file and line.
    """
    path = path / "results.jsonl" if path.is_dir() else path
    frames: dict[int, Frame] = {}
    last: dict[int, Identity] = {}
    final: dict[int, Identity] = {}
    merged = MergedIds()
    for number, response in _responses(path):
        where = f"{path}:{number}"
        if frames and begins_anew(response):
            raise InputError(
                f"{where}: expected one stream, but the server lost it here and began it anew; "
                "track ids from here on are other people's"
            )
        if response.HasField("recognition"):
            frame = _frame(response.recognition, where)
            if frame.index in frames:
                raise InputError(f"{where}: frame_index {frame.index} comes twice")
            frames[frame.index] = frame
            last.update({player.track_id: player.identity for player in frame.players})
        elif response.HasField("identity_update"):
            update = response.identity_update
            merged.note(update.track_id, update.merged_into_track_id)
        elif response.HasField("summary"):
            tracks = response.summary.tracks
            final = {track.track_id: _identity(track, where) for track in tracks}
    if not frames:
        raise InputError(f"{path}: expected at least one line with a recognition")
    return Run(path, _video(path), frames, last | final, merged)


def _responses(path: Path) -> Iterator[tuple[int, pb.RecognizeStreamResponse]]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected what `touchline recognize` writes")
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield number, Parse(line, pb.RecognizeStreamResponse())
            except (ParseError, UnicodeDecodeError) as error:
                raise InputError(
                    f"{path}:{number}: expected a RecognizeStreamResponse as JSON: {error}"
                ) from error


def _video(path: Path) -> str | None:
    summary = path.with_name("summary.json")
    if not summary.is_file():
        return None
    try:
        video = json.loads(summary.read_bytes()).get("video")
    except (ValueError, AttributeError) as error:
        raise InputError(f"{summary}: expected a JSON object with `video`: {error}") from error
    return None if video is None else str(video)


def _frame(recognition: pb.FrameRecognition, where: str) -> Frame:
    players = tuple(_player(player, recognition, where) for player in recognition.players)
    if len({player.track_id for player in players}) < len(players):
        raise InputError(f"{where}: players: expected every track_id once in a frame")
    ball = None
    if recognition.HasField("ball"):
        said = recognition.ball
        ball = Ball(_box(said.box, where), _belief("ball.confidence", said.confidence, where))
    return Frame(
        recognition.frame_index, recognition.width_px, recognition.height_px, players, ball
    )


def _player(player: pb.Player, frame: pb.FrameRecognition, where: str) -> Player:
    mask = None
    if player.HasField("mask"):
        size = [player.mask.height, player.mask.width]
        if size != [frame.height_px, frame.width_px]:
            raise InputError(f"{where}: mask: size {size}, expected that of the picture")
        mask = player.mask.rle_counts
    confidence = _belief("confidence", player.confidence, where)
    identity = _identity(player, where)
    return Player(player.track_id, _box(player.box, where), confidence, identity, mask)


def _box(box: pb.PixelBox, where: str) -> Box:
    sides = box.x_min, box.y_min, box.x_max, box.y_max
    if not (sides[0] < sides[2] and sides[1] < sides[3] and all(map(math.isfinite, sides))):
        raise InputError(f"{where}: box: expected finite sides, max above min, found {sides}")
    return sides


def _belief(name: str, value: float, where: str) -> float:
    if not 0 <= value <= 1 + _ROUNDING:
        raise InputError(f"{where}: {name}: expected 0 to 1, found {value}")
    return value


def _identity(said: pb.Player | pb.TrackSummary, where: str) -> Identity:
    name = "jersey_number_confidence"
    return Identity(
        role=_ROLES.get(said.role),
        team=_TEAMS.get(said.team),
        jersey_number=said.jersey_number if said.HasField("jersey_number") else None,
        number_confidence=_belief(name, said.jersey_number_confidence, where),
    )
