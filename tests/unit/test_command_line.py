"""`touchline` where something is wrong: one clear line, and nothing half-written."""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import grpc
import pytest

from orchestrator.cli import _parser, image, main, recognize
from orchestrator.cli.outputs import all_or_nothing
from orchestrator.errors import InvalidRequestError
from orchestrator.security.keys import add_key
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
    assert len((folder / "mot.txt").read_text().splitlines()) == COUNT
    printed = capfd.readouterr().err.replace("\n", "")
    assert printed.endswith("out [first]/: annotated.mp4 mot.txt results.jsonl summary.json")


async def test_a_stream_that_fails_leaves_the_results_of_before(tmp_path):
    clip, folder = write_video(tmp_path / "clip.mp4"), tmp_path / "out"
    async with scripted_server() as running:
        good = ("recognize", clip, "--output", folder, "--server", running.target)
        assert await recognize.recognize_file(options(*good)) == 0
        before = {name: (folder / name).read_bytes() for name in NAMES}
        with pytest.raises(grpc.aio.AioRpcError, match="kit_description"):
            await recognize.recognize_file(options(*good, "--kit-a", "x" * 257))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


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


@pytest.mark.parametrize("name", ["drawn", "drawn.txt"])
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


def test_files_come_together_or_not_at_all(tmp_path):
    folder = tmp_path / "a" / "b"
    with all_or_nothing(folder) as draft:
        (draft / "one").write_text("1")
        assert not (folder / "one").exists()
    with pytest.raises(KeyError), all_or_nothing(folder) as draft:
        _ = {(draft / "one").write_text("2"): "written"}["not found"]
    assert (folder / "one").read_text() == "1"
    assert names(folder) == {"one"}


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
