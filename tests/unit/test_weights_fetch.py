"""Published checkpoints come whole and right into the store, or not at all."""

import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from training.__main__ import main
from training.checksum import sha256_of
from training.errors import InputError
from training.weights.fetch import pull
from training.weights.registry import Entry, File, Registry, read_registry, state

DATA = bytes(range(256)) * 1024


class Mirror(SimpleHTTPRequestHandler):
    """Serves a folder, with ranges.

    `cut` ends every answer early, as a lost connection does; with `trickle` bytes come one by one,
    every 50 ms; an answer waits for `gate`.
    """

    cut: int | None = None
    trickle = False
    gate = threading.Event()
    ranges: list[str]

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        wanted = self.headers["Range"]
        self.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start and start >= path.stat().st_size:
            self.send_error(416)
            return
        data = path.read_bytes()[start:]
        self.send_response(206)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.gate.wait(30)
        if self.trickle:
            for place in range(200):
                self.wfile.write(data[place : place + 1])
                time.sleep(0.05)
        self.wfile.write(data[: self.cut])

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    folder = tmp_path / "origin" / "net"
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(b"{}")
    (folder / "model.pt").write_bytes(DATA)
    return folder.parent


@pytest.fixture
def entry(origin: Path) -> Entry:
    files = [
        File(path=path.name, size=path.stat().st_size, sha256=sha256_of(path))
        for path in sorted((origin / "net").iterdir())
    ]
    return Entry(
        name="net",
        models=("sam2_tracker",),
        role="serve",
        licence="Apache-2.0",
        publisher="Meta",
        source="hub:facebook/net",
        revision="main",
        files=tuple(files),
    )


@pytest.fixture
def handler(origin: Path) -> type[Mirror]:
    class Handler(Mirror):
        ranges: list[str] = []  # noqa: RUF012
        gate = threading.Event()

        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(origin))  # type: ignore[arg-type]

    Handler.gate.set()
    return Handler


