"""The Grafana dashboard, put together from `panels.toml`."""

import tomllib
from pathlib import Path
from typing import Any

PANELS = Path(__file__).with_name("panels.toml")

_WIDTH = 24
_HEIGHT = 8
_SOURCE = {"type": "prometheus", "uid": "${source}"}
_NAMESPACE = '{namespace="$namespace"}'


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana stores it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for row in tomllib.loads(PANELS.read_text())["rows"]:
        panels.append(_row(row["title"], top, len(panels)))
        top += 1
        for index, panel in enumerate(row["panels"]):
            place = {"x": index % 2 * (_WIDTH // 2), "y": top + index // 2 * _HEIGHT}
            panels.append(_chart(panel, place, len(panels)))
        top += (len(row["panels"]) + 1) // 2 * _HEIGHT
    return {
        "uid": "touchline",
        "title": "Touchline",
        "tags": ["touchline"],
        "schemaVersion": 39,
        "refresh": "15s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": panels,
    }


def queries() -> list[str]:
    """Return the PromQL of all panels, for the namespace `touchline`."""
    return [
        target["expr"].replace("$namespace", "touchline")
        for panel in dashboard()["panels"]
        for target in panel.get("targets", [])
    ]


def _row(title: str, top: int, number: int) -> dict[str, Any]:
    place = {"x": 0, "y": top, "w": _WIDTH, "h": 1}
    return {"id": number, "type": "row", "title": title, "gridPos": place, "panels": []}


def _chart(panel: dict[str, Any], place: dict[str, int], number: int) -> dict[str, Any]:
    legend = {"displayMode": "table", "placement": "right", "calcs": ["lastNotNull", "max"]}
    unit = panel.get("unit", "short")
    return {
        "id": number,
        "type": "timeseries",
        "title": panel["title"],
        "description": panel.get("description", ""),
        "datasource": _SOURCE,
        "gridPos": {**place, "w": _WIDTH // 2, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {"legend": legend},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _SOURCE,
                "legendFormat": name,
                "expr": query.replace("@", _NAMESPACE),
            }
            for index, (name, query) in enumerate(panel["queries"].items())
        ],
    }


def _variables() -> list[dict[str, Any]]:
    return [
        {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
        {
            "name": "namespace",
            "type": "query",
            "datasource": _SOURCE,
            "query": "label_values(touchline_degradation_level, namespace)",
            "refresh": 1,
        },
    ]
