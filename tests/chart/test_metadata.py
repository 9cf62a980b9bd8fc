"""Names, labels and annotations: no key is rendered twice, and names keep the bounds of their kind."""

import json
import re

import pytest
import yaml

from helm import CI, CHART, HELMS, VERSIONS, of_kind, objects, only
from test_nulls import EVERYTHING

CLUSTERED = (
    "ClusterRole",
    "ClusterRoleBinding",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
    "MutatingWebhookConfiguration",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
)
# Labels of the chart that a user may set, too.
OURS = ("app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart")
LONG = ".".join(["a" * 63] * 3 + ["b" * 61])


def merge(one, other):
    both = {key: merge(one[key], other[key]) for key in one.keys() & other.keys() if isinstance(one[key], dict)}
    return {**one, **other, **both}


@pytest.fixture
def render(helm, tmp_path):
    """Renders everything with values, or with these values alone."""

    def render(values, major=HELMS[-1], base=EVERYTHING, release="ebb", namespace="ebb-system"):
        path = tmp_path / "values.yaml"
        path.write_text(json.dumps(merge(base, values)))
        known = [word for group in ("monitoring.coreos.com/v1", "cert-manager.io/v1") for word in ("--api-versions", group)]
        where = ("--namespace", namespace, "--kube-version", VERSIONS[-1])
        result = helm.run(major, "template", release, CHART, *where, *known, "--values", path)
        assert result.code == 0, result.why
        return objects(result.text)

    return render


def whole(documents):
    """The objects, and those inside of ConfigMaps."""
    inner = [one for document in of_kind(documents, "ConfigMap") for one in objects(document["data"].get("sidecar.yaml", ""))]
    return documents + inner


POLICY = {
    "injector": {"mode": "policy", **{name: {"enabled": False} for name in ("autoscaling", "networkPolicy", "watchdog")}},
    "monitoring": {"injector": {"enabled": False}},
}
modes = pytest.mark.parametrize("mode", [{}, POLICY], ids=["webhook", "policy"])


@modes
@pytest.mark.parametrize("major", HELMS)
def test_labels_of_the_user_are_merged_with_those_of_the_chart(render, major, mode):
    common = {name: "theirs" for name in OURS} | {"team": "storage", "tier": "common"}
    values = {
        "commonLabels": common,
        "injector": {} if mode else {"podLabels": {"team": "edge", "helm.sh/chart": "mine"}},
        "standalone": {"podLabels": {"team": "edge", "app.kubernetes.io/version": "mine"}},
        "monitoring": {name: {"labels": {"team": "watch", "app.kubernetes.io/version": "mine"}}
                       for name in ("injector", "sidecars", "standalone", "rules", "dashboards")},
    }
    # The reader of objects refuses duplicate keys.
    documents = whole(render(merge(mode, values), major))
    assert [document for document in documents if not common.keys() <= document["metadata"]["labels"].keys()] == []
    pods = [document["spec"]["template"]["metadata"]["labels"] for document in of_kind(documents, "Deployment")]
    assert {labels["team"] for labels in pods} == {"edge"}
    monitors = [document for kind in ("PodMonitor", "PrometheusRule") for document in of_kind(documents, kind)]
    labels = [monitor["metadata"]["labels"] for monitor in monitors]
    assert {(one["team"], one["app.kubernetes.io/version"], one["tier"]) for one in labels} == {("watch", "mine", "common")}


@modes
def test_annotations_of_the_user_are_on_every_object(render, mode):
    values = {
        "commonAnnotations": {"example.com/owner": "storage", "note": "common"},
        "standalone": {"service": {"annotations": {"note": "own"}}},
        "injector": {} if mode else {name: {"annotations": {"note": "own"}} for name in ("service", "serviceAccount")},
    }
    documents = whole(render(merge(mode, values)))
    assert {document["metadata"]["annotations"]["example.com/owner"] for document in documents} == {"storage"}
    services = of_kind(documents, "Service")
    assert {service["metadata"]["annotations"]["note"] for service in services} == {"own"}


def test_annotations_of_the_chart_stay(helm, render):
    values = {"commonAnnotations": {"cert-manager.io/inject-ca-from": "theirs"}, "injector": {"tls": {"source": "cert-manager"}}}
    webhook = only(render(values), "MutatingWebhookConfiguration")
    assert webhook["metadata"]["annotations"]["cert-manager.io/inject-ca-from"] == "ebb-system/ebb-injector"
    for key in ("helm\\.sh/hook", "ebb-cache\\.io/version"):
        result = helm.template("helm4", VERSIONS[-1], "--set", f"commonAnnotations.{key}=x")
        assert result.code != 0 and "commonAnnotations" in result.why


@pytest.mark.parametrize("path", CI, ids=lambda path: path.name)
def test_common_maps_change_no_other_part_of_an_object(helm, path):
    given = ("--set", "commonLabels.team=storage", "--set", "commonAnnotations.note=common")
    ours, theirs = (helm.objects("--values", path, *more) for more in ((), given))
    assert [one["kind"] for one in ours] == [one["kind"] for one in theirs]
    selectors = [json.dumps([document.get("spec", {}).get(key) for key in ("selector", "podSelector")]) for document in theirs]
    assert [selector for selector in selectors if "team" in selector] == []


@modes
@pytest.mark.parametrize("release, more", [
    ("ebb", {}),
    ("canary", {}),
    ("canary", {"fullnameOverride": "cache"}),
    ("canary", {"nameOverride": "cache"}),
    ("my.release", {}),
    ("r" * 53, {}),
])
def test_cluster_scoped_names_contain_namespace_and_release(render, mode, release, more):
    documents = render(merge(mode, more), release=release, namespace="team-a")
    names = [document["metadata"]["name"] for document in documents if document["kind"] in CLUSTERED]
    assert len(names) >= 3
    assert [name for name in names if release.replace(".", "-") not in name.replace(".", "-") or ".team-a." not in name] == []
    outside = [document for document in documents if document["metadata"].get("namespace") not in (None, "team-a")]
    roles = [document["metadata"]["name"] for document in outside if document["kind"] != "Pod"]
    assert [name for name in roles if ".team-a." not in name] == []
    labels = [document["metadata"]["name"] for document in of_kind(documents, "Service")]
    assert [name for name in labels if not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name)] == []
    assert [name for name in names if len(name) > 253] == []


def test_release_and_namespace_may_be_numbers(render):
    documents = render({}, release="2026", namespace="42")
    assert {type(document["metadata"]["name"]) for document in documents} == {str}
    assert {document["metadata"].get("namespace") for document in documents} == {None, "42", "default"}


LONG_NAMES = {
    "global": {"imagePullSecrets": [LONG]},
    "injector": {
        "priorityClassName": LONG,
        "runtimeClassName": LONG,
        "serviceAccount": {"name": LONG},
        "tls": {"source": "secret", "existingSecret": LONG},
    },
    "sidecar": {"configMapName": LONG, "imagePullSecrets": [{"name": LONG}]},
    "standalone": {"priorityClassName": LONG},
}


@pytest.mark.parametrize("major", HELMS)
def test_names_of_objects_have_up_to_253_characters_and_dots(helm, render, major):
    documents = whole(render(LONG_NAMES, major))
    assert len(LONG) == 253
    deployments = {document["metadata"]["name"]: document["spec"]["template"]["spec"] for document in of_kind(documents, "Deployment")}
    injector = deployments["ebb-injector"]
    assert (injector["serviceAccountName"], injector["priorityClassName"], injector["runtimeClassName"]) == (LONG, LONG, LONG)
    assert injector["imagePullSecrets"] == deployments["ebb"]["imagePullSecrets"] == [{"name": LONG}]
    template = of_kind(documents, "PodTemplate")[0]["template"]["spec"]
    assert template["imagePullSecrets"] == [{"name": LONG}]
    assert template["volumes"][0]["projected"]["sources"][1]["configMap"]["name"] == LONG


@pytest.mark.parametrize("major", HELMS)
@pytest.mark.parametrize("given", [
    f"sidecar.configMapName={LONG}c",
    "sidecar.configMapName=a..b",
    "sidecar.configMapName=a.-b",
    "injector.tls.existingSecret=-a",
    "injector.priorityClassName=A",
    f"injector.excludedNamespaces={{{'a' * 64}}}",
    "injector.excludedNamespaces={a.b}",
    "tests.namespace=a.b",
    "fullnameOverride=a.b",
    f"fullnameOverride={'a' * 51}",
    "nameOverride=1a",
    "injector.serviceAccount.name=a_b",
    "global.imagePullSecrets[0].secret=a",
    "sidecar.imagePullSecrets[0]=A",
])
def test_refuses_names_that_kubernetes_refuses(helm, major, given):
    result = helm.template(major, VERSIONS[-1], "--set", given)
    assert result.code != 0 and "schema" in result.why


@pytest.mark.parametrize("secrets", [["a", "b"], [{"name": "a"}, {"name": "b"}], ["a", {"name": "b"}, "a"]], ids=str)
def test_pull_secrets_are_names_or_objects(render, secrets):
    documents = render({"global": {"imagePullSecrets": secrets}})
    pods = [document["spec"]["template"]["spec"] for document in of_kind(documents, "Deployment")]
    pods += [document["spec"] for document in of_kind(documents, "Pod")]
    assert len(pods) == 5
    assert [pod["imagePullSecrets"] for pod in pods] == [[{"name": "a"}, {"name": "b"}]] * 5
