import asyncio
import io
import json
import logging

import numpy as np
import pytest

from orchestrator.logs import (
    FloodFilter,
    HumanFormatter,
    JsonFormatter,
    about_frame,
    about_stream,
    configure_logging,
    redacted,
)
from orchestrator.resume import new_token
from orchestrator.settings import LoggingSettings

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhcmVuYSJ9.c2lnbmF0dXJlLWhlcmU"


@pytest.fixture(name="lines")
def _lines():
    log = logging.getLogger("test.logs")
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonFormatter())
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    yield lambda: [json.loads(line) for line in written.getvalue().splitlines()]
    log.removeHandler(handler)


async def test_every_record_of_a_stream_carries_its_stream_and_frame(lines):
    log = logging.getLogger("test.logs")

    async def work(stream: str, frame: int) -> None:
        with about_stream(stream), about_frame(frame):
            await asyncio.sleep(0)
            await asyncio.to_thread(log.info, "from a thread")
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_say("from a task"))

    async def _say(text: str) -> None:
        log.info(text)

    await asyncio.gather(work("left", 3), work("right", 4))
    log.info("of no stream")

    *about, of_none = lines()
    assert {(line["stream"], line["frame"]) for line in about} == {("left", 3), ("right", 4)}
    assert len(about) == 4
    assert "stream" not in of_none
    assert "frame" not in of_none


def test_a_json_record_is_one_line_with_its_exception(lines):
    try:
        json.loads("two\nlines")
    except json.JSONDecodeError:
        logging.getLogger("test.logs").exception("it\nfailed")
    (line,) = lines()
    assert line["message"] == "it\nfailed"
    assert line["severity"] == "ERROR"
    assert "JSONDecodeError: Expecting value" in line["exception"]


@pytest.mark.parametrize(
    "text",
    [
        "authorization: Bearer s3cret-value",
        "metadata ('authorization', 'Bearer s3cret-value')",
        "{'x-api-key': 's3cret-value'}",
        "api_key=s3cret-value refused",
        "Bearer s3cret-value",
        'resume_token: "s3cret-value"',
        "TOUCHLINE_SECURITY__TOKEN=s3cret-value",
        "-----BEGIN RSA PRIVATE KEY-----\ns3cret-value\n-----END RSA PRIVATE KEY-----",
        f"frame {b's3cret-value' * 9!r}",
        f"frame {b'it' + bytes([39]) + b's3cret-value' * 9!r}",
    ],
)
@pytest.mark.parametrize("formatter", [JsonFormatter(), HumanFormatter()])
def test_no_credential_and_no_bytes_are_written(text, formatter):
    exc_info = (ValueError, ValueError(text), None)
    record = logging.LogRecord("a", logging.INFO, "f.py", 1, "got %s", (text,), exc_info)
    written = formatter.format(record)
    assert "s3cret-value" not in written
    assert "[redacted]" in written


@pytest.mark.parametrize("length", [64, 1500, 5000, 60_000])
@pytest.mark.parametrize("formatter", [JsonFormatter(), HumanFormatter()])
def test_nothing_of_a_frame_is_written_whatever_quotes_it_holds_and_however_long(length, formatter):
    text = f"frame {np.random.default_rng(length).bytes(length) + bytes([34, 39])!r} is no picture"
    exc_info = (ValueError, ValueError(text), None)
    record = logging.LogRecord("a", logging.INFO, "f.py", 1, "got %s", (text,), exc_info)
    written = formatter.format(record)
    assert written.count("frame [redacted]") == 2
    assert "\\x" not in written


@pytest.mark.parametrize("credential", [JWT, "touchline_0123456789ab_" + "A" * 43, new_token(12)])
def test_our_own_credentials_are_blotted_out_whatever_their_name(credential):
    assert redacted(f"caller {credential} came") == "caller [redacted] came"


@pytest.mark.parametrize(
    "text",
    [
        "stream 12ab 'derby' started",
        "frame 7: data: expected at most 1024 bytes, got 2048",
        "tokens left: none",
    ],
)
def test_plain_messages_stay_as_they_are(text):
    assert redacted(text) == text


def test_a_message_cannot_forge_a_line_or_fill_the_disk():
    forged = "2026-01-01T00:00:00.000Z INFO audit all is well"
    text = f"name\n{forged}\r{forged}\x1b[2K{forged}\u2028{forged}" + "x" * 100_000
    record = logging.LogRecord("a", logging.INFO, "f.py", 1, "%s", (text,), None)
    written = HumanFormatter().format(record)
    assert written.isprintable()
    assert len(written) < 10_000
    record = logging.LogRecord("a", logging.INFO, "f.py", 1, "", (), (None, ValueError(text), None))
    first, *others = HumanFormatter().format(record).split("\n")
    assert all(line.startswith("  ") and line.isprintable() for line in others)
    assert len(first) + sum(map(len, others)) < 20_000


def warning(line, text="broken", level=logging.ERROR):
    return logging.LogRecord("a", level, "f.py", line, text + " on %d", (line,), None)


def test_what_fails_with_every_frame_is_left_out_and_counted():
    now = [0.0]
    flood = FloodFilter(lambda: now[0])
    written = [flood.filter(warning(1)) for _ in range(25 * 60)]
    assert sum(written) == 120
    assert all(written[:120])
    assert flood.filter(warning(2))  # of another line of code
    assert all(flood.filter(warning(3, level=logging.INFO)) for _ in range(1000))
    now[0] = 60.0
    following, quiet = warning(1), warning(2)
    assert flood.filter(following)
    assert following.getMessage() == "broken on 1 (1380 like it were left out)"
    assert flood.filter(quiet)
    assert quiet.getMessage() == "broken on 2"


def test_the_log_of_a_process_has_room_for_no_flood(capsys):
    before, level = logging.root.handlers[:], logging.root.level
    logging.root.handlers = []
    try:
        configure_logging(LoggingSettings())
        for frame in range(500):
            logging.getLogger("a").error("frame %d failed", frame)
    finally:
        logging.root.handlers = before
        logging.root.setLevel(level)
    assert len(capsys.readouterr().err.splitlines()) == 120


def test_the_level_and_the_format_are_settings(capsys):
    before, level = logging.root.handlers[:], logging.root.level
    logging.root.handlers = []
    try:
        configure_logging(LoggingSettings(level="WARNING", format="json"))
        logging.getLogger("a").info("not this")
        logging.getLogger("a").warning("but this")
    finally:
        logging.root.handlers = before
        logging.root.setLevel(level)
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["message"] == "but this"
