import asyncio
import math
import re

import prometheus_client
import pytest
from rich.console import Console

from orchestrator import metrics
from orchestrator.cli import main
from orchestrator.cli.scrape import (
    Change,
    Reading,
    Scrape,
    address,
    between,
    merged,
    parsed,
    read,
)
from orchestrator.cli.top import picture
from orchestrator.metrics_server import mirror_pools
from orchestrator.triton.snapshot import ReplicaState
from tests.unit.test_metrics import pool

WORKER = """
# TYPE touchline_streams gauge
touchline_streams{tenant="arena"} 2
# TYPE touchline_tracker_slots gauge
touchline_tracker_slots 16
# TYPE touchline_tracker_slots_used gauge
touchline_tracker_slots_used 3
# TYPE touchline_degradation_level gauge
touchline_degradation_level %d
"""


def reading(at: float, **values: float) -> Reading:
    """Samples without labels, or `name__label__value`."""
    series = {}
    for key, value in values.items():
        name, *labels = key.split("__")
        series[name, frozenset(zip(labels[::2], labels[1::2], strict=True))] = value
    return Reading(at, series)


def histogram(at: float, name: str, counts: dict[float, float]) -> Reading:
    return Reading(
        at, {(f"{name}_bucket", frozenset({("le", str(le))})): n for le, n in counts.items()}
    )


def test_processes_are_added_but_what_all_see_alike_is_counted_once():
    both = merged(0.0, [parsed("a", WORKER % 0), parsed("b", WORKER % 3)])
    assert both.total("touchline_streams", tenant="arena") == 4
    assert both.total("touchline_tracker_slots_used") == 6
    assert both.total("touchline_tracker_slots") == 16
    assert both.total("touchline_degradation_level") == 3


def test_rates_are_per_second_and_a_restart_is_no_negative_rate():
    change = Change(reading(10.0, frames=100), reading(14.0, frames=200))
    assert change.rate("frames") == 25
    assert Change(reading(10.0, frames=100), reading(14.0, frames=3)).rate("frames") == 0


@pytest.mark.parametrize(
    ("share", "expected"), [(0.25, 0.05), (0.5, 0.1), (0.75, 0.15), (0.9, 0.18), (1.0, 0.2)]
)
def test_quantiles_are_those_of_the_interval_alone(share, expected):
    slow_past = histogram(0.0, "wait", {0.1: 0, 0.2: 0, 1.0: 1000, math.inf: 1000})
    quick_now = histogram(1.0, "wait", {0.1: 50, 0.2: 100, 1.0: 1100, math.inf: 1100})
    assert Change(slow_past, quick_now).quantile(share, "wait") == pytest.approx(expected)


def test_a_quantile_beyond_the_last_bound_is_that_bound_and_none_without_any():
    before = histogram(0.0, "wait", {1.0: 0, math.inf: 0})
    after = histogram(1.0, "wait", {1.0: 0, math.inf: 9})
    assert Change(before, after).quantile(0.5, "wait") == 1.0
    assert Change(after, after).quantile(0.5, "wait") is None


def test_an_address_is_completed_and_a_url_is_taken_as_it_is():
    assert address("10.0.0.1:9000") == "http://10.0.0.1:9000/metrics"
    assert address("https://a/b") == "https://a/b"


@pytest.fixture(name="served")
def _served():
    """This process's metrics, with two replicas of the tracker and a tenant."""
    mirror_pools([pool(ReplicaState.READY, ReplicaState.EJECTED)])
    metrics.STREAMS.labels("arena").set(2)
    metrics.FRAMES_RECEIVED.labels("arena").inc(0)
    metrics.DEGRADATION_LEVEL.set_function(lambda: 3.0)  # as the ladder does
    server, thread = prometheus_client.start_http_server(0, "127.0.0.1")
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()
    metrics.STREAMS.labels("arena").set(0)
    metrics.DEGRADATION_LEVEL.set_function(lambda: 0.0)


