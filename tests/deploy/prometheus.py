"""A real Prometheus on 127.0.0.1, and what it answers."""

import contextlib
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deploy.local import die_with_parent
from deploy.local.ports import HOST, free_ports
from tests.deploy.manifests import installed

_START_S = 60


def debian_tool(name: str) -> str:
    """Return the path of a program of Debian's package `prometheus`; skip or fail without it."""
    return installed(name, shutil.which(name))


@dataclass(frozen=True)
class Prometheus:
    """A running server.

    Attributes:
        url: Where its API is.
    """

    url: str

    def ask(self, path: str, **parameters: str) -> Any:
        """Return `data` of an answer of its API; a refused query is an AssertionError."""
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error

    def query(self, promql: str) -> list[tuple[dict[str, str], float]]:
        """Return labels and value of every sample that a query gives now."""
        found = self.ask("query", query=promql)
        samples = [found["result"]] if found["resultType"] == "scalar" else found["result"]
        return [(one["metric"], float(one["value"][1])) for one in samples]

    def names(self) -> set[str]:
        """Return the names of all series."""
        return set(self.ask("label/__name__/values"))

    def wait_for(self, promql: str) -> None:
        """Wait until a query gives a sample."""
        end = time.monotonic() + _START_S
        while not self.query(promql):
            assert time.monotonic() < end, f"never true: {promql}"
            time.sleep(0.2)


@contextlib.contextmanager
def scraping(
    folder: Path, targets: Mapping[str, Mapping[str, str]], rules: str
) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes once per second.

    Args:
        folder: For its config and data.
        targets: Labels by `host:port`.
        rules: Content of its rules file.
    """
    jobs = [{"targets": [address], "labels": dict(labels)} for address, labels in targets.items()]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml"],
        "scrape_configs": [{"job_name": "touchline", "static_configs": jobs}],
    }
    (folder / "rules.yml").write_text(rules)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"{HOST}:{free_ports().http}"
    command = [
        *die_with_parent.prefix(),
        debian_tool("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_until_ready(process, address, folder / "prometheus.log")
        yield Prometheus(f"http://{address}")
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    end = time.monotonic() + _START_S
    while True:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://{address}/-/ready", timeout=5).close()
            return
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.1)
