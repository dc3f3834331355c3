from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from orchestrator.cli.video import Clock, access_units, frames, probe
from orchestrator.decoding import open_decoder
from orchestrator.errors import VideoFileError
from orchestrator.types.frames import Encoding, Frame
from orchestrator.types.pictures import Pixels
from orchestrator.types.streams import StreamConfig
from tests.unit.coded_fields import write_fields

WIDTH, HEIGHT, COUNT = 96, 64, 12
SHADES = tuple(20 + 18 * index for index in range(COUNT))


def shade(pixels: Pixels) -> int:
    return round(float(pixels.mean()))


def write_video(
    path: Path,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    size: tuple[int, int] = (WIDTH, HEIGHT),
    pts: Sequence[int] = range(COUNT),
    pixel_aspect: Fraction = Fraction(1),
    rotation: float = 0,
    container_options: dict[str, str] | None = None,
    **options: str,
) -> Path:
    """Write flat grey frames, brighter one by one, at 25 units a second."""
    with av.open(str(path), "w", options=container_options) as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.time_base = Fraction(1, 25)
        stream.codec_context.thread_count = 1
        stream.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation:
            stream.set_display_rotation(rotation)
        for position, value in zip(pts, SHADES, strict=False):
            pixels = np.full((size[1], size[0], 3), value, np.uint8)
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts, picture.time_base = position, Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def write_flat(path: Path, pts: Sequence[int], **options: str) -> Path:
    """Write as many frames as there are `pts`, all of one grey."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        for position in pts:
            picture = av.VideoFrame.from_ndarray(np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
            picture.pts, picture.time_base = position, Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def write_audio(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000, layout="mono")
        for block in range(4):
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            sound.sample_rate, sound.pts = 48000, block * 1024
            container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    return path


def serve(path: Path) -> list[tuple[int, int]]:
    """Return (frame_index, shade) of every frame that the server's decoder makes of the file."""
    video = probe(path)
    config = StreamConfig("clip", video.encoding, rotation_degrees=video.rotation_degrees)
    decoder = open_decoder(config, max_pixels=10**6)
    decided = [outcome for unit in access_units(video) for outcome in decoder.decode(unit)]
    decided += decoder.flush()
    assert all(isinstance(outcome, Frame) for outcome in decided), decided
    return [(outcome.header.frame_index, shade(outcome.pixels)) for outcome in decided]


def assert_shades(served: list[tuple[int, int]]) -> None:
    assert [index for index, _ in served] == list(range(COUNT))
    assert np.abs(np.array([value for _, value in served]) - SHADES).max() <= 3


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "options", "encoding"),
    [
        ("b_frames.mp4", "libx264", "yuv420p", {"bf": "3", "b-pyramid": "normal"}, Encoding.H264),
        (
            "open_gop.mkv",
            "libx264",
            "yuv420p",
            {"g": "5", "bf": "2", "x264-params": "open-gop=1"},
            Encoding.H264,
        ),
        ("transport.ts", "libx264", "yuv420p", {"bf": "2", "g": "6"}, Encoding.H264),
        ("ten_bit.mp4", "libx264", "yuv420p10le", {"bf": "2"}, Encoding.H264),
        ("4_2_2.mp4", "libx264", "yuv422p10le", {}, Encoding.H264),
        ("4_4_4.mkv", "libx264", "yuv444p", {}, Encoding.H264),
        ("full_range.mp4", "libx264", "yuvj420p", {}, Encoding.H264),
        ("h265.mp4", "libx265", "yuv420p", {"x265-params": "log-level=none"}, Encoding.HEVC),
        ("vp9.webm", "libvpx-vp9", "yuv420p", {"lag-in-frames": "4"}, Encoding.JPEG),
        ("motion_jpeg.avi", "mjpeg", "yuvj422p", {}, Encoding.JPEG),
        ("pts_in_decoding_order.avi", "libx264", "yuv420p", {"bf": "2"}, Encoding.JPEG),
        ("without_pts.h264", "libx264", "yuv420p", {"bf": "2"}, Encoding.JPEG),
    ],
)
def test_every_frame_arrives_under_its_presentation_index(
    tmp_path, name, codec, pix_fmt, options, encoding
):
    path = write_video(tmp_path / name, codec=codec, pix_fmt=pix_fmt, **options)
    assert probe(path).encoding is encoding
    assert_shades(serve(path))


