"""A feature that needs RBAC rights is off by default; enabling it adds the rights."""

import pytest

from helm import of_kind, only, pods

EVICT = {"apiGroups": [""], "resources": ["pods/eviction"], "verbs": ["create"]}
LIST = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}
WRITE_EVENTS = {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]}


def rules(documents, kind):
    return [rule for document in of_kind(documents, kind) for rule in document["rules"]]


def test_watchdog_may_list_and_evict_pods_and_nothing_more(helm):
    plain = rules(helm.ci("default"), "ClusterRole")
    assert [rule for rule in rules(helm.ci("watchdog"), "ClusterRole") if rule not in plain] == [LIST, EVICT]


@pytest.mark.parametrize("argument", [
    "--watchdog",
    "--watchdog-interval=1m",
    "--watchdog-max-per-minute=20",
    "--watchdog-excluded=kube-system,kube-public,kube-node-lease",
    "--lease=ebb-injector",
])
def test_watchdog_is_called_with(helm, argument):
    deployment = only(helm.ci("watchdog"), "Deployment")
    assert argument in deployment["spec"]["template"]["spec"]["containers"][0]["args"]


def test_standalone_cache_with_events_may_write_events(helm):
    ours = [document for document in helm.ci("events") if document["metadata"]["name"] == "ebb-standalone"]
    assert rules(ours, "Role") == [WRITE_EVENTS]


@pytest.mark.parametrize("name, has_token", [("standalone", False), ("events", True)])
def test_standalone_cache_has_a_token_only_for_events(helm, name, has_token):
    spec = dict(pods(helm.ci(name)))["Deployment ebb"]
    assert spec["automountServiceAccountToken"] is has_token
    assert ("serviceAccountName" in spec) is has_token
    assert spec["enableServiceLinks"] is False


def test_rbac_create_false_leaves_no_role(helm):
    documents = helm.objects("--set", "rbac.create=false")
    assert [document["kind"] for document in documents if "Role" in document["kind"]] == []
