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


@pytest.mark.parametrize("name, verbs", [("watchdog", ["get", "patch"]), ("watchdog-files", ["get"]), ("existing-secret", None)])
def test_the_watchdog_may_read_the_selectors_of_its_own_webhook(helm, name, verbs):
    found = [rule for rule in rules(helm.ci(name), "ClusterRole") if "mutatingwebhookconfigurations" in rule["resources"]]
    assert [rule["verbs"] for rule in found] == ([verbs] if verbs else [])
    assert [rule["resourceNames"] for rule in found] == [["ebb.ebb-system.ebb-cache.io"]] * len(found)


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


def test_account_that_patches_the_webhook_is_confined(helm):
    documents = helm.ci("default")
    policy, binding = (only(documents, kind) for kind in ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"))
    assert binding["spec"] == {"policyName": policy["metadata"]["name"], "validationActions": ["Deny"]}
    [is_the_injector] = policy["spec"]["matchConditions"]
    assert '"system:serviceaccount:ebb-system:ebb-injector"' in is_the_injector["expression"]


def test_account_of_another_name_is_confined_as_well(helm):
    given = "injector.serviceAccount.create=false,injector.serviceAccount.name=mine"
    [is_the_injector] = only(helm.objects("--set", given), "ValidatingAdmissionPolicy")["spec"]["matchConditions"]
    assert '"system:serviceaccount:ebb-system:mine"' in is_the_injector["expression"]


@pytest.mark.parametrize("name", ["cert-manager", "existing-secret"])
def test_certificates_from_outside_need_no_right_on_webhooks(helm, name):
    documents = helm.ci(name)
    assert not of_kind(documents, "ValidatingAdmissionPolicy")
    for role in ("ClusterRole", "Role"):
        assert not any("admissionregistration.k8s.io" in rule["apiGroups"] for rule in rules(documents, role))


def paths(documents):
    webhooks = only(documents, "MutatingWebhookConfiguration")["webhooks"]
    return {webhook["clientConfig"]["service"].get("path") for webhook in webhooks}


def test_path_of_the_webhook_is_in_a_template_only_if_it_is_given(helm):
    assert paths(helm.ci("default")) == {None}
    assert paths(helm.ci("existing-secret")) == {"/inject"}
    documents = helm.ci("border")
    assert paths(documents) == {"/inject/the-path-of-this-year-6zq1"}
    secret = only(documents, "Secret")
    assert secret["stringData"]["paths"].splitlines() == ["the-path-of-this-year-6zq1", "the-path-of-last-year-0axw"]
    injector = only(documents, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert "the-path" not in str(injector)


def test_only_api_servers_may_reach_the_webhook(helm):
    policy = only(helm.ci("border"), "NetworkPolicy")
    [webhook] = [rule for rule in policy["spec"]["ingress"] if rule["ports"][0]["port"] == "webhook"]
    assert webhook["from"] == [{"ipBlock": {"cidr": cidr}} for cidr in ("10.0.0.2/32", "fd00::/64")]


def test_lists_that_are_null_are_empty(helm):
    given = ("allowedAnnotations.namespaces", "allowedAnnotations.pods", "networkPolicy.apiServerCIDRs", "tls.paths")
    documents = helm.objects("--set", ",".join(f"injector.{name}=null" for name in given))
    arguments = only(documents, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "--pod-annotations=" in arguments and "--namespace-annotations=" in arguments
