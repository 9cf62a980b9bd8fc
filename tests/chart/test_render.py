"""Both majors of Helm render ci/*-values.yaml, and the objects fit the schemas of their kinds."""

import pathlib

import pytest
import yaml

import schemas
from helm import CI, FOREIGN, HELMS, POLICY_VERSIONS, VERSIONS, label, objects

INJECT = pathlib.Path("tests/inject")
FOREIGN_KINDS = (
    ("monitoring.coreos.com/v1", "PodMonitor"),
    ("monitoring.coreos.com/v1", "PrometheusRule"),
    ("monitoring.coreos.com/v1", "ServiceMonitor"),
    ("cert-manager.io/v1", "Certificate"),
    ("cert-manager.io/v1", "Issuer"),
)


def versions(path):
    """Kubernetes versions for the values."""
    given = yaml.safe_load(path.read_text()) or {}
    return POLICY_VERSIONS if given.get("injector", {}).get("mode") == "policy" else VERSIONS


ci = pytest.mark.parametrize("path", CI, ids=lambda path: path.name)
majors = pytest.mark.parametrize("major", HELMS)


@majors
@ci
def test_passes_helm_lint(helm, path, major):
    chart = path.parent.parent
    result = helm.run(major, "lint", "--strict", chart, "--values", path, "--kube-version", versions(path)[-1])
    assert result.code == 0, result.text + result.why


@majors
@ci
def test_renders_the_same_each_time_and_for_each_version(helm, path, major):
    oldest, newest = versions(path)[0], versions(path)[-1]
    renders = [helm.template(major, version, "--values", path) for version in (oldest, newest)]
    renders.append(helm.template_anew(major, newest, "--values", path))
    assert [result.why for result in renders if result.code] == []
    assert len({result.text for result in renders}) == 1


@ci
def test_both_majors_render_the_same_objects(helm, path):
    # The majors order foreign kinds differently.
    three, four = (
        sorted(objects(helm.template(major, versions(path)[-1], "--values", path).text), key=label) for major in HELMS
    )
    assert three == four


@pytest.mark.parametrize(
    "path, version",
    [pytest.param(path, version, id=f"{path.name}-{version}") for path in CI for version in versions(path)],
)
def test_fits_the_schemas_of_kubernetes(helm, path, version):
    rendered = helm.objects("--values", path, version=versions(path)[-1])
    assert rendered
    assert schemas.problems(rendered, version) == []


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(INJECT.glob("injected/*.yaml")) if path.stem != "unknown-fields"],
    ids=lambda path: path.stem,
)
def test_injected_pod_is_valid_in_each_version_in_which_the_given_pod_is(path):
    injected, given = (yaml.safe_load(at.read_text()) for at in (path, INJECT / "pods" / path.name))
    valid = [version for version in VERSIONS if not schemas.problems([given], version)]
    assert valid
    assert {version: found for version in valid if (found := schemas.problems([injected], version))} == {}


@pytest.fixture(scope="module")
def kinds(tools):
    if not (tools / "kinds").exists():
        pytest.skip("npm is not installed; the schemas of monitors and certificates need it")
    return tools / "kinds"


@pytest.fixture(scope="module")
def foreign_objects(helm):
    """All rendered objects of foreign kinds."""
    rendered = [document for path in CI for document in helm.objects("--values", path)]
    return [document for document in rendered if document["apiVersion"] in FOREIGN]


@pytest.mark.parametrize("group", FOREIGN)
def test_fits_the_schemas_of_foreign_kinds(kinds, foreign_objects, group):
    documents = [document for document in foreign_objects if document["apiVersion"] == group]
    assert schemas.foreign_problem(kinds, group, documents) == ""


def test_every_foreign_kind_is_rendered(foreign_objects):
    assert {(document["apiVersion"], document["kind"]) for document in foreign_objects} == set(FOREIGN_KINDS)


@pytest.mark.parametrize("group, kind", FOREIGN_KINDS)
def test_schemas_of_foreign_kinds_refuse_an_unknown_field(kinds, foreign_objects, group, kind):
    found = next(document for document in foreign_objects if document["kind"] == kind)
    broken = {**found, "spec": {**found["spec"], "planted": True}}
    assert schemas.foreign_problem(kinds, group, [broken]) != ""
