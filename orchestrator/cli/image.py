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


async def recognize_image(options: argparse.Namespace) -> int:
    """Recognise one picture and print what was found; return the exit code.

    Raises:
        InvalidRequestError: The file cannot be read, or is neither JPEG nor PNG.
    """
    try:
        data = options.image.read_bytes()
    except OSError as error:
        raise InvalidRequestError(str(options.image), f"expected a file: {error}") from error
    encoding = _encoding(data)
    if encoding is None:
        raise InvalidRequestError(str(options.image), "expected a JPEG or PNG file")
    request = pb.RecognizeFrameRequest(
        encoding=pb.FrameEncoding.Value(f"FRAME_ENCODING_{encoding.name}"),
        data=data,
        result_options=pb.ResultOptions(include_masks=options.output is not None),
    )
    async with server_target(options) as target, connect(target, options) as client:
        response = await client.recognize_frame(request)
    untrained = any(model.untrained for model in response.models)
    if untrained:
        console.print(f"[bold white on red] {UNTRAINED_BANNER} [/]")
    print(MessageToJson(response.recognition, preserving_proto_field_name=True))
    if options.output is not None:
        banner = UNTRAINED_BANNER if untrained else None
        _draw(options.output, data, encoding, response.recognition, banner)
    return 0


def _draw(
    path: Path, data: bytes, encoding: Encoding, found: pb.FrameRecognition, banner: str | None
) -> None:
    """Write the picture with what was found in it."""
    pixels = decode_compressed(data, encoding, max_pixels=found.width_px * found.height_px)
    painter = Painter(found.width_px, found.height_px, title=path.stem)
    drawn = painter.draw(pixels, found, banner=banner)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        is_written = cv2.imwrite(str(path), cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
    except cv2.error:  # an ending that OpenCV does not know
        is_written = False
    if not is_written:
        raise InvalidRequestError("--output", f"expected a .png or .jpg file, got {path}")


def _encoding(data: bytes) -> Encoding | None:
    return next((kind for kind, magic in SIGNATURES.items() if data.startswith(magic)), None)
