"""A simulated broadcaster: sends a live match through the real client, and counts the answers."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import grpc
import numpy as np
from google.protobuf.duration_pb2 import Duration
from soccer.v1 import player_recognition_pb2 as pb

from orchestrator.client import RecognitionClient
from tests.load.network import Uplink
from tests.load.pictures import MatchPictures
from tests.load.tally import Tally

_PATIENCE_FRAMES = 2
"""A frame that the server has no credit for is kept for so many frame intervals."""

OnResponse = Callable[[pb.RecognizeStreamResponse], None]


def live_config(name: str, frame_rate: float, budget_s: float) -> pb.StreamConfig:
    """Return the config of a live JPEG stream."""
    budget = Duration()
    budget.FromNanoseconds(round(budget_s * 1e9))
    return pb.StreamConfig(
        stream_name=name,
        encoding=pb.FRAME_ENCODING_JPEG,
        frame_rate=frame_rate,
        delivery_mode=pb.DELIVERY_MODE_LIVE,
        latency_budget=budget,
        result_options=pb.ResultOptions(include_masks=True, include_stage_timings=True),
    )


def stored_config(name: str, frame_rate: float) -> pb.StreamConfig:
    """Return the config of a lossless JPEG stream, which is as fast as the server lets it be."""
    config = live_config(name, frame_rate, 1.0)
    config.delivery_mode = pb.DELIVERY_MODE_LOSSLESS
    config.ClearField("latency_budget")
    return config


def first_frame(seed: int, pictures: MatchPictures) -> int:
    """Return the frame of the match with which a stream begins."""
    return int(np.random.default_rng(seed).integers(pictures.period))


class Broadcaster:
    """One stream of the match.

    Args:
        target: `host:port` of the server, or of a `Relay` to it.
        config: From `live_config` or `stored_config`.
        pictures: The match.
        seconds: How long to send.
        seed: Of the arrival times and of the place in the match at which the stream begins.
        uplink: How the frames of a live stream arrive.
        on_response: Told of every response as it comes.

    Attributes:
        tally: What was counted so far.
        first: Number of the match's frame that is the stream's frame 0.
    """

    def __init__(
        self,
        target: str,
        config: pb.StreamConfig,
        pictures: MatchPictures,
        *,
        seconds: float,
        seed: int = 0,
        uplink: Uplink | None = None,
        on_response: OnResponse | None = None,
    ) -> None:
        self.tally = Tally(config.latency_budget.ToNanoseconds() / 1e9 or float("inf"))
        self._rng = np.random.default_rng(seed)
        self.first = first_frame(seed, pictures)
        self._target = target
        self._config = config
        self._pictures = pictures
        self._seconds = seconds
        self._uplink = uplink or Uplink()
        self._on_response = on_response

    async def play(self) -> Tally:
        """Send the whole stream and wait for the last answer; a refusal is counted, too."""
        is_live = self._config.delivery_mode == pb.DELIVERY_MODE_LIVE
        frames = self._live_frames(time.monotonic()) if is_live else self._stored_frames()
        async with RecognitionClient(self._target) as client:
            try:
                async for response in client.recognize_stream(self._config, frames):
                    self.tally.note(response)
                    if self._on_response is not None:
                        self._on_response(response)
            except grpc.aio.AioRpcError as error:
                self.tally.note_refusal(f"{error.code().name}: {error.details()}")
        return self.tally

    async def _live_frames(self, began: float) -> AsyncIterator[pb.Frame]:
        """Yield each frame when it arrives; what waits too long for credit the camera drops.

        The camera does not wait for the server: it begins with the call.
        """
        for index, after in enumerate(self._uplink.arrivals(self._config.frame_rate, self._rng)):
            if after > self._seconds:
                return
            lead = began + after - time.monotonic()
            if lead > 0:
                await asyncio.sleep(lead)
            elif lead < -_PATIENCE_FRAMES / self._config.frame_rate:
                self.tally.counts["skipped"] += 1
                continue
            yield self._frame(index, began + after)

    async def _stored_frames(self) -> AsyncIterator[pb.Frame]:
        end, index = time.monotonic() + self._seconds, 0
        while time.monotonic() < end:
            yield self._frame(index, time.monotonic())
            index += 1

    def _frame(self, index: int, arrival: float) -> pb.Frame:
        self.tally.note_sent(index, arrival)
        return pb.Frame(frame_index=index, data=self._pictures.jpeg(self.first + index))
