"""The endpoints of a Kubernetes service, by list and watch of its EndpointSlices.

Needs `get`, `list` and `watch` on `endpointslices` of the API group `discovery.k8s.io`. A pod that
is terminating but still serves is told as such: its sequences move while it lives.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

from kubernetes_asyncio import config, watch
from kubernetes_asyncio.client import (
    ApiClient,
    ApiException,
    Configuration,
    DiscoveryV1Api,
    V1EndpointConditions,
    V1EndpointSlice,
)
from kubernetes_asyncio.config import ConfigException

from orchestrator.errors import SettingError
from orchestrator.triton.endpoints import Endpoint, Snapshots, joined

_FIRST_BACK_OFF_S, _MAX_BACK_OFF_S = 0.2, 15.0
_LIST_TIMEOUT_S = 10.0
_WATCH_S = 240
"""The server ends each watch after that; the next begins with a list, so nothing stays missed."""
_SILENCE_S = _WATCH_S + 30
_STEADY_S = 30.0
"""A watch that lasted this long has its end forgiven."""
_GONE = 410
"""Our place in history was dropped: a fresh list is due, and nobody's fault."""

log = logging.getLogger(__name__)


def watched(target: str, configuration: Configuration | None = None) -> Snapshots:
    """Follow a service's endpoints.

    Args:
        target: `namespace/service:port-name`.
        configuration: How to reach the API server; None takes the pod's service account.

    Raises:
        SettingError: The target is not of that form, or this process runs in no pod.
    """
    path, _, port_name = target.rpartition(":")
    namespace, _, service = path.partition("/")
    if not (namespace and service and port_name) or "/" in service:
        raise SettingError(
            "triton.urls", f"expected k8s:///NAMESPACE/SERVICE:PORT-NAME, got k8s:///{target}"
        )
    return _follow(_Service(namespace, service, port_name), configuration or _of_this_pod())


class _Service:
    """The slices of one service as last heard."""

    def __init__(self, namespace: str, name: str, port_name: str) -> None:
        self.namespace = namespace
        self.selector = f"kubernetes.io/service-name={name}"
        self._port_name = port_name
        self._slices: dict[str, frozenset[Endpoint]] = {}

    @property
    def endpoints(self) -> frozenset[Endpoint]:
        """All endpoints; one that any slice calls live is not terminating."""
        found = frozenset[Endpoint]().union(*self._slices.values())
        live = {endpoint.address for endpoint in found if not endpoint.is_terminating}
        return frozenset(e for e in found if not e.is_terminating or e.address not in live)

    def reset(self, slices: Iterable[V1EndpointSlice]) -> None:
        """Take a complete list."""
        self._slices = {piece.metadata.name: self._endpoints_of(piece) for piece in slices}

    def change(self, kind: str, piece: V1EndpointSlice) -> None:
        """Take one event: ADDED, MODIFIED or DELETED."""
        if kind == "DELETED":
            self._slices.pop(piece.metadata.name, None)
        else:
            self._slices[piece.metadata.name] = self._endpoints_of(piece)

    def _endpoints_of(self, piece: V1EndpointSlice) -> frozenset[Endpoint]:
        ports = [port.port for port in piece.ports or () if port.name == self._port_name]
        return frozenset(
            Endpoint(joined(each.addresses[0], ports[0]), not _is_ready(each.conditions))
            for each in piece.endpoints or ()
            if ports and each.addresses
            if _is_ready(each.conditions) or _still_serves(each.conditions)
        )


def _is_ready(conditions: V1EndpointConditions | None) -> bool:
    """Whether new work may go there; a missing condition means yes (discovery.k8s.io/v1)."""
    return conditions is None or conditions.ready is not False


def _still_serves(conditions: V1EndpointConditions) -> bool:
    return bool(conditions.terminating and conditions.serving)


async def _follow(service: _Service, configuration: Configuration) -> Snapshots:
    """List, watch, and begin again when the watch ends; ever more slowly while none lasts."""
    known: frozenset[Endpoint] | None = None
    failures = 0
    async with ApiClient(configuration) as client:
        while True:
            begun = time.monotonic()
            try:
                async with aclosing(_listed_and_watched(service, client)) as heard:
                    async for found in heard:
                        if found != known:
                            yield found
                        known = found
            except Exception as error:  # noqa: BLE001  whatever the server says, go on
                if not isinstance(error, ApiException) or error.status != _GONE:
                    log.warning("EndpointSlices of %s: %s", service.selector, _reason(error))
            # A list that succeeds is no proof of good order: it may be the watch that is refused.
            failures = 0 if time.monotonic() - begun >= _STEADY_S else failures + 1
            await asyncio.sleep(_back_off(failures))


async def _listed_and_watched(
    service: _Service, client: ApiClient
) -> AsyncGenerator[frozenset[Endpoint], None]:
    """Give the endpoints from one list and its watch, until the watch ends."""
    api = DiscoveryV1Api(client)
    listed = await api.list_namespaced_endpoint_slice(
        service.namespace, label_selector=service.selector, _request_timeout=_LIST_TIMEOUT_S
    )
    service.reset(listed.items)
    yield service.endpoints
    async with watch.Watch() as events:
        stream = events.stream(
            api.list_namespaced_endpoint_slice,
            service.namespace,
            label_selector=service.selector,
            resource_version=listed.metadata.resource_version,
            allow_watch_bookmarks=True,
            timeout_seconds=_WATCH_S,
            _request_timeout=_SILENCE_S,
        )
        async for event in stream:
            if event["type"] != "BOOKMARK":
                service.change(event["type"], event["object"])
                yield service.endpoints


def _back_off(failures: int) -> float:
    """Seconds until the next list: doubled with each failure, and spread between processes."""
    return float(random.uniform(0.5, 1.0) * min(_MAX_BACK_OFF_S, _FIRST_BACK_OFF_S * 2**failures))


def _reason(error: Exception) -> str:
    return str(error.reason) if isinstance(error, ApiException) else repr(error)


def _of_this_pod() -> Configuration:
    configuration = Configuration()
    try:
        config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
    except ConfigException as error:
        raise SettingError(
            "triton.urls", f"k8s:/// needs a pod's service account: {error}"
        ) from None
    return configuration
