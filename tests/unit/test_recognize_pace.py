"""`touchline recognize --live` sends as the recording was shown."""

import asyncio
from types import SimpleNamespace

import pytest

from orchestrator.cli import recognize
from orchestrator.cli.video import probe
from tests.unit.test_video_file import write_video

PTS = (0, 1, 2, 12, 13, 40, 41, 42)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])  # as stored, and as JPEG
async def test_frames_are_sent_when_they_are_shown(tmp_path, monkeypatch, codec):
    video = probe(write_video(tmp_path / "clip.mp4", codec=codec, pts=PTS))
    now = [100.0]

    async def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(recognize, "time", SimpleNamespace(monotonic=lambda: now[0]))
    clocks = SimpleNamespace(sleep=sleep, to_thread=asyncio.to_thread)
    monkeypatch.setattr(recognize, "asyncio", clocks)
    sent = [now[0] - 100 async for _ in recognize._paced(video, is_live=True)]
    assert sent == pytest.approx([pts / 25 for pts in PTS])
