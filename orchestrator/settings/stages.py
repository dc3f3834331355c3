"""The stages of recognition, from a detection to a number that is said."""

from pydantic import Field

from orchestrator.settings.group import Group


class DetectSettings(Group):
    """What counts as a detection."""

    min_box_px: float = Field(default=2.0, ge=0)
    """Boxes narrower or lower than this many source pixels are dropped."""


class TrackSettings(Group):
    """Birth, confirmation and death of tracks."""

    match_iou: float = Field(default=0.2, gt=0, lt=1)
    """Least overlap of a detection with a track's box to belong to it."""
    birth_confidence: float = Field(default=0.5, ge=0, le=1)
    """Least detector confidence that starts a track."""
    birth_overlap_iou: float = Field(default=0.4, gt=0, lt=1)
    """A detection that overlaps a live track more than this starts none."""
    confirm_frames: int = Field(default=3, ge=1)
    """Frames with a detection until a track is confirmed."""
    coast_s: float = Field(default=1.0, gt=0)
    """How long a confirmed track lives without a detection, in seconds."""
    mask_only_s: float = Field(default=0.3, ge=0)
    """How long a person is still reported where only the mask says so, in seconds; twice as long
    finds nobody more."""
    duplicate_iou: float = Field(default=0.7, gt=0, lt=1)
    """Of two tracks that overlap more than this for a while, the one with fewer detections ends."""
    correct_iou: float = Field(default=0.4, ge=0, lt=1)
    """Below this overlap of mask and detection the tracker is prompted with the detection again."""
    max_objects: int = Field(default=48, ge=1, le=64)
    """Most tracks alive at once in a stream."""


class IdentifySettings(Group):
    """How often people are embedded, and what makes a team."""

    interval_s: float = Field(default=0.5, gt=0)
    """Time between two embeddings of a track, in seconds."""
    max_crops_per_frame: int = Field(default=8, ge=1)
    """Most crops embedded in one frame; the longest waiting go first."""
    team_margin: float = Field(default=0.15, ge=0)
    """How much nearer (cosine) one side's centre must be than the other's to name a side."""
    reidentify_s: float = Field(default=20.0, ge=0)
    """How long a lost track may be found again, in seconds."""
    reidentify_similarity: float = Field(default=0.5, ge=-1, le=1)
    """Least cosine similarity to a lost track."""


class NumberSettings(Group):
    """How often numbers are read, and when one is said."""

    interval_s: float = Field(default=0.12, gt=0)
    """Time between two readings of a track, in seconds."""
    max_crops_per_frame: int = Field(default=12, ge=1)
    """Most crops read in one frame; the longest waiting go first."""
    min_votes: float = Field(default=0.1, gt=0)
    """Least weight of readings, one clear reading being 1, before a number is said."""
    min_readings: int = Field(default=2, ge=1)
    """Least number of readings in which a number was in sight, before one is said."""
    min_confidence: float = Field(default=0.3, gt=0, le=1)
    """Least share of the votes for the number that is said."""
    min_lead: float = Field(default=1.5, ge=1)
    """How many times the votes of the next likeliest number it must have."""
    role_min_readings: float = Field(default=3.0, gt=0)
    """Least number of readings before a role is said."""
    role_min_confidence: float = Field(default=0.6, gt=0, le=1)
    """Least mean probability of the role that is said."""
