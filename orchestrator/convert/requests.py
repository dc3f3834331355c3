"""Requests to domain types, validated: an error names the field by its path in the message."""

import math

from soccer.v1 import player_recognition_pb2 as pb

from orchestrator.errors import InvalidRequestError
from orchestrator.types.frames import EncodedFrame, Encoding, FrameHeader
from orchestrator.types.people import Role, RosterEntry, TeamSheet
from orchestrator.types.streams import StreamConfig

_ENCODINGS = {
    pb.FRAME_ENCODING_JPEG: Encoding.JPEG,
    pb.FRAME_ENCODING_PNG: Encoding.PNG,
    pb.FRAME_ENCODING_RGB24: Encoding.RGB24,
    pb.FRAME_ENCODING_H264: Encoding.H264,
    pb.FRAME_ENCODING_HEVC: Encoding.HEVC,
}
_SIDE_PX = range(16, 8193)
_LATENCY_S = (0.04, 60.0)
_DEFAULT_FRAME_RATE = 25.0
_DEFAULT_LATENCY_S = 2.0
_MOST_ROSTER_ENTRIES = 64


def to_stream_config(message: pb.StreamConfig) -> StreamConfig:
    """Validate a stream's config.

    Raises:
        InvalidRequestError: Names the field and what was expected.
    """
    encoding = _encoding(message.encoding, "config.encoding")
    width, height = _size(message.width_px, message.height_px, encoding, "config")
    if message.rotation_degrees not in {0, 90, 180, 270}:
        raise InvalidRequestError("config.rotation_degrees", "expected 0, 90, 180 or 270")
    if message.delivery_mode not in pb.DeliveryMode.values():
        raise InvalidRequestError("config.delivery_mode", "expected a DeliveryMode")
    is_live = message.delivery_mode == pb.DELIVERY_MODE_LIVE
    if message.HasField("time_base"):
        _check_rational(message.time_base)
    return StreamConfig(
        stream_name=_text(message.stream_name, 128, "config.stream_name"),
        encoding=encoding,
        width=width,
        height=height,
        frame_rate=_frame_rate(message.frame_rate),
        rotation_degrees=message.rotation_degrees,
        is_live=is_live,
        latency_budget_s=_latency_budget(message) if is_live else None,
        wants_masks=message.result_options.include_masks,
        wants_stage_timings=message.result_options.include_stage_timings,
        team_a=_team_sheet(message.team_a, "config.team_a"),
        team_b=_team_sheet(message.team_b, "config.team_b"),
    )


def to_still_config(request: pb.RecognizeFrameRequest) -> StreamConfig:
    """Validate a request to recognise one image, as the config of a one-frame stream.

    Raises:
        InvalidRequestError: Names the field and what was expected.
    """
    encoding = _encoding(request.encoding, "encoding")
    if encoding.is_video:
        raise InvalidRequestError("encoding", "expected JPEG, PNG or RGB24 for a single image")
    width, height = _size(request.width_px, request.height_px, encoding, "")
    return StreamConfig(
        stream_name="still",
        encoding=encoding,
        width=width,
        height=height,
        wants_masks=request.result_options.include_masks,
        wants_stage_timings=request.result_options.include_stage_timings,
    )


def to_encoded_frame(message: pb.Frame) -> EncodedFrame:
    """Take a frame as it is; the session judges it."""
    captured = None
    if message.HasField("capture_time"):
        captured = (message.capture_time.seconds, message.capture_time.nanos)
    header = FrameHeader(
        frame_index=message.frame_index,
        pts=message.pts if message.HasField("pts") else None,
        timecode=message.timecode,
        capture_time=captured,
    )
    return EncodedFrame(header, message.data)


def _encoding(value: "pb.FrameEncoding.ValueType", field: str) -> Encoding:
    if value not in _ENCODINGS:
        names = ", ".join(pb.FrameEncoding.Name(known) for known in _ENCODINGS)
        raise InvalidRequestError(field, f"expected one of {names}, got {value}")
    return _ENCODINGS[value]


def _size(width: int, height: int, encoding: Encoding, path: str) -> tuple[int | None, int | None]:
    prefix = f"{path}." if path else ""
    for name, side in (("width_px", width), ("height_px", height)):
        if side and side not in _SIDE_PX:
            raise InvalidRequestError(
                f"{prefix}{name}", f"expected {_SIDE_PX.start} to {_SIDE_PX.stop - 1}, got {side}"
            )
        if not side and (encoding is Encoding.RGB24 or width or height):
            raise InvalidRequestError(
                f"{prefix}{name}", "expected both sides; RGB24 cannot do without"
            )
    return (width, height) if width else (None, None)


def _frame_rate(value: float) -> float:
    if value == 0:
        return _DEFAULT_FRAME_RATE
    if not math.isfinite(value) or not 0 < value <= 240:
        raise InvalidRequestError("config.frame_rate", f"expected 0 < rate <= 240, got {value}")
    return value


def _latency_budget(message: pb.StreamConfig) -> float:
    if not message.HasField("latency_budget"):
        return _DEFAULT_LATENCY_S
    seconds = message.latency_budget.seconds + message.latency_budget.nanos / 1e9
    low, high = _LATENCY_S
    if not low <= seconds <= high:
        raise InvalidRequestError("config.latency_budget", f"expected {low} s to {high} s")
    return seconds


def _check_rational(value: pb.Rational) -> None:
    for name in ("numerator", "denominator"):
        if getattr(value, name) < 1:
            raise InvalidRequestError(f"config.time_base.{name}", "expected 1 or more")


def _team_sheet(message: pb.TeamSheet, path: str) -> TeamSheet:
    if len(message.roster) > _MOST_ROSTER_ENTRIES:
        raise InvalidRequestError(
            f"{path}.roster", f"expected at most {_MOST_ROSTER_ENTRIES} entries"
        )
    roster = tuple(
        _roster_entry(entry, f"{path}.roster[{index}]")
        for index, entry in enumerate(message.roster)
    )
    numbers = [entry.jersey_number for entry in roster]
    if len(set(numbers)) < len(numbers):
        raise InvalidRequestError(f"{path}.roster", "expected unique jersey numbers")
    return TeamSheet(
        name=_text(message.name, 128, f"{path}.name"),
        kit_description=_text(message.kit_description, 256, f"{path}.kit_description"),
        roster=roster,
    )


def _roster_entry(message: pb.RosterEntry, path: str) -> RosterEntry:
    if not 1 <= message.jersey_number <= 99:
        raise InvalidRequestError(f"{path}.jersey_number", "expected 1 to 99")
    if not message.player_id:
        raise InvalidRequestError(f"{path}.player_id", "expected 1 to 128 characters")
    roles = {
        pb.ROLE_UNSPECIFIED: Role.PLAYER,
        pb.ROLE_PLAYER: Role.PLAYER,
        pb.ROLE_GOALKEEPER: Role.GOALKEEPER,
    }
    if message.role not in roles:
        raise InvalidRequestError(f"{path}.role", "expected ROLE_PLAYER or ROLE_GOALKEEPER")
    return RosterEntry(
        player_id=_text(message.player_id, 128, f"{path}.player_id"),
        jersey_number=message.jersey_number,
        role=roles[message.role],
        name=_text(message.display_name, 128, f"{path}.display_name"),
    )


def _text(value: str, longest: int, field: str) -> str:
    if len(value) > longest:
        raise InvalidRequestError(field, f"expected at most {longest} characters")
    return value
