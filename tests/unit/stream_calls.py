"""Streams over real sockets, told message by message what to send."""

import asyncio
import contextlib

import grpc
from soccer.v1 import player_recognition_pb2 as pb
from soccer.v1 import player_recognition_pb2_grpc as pb_grpc

from tests.unit.scripted_server import scripted_server
from tests.unit.test_session import GOOD


def config(**fields) -> pb.RecognizeStreamRequest:
    fields = {"encoding": pb.FRAME_ENCODING_JPEG, **fields}
    return pb.RecognizeStreamRequest(config=pb.StreamConfig(**fields))


def frame(index: int, data: bytes = GOOD) -> pb.RecognizeStreamRequest:
    return pb.RecognizeStreamRequest(frame=pb.Frame(frame_index=index, data=data))


@contextlib.asynccontextmanager
async def call(target, options=(), metadata=(), **fields):
    """Open a stream on a connection of its own; at the end the client vanishes."""
    async with grpc.aio.insecure_channel(target, options) as channel:
        stream = pb_grpc.PlayerRecognitionServiceStub(channel).RecognizeStream(metadata=metadata)
        await stream.write(config(**fields))
        yield stream, (await stream.read()).started


async def send(stream, indices):
    """Send frames and return their answers."""
    for index in indices:
        await stream.write(frame(index))
    answers = []
    while len(answers) < len(indices):
        response = await asyncio.wait_for(stream.read(), 20)
        if response.HasField("recognition") or response.HasField("gap"):
            answers.append(response)
    return answers


async def finish(stream):
    """End a stream and return its summary."""
    await stream.done_writing()
    while not (response := await asyncio.wait_for(stream.read(), 20)).HasField("summary"):
        pass
    assert await stream.read() is grpc.aio.EOF
    return response.summary


async def end_of(stream):
    """Read a call to its end, which is an error, and return its code and details."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        while await asyncio.wait_for(stream.read(), 20) is not grpc.aio.EOF:
            pass
    return (await stream.code()).name, await stream.details()


async def is_free(running):
    """Wait until no place is taken."""
    await asyncio.wait_for(running.servicer._drain.until_free(), 20)


@contextlib.asynccontextmanager
async def two_workers(directory, **common):
    common |= {"workers": 2, "worker_directory": directory}
    async with (
        scripted_server(worker=0, **common) as first,
        scripted_server(worker=1, **common) as second,
    ):
        yield first, second
