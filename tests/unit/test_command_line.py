"""`touchline` where something is wrong: one clear line, and nothing half-written."""

import argparse
import asyncio
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from unittest.mock import Mock

import grpc
import pytest

from orchestrator.cli import _parser, image, main, recognize
from orchestrator.errors import ClusterError, InvalidRequestError, TouchlineError
from orchestrator.security.keys import add_key
from orchestrator.settings import SecuritySettings
from tests.unit.coded_media import as_file, picture
from tests.unit.scripted_server import scripted_server
from tests.unit.scripted_triton import ScriptedTriton
from tests.unit.test_video_file import COUNT, write_video

TOUCHLINE = (sys.executable, "-c", "from orchestrator.cli import main; exit(main())")
NAMES = {"annotated.mp4", "mot.txt", "results.jsonl", "summary.json"}


def options(*arguments: object) -> argparse.Namespace:
    return _parser().parse_args([str(argument) for argument in arguments])


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch):
    """What is wrong must be said before anything is started."""

    def started(*_: object, **__: object) -> None:
        raise AssertionError("a cluster was started")

    monkeypatch.setattr("orchestrator.cli.local.LocalCluster", started)


@pytest.fixture
def still(tmp_path) -> Path:
    path = tmp_path / "frame.jpg"
    path.write_bytes(as_file(picture(), "JPEG"))
    return path


async def test_a_file_of_any_name_is_recognised_and_named_in_full(tmp_path, capfd):
    name = os.fsdecode("ä [final] ".encode() + b"\xe9.mp4")  # of two encodings
    clip = write_video(tmp_path / "clip.mp4").rename(tmp_path / name)
    folder = tmp_path / "out [first]"
    folder.mkdir()
    (folder / "notes.txt").touch()
    async with scripted_server() as running:
        chosen = options("recognize", clip, "--output", folder, "--server", running.target)
        assert await recognize.recognize_file(chosen) == 0
    assert names(folder) == NAMES | {"notes.txt"}
    lines = (folder / "mot.txt").read_text().splitlines()
    assert [int(line.partition(",")[0]) for line in lines] == [*range(1, COUNT + 1)]
    printed = capfd.readouterr().err.replace("\n", "")
    assert printed.endswith("out [first]/: annotated.mp4 mot.txt results.jsonl summary.json")


async def test_a_stream_that_fails_leaves_the_results_of_before(tmp_path):
    clip, folder, tenants = write_video(tmp_path / "clip.mp4"), tmp_path / "out", tmp_path / "file"
    tenants.write_text("[tenants.default.quota]\nmax_pixels = 256\n")
    arguments = ("recognize", clip, "--output", folder, "--server")
    async with scripted_server() as running:
        assert await recognize.recognize_file(options(*arguments, running.target)) == 0
    before = {name: (folder / name).read_bytes() for name in NAMES}
    async with scripted_server(security=SecuritySettings(tenants_file=tenants)) as running:
        with pytest.raises(grpc.aio.AioRpcError, match="max_pixels"):
            await recognize.recognize_file(options(*arguments, running.target))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


async def test_no_video_is_left_that_shows_the_results_of_before(tmp_path):
    clip, folder = write_video(tmp_path / "clip.mp4"), tmp_path / "out"
    async with scripted_server() as running:
        drawn = ("recognize", clip, "--output", folder, "--server", running.target)
        assert await recognize.recognize_file(options(*drawn)) == 0
        assert await recognize.recognize_file(options(*drawn, "--no-video")) == 0
    assert names(folder) == NAMES - {"annotated.mp4"}


def test_a_summary_that_does_not_add_up_is_said():
    summary = {"received_frame_count": "5", "recognized_frame_count": "3", "tracks": []}
    gaps = [{"reason": "GAP_REASON_OVERLOADED", "frame_count": "1"}]
    with pytest.raises(TouchlineError, match="received 5 frames, but answered 3"):
        recognize._report({**summary, "gaps": gaps}, "somewhere")


async def test_an_interrupted_stream_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_: object) -> None:
        raise asyncio.CancelledError  # as by Ctrl-C

    monkeypatch.setattr(recognize.ResultFiles, "write", interrupted)
    clip, folder = write_video(tmp_path / "clip.mp4"), tmp_path / "out"
    async with scripted_server() as running:
        with pytest.raises(asyncio.CancelledError):
            await recognize.recognize_file(
                options("recognize", clip, "--output", folder, "--server", running.target)
            )
    assert names(folder) == set()


