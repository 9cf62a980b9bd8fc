"""A value of null means its default: every section and every value may be null."""

import json

import pytest
import yaml

from helm import CHART, HELMS, VERSIONS, objects

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
# Maps that belong to Kubernetes or Ebb. A key that is removed there stays removed.
WHOLE = ("resources", "config")
# Values by which every template renders its object.
EVERYTHING = {
    "injector": {
        "autoscaling": {"enabled": True},
        "networkPolicy": {"enabled": True},
        "watchdog": {"enabled": True},
    },
    "sidecar": {"events": True, "example": True},
    "standalone": {
        "enabled": True,
        "events": True,
        "networkPolicy": {"enabled": True, "egressTo": [{"ipBlock": {"cidr": "10.0.0.1/32"}}]},
    },
    "monitoring": {name: {"enabled": True} for name in ("injector", "sidecars", "standalone", "rules", "dashboards")},
    "tests": {"check": True},
}
# The same without what only the webhook uses.
ONLY_POLICY = {
    "injector": {"mode": "policy"},
    "monitoring": {**EVERYTHING["monitoring"], "injector": {"enabled": False}},
}


def paths(values, is_wanted, prefix=()):
    """Paths of the wanted values."""
    for key, value in values.items():
        path = (*prefix, key)
        if is_wanted(value):
            yield path
        if isinstance(value, dict):
            yield from paths(value, is_wanted, path)


MAPS = list(paths(VALUES, lambda value: isinstance(value, dict)))
SCALARS = list(paths(VALUES, lambda value: not isinstance(value, (dict, list))))


def is_whole(path):
    return any(key in WHOLE for key in path[:-1])


def with_null(path, values):
    """Values with null at a path."""
    key, *rest = path
    inner = values.get(key) if rest else None
    return {**values, key: with_null(rest, inner or {}) if rest else None}


@pytest.mark.parametrize("path", [path for path in MAPS if not is_whole(path)], ids=".".join)
def test_section_that_is_null_has_its_defaults(helm, path):
    result = helm.template("helm4", VERSIONS[-1], "--set", f"{'.'.join(path)}=null")
    assert result.code == 0, result.why
    assert result.text == helm.template("helm4", VERSIONS[-1]).text


@pytest.mark.parametrize("path", MAPS, ids=".".join)
def test_section_may_be_null_whatever_else_is_set(render, path):
    # Only these sections differ between the modes.
    of_both = path[0] in ("injector", "sidecar", "image", "global")
    for mode, major in (("webhook", "helm3"), ("policy", "helm4"))[: 1 + of_both]:
        values = {**EVERYTHING, "injector": {**EVERYTHING["injector"], "mode": mode}}
        if mode == "policy":
            values |= ONLY_POLICY
        result = render(with_null(path, values), major)
        if path[1:] == ("resources", "limits"):
            assert result.code != 0 and "schema" in result.why and "limits" in result.why
        elif path == ("injector", "resources", "requests") and mode == "webhook":
            assert "injector.autoscaling.enabled: CPU use is measured in percent" in result.why
        else:
            assert result.code == 0, result.why
            assert objects(result.text)


@pytest.mark.parametrize("major", HELMS)
def test_every_single_value_may_be_null(helm, render, major):
    values = {}
    for path in SCALARS:
        if path[-1] not in ("runAsUser", "runAsGroup") and not is_whole(path) and "labels" not in path:
            values = with_null(path, values)
    result = render(values, major)
    assert result.code == 0, result.why
    assert result.text == helm.template(major, VERSIONS[-1]).text


@pytest.mark.parametrize("major", HELMS)
def test_watermark_that_is_null_follows_the_others(render, major):
    values = {"sidecar": {"config": {"watermarks": {"low": None, "high": "85%"}}}}
    assert render(values, major).why == ""


@pytest.mark.parametrize("name", ["injector", "sidecar", "standalone"])
def test_ids_that_are_null_are_absent(render, name):
    values = {**EVERYTHING, name: {**EVERYTHING[name], "runAsUser": None, "runAsGroup": None}}
    found = []
    for document in objects(render(values).text):
        texts = document.get("data", {}) if document["kind"] == "ConfigMap" else {}
        found += [yaml.safe_dump(document), *texts.values()]
    component = {"injector": "component: injector\n", "sidecar": "kind: PodTemplate", "standalone": "name: EBB_LISTEN"}
    ours = [text for text in found if component[name] in text and "securityContext" in text]
    if name == "standalone":
        ours = [text for text in ours if "kind: Deployment" in text]
    if name == "injector":
        ours = [text for text in ours if "kind: Deployment" in text]
    assert ours
    assert [text for text in ours if "runAsUser" in text or "runAsGroup" in text or "supplementalGroups" in text] == []


def test_each_template_completes_the_values_first():
    first = "{{- include \"ebb.complete\" . }}"
    templates = [path for path in CHART.glob("templates/**/*") if path.is_file() and not path.name.startswith("_")]
    assert [path for path in templates if path.read_text().split("\n")[0] != first] == []


@pytest.mark.parametrize("major", HELMS)
def test_sections_of_a_part_of_another_chart_may_be_null(helm, tmp_path, major):
    (tmp_path / "Chart.yaml").write_text(
        "apiVersion: v2\nname: parent\nversion: 0.1.0\ndependencies: [{name: ebb, version: 0.1.0, repository: ''}]\n"
    )
    (tmp_path / "charts").mkdir()
    (tmp_path / "charts/ebb").symlink_to(CHART.absolute())

    def rendered(values, *arguments):
        (tmp_path / "values.yaml").write_text(json.dumps(values))
        result = helm.template_anew(major, VERSIONS[-1], *arguments, chart=tmp_path)
        assert result.code == 0, result.why
        return result.text

    expected = rendered({})
    for path in [path for path in MAPS if len(path) == 1] + [("injector", "tls"), ("sidecar", "ports")]:
        assert rendered({"ebb": with_null(path, {})}) == expected, path
    # Helm 4 drops a null in the values.yaml of the other chart, but not one that a user gives.
    without = rendered({}, "--set", "ebb.injector.runAsUser=null")
    assert without.count("runAsUser") == expected.count("runAsUser") - 1
