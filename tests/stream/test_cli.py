"""`touchline` as a person uses it."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from google.protobuf.json_format import ParseDict
from soccer.v1 import player_recognition_pb2 as pb

from tests.conftest import DATA
from tests.stream.streams import encode, pictures

pytestmark = pytest.mark.triton

FRAMES = 15
RESULT_NAMES = {"started", "recognition", "gap", "identity_update", "summary"}


def touchline(*arguments: object, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("touchline")), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture(scope="module")
def short_clip(clip, tmp_path_factory) -> Path:
    """The first frames of the demo clip, copied without re-encoding."""
    path = tmp_path_factory.mktemp("clips") / "short.mp4"
    with av.open(str(clip)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.dts is not None]
        for packet in packets[:FRAMES]:
            packet.stream = stream
            target.mux(packet)
    return path


def responses(directory: Path) -> list[pb.RecognizeStreamResponse]:
    lines = (directory / "results.jsonl").read_text().splitlines()
    return [ParseDict(json.loads(line), pb.RecognizeStreamResponse()) for line in lines]


def test_recognize_writes_the_four_outputs_with_every_frame(served, short_clip, tmp_path):
    sheets = ["--sheet-a", DATA / "sheet_a.json", "--sheet-b", DATA / "sheet_b.json"]
    done = touchline(
        "recognize", short_clip, "--output", tmp_path, "--server", served.target, *sheets
    )
    assert done.returncode == 0, done.stderr
    assert {p.name for p in tmp_path.iterdir()} == {
        "results.jsonl",
        "mot.txt",
        "annotated.mp4",
        "summary.json",
    }
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert all(len(line) == 1 and set(line) <= RESULT_NAMES for line in lines)
    found = [r.recognition for r in responses(tmp_path) if r.HasField("recognition")]
    assert [r.frame_index for r in found] == list(range(FRAMES))
    player = next(line["recognition"]["players"][0] for line in lines if "recognition" in line)
    assert {"track_id", "box", "mask", "state", "confidence"} <= player.keys()
    assert set(player["box"]) == {"x_min", "y_min", "x_max", "y_max"}
    mot = np.loadtxt(tmp_path / "mot.txt", delimiter=",")
    assert len(mot) == sum(len(r.players) for r in found)
    assert mot[:, 0].min() == 1
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert int(summary["received_frame_count"]) == FRAMES
    assert summary["untrained_models"] == []
    listed = {
        entry["player_id"]: entry["jersey_number"]
        for side in "ab"
        for entry in json.loads((DATA / f"sheet_{side}.json").read_text())["roster"]
    }
    named = [track for track in summary["tracks"] if track["player_id"]]
    assert len(named) >= 3
    assert all(listed[track["player_id"]] == track["jersey_number"] for track in named)
    with av.open(str(tmp_path / "annotated.mp4")) as video:
        drawn = [p.to_ndarray(format="rgb24") for p in video.decode(video=0)]
    assert len(drawn) == FRAMES
    plain = pictures(short_clip, FRAMES)
    assert all(np.abs(a.astype(int) - b).mean() > 1 for a, b in zip(drawn, plain, strict=True))


def test_a_file_that_is_no_video_is_refused_in_words(tmp_path):
    path = tmp_path / "notes.mp4"
    path.write_text("not a video")
    done = touchline("recognize", path, "--output", tmp_path / "out")
    assert done.returncode == 1
    assert "expected a video file" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unreachable_server_is_reported_in_words(short_clip, tmp_path):
    path = tmp_path / "frame.jpg"
    for says in ("expected a file", "the call ended with UNAVAILABLE"):
        done = touchline("image", path, "--server", "127.0.0.1:1")
        assert done.returncode == 1
        assert says in done.stderr
        assert "Traceback" not in done.stderr
        path.write_bytes(encode(pictures(short_clip, 1)[0], pb.FRAME_ENCODING_JPEG))


def test_image_prints_players_and_draws_them(served, clip, tmp_path):
    path, drawn = tmp_path / "frame.jpg", tmp_path / "drawn.png"
    path.write_bytes(encode(pictures(clip, 1)[0], pb.FRAME_ENCODING_JPEG))
    done = touchline("image", path, "--output", drawn, "--server", served.target)
    assert done.returncode == 0, done.stderr
    recognition = ParseDict(json.loads(done.stdout), pb.FrameRecognition())
    assert len(recognition.players) > 5
    assert drawn.stat().st_size > 100_000


def test_random_weights_are_shouted_and_never_look_like_a_result(short_clip, tmp_path):
    done = touchline(
        "recognize", short_clip, "--output", tmp_path, "--weights", "sam2_tracker=random"
    )
    assert done.returncode == 0, done.stderr
    assert "RANDOM WEIGHTS" in done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["untrained_models"] == ["sam2_tracker"]
    found = [r.recognition for r in responses(tmp_path) if r.HasField("recognition")]
    assert all(pb.DEGRADATION_UNTRAINED_WEIGHTS in r.degradations for r in found)


def test_missing_weights_stop_the_start_and_name_the_file(short_clip, tmp_path):
    done = touchline(
        "recognize", short_clip, "--output", tmp_path, "--weights", "sam2_tracker=nowhere.pt"
    )
    assert done.returncode == 1
    assert "nowhere.pt" in done.stderr
    assert "Traceback" not in done.stderr.split("failed to load")[0]


def test_up_serves_until_interrupted_and_leaves_nothing(clip, tmp_path):
    command = [str(Path(sys.executable).with_name("touchline")), "up", "--port", "0", "--split"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "serving" in line)
        target = line.split()[-1]
        path = tmp_path / "frame.jpg"
        path.write_bytes(encode(pictures(clip, 1)[0], pb.FRAME_ENCODING_JPEG))
        done = touchline("image", path, "--server", target)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert done.returncode == 0, done.stderr
    assert not list(Path("/dev/shm").glob(f"touchline-{process.pid}-*"))


def test_the_real_match_clip_is_recognised(served, footage, tmp_path):
    clip = footage / "real" / "soccertrack_left.mp4"
    images = pictures(clip, 3)
    assert images[0].shape == (1728, 3072, 3)
    path = tmp_path / "start.mp4"
    with av.open(str(clip)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.dts is not None]
        for packet in packets[:FRAMES]:
            packet.stream = stream
            target.mux(packet)
    done = touchline("recognize", path, "--output", tmp_path, "--server", served.target)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert int(summary["recognized_frame_count"]) == int(summary["received_frame_count"]) == FRAMES
