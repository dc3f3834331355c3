"""What several test folders share: the real cluster, started once, and the demo clip."""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import settings

from deploy.local.cluster import LocalCluster
from deploy.local.orchestrator import OrchestratorProcess

DATA = Path(__file__).parent / "data"

# How long an example takes says nothing on a busy machine; pytest's own limit ends what hangs.
settings.register_profile("touchline", deadline=None)
settings.load_profile("touchline")


@dataclass(frozen=True)
class Served:
    """The running cluster with the CPU models."""

    target: str
    cluster: LocalCluster
    orchestrator: OrchestratorProcess


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def served() -> AsyncIterator[Served]:
    async with (
        LocalCluster() as cluster,
        OrchestratorProcess(
            cluster.endpoints,
            settings={
                "TOUCHLINE_SERVER__MAX_STREAMS": "8",
                # Eight streams on a small, busy machine are slow, which is no failure of a model.
                "TOUCHLINE_TRITON__INFER_TIMEOUT_S": "60",
            },
        ) as o,
    ):
        yield Served(o.target, cluster, o)


@pytest.fixture(scope="session")
def clip() -> Path:
    return DATA / "demo_01.mp4"


@pytest.fixture(scope="session")
def footage() -> Path:
    """The folder of footage that is not committed: `rendered/` and `real/`."""
    path = Path(os.environ.get("TOUCHLINE_FOOTAGE", ""))
    if not os.environ.get("TOUCHLINE_FOOTAGE") or not path.is_dir():
        pytest.skip("TOUCHLINE_FOOTAGE names no folder")
    return path