@pytest.fixture
def mirror(handler: type[Mirror]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        handler.gate.set()
        server.shutdown()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def test_a_folder_and_a_mirror_give_the_same_verified_files(entry, origin, mirror, store):
    for source, place in ((str(origin), store / "a"), (mirror, store / "b")):
        folder = pull(entry, place, source=source)
        assert state(entry, folder, hashing=True) == "verified"
        assert [path.name for path in place.iterdir()] == ["net"]


def test_what_is_there_and_right_is_not_fetched_again(entry, mirror, handler, store):
    pull(entry, store, source=mirror)
    asked = len(handler.ranges)
    pull(entry, store, source=mirror)
    assert len(handler.ranges) == asked == 2


def test_a_broken_transfer_goes_on_where_it_broke(entry, mirror, handler, store):
    handler.cut = 150_000
    with pytest.raises(InputError, match="run again to go on"):
        pull(entry, store, source=mirror)
    assert not (store / "net").exists()
    assert state(entry, store / "net", hashing=False) == "incomplete"
    kept = (store / "net.partial" / "model.pt").stat().st_size
    assert 0 < kept <= 150_000
    handler.cut = None
    folder = pull(entry, store, source=mirror)
    assert handler.ranges[-1] == f"bytes={kept}-"
    assert (folder / "model.pt").read_bytes() == DATA


@pytest.mark.parametrize("kind", ["folder", "mirror"])
@pytest.mark.parametrize("data", [b"\1" + DATA[1:], DATA[:-7]], ids=["tampered", "truncated"])
def test_other_bytes_are_refused_naming_both_hashes(kind, data, entry, origin, mirror, store):
    path = origin / "net" / "model.pt"
    path.write_bytes(data)
    with pytest.raises(InputError) as refusal:
        pull(entry, store, source=str(origin) if kind == "folder" else mirror)
    assert entry.files[1].sha256 in str(refusal.value)
    assert sha256_of(path) in str(refusal.value)
    assert not (store / "net").exists()


def test_a_file_that_is_too_short_at_the_mirror_is_told_and_begun_anew(
    entry, origin, mirror, handler, store
):
    path = origin / "net" / "model.pt"
    path.write_bytes(b"\1" * 99)
    with pytest.raises(InputError, match="refused"):
        pull(entry, store, source=mirror)
    with pytest.raises(InputError, match=f"expected {len(DATA)} bytes, the server has only 99"):
        pull(entry, store, source=mirror)
    path.write_bytes(DATA)
    assert state(entry, pull(entry, store, source=mirror), hashing=True) == "verified"
    assert handler.ranges[-1] == "bytes=0-"


def test_tampered_bytes_are_not_kept_for_the_next_try(entry, origin, mirror, store):
    path = origin / "net" / "model.pt"
    path.write_bytes(b"\1" + DATA[1:])
    with pytest.raises(InputError, match="refused"):
        pull(entry, store, source=mirror)
    path.write_bytes(DATA)
    assert state(entry, pull(entry, store, source=mirror), hashing=True) == "verified"


def test_a_server_that_sends_too_much_is_cut_off(entry, origin, mirror, store):
    (origin / "net" / "model.pt").write_bytes(DATA * 8)
    with pytest.raises(InputError, match=f"expected {len(DATA)} bytes, the server sends more"):
        pull(entry, store, source=mirror)
    assert (store / "net.partial" / "model.pt").stat().st_size < 2 * len(DATA)


def test_a_transfer_ends_when_its_time_is_up(entry, mirror, store):
    with pytest.raises(InputError, match="the time is up after"):
        pull(entry, store, source=mirror, limit_s=0.0)


def test_a_transfer_that_trickles_ends_when_its_time_is_up(entry, mirror, handler, store):
    handler.trickle = True
    start = time.monotonic()
    with pytest.raises(InputError, match="the time is up after"):
        pull(entry, store, source=mirror, limit_s=0.2)
    assert time.monotonic() - start < 8  # the trickle lasts 10 s


def test_only_wrong_files_in_the_store_are_fetched_and_replaced(entry, mirror, handler, store):
    folder = pull(entry, store, source=mirror)
    (folder / "model.pt").write_bytes(b"damaged")
    (folder / "notes.txt").write_text("of the user")
    before = len(handler.ranges)
    assert state(entry, pull(entry, store, source=mirror), hashing=True) == "verified"
    assert (folder / "notes.txt").read_text() == "of the user"
    assert len(handler.ranges) == before + 1
    assert [path.name for path in store.iterdir()] == ["net"]


def test_a_second_pull_of_the_same_weights_is_refused_while_one_runs(entry, mirror, handler, store):
    handler.gate.clear()
    first = threading.Thread(target=pull, args=(entry, store), kwargs={"source": mirror})
    first.start()
    try:
        while not handler.ranges:
            time.sleep(0.01)
        with pytest.raises(InputError, match=r"net\.partial: another pull is under way"):
            pull(entry, store, source=mirror)
    finally:
        handler.gate.set()
        first.join(30)
    assert state(entry, store / "net", hashing=True) == "verified"
    assert [path.name for path in store.iterdir()] == ["net"]


@pytest.mark.parametrize("source", ["file:///mirror", "s3://bucket/mirror"])
def test_an_address_of_another_kind_is_refused_by_name(source, entry, store):
    with pytest.raises(InputError, match=f"{source}: expected a folder, or an address with http"):
        pull(entry, store, source=source)


def test_a_checkpoint_of_torchvision_goes_on_where_it_broke(
    entry, mirror, handler, store, monkeypatch
):
    weights = SimpleNamespace(url=f"{mirror}net/model.pt")
    monkeypatch.setattr("torchvision.models.get_weight", lambda name: weights)
    change = {"source": "torchvision:Net_Weights.V1", "files": entry.files[1:]}
    published = entry.model_copy(update=change)
    handler.cut = 150_000
    with pytest.raises(InputError, match=r"Net_Weights.V1: model.pt could not be .* use --from"):
        pull(published, store)
    handler.cut = None
    folder = pull(published, store)
    assert int(handler.ranges[-1].removeprefix("bytes=").removesuffix("-")) > 0
    assert (folder / "model.pt").read_bytes() == DATA


def test_a_missing_file_is_named(entry, origin, mirror, store):
    (origin / "net" / "model.pt").unlink()
    with pytest.raises(InputError, match="net/model.pt: expected the file"):
        pull(entry, store, source=str(origin))
    with pytest.raises(InputError, match=r"net/model\.pt: could not be fetched: 404"):
        pull(entry, store, source=mirror)


def test_without_mirror_the_publishing_library_is_asked(entry, store, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"hub:facebook/net: config.json could not be fetched"):
        pull(entry, store)


def test_our_own_weights_are_not_pulled(store):
    (ours,) = read_registry().find(["demo-detector"])
    with pytest.raises(InputError, match="part of the repository"):
        pull(ours, store)


def test_the_mirror_may_come_from_the_environment(
    entry, mirror, store, tmp_path, monkeypatch, capsys
):
    manifest = tmp_path / "registry.json"
    manifest.write_text(Registry(entries=(entry,)).model_dump_json())
    monkeypatch.setenv("TOUCHLINE_WEIGHTS_MIRROR", mirror)
    arguments = ["weights", "pull", "net", "--registry", str(manifest), "--store", str(store)]
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"net: {store / 'net'} (Apache-2.0, Meta)\n"
