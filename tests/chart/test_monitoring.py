"""The chart renders monitors, alerts and dashboards unchanged."""

import json

import pytest
import yaml

from helm import CHART, FOREIGN, of_kind, only

RULES = yaml.safe_load((CHART / "files/rules.yaml").read_text().replace(
    "docs/operations.md", "https://example.com/ebb/operations"
))


def test_renders_no_monitors_for_a_cluster_without_their_kinds(helm):
    documents = helm.ci("monitoring", known=())
    assert [document["kind"] for document in documents if document["apiVersion"] in FOREIGN] == []


def test_each_service_monitor_finds_its_service_and_port(helm):
    documents = helm.ci("monitoring")
    monitors = of_kind(documents, "ServiceMonitor")
    assert monitors
    for monitor in monitors:
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        found = [one for one in of_kind(documents, "Service") if wanted <= one["metadata"]["labels"].items()]
        assert len(found) == 1, monitor["metadata"]["name"]
        assert monitor["spec"]["endpoints"][0]["port"] in [port["name"] for port in found[0]["spec"]["ports"]]


def test_alerts_arrive_as_they_are_tested(helm):
    assert only(helm.ci("monitoring"), "PrometheusRule")["spec"] == RULES


@pytest.mark.parametrize("given, has_webhook", [
    ("injector.mode=none,monitoring.injector.enabled=false,monitoring.annotations.enabled=true", False),
    ("monitoring.injector.enabled=false", False),
    ("monitoring.injector.enabled=false,monitoring.annotations.enabled=true", True),
])
def test_alerts_on_the_webhook_come_with_its_metrics(helm, given, has_webhook):
    documents = helm.objects("--values", CHART / "ci/monitoring-values.yaml", "--set", given)
    groups = only(documents, "PrometheusRule")["spec"]["groups"]
    assert groups == [group for group in RULES["groups"] if has_webhook or group["name"] != "ebb-webhook"]


def test_dashboards_arrive_as_they_are_tested(helm):
    documents = helm.ci("monitoring")
    boards = next(document for document in documents if "dashboards" in document["metadata"]["name"])
    files = {f"ebb-{path.name}": json.loads(path.read_text()) for path in CHART.glob("files/dashboards/*.json")}
    assert {name: json.loads(text) for name, text in boards["data"].items()} == files
