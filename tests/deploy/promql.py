"""The metrics that a PromQL query names, and those that there are."""

import re

from prometheus_client import Counter, Gauge, Histogram

from orchestrator import metrics

TRITON = frozenset(
    {
        "nv_inference_count",
        "nv_inference_exec_count",
        "nv_inference_pending_request_count",
        "nv_inference_request_failure",
        "sam2_active_sequences",
        "sam2_sequence_slots",
    }
)
"""Those that we use; a test finds them all in the scrape of a real tritonserver."""

ENVOY = frozenset(
    {"envoy_cluster_membership_healthy", "envoy_server_days_until_first_cert_expiring"}
)
"""Those that we use; a test finds them in the scrape of a real Envoy."""

FOREIGN = frozenset(
    {
        "up",
        "keda_scaler_detail_errors_total",
        "kube_pod_container_state_started",
        "kube_pod_status_ready",
        "kube_deployment_spec_replicas",
        "kube_deployment_status_replicas_available",
        "kube_horizontalpodautoscaler_spec_max_replicas",
        "kube_horizontalpodautoscaler_status_condition",
        "kube_horizontalpodautoscaler_status_current_replicas",
    }
)
"""Of Prometheus, KEDA 2.17 and kube-state-metrics, by their documentation."""

_WORDS = {"and", "or", "unless", "on", "by", "bool", "group_left", "offset"}
_STRINGS_AND_SELECTORS = re.compile(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]')
_LABELS = re.compile(r"\b(?:by|on|without|ignoring)\s*\([^)]*\)")
_NAME = re.compile(r"(?<![\w:.])[a-zA-Z_:][\w:]*(?!\s*\(|[\w:])")


def metric_names(query: str) -> set[str]:
    """Return the names in a query that are no function, keyword, label or number."""
    rest = _LABELS.sub(" ", _STRINGS_AND_SELECTORS.sub(" ", query))
    return set(_NAME.findall(re.sub(r"\boffset\s+\w+", " ", rest))) - _WORDS


def orchestrator_metrics() -> set[str]:
    """Return the series names that an orchestrator can expose."""
    names: set[str] = set()
    for metric in vars(metrics).values():
        if isinstance(metric, Counter | Gauge | Histogram):
            (family,) = metric.describe()
            names |= {family.name + suffix for suffix in _SUFFIXES[family.type]}
    return names


_SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
