"""Domain types to responses."""

from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration
from soccer.v1 import player_recognition_pb2 as pb

from orchestrator.stages.evidence import Person
from orchestrator.telemetry import STAGES, StreamStats
from orchestrator.triton.codec import LiveModel
from orchestrator.types.frames import GapReason, LostFrame
from orchestrator.types.people import Role, Team
from orchestrator.types.pictures import Boxes, Mask
from orchestrator.types.results import Degradation, IdentityUpdate, Player, Recognition
from orchestrator.types.streams import StreamConfig
from orchestrator.types.tracks import TrackState

_ROLES = {
    None: pb.ROLE_UNSPECIFIED,
    Role.PLAYER: pb.ROLE_PLAYER,
    Role.GOALKEEPER: pb.ROLE_GOALKEEPER,
    Role.REFEREE: pb.ROLE_REFEREE,
    Role.OTHER: pb.ROLE_OTHER,
}
_TEAMS = {None: pb.TEAM_UNSPECIFIED, Team.A: pb.TEAM_A, Team.B: pb.TEAM_B}
_STATES = {
    TrackState.TENTATIVE: pb.TRACK_STATE_TENTATIVE,
    TrackState.CONFIRMED: pb.TRACK_STATE_CONFIRMED,
    TrackState.COASTING: pb.TRACK_STATE_COASTING,
}
_DEGRADATIONS = {kind: pb.Degradation.Value(f"DEGRADATION_{kind.name}") for kind in Degradation}
_GAP_REASONS = {reason: pb.GapReason.Value(f"GAP_REASON_{reason.name}") for reason in GapReason}


def from_recognition(recognition: Recognition, config: StreamConfig) -> pb.FrameRecognition:
    """Write the result of a frame, with masks and timings if the config asks for them."""
    header = recognition.header
    message = pb.FrameRecognition(
        frame_index=header.frame_index,
        pts=header.pts,
        timecode=header.timecode,
        width_px=recognition.width,
        height_px=recognition.height,
        players=[_player(player, recognition, config) for player in recognition.players],
        ball=_ball(recognition),
        degradations=sorted(_DEGRADATIONS[kind] for kind in recognition.degradations),
    )
    if header.capture_time is not None:
        message.capture_time.seconds, message.capture_time.nanos = header.capture_time
    if config.wants_stage_timings:
        for stage, seconds in recognition.stage_seconds.items():
            getattr(message.stage_timings, stage).CopyFrom(_duration(seconds))
    return message


def from_lost_frame(lost: LostFrame) -> pb.FrameGap:
    """Write a frame without a result."""
    return pb.FrameGap(
        first_frame_index=lost.header.frame_index,
        last_frame_index=lost.header.frame_index,
        reason=_GAP_REASONS[lost.reason],
        detail=lost.detail,
    )


def from_identity_update(update: IdentityUpdate) -> pb.IdentityUpdate:
    """Write a revision of a track's identity."""
    identity = update.identity
    return pb.IdentityUpdate(
        track_id=update.track_id,
        frame_index=update.frame_index,
        role=_ROLES[identity.role],
        team=_TEAMS[identity.team],
        jersey_number=identity.jersey_number,
        player_id=identity.player_id,
        changed_fields=update.changed,
        merged_into_track_id=update.merged_into_track_id or 0,
    )


def from_models(models: Iterable[LiveModel]) -> list[pb.ModelInfo]:
    """Write which models answer, and whether their weights mean anything."""
    return [
        pb.ModelInfo(
            name=model.contract.name,
            weights=model.parameters.get("weights", ""),
            untrained=model.is_untrained,
        )
        for model in models
    ]


def from_stats(
    stats: StreamStats, people: Iterable[Person], time_base: pb.Rational | None
) -> pb.StreamSummary:
    """Write the totals of a stream."""
    return pb.StreamSummary(
        received_frame_count=stats.received,
        recognized_frame_count=stats.recognized,
        gaps=[
            pb.GapCount(reason=_GAP_REASONS[reason], frame_count=count)
            for reason, count in sorted(stats.gaps.items(), key=lambda item: item[0].value)
        ],
        tracks=[_track_summary(person) for person in people],
        stage_latencies=[
            pb.StageLatency(
                stage=stage,
                p50=_duration(stats.latencies[stage].quantile(0.5)),
                p99=_duration(stats.latencies[stage].quantile(0.99)),
            )
            for stage in STAGES
        ],
        degradations=[
            pb.DegradationCount(degradation=_DEGRADATIONS[kind], frame_count=count)
            for kind, count in sorted(stats.degradations.items(), key=lambda item: item[0].value)
        ],
        time_base=time_base,
    )


def _player(player: Player, recognition: Recognition, config: StreamConfig) -> pb.Player:
    track, identity = player.track, player.identity
    return pb.Player(
        track_id=player.track_id,
        box=_box(track.xyxy, recognition),
        confidence=track.confidence,
        state=_STATES[track.state],
        mask=_mask(track.mask if config.wants_masks else None),
        role=_ROLES[identity.role],
        team=_TEAMS[identity.team],
        jersey_number=identity.jersey_number,
        player_id=identity.player_id,
        role_confidence=identity.role_confidence,
        team_confidence=identity.team_confidence,
        jersey_number_confidence=identity.jersey_number_confidence,
    )


def _mask(mask: Mask | None) -> pb.Mask | None:
    if mask is None:
        return None
    return pb.Mask(
        height=mask.height,
        width=mask.width,
        rle_counts=mask.rle_counts,
        is_predicted=mask.is_predicted,
    )


def _ball(recognition: Recognition) -> pb.Ball | None:
    ball = recognition.ball
    if ball is None:
        return None
    return pb.Ball(box=_box(ball.xyxy, recognition), confidence=ball.confidence)


def _box(xyxy: Boxes, picture: Recognition) -> pb.PixelBox:
    """Write the part of a box that lies in the picture: who is hidden may be expected outside."""
    x_min, y_min, x_max, y_max = xyxy.tolist()
    return pb.PixelBox(
        x_min=max(x_min, 0.0),
        y_min=max(y_min, 0.0),
        x_max=min(x_max, picture.width),
        y_max=min(y_max, picture.height),
    )


def _track_summary(person: Person) -> pb.TrackSummary:
    return pb.TrackSummary(
        track_id=person.track_id,
        first_frame_index=person.first_frame,
        last_frame_index=person.last_frame,
        frame_count=person.frame_count,
        role=_ROLES[person.identity.role],
        team=_TEAMS[person.identity.team],
        jersey_number=person.identity.jersey_number,
        player_id=person.identity.player_id,
        jersey_number_confidence=person.identity.jersey_number_confidence,
    )


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration
