"""The blocks of docs/platforms.md: values render to valid objects, manifests are valid, the chart can be packaged."""

import json
import pathlib
import re
import tarfile

import pytest
import yaml

import schemas
from generate import commented_values
from helm import CHART, HELMS, VERSIONS, Strict, label, objects

PAGE = pathlib.Path("docs/platforms.md").read_text()
BLOCKS = [(kind, text) for kind, text in re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.M | re.S)]
VALUES = [text for kind, text in BLOCKS if kind == "yaml" and text.startswith("# values\n")]
MANIFESTS = [
    document
    for kind, text in BLOCKS
    if kind == "yaml" and not text.startswith("# values\n")
    for document in yaml.load_all(text, Strict)
]
COMMANDS = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
# Values inside of manifests of tools for deployment.
INSIDE = {"Application": ("spec", "source", "helm", "valuesObject"), "HelmRelease": ("spec", "values")}
KUBERNETES = ("v1", "autoscaling/v2")
# Values that platforms differ in. Each has a user on this page.
SURFACE = (
    *(f"injector.{key}" for key in (
        "runAsUser", "runAsGroup", "serviceAccount", "logLevel", "logFormat", "extraEnv", "strategy",
        "revisionHistoryLimit", "dnsConfig", "hostAliases", "runtimeClassName", "autoscaling", "service",
    )),
    *(f"sidecar.{key}" for key in ("imagePullSecrets", "extraEnv", "resources")),
    *(f"standalone.{key}" for key in ("autoscaling", "service")),
    *(f"monitoring.{key}" for key in ("force", "sidecars")),
    "commonAnnotations",
    "injector.revision",
    "global.imagePullSecrets",
)
WORDS = ("ipFamilies", "ipFamilyPolicy", "loadBalancerClass", "loadBalancerSourceRanges", "relabelings",
         "metricRelabelings", "scrapeTimeout", "ephemeral-storage", "valueFrom", "serviceAccount.annotations")


def given(text):
    return yaml.load(text, Strict)


def inside(document):
    for key in INSIDE[document["kind"]]:
        document = document[key]
    return document


RENDERED = [given(text) for text in VALUES] + [inside(document) for document in MANIFESTS if document["kind"] in INSIDE]


@pytest.mark.parametrize("major", HELMS)
@pytest.mark.parametrize("values", RENDERED, ids=lambda values: json.dumps(values)[:60])
def test_values_render_to_valid_objects(helm, tmp_path, major, values):
    path = tmp_path / "values.yaml"
    path.write_text(json.dumps(values))
    result = helm.template_anew(major, VERSIONS[-1], "--values", path)
    assert result.code == 0, result.why
    assert schemas.problems(objects(result.text), VERSIONS[-1]) == []


@pytest.mark.parametrize(
    "document", [one for one in MANIFESTS if one["apiVersion"] in KUBERNETES], ids=label
)
def test_manifests_are_valid_in_each_version(document):
    assert {version: found for version in VERSIONS if (found := schemas.problems([document], version))} == {}


def test_other_manifests_are_of_known_tools():
    others = {document["kind"] for document in MANIFESTS if document["apiVersion"] not in KUBERNETES}
    assert others == {
        "Application", "OCIRepository", "HelmRelease", "VerticalPodAutoscaler", "K8sContainerLimits", "PolicyException",
    }


@pytest.mark.parametrize("major", HELMS)
def test_the_chart_can_be_packaged(helm, tmp_path, major):
    package, push, install, *_ = COMMANDS
    assert package == "helm package charts/ebb --destination dist"
    result = helm.run(major, *package.split()[1:-1], tmp_path)
    assert result.code == 0, result.why
    (archive,) = tmp_path.glob("*.tgz")
    assert push == f"helm push dist/{archive.name} oci://registry.example.com/charts"
    assert install.startswith(f"helm install ebb oci://registry.example.com/charts/ebb --version {archive.stem[4:]} ")
    with tarfile.open(archive) as package:
        names = {name.removeprefix("ebb/") for name in package.getnames()}
    ours = {str(path.relative_to(CHART)) for path in CHART.glob("**/*") if path.is_file()}
    assert names == {name for name in ours if not name.startswith(("ci/", "."))}
    # The package renders what the folder renders.
    assert helm.template_anew(major, VERSIONS[-1], chart=archive).text == helm.template(major, VERSIONS[-1]).text


def leaves(values, prefix=()):
    for key, value in values.items():
        yield ".".join((*prefix, key))
        if isinstance(value, dict):
            yield from leaves(value, (*prefix, key))


@pytest.mark.parametrize("path", SURFACE)
def test_value_of_the_surface_has_a_user(path):
    assert path in {path for path, _ in commented_values()[0]} | set(leaves(given((CHART / "values.yaml").read_text())))
    used = {leaf for values in RENDERED for leaf in leaves(values)}
    assert path in used or f"`{path}" in PAGE


@pytest.mark.parametrize("word", WORDS)
def test_field_of_the_surface_has_a_user(word):
    assert word in PAGE


def test_annotations_are_known():
    known = pathlib.Path("docs/injection.md").read_text()
    for name in set(re.findall(r"config\.ebb-cache\.io/[\w-]+", PAGE)):
        assert f"`{name}`" in known


def test_chart_names_its_image():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    (image,) = yaml.safe_load(chart["annotations"]["artifacthub.io/images"])
    assert image["image"] == f"ebb:{chart['appVersion']}"
    assert {"home", "sources", "maintainers"} <= chart.keys()


def test_default_values_name_one_image(helm):
    text = helm.template("helm4", VERSIONS[-1], "--set", "standalone.enabled=true,tests.check=true").text
    assert set(re.findall(r"image: (\S+)", text)) == {"ebb:0.1.0", "app"}


EXAMPLE = re.findall(r"^```yaml\n(.*?)^```$", pathlib.Path("docs/injection-by-example.md").read_text(), re.M | re.S)


@pytest.mark.parametrize("text", EXAMPLE, ids=["before", "after"])
def test_injection_by_example_is_valid_in_each_version(text):
    (document,) = objects(text)
    assert {version: found for version in VERSIONS if (found := schemas.problems([document], version))} == {}
