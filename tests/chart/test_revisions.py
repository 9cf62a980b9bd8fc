"""Revisions: two releases share no object and no pod, and each pod is selected by one webhook of one revision."""

import itertools
import json

import pytest

from helm import HELMS, VERSIONS, of_kind, only
from test_metadata import POLICY, merge, render  # noqa: F401 (a fixture)
from test_nulls import EVERYTHING

LONG = "r" * 63
# What has the revision in its name. The shared cache, monitors and dashboards have that of the release alone.
INJECTOR = {
    "injector": {**EVERYTHING["injector"]},
    "sidecar": {"example": True},
    "monitoring": {"injector": {"enabled": True}},
    "tests": {"check": True},
}
SOURCES = {
    "webhook": {},
    "cert-manager": {"injector": {"tls": {"source": "cert-manager"}}},
    "paths": {"injector": {"tls": {"source": "secret", "existingSecret": "tls", "paths": ["sixteen-characters"]}}},
    "policy": POLICY,
}


def of(revision):
    return {"injector": {"revision": revision}}


def identity(document):
    return document["kind"], document["metadata"].get("namespace"), document["metadata"]["name"]


def pods(documents):
    found = [document["metadata"]["labels"] for document in of_kind(documents, "Pod")]
    return found + [document["spec"]["template"]["metadata"]["labels"] for document in of_kind(documents, "Deployment")]


def selectors(documents):
    """Labels by which objects select pods of their namespace."""
    for document in documents:
        spec = document.get("spec", {})
        if document["kind"] in ("PodDisruptionBudget", "Deployment", "PodMonitor", "ServiceMonitor"):
            yield spec["selector"]["matchLabels"]
        elif document["kind"] == "Service":
            yield spec["selector"]
        elif document["kind"] == "NetworkPolicy":
            yield spec["podSelector"]["matchLabels"]


