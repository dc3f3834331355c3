"""Rules, dashboard and runbook; `python -m deploy.observability` writes them for Kubernetes."""