@pytest.mark.parametrize(
    "shell",
    [(), ("sh", "-c", "trap '' INT; exec \"$@\"", "sh")],
    ids=["alone", "in a script's background"],  # where Ctrl-C is ignored
)
async def test_sigterm_ends_a_stream_and_leaves_nothing(tmp_path, shell):
    triton, folder = ScriptedTriton(), tmp_path / "out"
    asked, answer, infer = asyncio.Event(), asyncio.Event(), triton.infer

    async def held(*request, **options):
        asked.set()
        await answer.wait()
        return await infer(*request, **options)

    triton.infer = held
    clip = write_video(tmp_path / "clip.mp4")
    async with scripted_server(triton=triton) as running:
        command = (*TOUCHLINE, "recognize", clip, "--output", folder, "--server", running.target)
        process = await asyncio.create_subprocess_exec(*shell, *command)
        await asyncio.wait_for(asked.wait(), 120)
        assert names(folder)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 120) == 143
        answer.set()
    assert names(folder) == set()


def test_sigterm_interrupts_what_is_no_stream_and_is_as_before_afterwards(monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    terminate = Mock(side_effect=lambda _: signal.raise_signal(signal.SIGTERM))
    monkeypatch.setattr("orchestrator.cli.plan.plan_streams", terminate)
    assert main(["plan"]) == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_output_that_is_no_folder_is_named_before_anything_is_started(tmp_path, capsys):
    clip, file = write_video(tmp_path / "clip.mp4"), tmp_path / "file"
    file.touch()
    for output in (file, file / "below"):
        assert main(["recognize", str(clip), "--output", str(output)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("touchline: --output: expected a folder that can be written: ")
        assert str(file) in line


def test_what_a_server_would_refuse_is_named_before_anything_is_started(tmp_path, capsys):
    dot = write_video(tmp_path / "dot.mkv", codec="ffv1", pix_fmt="yuv444p", size=(1, 1))
    clip, kit = write_video(tmp_path / "clip.mp4"), ("--kit-b", "x" * 257)
    for arguments in ((str(dot),), (str(clip), *kit)):
        assert main(["recognize", *arguments, "--output", str(tmp_path / "out")]) == 1
    size, kit = capsys.readouterr().err.splitlines()
    assert size == "touchline: config.width_px: expected 16 to 8192, got 1"
    assert kit.startswith("touchline: config.team_b.kit_description: expected at most 256")


@pytest.mark.parametrize(
    "flags",
    [
        ("--weights", "sam2_tracker=mine.pt", "--server", "127.0.0.1:1"),
        ("--split", "--server", "127.0.0.1:1"),
        ("--tls",),
        ("--tls-ca", "ca.pem"),
        ("--api-key-file", "key"),
    ],
)
def test_a_flag_that_would_mean_nothing_is_named(still, flags, capsys):
    assert main(["image", str(still), *flags]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"touchline: {flags[0]}: expected with")


@pytest.mark.parametrize(
    "server", ["", "match.example", ":50051", "match.example:", "a:0", "a:65536", "a:-1", "a:grpc"]
)
def test_a_server_without_address_is_wrong_usage(still, server, capsys):
    with pytest.raises(SystemExit):
        main(["image", str(still), "--server", server])
    assert f"--server: expected HOST:PORT, got {server!r}" in capsys.readouterr().err


def test_files_of_a_server_are_checked_before_its_models_are_loaded(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("os.environ", dict(os.environ))
    missing = str(tmp_path / "missing")
    assert main(["up", "--tls-cert", missing, "--tls-key", missing]) == 1
    assert f"security.certificate_file: cannot read {missing}" in capsys.readouterr().err


@pytest.fixture
def _ctrl_c_is_heard():
    """As in a terminal: what a script starts in the background inherits that it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c_is_heard")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_server_that_starts_can_be_interrupted(number, code, monkeypatch):
    @asynccontextmanager
    async def starting(*_: object, **__: object) -> AsyncIterator[str]:
        signal.raise_signal(number)
        await asyncio.sleep(5)
        raise ClusterError("not interrupted")
        yield "nowhere"

    monkeypatch.setattr("orchestrator.cli.local.local_server", starting)
    assert main(["up", "--port", "0"]) == code


def test_a_server_listens_where_the_settings_say(monkeypatch):
    start = Mock(side_effect=ClusterError("as far as that"))
    monkeypatch.setattr("orchestrator.cli.local.local_server", start)
    for name in ("SERVER__HOST", "SECURITY__ALLOW_PLAINTEXT", "SECURITY__ALLOW_ANONYMOUS"):
        monkeypatch.setenv(f"TOUCHLINE_{name}", "0.0.0.0" if "HOST" in name else "1")
    with socket.create_server(("0.0.0.0", 0)) as free:
        port = free.getsockname()[1]
    assert main(["up", "--port", str(port)]) == 1
    assert start.call_args.kwargs == {"host": "0.0.0.0", "port": port}


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_port_that_is_taken_is_told_before_models_are_loaded(is_shared, monkeypatch, capsys):
    monkeypatch.setattr("orchestrator.cli.local.local_server", Mock(side_effect=AssertionError))
    with socket.create_server(("127.0.0.1", 0), reuse_port=is_shared) as taken:
        port = str(taken.getsockname()[1])
        assert main(["up", "--port", port]) == 1
    expected = f"touchline: server.port: cannot listen on 127.0.0.1:{port}: Address already in use"
    assert capsys.readouterr().err.splitlines() == [expected]


def test_a_command_may_run_in_any_thread(monkeypatch):
    monkeypatch.setattr("orchestrator.cli.plan.plan_streams", Mock(return_value=0))
    with ThreadPoolExecutor() as pool:
        assert pool.submit(main, ["plan"]).result() == 0


def test_a_folder_for_a_plan_is_checked_before_a_day_is_simulated(tmp_path, monkeypatch, capsys):
    simulate = Mock(side_effect=AssertionError("a day was simulated"))
    monkeypatch.setattr("deploy.capacity.study.Simulation", simulate)
    file = tmp_path / "file"
    file.touch()
    assert main(["plan", "--simulate", str(file / "below")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("touchline: --simulate: expected a folder that can be written: ")
    assert str(file) in line


def test_a_simulated_day_is_written_into_a_folder_that_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr("deploy.capacity.study._points", lambda *_: [])  # of minutes of simulation
    folder = tmp_path / "a" / "b"
    assert main(["plan", "--simulate", str(folder)]) == 0
    assert names(folder) == {"plan.json", "match_day.png", "curves.png"}


@pytest.mark.parametrize("name", ["drawn", "drawn.txt", "drawn.exr", "drawn.tiff"])
def test_a_picture_of_no_kind_is_named_before_anything_is_started(tmp_path, still, name, capsys):
    assert main(["image", str(still), "--output", str(tmp_path / name)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("touchline: --output: expected a .png or .jpg file")


async def test_a_picture_that_cannot_be_written_is_named_with_the_reason(tmp_path, still):
    async with scripted_server() as running:
        for output in (still / "drawn.png", tmp_path / "folder.png"):
            (tmp_path / "folder.png").mkdir(exist_ok=True)
            with pytest.raises(InvalidRequestError, match=r"cannot write .*(irectory|exists)"):
                await image.recognize_image(
                    options("image", still, "--output", output, "--server", running.target)
                )


def test_an_error_of_the_system_is_one_line(still, monkeypatch, capsys):
    def plan(*_: object) -> None:
        (still / "below").mkdir()

    monkeypatch.setattr("orchestrator.cli.plan.plan_streams", plan)
    assert main(["plan"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"touchline: [Errno 20] Not a directory: '{still}/below'"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("up", "--port", "65536"), "--port: expected 0 to 65535, got '65536'"),
        (("up", "--port", "-1"), "--port: expected 0 to 65535, got '-1'"),
        (("plan", "--gpu-hour-price", "free"), "--gpu-hour-price: expected 0 or more, got 'free'"),
    ],
)
def test_a_wrong_number_is_wrong_usage(arguments, says, capsys):
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("url", ["http://", "127.0.0.1:99999"])
def test_an_address_that_is_none_is_named(url, capsys):
    assert main(["top", url, "--once"]) == 1
    assert f"{url}" in (line := capsys.readouterr().err)
    assert line.endswith(": expected HOST:PORT or a URL\n")


@pytest.mark.parametrize("command", ["keys list --file keys.json", "weights list"])
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_outputs_are_no_error(tmp_path, command, closed):
    add_key(tmp_path / "keys.json", "acme")
    line = f"exec {shlex.join(TOUCHLINE)} {command} {closed}"
    done = subprocess.run(
        ["sh", "-c", line], cwd=tmp_path, capture_output=True, check=False, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_reader_that_leaves_is_no_error(tmp_path):
    """As in `touchline ... | head -1`."""
    add_key(tmp_path / "keys.json", "acme")
    listing = ("keys", "list", "--file", str(tmp_path / "keys.json"))
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*TOUCHLINE, *listing],
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
        timeout=120,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")
