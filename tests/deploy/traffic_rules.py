"""What must be able to talk, what must not, and what protects it. A rule yields what is wrong."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import yaml

from tests.deploy.manifests import Cluster, Object, Workload, selects

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Peer:
    """One end of a connection.

    Attributes:
        labels: Of the pod.
        namespace: Its name; the empty one is outside of the cluster.
        ports: Port numbers by name.
    """

    labels: Labels
    namespace: str = "touchline"
    ports: Mapping[str, int] | None = None


PROMETHEUS = Peer({"app.kubernetes.io/name": "prometheus"}, "monitoring")
GATEWAY = Peer({"app.kubernetes.io/name": "envoy"}, "envoy-gateway-system")
DNS = Peer({"k8s-app": "kube-dns"}, "kube-system")
STRANGER = Peer({"app": "stranger"}, "default")
OUTSIDE = Peer({}, "")


def of(workload: Workload) -> Peer:
    return Peer(workload.labels, ports=workload.ports)


def is_allowed(cluster: Cluster, source: Peer, target: Peer, port: str | int) -> bool:
    """Whether the network policies let a connection pass, as networking.k8s.io/v1 defines it."""
    return _passes(cluster, "Egress", source, target, target, port) and _passes(
        cluster, "Ingress", target, source, target, port
    )


def _passes(
    cluster: Cluster, way: str, subject: Peer, other: Peer, server: Peer, port: str | int
) -> bool:
    policies = [
        policy["spec"]
        for policy in cluster.of("NetworkPolicy")
        if subject.namespace == policy["metadata"]["namespace"]
        and way in policy["spec"]["policyTypes"]
        and selects(policy["spec"]["podSelector"], subject.labels)
    ]
    side = "to" if way == "Egress" else "from"
    rules = [rule for policy in policies for rule in policy.get(way.lower(), [])]
    return not policies or any(
        _names(rule.get(side), other, subject.namespace) and _opens(rule.get("ports"), server, port)
        for rule in rules
    )


def _names(peers: list[Object] | None, other: Peer, own_namespace: str) -> bool:
    if peers is None:
        return True
    return any(_is_peer(peer, other, own_namespace) for peer in peers)


def _is_peer(peer: Object, other: Peer, own_namespace: str) -> bool:
    if "ipBlock" in peer:
        return peer["ipBlock"]["cidr"] == "0.0.0.0/0"
    namespaces = peer.get("namespaceSelector")
    in_namespace = (
        selects(namespaces, {"kubernetes.io/metadata.name": other.namespace})
        if namespaces is not None
        else other.namespace == own_namespace
    )
    return in_namespace and selects(peer.get("podSelector", {}), other.labels)


def _opens(ports: list[Object] | None, server: Peer, port: str | int) -> bool:
    numbers = server.ports or {}
    wanted = numbers.get(port, port) if isinstance(port, str) else port
    return ports is None or any(
        numbers.get(str(one["port"]), one["port"]) == wanted for one in ports
    )


def needed_connections_pass(cluster: Cluster) -> Iterator[str]:
    orchestrator = of(cluster.orchestrator)
    needed = [(PROMETHEUS, orchestrator, "metrics"), (orchestrator, DNS, 53)]
    needed += [(orchestrator, OUTSIDE, 6443), (orchestrator, OUTSIDE, 443)]
    if any(cluster.of("Gateway")):
        needed.append((GATEWAY, orchestrator, "grpc"))
    for model in cluster.models:
        needed += [(orchestrator, of(model), "grpc"), (PROMETHEUS, of(model), "metrics")]
    for proxy in (one for one in cluster.workloads if one.name == "envoy"):
        needed += [(of(proxy), orchestrator, "grpc"), (of(proxy), DNS, 53)]
        needed += [(OUTSIDE, of(proxy), "grpcs"), (PROMETHEUS, of(proxy), "status")]
    for source, target, port in needed:
        if not is_allowed(cluster, source, target, port):
            yield f"{dict(source.labels)} cannot reach {dict(target.labels)} at {port}"


def nothing_else_passes(cluster: Cluster) -> Iterator[str]:
    if not cluster.has_policies:
        return
    orchestrator = of(cluster.orchestrator)
    unwanted = [(STRANGER, orchestrator, "grpc"), (OUTSIDE, orchestrator, "metrics")]
    for model in cluster.models:
        unwanted += [(STRANGER, of(model), "grpc"), (PROMETHEUS, of(model), "grpc")]
        unwanted += [(of(model), OUTSIDE, 443), (of(model), orchestrator, "grpc")]
        unwanted += [(orchestrator, of(model), "http")]
    for source, target, port in unwanted:
        if is_allowed(cluster, source, target, port):
            yield f"{dict(source.labels)} can reach {dict(target.labels)} at {port}"


def servers_listen_beyond_their_pod(cluster: Cluster) -> Iterator[str]:
    """By Triton's `--help`: metrics are served where HTTP is, unless they are told otherwise."""
    for model in cluster.models:
        everywhere = "0.0.0.0"
        http = model.argument("http-address") or everywhere
        listening = {
            "grpc": model.argument("grpc-address") or everywhere,
            "metrics": model.argument("metrics-address") or http,
        }
        for port, address in listening.items():
            if address != everywhere:
                yield f"{model.name}: port {port} is open at {address} alone"


