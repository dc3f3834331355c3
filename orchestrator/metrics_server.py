"""`/metrics`, `/healthz` and `/readyz` of one process, answered by the event loop that serves.

A loop that hangs therefore fails its liveness check, and pools are mirrored at scrape time without
locks. Every worker process has its own port: sums over processes are Prometheus's work.
"""

import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from orchestrator import metrics
from orchestrator.errors import SettingError
from orchestrator.settings import MetricsSettings
from orchestrator.triton.snapshot import PoolSnapshot, ReplicaState

Pools = Callable[[], Iterable[PoolSnapshot]]

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def serving_metrics(
    settings: MetricsSettings,
    *,
    worker: int = 0,
    pools: Pools = tuple,
    is_ready: Callable[[], bool] = lambda: True,
) -> AsyncIterator[int | None]:
    """Serve for as long as the context is open; yields the port, None if it is off.

    Args:
        settings: Where to listen.
        worker: Index of this worker process, from 0; added to the port.
        pools: Asked at each scrape for the pools to mirror, as `TritonClient.snapshot`.
        is_ready: Whether new streams are welcome; `/readyz` answers 503 otherwise.

    Raises:
        SettingError: The port cannot be had.
    """
    if settings.port is None:
        yield None
        return
    runner = web.AppRunner(_application(pools, is_ready), access_log=None)
    await runner.setup()
    try:
        port = await _listen(runner, settings.host, settings.port and settings.port + worker)
        log.info("metrics at http://%s:%d/metrics", settings.host, port)
        yield port
    finally:
        await runner.cleanup()


def mirror_pools(pools: Iterable[PoolSnapshot]) -> None:
    """Set the gauges that show what the pools tell of themselves."""
    slots = slots_used = 0
    for pool in pools:
        metrics.expose_model(pool.name)
        metrics.MODEL_IN_FLIGHT.labels(pool.name).set(pool.in_flight)
        metrics.MODEL_QUEUED.labels(pool.name).set(pool.queued)
        metrics.MODEL_ROWS_PER_SECOND.labels(pool.name).set(pool.rows_per_s)
        if pool.capacity_rows_per_s is not None:
            metrics.MODEL_CAPACITY.labels(pool.name).set(pool.capacity_rows_per_s)
        states = Counter(replica.state for replica in pool.replicas)
        for state in ReplicaState:
            metrics.MODEL_REPLICAS.labels(pool.name, state.name.lower()).set(states[state])
        slots += pool.slots
        slots_used += pool.slots_used
    metrics.TRACKER_SLOTS.set(slots)
    metrics.TRACKER_SLOTS_USED.set(slots_used)


def _application(pools: Pools, is_ready: Callable[[], bool]) -> web.Application:
    async def scrape(_: web.Request) -> web.Response:
        mirror_pools(pools())
        return web.Response(
            body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4}
        )

    async def live(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def ready(_: web.Request) -> web.Response:
        return web.Response(text="ready\n") if is_ready() else web.Response(status=503)

    application = web.Application(client_max_size=1024)
    handlers: dict[str, Handler] = {"/metrics": scrape, "/healthz": live, "/readyz": ready}
    application.add_routes([web.get(path, handler) for path, handler in handlers.items()])
    return application


async def _listen(runner: web.AppRunner, host: str, port: int) -> int:
    try:
        await web.TCPSite(runner, host, port).start()
    except (OSError, OverflowError) as error:
        problem = f"cannot listen on {host}:{port}: {error}"
        raise SettingError("metrics.port", problem) from error
    chosen: int = runner.addresses[0][1]
    return chosen
