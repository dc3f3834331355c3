"""Which of several tracks on one person must go."""

from collections.abc import Sequence

from orchestrator.imaging import iou, stacked
from orchestrator.stages.tracklet import Tracklet


def duplicates(tracks: Sequence[Tracklet], least_iou: float, most_frames: int) -> set[int]:
    """Note who lies under a senior track; return the ids of those who did for too long.

    Only who was long followed may well be hidden there.

    Args:
        tracks: All tracks, settled for this frame.
        least_iou: Overlap that is nearly whole.
        most_frames: In so many frames on end nobody lies under another.
    """
    boxes = stacked([track.xyxy for track in tracks])
    # Ties in seniority go to the earlier object, so that exactly one of a pair is junior.
    rank = [(-track.hits, track.object_id) for track in tracks]
    is_covering = (iou(boxes, boxes) > least_iou).tolist()
    for row, track in enumerate(tracks):
        is_covered = any(
            is_covering[row][column] and rank[column] < rank[row] for column in range(len(rank))
        )
        is_hidden = track.misses > 0 and track.seniority == 1
        track.covered = track.covered + (not is_hidden) if is_covered else 0
    return {track.object_id for track in tracks if track.covered >= most_frames}
