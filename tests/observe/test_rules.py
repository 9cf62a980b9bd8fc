"""The alerts are valid, fire as in the scenarios of rules_test.yaml, and have a runbook each."""

import pathlib
import re
import shutil

import pytest

from conftest import FILES

RULES = (FILES / "rules.yaml").read_text()
ALERTS = re.findall(r"alert: (\w+)", RULES)
RUNBOOKS = pathlib.Path("docs/operations.md").read_text()
HEADINGS = {
    re.sub(r"[^\w -]", "", line[4:]).lower().replace(" ", "-")
    for line in RUNBOOKS.splitlines()
    if line.startswith("### ")
}


@pytest.fixture
def scenarios(promtool, tmp_path):
    """Runs the scenarios with rules; returns promtool's output if they failed."""

    def run(rules):
        shutil.copy("tests/observe/rules_test.yaml", tmp_path)
        (tmp_path / "rules.yaml").write_text(rules)
        return promtool("test", "rules", "rules_test.yaml", folder=tmp_path)

    return run


def test_rules_can_be_read(promtool):
    assert promtool("check", "rules", str(FILES / "rules.yaml")) == ""


def test_alerts_fire_as_the_scenarios_say(scenarios):
    assert scenarios(RULES) == ""


@pytest.mark.parametrize("alert", ALERTS)
def test_scenario_notices_that_an_alert_is_silent(scenarios, alert):
    at = RULES.index(f"alert: {alert}\n")
    said = scenarios(RULES[:at] + RULES[at:].replace("expr: ", "expr: vector(0) > 1 and ", 1))
    assert said != ""
    assert "parse error" not in said


@pytest.mark.parametrize("alert", ALERTS)
def test_alert_has_a_runbook(alert):
    rule = RULES.split(f"alert: {alert}\n")[1].split("alert: ")[0]
    (heading,) = re.findall(r"runbook_url: docs/operations\.md#(\S+)", rule)
    assert heading in HEADINGS


def test_rules_are_evaluated_without_an_error(observed):
    rules = [rule for group in observed.api("rules")["groups"] for rule in group["rules"]]
    assert rules
    assert [rule["lastError"] for rule in rules if rule.get("lastError")] == []
