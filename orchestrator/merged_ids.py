"""Track ids as they are in the end: who was seen again, and known too late, had two of them."""

from soccer.v1 import player_recognition_pb2 as pb


def begins_anew(response: pb.RecognizeStreamResponse) -> bool:
    """Whether a server that knows nothing of the stream begins it: track ids count from 1."""
    return response.HasField("started") and not response.started.is_resumed


class MergedIds:
    """Gathers the merges that a stream's identity updates tell."""

    def __init__(self) -> None:
        self._final: dict[int, int] = {}

    def note(self, track_id: int, merged_into: int) -> None:
        """Note that a track turned out to be an earlier one; 0 for none, as in the update."""
        if not merged_into:
            return
        final = self.final(merged_into)
        self._final[track_id] = final
        for earlier, into in self._final.items():
            if into == track_id:
                self._final[earlier] = final

    def final(self, track_id: int) -> int:
        """Return the id that a track's person has in the end."""
        return self._final.get(track_id, track_id)