def test_frames_for_drawing_have_the_same_indices(tmp_path):
    path = write_video(tmp_path / "clip.mp4", bf="3")
    assert_shades([(index, shade(pixels)) for index, _, pixels in frames(probe(path))])


def test_probe_tells_size_rate_and_time_base(tmp_path):
    video = probe(write_video(tmp_path / "clip.mkv"))
    assert (video.codec, video.width, video.height) == ("h264", WIDTH, HEIGHT)
    assert video.frame_rate == pytest.approx(25, abs=0.1)
    assert video.time_base == Fraction(1, 1000)
    assert len(video.presentation) == COUNT


def test_odd_size_is_kept(tmp_path):
    path = write_video(tmp_path / "odd.mp4", pix_fmt="yuv444p", size=(97, 65))
    video = probe(path)
    assert (video.width, video.height) == (97, 65)
    assert_shades(serve(path))


def test_variable_frame_rate_keeps_its_pts(tmp_path):
    pts = [0, 1, 2, 5, 9, 10, 11, 30, 31, 32, 40, 50]
    path = write_video(tmp_path / "vfr.mkv", pts=pts, bf="2")
    video = probe(path)
    assert video.presentation == tuple(40 * value for value in pts)
    assert_shades(serve(path))
    times = [seconds for _, seconds, _ in frames(video)]
    assert times == pytest.approx([value / 25 for value in pts])


@pytest.mark.parametrize("name", ["joined.ts", "joined.h264"])
def test_recordings_that_were_joined_are_numbered_and_timed_as_they_follow(tmp_path, name):
    pts = {"late": [250 + index for index in range(40)], "early": range(40)}
    kind = Path(name).suffix
    parts = [
        write_flat(tmp_path / f"{part}{kind}", times, bf="2", g="8").read_bytes()
        for part, times in pts.items()
    ]
    path = tmp_path / name
    path.write_bytes(b"".join(parts))
    video = probe(path)
    assert [index for index, _ in serve(path)] == list(range(80))
    shown = list(frames(video))
    assert [index for index, _, _ in shown] == list(range(80))
    times = [seconds for _, seconds, _ in shown]
    assert times == pytest.approx([index / 25 for index in range(80)])


def test_a_leap_of_hours_is_no_hours_of_stillness(tmp_path):
    path = write_video(tmp_path / "leap.mkv", pts=[0, 1, 2, 10**6, 10**6 + 1])
    clock = Clock(probe(path))
    times = [clock.seconds(pts) for pts in probe(path).presentation]
    steps = np.diff(times)
    assert steps[[0, 1, 3]] == pytest.approx([0.04] * 3)
    assert 0 < steps[2] < 60


def test_frames_that_come_field_by_field_are_numbered_as_frames(tmp_path):
    path = write_fields(tmp_path / "fields.ts", COUNT)
    video = probe(path)
    assert video.frame_rate == pytest.approx(25)
    assert [index for index, _ in serve(path)] == list(range(COUNT))
    times = [seconds for _, seconds, _ in frames(video)]
    assert times == pytest.approx([index / 25 for index in range(COUNT)])