def both_ends_speak_tls(cluster: Cluster) -> Iterator[str]:
    settings = cluster.settings
    asks = {f"TOUCHLINE_TRITON__TLS__{name}" for name in ("CA", "CERT", "KEY")} <= settings.keys()
    name = settings.get("TOUCHLINE_TRITON__TLS__SERVER_NAME")
    for model in cluster.models:
        serves = model.argument("grpc-use-ssl-mutual") == "true"
        if serves is not asks:
            yield f"{model.name}: server has mutual TLS: {serves}, the orchestrator: {asks}"
        if serves and name not in _names_of(cluster, model, "tls"):
            yield f"{model.name}: no certificate for {name}, which the orchestrator expects"
        if serves and model.argument("http-address") != "127.0.0.1":
            yield f"{model.name}: HTTP, which knows no TLS, is open to the network"


def _names_of(cluster: Cluster, workload: Workload, volume: str) -> list[str]:
    secret = (workload.volume(volume) or {}).get("secret", {}).get("secretName")
    certificates = (one["spec"] for one in cluster.of("Certificate"))
    return next((c.get("dnsNames", []) for c in certificates if c["secretName"] == secret), [])


def the_public_port_is_protected(cluster: Cluster) -> Iterator[str]:
    settings = cluster.settings
    tls = "TOUCHLINE_SECURITY__CERTIFICATE_FILE" in settings
    plain = settings.get("TOUCHLINE_SECURITY__ALLOW_PLAINTEXT") == "true"
    keys = "TOUCHLINE_SECURITY__API_KEYS_FILE" in settings
    anonymous = settings.get("TOUCHLINE_SECURITY__ALLOW_ANONYMOUS") == "true"
    if keys and "TOUCHLINE_SECURITY__TENANTS_FILE" not in settings:
        yield "public port: callers are named, but there is no file of tenants"
    if tls is plain or keys is anonymous:
        yield f"public port: TLS {tls}, plaintext {plain}; keys {keys}, anonymous {anonymous}"
    if cluster.has_policies and (plain or anonymous):
        yield "closed networks, but an open API"


def files_of_secrets_are_mounted(cluster: Cluster) -> Iterator[str]:
    for workload in cluster.workloads:
        mounts = [mount["mountPath"] for mount in workload.main.get("volumeMounts", [])]
        named = [value for key, value in workload.variables.items() if key.endswith("_FILE")]
        named += [v for k, v in workload.variables.items() if "__TLS__" in k and v.startswith("/")]
        for option in ("grpc-server-cert", "grpc-server-key", "grpc-root-cert"):
            named += [value] if (value := workload.argument(option)) else []
        for path in named:
            if not any(path.startswith(f"{mount}/") for mount in mounts):
                yield f"{workload.name}: nothing is mounted at {path}"


def the_proxy_finds_the_api(cluster: Cluster) -> Iterator[str]:
    for config in cluster.of("ConfigMap"):
        if "envoy.yaml" not in config.get("data", {}):
            continue
        proxy = yaml.safe_load(config["data"]["envoy.yaml"])["static_resources"]
        upstream = next(one for one in proxy["clusters"] if one["name"] == "orchestrator")
        where = upstream["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
        address = where["address"]["socket_address"]
        host, namespace, *_ = address["address"].split(".")
        service = cluster.find("Service", host)
        ports = [port["port"] for port in service["spec"]["ports"]] if service else []
        if namespace != "touchline" or address["port_value"] not in ports:
            yield f"envoy: nothing at {address}"
        sni = upstream["transport_socket"]["typed_config"]["sni"]
        if sni not in _names_of(cluster, cluster.orchestrator, "tls"):
            yield f"envoy: the orchestrator has no certificate for {sni}"
        listening = {
            listener["address"]["socket_address"]["port_value"] for listener in proxy["listeners"]
        }
        pod = next(one for one in cluster.workloads if one.name == "envoy")
        if listening != set(pod.ports.values()):
            yield f"envoy: listens on {listening}, its pod says {pod.ports}"


RULES = (
    needed_connections_pass,
    nothing_else_passes,
    servers_listen_beyond_their_pod,
    both_ends_speak_tls,
    the_public_port_is_protected,
    files_of_secrets_are_mounted,
    the_proxy_finds_the_api,
)
