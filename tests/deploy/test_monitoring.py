"""Rules, dashboard and runbook agree with each other and with the metrics that there are."""

import re
import subprocess

import pytest
import yaml

from deploy.observability import dashboard
from deploy.observability.__main__ import RULES, render
from tests.deploy.manifests import KUBERNETES
from tests.deploy.prometheus import debian_tool
from tests.deploy.promql import ENVOY, FOREIGN, TRITON, metric_names, orchestrator_metrics

RUNBOOK = RULES.with_name("runbook.md")

_BY_MAXIMUM = {
    "touchline_model_replicas",
    "touchline_model_capacity_rows_per_second",
    "touchline_tracker_slots",
    "touchline_degradation_level",
}
"""What every worker process tells alike: its sum would count replicas once for each of them."""


def rules():
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts():
    return [rule for rule in rules() if "alert" in rule]


def records():
    return {rule["record"] for rule in rules() if "record" in rule}


def queries():
    return [rule["expr"] for rule in rules()] + dashboard.queries()


def promtool(*arguments):
    command = [debian_tool("promtool"), *arguments]
    return subprocess.run(command, cwd=RULES.parent, capture_output=True, text=True, check=False)


def test_the_rules_are_valid():
    run = promtool("check", "rules", RULES.name)
    assert run.returncode == 0, run.stdout + run.stderr


def test_every_alert_fires_where_it_should_and_is_silent_beside_it():
    run = promtool("test", "rules", "rules_test.yml")
    assert run.returncode == 0, run.stdout + run.stderr


def test_every_alert_is_tested_firing():
    tests = yaml.safe_load(RULES.with_name("rules_test.yml").read_text())["tests"]
    fired = {
        case["alertname"]
        for test in tests
        for case in test.get("alert_rule_test", [])
        if case["exp_alerts"]
    }
    assert fired == {alert["alert"] for alert in alerts()}


def test_a_rule_that_is_broken_fails_its_test(tmp_path):
    """Otherwise the tests above would prove nothing."""
    broken = RULES.read_text().replace("touchline:tracker_slots_used:ratio > 0.9", "vector(0) > 1")
    (tmp_path / "rules.yml").write_text(broken)
    (tmp_path / "rules_test.yml").write_text(RULES.with_name("rules_test.yml").read_text())
    run = promtool("test", "rules", str(tmp_path / "rules_test.yml"))
    assert run.returncode != 0
    assert "TouchlineTrackerSlotsShort" in run.stdout + run.stderr


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_leads_to_its_section_of_the_runbook(alert):
    headings = re.findall(r"^## (.+)$", RUNBOOK.read_text(), re.MULTILINE)
    assert alert["alert"] in headings
    assert alert["annotations"]["runbook_url"] == f"{RUNBOOK.name}#{alert['alert'].lower()}"
    assert alert["labels"]["severity"] in {"warning", "critical"}


def test_the_runbook_has_no_section_too_many_and_no_dead_link():
    text = RUNBOOK.read_text()
    headings = set(re.findall(r"^## (.+)$", text, re.MULTILINE))
    assert headings == {alert["alert"] for alert in alerts()}
    assert set(re.findall(r"\]\(#([^)]*)\)", text)) <= {heading.lower() for heading in headings}


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ('sum by (model) (rate(a_total{b="c"}[5m])) > 0.5', {"a_total"}),
        ("histogram_quantile(0.99, sum by (le) (rate(a_bucket[1m])))", {"a_bucket"}),
        ("a{x='y'} offset 5m or 0 * sum(b:c) unless on (d) e", {"a", "b:c", "e"}),
        ('clamp_max(sum(increase(a_total{n="sum"}[2m])), 4)', {"a_total"}),
    ],
)
def test_names_are_found_in_queries(query, names):
    assert metric_names(query) == names


def test_queries_name_metrics_that_there_are():
    known = orchestrator_metrics() | TRITON | ENVOY | FOREIGN | records()
    unknown = {name for query in queries() for name in metric_names(query)} - known
    assert unknown == set()


def test_every_metric_of_the_orchestrator_is_shown_or_watched():
    used = {name for query in queries() for name in metric_names(query)}
    ours = {one for one in orchestrator_metrics() if not one.endswith(("_sum", "_count"))}
    assert ours - used == set()


@pytest.mark.parametrize("name", sorted(_BY_MAXIMUM))
def test_what_every_process_tells_alike_is_never_added_up(name):
    for query in queries():
        for found in re.finditer(rf"{name}(?![\w])", query):
            before = query[: found.start()]
            assert not re.search(r"sum\s*(by\s*\([^)]*\))?\s*\($", before), query


def test_a_sum_of_replicas_would_be_found():
    query = "sum by (model) (touchline_model_replicas)"
    assert re.search(r"sum\s*(by\s*\([^)]*\))?\s*\($", query[: query.index("touchline")])


@pytest.mark.parametrize("path", render(), ids=lambda path: path.name)
def test_what_kubernetes_gets_is_up_to_date(path):
    assert path.read_text() == render()[path], "python -m deploy.observability"


def test_the_rules_of_kubernetes_are_the_tested_ones():
    wrapped = yaml.safe_load((KUBERNETES / "components/monitoring/rules.yaml").read_text())
    assert wrapped["spec"] == yaml.safe_load(RULES.read_text())


def test_panels_have_places_of_their_own():
    places = [tuple(panel["gridPos"].values()) for panel in dashboard.dashboard()["panels"]]
    assert len(set(places)) == len(places)
    assert max(x + w for x, _, w, _ in places) <= 24