def test_once_prints_streams_pools_and_level_of_a_running_process(served, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["top", served, "--once", "--interval", "0.05"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"level segment_less", printed)
    assert re.search(r"SAM2 slots 3 of 8", printed)
    assert re.search(r"arena +2 ", printed)
    assert re.search(r"sam2_tracker +1 ready, 1 ejected +5 +7 +50\.0", printed)


def scrape_of(at: float, *problems: str, **processes: Reading) -> Scrape:
    return Scrape(at, {url: one.values for url, one in processes.items()}, problems)


def shown(before: Scrape, now: Scrape, width: int = 120) -> str:
    console = Console(width=width)
    with console.capture() as printed:
        console.print(picture(before, now))
    return printed.get()


def test_losses_are_shown_by_reason():
    name = "touchline_frames_lost_total__tenant__arena__reason__overloaded"
    before, now = (scrape_of(at, a=reading(at, **{name: 5 * at})) for at in (0.0, 2.0))
    assert "lost/s overloaded: 5.0" in shown(before, now)


def test_a_process_that_fails_is_named_above_what_the_others_do_and_its_return_is_no_growth():
    streams = {"touchline_streams": 2}
    all_there = scrape_of(0.0, a=reading(0.0, frames=0), b=reading(0.0, frames=1000))
    without_b = scrape_of(2.0, "http://b: no answer", a=reading(2.0, frames=50, **streams))
    again = scrape_of(4.0, a=reading(4.0, frames=100), b=reading(4.0, frames=1100))
    assert between(all_there, without_b).rate("frames") == 25
    assert between(without_b, again).rate("frames") == 25
    assert shown(all_there, without_b).startswith("http://b: no answer\nstreams 2 ")


def test_a_process_that_restarted_grows_from_nothing_and_hides_no_others_growth():
    started = "process_start_time_seconds"
    before = scrape_of(
        0.0,
        a=reading(0.0, frames=0, wait_bucket__le__inf=0, **{started: 1}),
        b=reading(0.0, frames=1000, wait_bucket__le__inf=1000, **{started: 1}),
    )
    now = scrape_of(
        2.0,
        a=reading(2.0, frames=50, wait_bucket__le__inf=50, **{started: 1}),
        b=reading(2.0, frames=10, wait_bucket__le__inf=10, **{started: 9}),
    )
    change = between(before, now)
    assert change.rate("frames") == 30
    assert change.quantile(0.5, "wait") is not None


def test_where_nobody_answers_nothing_is_called_normal():
    before, now = scrape_of(0.0, a=reading(0.0, frames=0)), scrape_of(2.0, "http://a: no answer")
    assert shown(before, now) == "http://a: no answer\n"


def test_a_level_of_a_newer_version_is_shown_by_its_number_and_a_narrow_terminal_breaks_nothing():
    levels = {"touchline_degradation_level": 9}
    before, now = (scrape_of(at, a=reading(at, **levels)) for at in (0.0, 2.0))
    assert "level 9" in shown(before, now)
    assert shown(before, now, width=5)


def test_of_several_processes_one_that_is_not_there_is_said_and_told_by_the_exit_code(
    served, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["top", "127.0.0.1:9", served, "--once", "--interval", "0.05"]) == 1
    printed = capsys.readouterr().out
    assert "http://127.0.0.1:9/metrics" in printed
    assert re.search(r"arena +2 ", printed)


def test_a_name_that_looks_like_markup_is_a_name(monkeypatch, capsys):
    async def page(*_: object) -> str:
        return 'touchline_frames_received_total{tenant="[/red]"} 1\n'

    monkeypatch.setattr("orchestrator.cli.scrape._text_of", page)
    assert main(["top", "127.0.0.1:9", "--once", "--interval", "0.01"]) == 0
    assert "[/red]" in capsys.readouterr().out


def test_without_a_terminal_every_picture_is_written(served, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    scrapes = []

    async def read_thrice(urls: list[str]) -> Scrape:
        if len(scrapes) == 3:
            raise KeyboardInterrupt
        scrapes.append(await read(urls))
        return scrapes[-1]

    monkeypatch.setattr("orchestrator.cli.top.read", read_thrice)
    assert main(["top", served, "--interval", "0.01"]) == 130
    assert capsys.readouterr().out.count("level segment_less") == 2


def test_a_process_that_is_not_there_is_named(capsys):
    assert main(["top", "127.0.0.1:9", "--once"]) == 1
    assert "http://127.0.0.1:9/metrics" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"\x00\x00\x1e\x04 as the port of the API\n", "400 Bad status line"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "404 Not Found"),
    ],
)
async def test_a_port_that_serves_something_else_is_named_in_one_line(answer, says):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        scrape = await read([url])
    assert scrape.problems == (f"http://{url}/metrics: expected metrics, got {says}",)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("<html>\n<body>Welcome</body>\n</html>", "expected Prometheus metrics"),
        (
            "# TYPE sam2_sequence_slots gauge\nsam2_sequence_slots 4\n",
            "expected metrics of an orchestrator, found no touchline_",
        ),
    ],
)
def test_a_page_without_an_orchestrators_metrics_is_named(content, says, monkeypatch, capsys):
    async def page(*_: object) -> str:
        return content

    monkeypatch.setattr("orchestrator.cli.scrape._text_of", page)
    assert main(["top", "127.0.0.1:9", "--once"]) == 1
    assert f"http://127.0.0.1:9/metrics: {says}" in capsys.readouterr().err


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "soon"])
def test_an_interval_that_is_none_is_refused(interval, capsys):
    with pytest.raises(SystemExit):
        main(["top", "127.0.0.1:9", "--interval", interval])
    assert "expected more than 0" in capsys.readouterr().err