def test_what_a_recording_has_grown_by_is_left_out(tmp_path):
    whole = write_video(tmp_path / "whole.ts", g="4", bf="0").read_bytes()
    path = tmp_path / "recording.ts"
    path.write_bytes(whole[: len(whole) // 376 * 188])
    video = probe(path)
    path.write_bytes(whole)
    indices = [unit.header.frame_index for unit in access_units(video)]
    assert indices == list(range(len(video.presentation)))
    assert len(indices) < COUNT


def test_pixels_that_are_not_square_are_told(tmp_path):
    path = write_video(tmp_path / "wide.mp4", pixel_aspect=Fraction(4, 3))
    assert probe(path).pixel_aspect == Fraction(4, 3)
    assert probe(write_video(tmp_path / "square.mkv")).pixel_aspect == 1


def test_first_unit_carries_parameter_sets(tmp_path):
    video = probe(write_video(tmp_path / "clip.mp4"))
    first = next(access_units(video))
    kinds = {nal[0] & 0x1F for nal in first.data.split(b"\x00\x00\x01")[1:]}
    assert {7, 8, 5} <= kinds


@pytest.mark.parametrize(("counterclockwise", "clockwise"), [(90, 270), (-90, 90), (180, 180)])
def test_display_matrix_becomes_clockwise_rotation(tmp_path, counterclockwise, clockwise):
    video = probe(write_video(tmp_path / "phone.mp4", rotation=counterclockwise))
    assert video.rotation_degrees == clockwise
    assert (video.width, video.height) == (WIDTH, HEIGHT)
    _, _, pixels = next(frames(video))
    is_upright = clockwise != 180
    assert pixels.shape[:2] == ((WIDTH, HEIGHT) if is_upright else (HEIGHT, WIDTH))


def test_frames_hidden_by_an_edit_list_have_no_index(tmp_path):
    path = write_video(tmp_path / "clip.mp4", bf="0", g="100")
    hidden = 4
    data = bytearray(path.read_bytes())
    start = data.index(b"elst") + 4
    # elst: version and flags, count, then duration, media time and rate of the first edit.
    media_time = start + 12
    ticks_per_frame = int(probe(path).presentation[1])
    data[media_time : media_time + 4] = (hidden * ticks_per_frame).to_bytes(4, "big")
    path.write_bytes(data)
    video = probe(path)
    assert video.encoding is Encoding.JPEG
    served = serve(path)
    assert [index for index, _ in served] == list(range(COUNT - hidden))
    assert abs(served[0][1] - SHADES[hidden]) <= 3


def test_truncated_video_serves_what_is_left(tmp_path):
    path = write_video(tmp_path / "clip.mp4", container_options={"movflags": "faststart"})
    (tmp_path / "cut.mp4").write_bytes(path.read_bytes()[:-150])
    video = probe(tmp_path / "cut.mp4")
    config = StreamConfig("clip", video.encoding)
    decoder = open_decoder(config, max_pixels=10**6)
    units = list(access_units(video))
    decided = [outcome for unit in units for outcome in decoder.decode(unit)] + decoder.flush()
    assert sorted(outcome.header.frame_index for outcome in decided) == list(range(len(units)))
    served = {outcome.header.frame_index for outcome in decided if isinstance(outcome, Frame)}
    assert 0 < len(served) < COUNT
    assert {index for index, _, _ in frames(video)} == served  # all of them can be drawn


def test_truncated_index_is_refused(tmp_path):
    path = write_video(tmp_path / "clip.mp4")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(VideoFileError, match=r"clip\.mp4: expected a video file"):
        probe(path)


def test_text_is_refused(tmp_path):
    path = tmp_path / "notes.mp4"
    path.write_text("no video\n" * 100)
    with pytest.raises(VideoFileError, match=r"notes\.mp4"):
        probe(path)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(VideoFileError, match="No such file"):
        probe(tmp_path / "missing.mp4")


def test_folder_is_refused(tmp_path):
    with pytest.raises(VideoFileError):
        probe(tmp_path)


def test_audio_is_refused(tmp_path):
    with pytest.raises(VideoFileError, match="no video track"):
        probe(write_audio(tmp_path / "sound.m4a"))


def test_name_like_a_protocol_is_opened_as_file(tmp_path):
    path = write_video(tmp_path / "clip.mp4").rename(tmp_path / "match:1.mp4")
    assert probe(path).codec == "h264"


def test_jpeg_of_other_codecs_keeps_full_colour_resolution(tmp_path):
    path = write_video(tmp_path / "clip.avi", codec="mjpeg", pix_fmt="yuvj444p")
    first = next(access_units(probe(path)))
    assert cv2.imdecode(np.frombuffer(first.data, np.uint8), cv2.IMREAD_COLOR) is not None
    start = first.data.index(b"\xff\xc0")
    assert first.data[start + 11] == 0x11
