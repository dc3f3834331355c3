"""`python -m deploy.observability`: write the dashboard and the rules as Kubernetes wants them."""

import json
from pathlib import Path

from deploy.observability.dashboard import dashboard

RULES = Path(__file__).with_name("rules.yml")
MONITORING = Path(__file__).parents[1] / "kubernetes" / "components" / "monitoring"

_HEAD = """\
# Written by `python -m deploy.observability` from deploy/observability/rules.yml; change it there.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: touchline
spec:
"""


def render() -> dict[Path, str]:
    """Return the content of the generated files."""
    lines = RULES.read_text().splitlines()
    rules = "\n".join(f"  {line}" if line else "" for line in lines[lines.index("groups:") :])
    board = json.dumps(dashboard(), indent=1, ensure_ascii=False)
    return {
        MONITORING / "rules.yaml": f"{_HEAD}{rules}\n",
        MONITORING / "dashboard.json": f"{board}\n",
    }


if __name__ == "__main__":
    for path, content in render().items():
        path.write_text(content)