# Release, namespace and values of two releases, and what else both render.
PAIRS = {
    "two names": (("ebb", "a", of("")), ("ebb-canary", "a", of("canary")), EVERYTHING),
    "two names, one revision": (("ebb", "a", {}), ("cache", "a", {}), EVERYTHING),
    "two namespaces": (("ebb", "a", {}), ("ebb", "b", of("canary")), EVERYTHING),
    "two revisions of one name": (
        ("one", "a", {"fullnameOverride": "cache"}),
        ("two", "a", {"fullnameOverride": "cache", **of("canary")}),
        INJECTOR,
    ),
    "two long names": (("r" * 52 + "1", "a", {}), ("r" * 52 + "2", "a", of("canary")), EVERYTHING),
    "two long revisions": (
        ("one", "a", {"fullnameOverride": "c" * 50, **of(LONG)}),
        ("two", "a", {"fullnameOverride": "c" * 50, **of(LONG[:-1])}),
        INJECTOR,
    ),
    "a dot and a dash": (("my.ebb", "a", {}), ("my-ebb", "a", of("canary")), EVERYTHING),
    "revisions like prefixes of names": (("ebb", "a", of("test")), ("ebb-test", "a", of("account")), EVERYTHING),
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("pair", PAIRS)
def test_two_releases_share_no_object_and_no_pod(render, pair, source):
    *releases, base = PAIRS[pair]
    rendered = [
        render(merge(SOURCES[source], values), base=base, release=release, namespace=namespace)
        for release, namespace, values in releases
    ]
    names = [[identity(document) for document in documents] for documents in rendered]
    assert [len(set(one)) for one in names] == [len(one) for one in names]
    # Each release has its test pod in the namespace `default`.
    shared = set(names[0]) & set(names[1]) - ({("Pod", "default", "ebb-test-injection")} if pair == "two namespaces" else set())
    assert shared == set()
    if releases[0][1] == releases[1][1]:
        for ours, theirs in (rendered, rendered[::-1]):
            own, foreign = pods(ours), pods(theirs)
            for selector in selectors(ours):
                if "ebb-cache.io/injected" in selector:
                    continue
                assert any(selector.items() <= labels.items() for labels in own), selector
                assert not any(selector.items() <= labels.items() for labels in foreign), selector


# Names that contain those of components, of the chart or of each other.
RELEASES = ("ebb", "ebb-injector", "ebb-injector-injector", "ebb-sidecar", "ebb-test-check", "ebb-standalone", "cache", "cache-ebb", "cache-injector")
REVISIONS = ("", "injector", "ebb-injector", "sidecar", "test-check", "ca", "tls")


# With cert-manager there are all objects of `self`, too.
@pytest.mark.parametrize("source", [source for source in SOURCES if source != "webhook"])
def test_any_two_pairs_of_release_and_revision_share_no_object(render, source):
    """Beside each other in a namespace, as far as Helm allows: a release has one revision at a time."""
    owners = {}
    pairs = {*itertools.product(RELEASES, ("",)), *itertools.product(("ebb", "cache"), REVISIONS)}
    for release, revision in sorted(pairs):
        for document in render(merge(SOURCES[source], of(revision)), release=release):
            owners.setdefault(identity(document), set()).add(release)
    assert {what: releases for what, releases in owners.items() if len(releases) > 1} == {}


@pytest.mark.parametrize("source", [source for source in SOURCES if source != "webhook"])
def test_any_two_revisions_of_one_name_share_no_object_of_the_injector(render, source):
    owners = {}
    for release, revision in itertools.product(("one", "cache"), (*REVISIONS, "self", "paths")):
        values = {"fullnameOverride": "cache", **of(revision)}
        for document in render(merge(SOURCES[source], values), base=INJECTOR, release=release):
            owners.setdefault(identity(document), set()).add((release, revision))
    shared = {what: pairs for what, pairs in owners.items() if len({revision for _, revision in pairs}) > 1}
    # A PodMonitor, the rules and the dashboards cover all revisions.
    assert shared == {}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", ["", "c" * 50], ids=["short", "long"])
def test_names_with_a_long_revision_keep_their_bounds(render, source, name):
    documents = render(merge(SOURCES[source], {"fullnameOverride": name, **of(LONG)}), namespace="n" * 63)
    names = [document["metadata"]["name"] for document in documents]
    assert max(map(len, names)) <= 253
    assert [name for name in (document["metadata"]["name"] for document in of_kind(documents, "Service")) if len(name) > 63] == []
    assert [one for one in of_kind(documents, "Certificate") if len(one["spec"].get("commonName", "")) > 64] == []
    labels = [label for document in documents for label in document["metadata"]["labels"].values()]
    assert max(map(len, labels)) == 63


@pytest.mark.parametrize("source", SOURCES)
def test_objects_of_the_injector_have_the_label(render, source):
    def found(revision):
        documents = render(merge(SOURCES[source], of(revision)))
        return {
            document["metadata"]["labels"].get("ebb-cache.io/rev")
            for document in documents
            if document["metadata"]["labels"]["app.kubernetes.io/component"] == "injector"
        }

    assert [found(revision) for revision in ("", "default", "canary", "1")] == [{None}, {None}, {"canary"}, {"1"}]


def test_default_is_the_name_of_the_default_revision(render):
    assert render(of("default")) == render(of("")) == render(of(None))


def test_rights_and_arguments_follow_the_names(render):
    documents = render(of("canary"))
    roles = [rule for kind in ("Role", "ClusterRole") for one in of_kind(documents, kind) for rule in one["rules"]]
    named = {name for rule in roles for name in rule.get("resourceNames", [])}
    configuration = "ebb.canary.ebb-system.ebb-cache.io"
    assert named == {configuration, "ebb-injector-canary", "ebb-injector-canary-tls"}
    [injector] = [one for one in of_kind(documents, "Deployment") if one["metadata"]["name"] == "ebb-injector-canary"]
    arguments = injector["spec"]["template"]["spec"]["containers"][0]["args"]
    assert {
        "--service=ebb-injector-canary",
        f"--webhook={configuration}",
        "--secret=ebb-injector-canary-tls",
        "--lease=ebb-injector-canary",
    } < set(arguments)
    assert only(documents, "MutatingWebhookConfiguration")["metadata"]["name"] == configuration
    [confinement] = [one for one in of_kind(documents, "ValidatingAdmissionPolicy")]
    assert f'"{configuration}"' in json.dumps(confinement["spec"]["variables"]).replace('\\"', '"')
    assert '"system:serviceaccount:ebb-system:ebb-injector-canary"' in confinement["spec"]["matchConditions"][0]["expression"]


def test_pods_of_helm_test_are_of_the_revision(render):
    for revision, label in (("", "default"), ("canary", "canary")):
        tests = {document["metadata"]["labels"]["app.kubernetes.io/component"]: document for document in of_kind(render(of(revision)), "Pod")}
        assert tests["test-injection"]["metadata"]["labels"]["ebb-cache.io/rev"] == label
        assert f"--rev={label}" in tests["test-check"]["spec"]["containers"][0]["args"]


def fits(selector, labels):
    """Whether a label selector of Kubernetes selects these labels."""

    def is_met(rule):
        value = labels.get(rule["key"])
        return {
            "In": value in rule.get("values", []),
            "NotIn": value not in rule.get("values", []),
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[rule["operator"]]

    exact = selector.get("matchLabels", {}).items() <= labels.items()
    return exact and all(is_met(rule) for rule in selector.get("matchExpressions", []))


def test_each_pod_is_selected_by_one_webhook_of_its_revision(render):
    webhooks = {
        revision: only(render(of(revision)), "MutatingWebhookConfiguration")["webhooks"] for revision in ("", "canary", "blue")
    }
    names = [webhook["name"] for one in webhooks.values() for webhook in one]
    assert len(set(names)) == len(names) == 6 + 4 + 4
    inject, revisions = (None, "enabled", "disabled", "other"), (None, "", "default", "canary", "blue", "absent")
    for choice in itertools.product(inject, revisions, inject, revisions):
        of_namespace, of_pod = (
            {f"ebb-cache.io/{key}": value for key, value in zip(("inject", "rev"), part, strict=True) if value is not None}
            for part in (choice[:2], choice[2:])
        )
        found = [
            revision
            for revision, all_of_it in webhooks.items()
            for webhook in all_of_it
            if fits(webhook["namespaceSelector"], {"kubernetes.io/metadata.name": "shop", **of_namespace})
            and fits(webhook["objectSelector"], of_pod)
        ]
        asks = of_pod.get("ebb-cache.io/inject")
        asks = asks if asks in ("enabled", "disabled") else of_namespace.get("ebb-cache.io/inject")
        named = of_pod.get("ebb-cache.io/rev", of_namespace.get("ebb-cache.io/rev", ""))
        named = "" if named == "default" else named
        assert found == ([named] if asks == "enabled" and named in webhooks else []), choice


def test_template_and_policy_label_the_pods_of_a_revision(render):
    for revision, label in (("", None), ("canary", "canary")):
        template = only(render(of(revision)), "PodTemplate")["template"]["metadata"]["labels"]
        assert template.get("ebb-cache.io/rev") == label
        policy = only(render(merge(POLICY, of(revision))), "MutatingAdmissionPolicy")["spec"]
        expression = policy["mutations"][0]["jsonPatch"]["expression"]
        assert ('escapeKey("ebb-cache.io/rev")' in expression) is (label is not None)
        [own] = [one["expression"] for one in policy["variables"] if one["name"] == "is_of_this_revision"]
        assert own == f"variables.revision in {json.dumps([revision] if revision else ['', 'default'], separators=(',', ':'))}"


@pytest.mark.parametrize("tag, label", [
    ("0.1.0", "0.1.0"), ("_v1.0_", "v1.0"), ("v" * 62 + ".1", "v" * 62), ("__", "unknown"),
], ids=str)
def test_version_is_a_label(render, tag, label):
    metadata = only(render({"image": {"tag": tag}}), "PodTemplate")["template"]["metadata"]
    assert metadata["annotations"]["ebb-cache.io/version"] == tag
    assert metadata["labels"]["ebb-cache.io/version"] == label


@pytest.mark.parametrize("major", HELMS)
@pytest.mark.parametrize("revision", ["A", "a.b", "-a", "a-", "a_b", "r" * 64])
def test_refuses_what_is_no_dns_label(helm, major, revision):
    result = helm.template(major, VERSIONS[-1], "--set-string", f"injector.revision={revision}")
    assert result.code != 0 and "revision" in result.why


def test_pods_of_the_injector_are_replaced_with_the_template_and_only_then(helm):
    def checksum(*given):
        documents = helm.objects(*(word for one in given for word in ("--set", one)))
        return only(documents, "Deployment")["spec"]["template"]["metadata"]["annotations"]["checksum/template"]

    same = checksum()
    for given in ("commonLabels.team=a", "commonAnnotations.note=a", "injector.logLevel=debug", "injector.replicas=3", "injector.failurePolicy=Ignore", "nameOverride=x"):
        assert checksum(given) == same, given
    changes = (
        "sidecar.image.tag=v9", "sidecar.config.tick=1s", "sidecar.resources.limits.memory=512Mi", "sidecar.ports.http=9072",
        "sidecar.address=tcp", "injector.revision=canary", "sidecar.imagePullSecrets={a}",
    )
    found = [checksum(given) for given in changes]
    assert same not in found and len(set(found)) == len(found)
    own = checksum("injector.podAnnotations.checksum/template=mine")
    assert own == same
