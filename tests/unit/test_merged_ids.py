"""Track ids after all merges."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from soccer.v1 import player_recognition_pb2 as pb

from orchestrator.cli.outputs import ResultFiles
from orchestrator.merged_ids import MergedIds


def test_a_track_has_the_id_of_the_one_it_was_merged_into_and_else_its_own() -> None:
    merged = MergedIds()
    merged.note(7, 2)
    merged.note(9, 0)  # an update without a merge
    assert [merged.final(track_id) for track_id in (2, 7, 9)] == [2, 2, 9]


@given(st.permutations(range(2, 10)))
def test_chains_of_merges_end_at_the_first_track_in_whatever_order_they_are_told(
    order: list[int],
) -> None:
    merged = MergedIds()
    for track_id in order:
        merged.note(track_id, track_id - 1)
    assert {merged.final(track_id) for track_id in order} == {1}


def test_mot_has_final_ids_and_the_results_those_said_at_once(tmp_path: Path) -> None:
    box = pb.PixelBox(x_min=1, y_min=2, x_max=4, y_max=8)
    responses = [
        _recognition(0, pb.Player(track_id=1, box=box, confidence=0.5)),
        _recognition(1, pb.Player(track_id=5, box=box, confidence=0.5)),
        pb.RecognizeStreamResponse(
            identity_update=pb.IdentityUpdate(track_id=5, merged_into_track_id=1)
        ),
        _recognition(2, pb.Player(track_id=1, box=box, confidence=0.5)),
    ]
    with ResultFiles(tmp_path) as files:
        for response in responses:
            files.write(response)
    rest = "1.00,2.00,3.00,6.00,0.5000,-1,-1,-1\n"
    assert (tmp_path / "mot.txt").read_text() == f"1,1,{rest}2,1,{rest}3,1,{rest}"
    assert '"track_id": "5"' in (tmp_path / "results.jsonl").read_text()


def test_tracks_of_a_stream_begun_anew_are_not_those_of_before_in_mot(tmp_path: Path) -> None:
    def merge(track_id: int, into: int) -> pb.RecognizeStreamResponse:
        update = pb.IdentityUpdate(track_id=track_id, merged_into_track_id=into)
        return pb.RecognizeStreamResponse(identity_update=update)

    def started(*, is_resumed: bool) -> pb.RecognizeStreamResponse:
        return pb.RecognizeStreamResponse(started=pb.StreamStarted(is_resumed=is_resumed))

    def seen(frame_index: int, track_id: int) -> pb.RecognizeStreamResponse:
        return _recognition(frame_index, pb.Player(track_id=track_id))

    with ResultFiles(tmp_path) as files:
        for response in (
            *(started(is_resumed=False), seen(0, 2), merge(3, 2), seen(1, 2)),
            *(started(is_resumed=True), seen(2, 2)),
            *(started(is_resumed=False), seen(3, 2), seen(4, 3), merge(3, 2), seen(5, 1)),
        ):
            files.write(response)
    ids = [line.split(",")[1] for line in (tmp_path / "mot.txt").read_text().splitlines()]
    assert ids == ["2", "2", "2", "5", "5", "4"]


def _recognition(frame_index: int, player: pb.Player) -> pb.RecognizeStreamResponse:
    frame = pb.FrameRecognition(frame_index=frame_index, players=[player])
    return pb.RecognizeStreamResponse(recognition=frame)
