"""`touchline recognize` when it or its server is interrupted."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest
from soccer.v1 import player_recognition_pb2 as pb

from orchestrator.cli import recognize
from orchestrator.cli.annotate import AnnotatedVideo
from orchestrator.cli.video import probe
from tests.unit.scripted_server import scripted_server
from tests.unit.test_command_line import names, options
from tests.unit.test_video_file import write_video


async def test_a_video_is_closed_once_the_frame_in_hand_is_drawn(tmp_path, monkeypatch):
    begun, done = threading.Event(), []

    class Slow(AnnotatedVideo):
        def write(self, *drawn: object, **how: object) -> None:
            begun.set()
            time.sleep(0.3)
            super().write(*drawn, **how)
            done.append("drawn")

        def __exit__(self, *error: object) -> None:
            done.append("closed")
            super().__exit__(*error)

    monkeypatch.setattr(recognize, "AnnotatedVideo", Slow)
    clip, folder = write_video(tmp_path / "clip.mp4"), tmp_path / "out"
    async with scripted_server() as running:
        chosen = options("recognize", clip, "--output", folder, "--server", running.target)
        task = asyncio.create_task(recognize.recognize_file(chosen))
        assert await asyncio.to_thread(begun.wait, 120)
        task.cancel()  # as by Ctrl-C
        with pytest.raises(asyncio.CancelledError):
            await task
    assert done == ["drawn", "closed"]
    assert names(folder) == set()


@pytest.mark.parametrize("is_resumed", [True, False])
async def test_a_stream_that_the_server_lost_is_said(tmp_path, capfd, is_resumed):
    class Client:
        async def recognize_stream(self, *_: object) -> AsyncIterator[pb.RecognizeStreamResponse]:
            for started in (pb.StreamStarted(), pb.StreamStarted(is_resumed=is_resumed)):
                yield pb.RecognizeStreamResponse(started=started)

    clip = write_video(tmp_path / "clip.mp4")
    chosen = options("recognize", clip, "--output", tmp_path, "--no-video")
    await recognize._recognize(Client(), probe(clip), pb.StreamConfig(), chosen, tmp_path)
    assert ("the server lost the stream" in capfd.readouterr().err) is not is_resumed
