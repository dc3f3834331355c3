"""`touchline image FILE`: one picture through the gRPC API, as JSON on standard output."""

import argparse
from pathlib import Path

import cv2
from google.protobuf.json_format import MessageToJson
from soccer.v1 import player_recognition_pb2 as pb

from orchestrator.cli.annotate import Painter
from orchestrator.cli.connection import connect
from orchestrator.cli.local import console, server_target
from orchestrator.cli.recognize import UNTRAINED_BANNER
from orchestrator.errors import InvalidRequestError
from orchestrator.picture_decoding import SIGNATURES, decode_compressed
from orchestrator.types.frames import Encoding

_DRAWN_AS = {".png", ".jpg", ".jpeg"}


async def recognize_image(options: argparse.Namespace) -> int:
    """Recognise one picture and print what was found; return the exit code.

    Raises:
        InvalidRequestError: The file cannot be read, or is neither JPEG nor PNG; or the output is
            neither, or cannot be written.
    """
    output: Path | None = options.output
    if output is not None and output.suffix.lower() not in _DRAWN_AS:
        raise InvalidRequestError("--output", f"expected a .png or .jpg file, got {output}")
    try:
        data = options.image.read_bytes()
    except OSError as error:
        problem = f"expected a file: {error.strerror}"
        raise InvalidRequestError(str(options.image), problem) from error
    encoding = _encoding(data)
    if encoding is None:
        raise InvalidRequestError(str(options.image), "expected a JPEG or PNG file")
    request = pb.RecognizeFrameRequest(
        encoding=pb.FrameEncoding.Value(f"FRAME_ENCODING_{encoding.name}"),
        data=data,
        result_options=pb.ResultOptions(include_masks=output is not None),
    )
    async with server_target(options) as target, connect(target, options) as client:
        response = await client.recognize_frame(request)
    untrained = any(model.untrained for model in response.models)
    if untrained:
        console.print(f"[bold white on red] {UNTRAINED_BANNER} [/]")
    print(MessageToJson(response.recognition, preserving_proto_field_name=True))
    if output is not None:
        banner = UNTRAINED_BANNER if untrained else None
        _draw(output, data, encoding, response.recognition, banner)
    return 0


def _draw(
    path: Path, data: bytes, encoding: Encoding, found: pb.FrameRecognition, banner: str | None
) -> None:
    """Write the picture with what was found in it."""
    pixels = decode_compressed(data, encoding, max_pixels=found.width_px * found.height_px)
    painter = Painter(found.width_px, found.height_px, title=path.stem)
    drawn = painter.draw(pixels, found, banner=banner)
    _, coded = cv2.imencode(path.suffix, cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(coded.tobytes())
    except OSError as error:
        raise InvalidRequestError("--output", f"cannot write {path}: {error.strerror}") from error


def _encoding(data: bytes) -> Encoding | None:
    return next((kind for kind, magic in SIGNATURES.items() if data.startswith(magic)), None)
