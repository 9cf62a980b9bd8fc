"""Values of the webhook's pods, of Services, of autoscalers and of monitors arrive in their objects."""

import re

import pytest

from helm import CHART, FOREIGN, HELMS, VERSIONS, objects, of_kind, only


def deployment(documents, name="ebb-injector"):
    return next(document for document in of_kind(documents, "Deployment") if document["metadata"]["name"] == name)


def pod(documents, name="ebb-injector"):
    return deployment(documents, name)["spec"]["template"]["spec"]


def service(documents, name):
    return next(one for one in of_kind(documents, "Service") if one["metadata"]["name"] == name)["spec"]


def test_webhook_pods_have_what_the_values_say(helm):
    documents = helm.ci("webhook-pods")
    spec, container = pod(documents), pod(documents)["containers"][0]
    assert spec["dnsConfig"] == {"options": [{"name": "ndots", "value": "2"}]}
    assert spec["hostAliases"] == [{"ip": "10.0.0.1", "hostnames": ["api.example.com"]}]
    assert (spec["runtimeClassName"], spec["serviceAccountName"]) == ("gvisor", "cache.webhook")
    assert {"--log-level=debug", "--log-format=text"} < set(container["args"])
    assert [variable["name"] for variable in container["env"]] == ["EBB_INJECTOR_IDENTITY", "EBB_INJECTOR_DRAIN_DELAY", "NODE"]
    context = container["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"]) == (1001, 65532)
    rollout = deployment(documents)["spec"]
    assert rollout["strategy"] == {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    assert rollout["revisionHistoryLimit"] == 3


def test_a_strategy_takes_precedence_over_that_of_the_host_network(helm):
    given = "injector.hostNetwork=true,injector.port=10350,injector.strategy.type=Recreate"
    assert deployment(helm.objects("--set", given))["spec"]["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize("name, account, is_created", [
    ("default", "ebb-injector", True),
    ("webhook-pods", "cache.webhook", True),
    ("given-account", "webhook", False),
])
def test_account_has_the_rights_and_the_pods(helm, name, account, is_created):
    documents = helm.ci(name)
    accounts = [document["metadata"] for document in of_kind(documents, "ServiceAccount")]
    assert [metadata["name"] for metadata in accounts] == [account] * is_created
    if name == "webhook-pods":
        assert accounts[0]["annotations"] == {"example.com/owner": "storage", "example.com/role": "cache"}
    bindings = [document for document in documents if document["kind"].endswith("RoleBinding")]
    assert {binding["subjects"][0]["name"] for binding in bindings} == {account} and len(bindings) == 2
    assert pod(documents)["serviceAccountName"] == account


def test_openshift_leaves_users_and_groups_to_the_cluster(helm):
    text = str(helm.ci("openshift"))
    assert not re.search("runAsUser|runAsGroup|supplementalGroups|fsGroup", text)
    assert "runAsNonRoot" in text


@pytest.mark.parametrize("name", ["ebb", "ebb-injector"])
def test_services_have_their_ip_families(helm, name):
    found = service(helm.ci("ipv6"), name)
    assert (found["ipFamilyPolicy"], found["ipFamilies"]) == ("SingleStack", ["IPv6"])
    assert not {"ipFamilyPolicy", "ipFamilies", "loadBalancerClass", "loadBalancerSourceRanges"} & service(
        helm.ci("monitoring"), name
    ).keys()


def test_pods_listen_on_both_families(helm):
    documents = helm.ci("ipv6")
    listening = [word for word in pod(documents)["containers"][0]["args"] if "listen" in word]
    assert listening == ["--listen=[::]:10250", "--http-listen=[::]:10251"]
    variables = pod(documents, "ebb")["containers"][0]["env"]
    variables += only(documents, "PodTemplate")["template"]["spec"]["initContainers"][0]["env"]
    for_others = [one for one in variables if one["name"] == "EBB_HTTP_LISTEN"]
    assert [one["value"] for one in for_others] == ["[::]:7072"] * 2


def test_load_balancer_has_its_class_and_its_clients(helm):
    found = service(helm.ci("dual-stack"), "ebb")
    assert found["loadBalancerClass"] == "example.com/internal"
    assert found["loadBalancerSourceRanges"] == ["10.0.0.0/8", "fd00::/8"]


def test_autoscaler_owns_the_number_of_replicas(helm):
    documents = helm.ci("autoscaling")
    assert [document["metadata"]["name"] for document in documents if "replicas" in document.get("spec", {})] == []
    found = {one["spec"]["scaleTargetRef"]["name"]: one["spec"] for one in of_kind(documents, "HorizontalPodAutoscaler")}
    metric = found["ebb-injector"]["metrics"][0]["containerResource"]
    assert (found["ebb-injector"]["minReplicas"], found["ebb-injector"]["maxReplicas"]) == (3, 9)
    assert metric == {"container": "injector", "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}
    assert found["ebb"]["metrics"][0]["containerResource"]["target"]["averageUtilization"] == 60
    for name, spec in found.items():
        containers = [container["name"] for container in pod(documents, name)["containers"]]
        assert spec["metrics"][0]["containerResource"]["container"] in containers
    budgets = sorted(budget["metadata"]["name"] for budget in of_kind(documents, "PodDisruptionBudget"))
    assert budgets == ["ebb", "ebb-injector"]


def test_quota_values_give_every_container_requests_and_limits(helm):
    documents = helm.ci("quota")
    specs = [pod(documents), pod(documents, "ebb"), only(documents, "PodTemplate")["template"]["spec"]]
    containers = [specs[0]["containers"][0], specs[1]["containers"][0], specs[2]["initContainers"][0]]
    for container in containers:
        resources = container["resources"]
        assert resources["limits"].keys() == resources["requests"].keys() == {"cpu", "memory", "ephemeral-storage"}


def test_monitors_are_rendered_by_force(helm):
    documents = helm.ci("monitoring-forced", known=())
    kinds = [document["kind"] for document in documents if document["apiVersion"] in FOREIGN]
    assert sorted(kinds) == ["PodMonitor", "PodMonitor", "PrometheusRule", "ServiceMonitor"]
    endpoint = only(documents, "ServiceMonitor")["spec"]["endpoints"][0]
    assert (endpoint["scrapeTimeout"], endpoint["relabelings"][0]["targetLabel"]) == ("10s", "cluster")
    sidecars = next(one for one in documents if one["metadata"]["name"] == "ebb-sidecars")["spec"]["podMetricsEndpoints"][0]
    assert (sidecars["scrapeTimeout"], sidecars["metricRelabelings"][0]["action"]) == ("1m", "drop")


def variables(documents):
    template = next(one for one in of_kind(documents, "PodTemplate"))
    return {one["name"]: one for one in template["template"]["spec"]["initContainers"][0]["env"]}


def test_sidecar_has_variables_from_secrets_and_fields(helm):
    found = variables(helm.ci("sidecar"))
    assert found["OTLP_TOKEN"]["valueFrom"] == {"secretKeyRef": {"name": "otlp", "key": "token", "optional": True}}
    assert found["NODE"]["valueFrom"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}


@pytest.mark.parametrize("major", HELMS)
def test_a_variable_of_the_pod_overrides_the_setting_of_its_name(helm, major):
    source = "sidecar.extraEnv[0].valueFrom.configMapKeyRef"
    given = f"sidecar.example=true,sidecar.config.logLevel=warn,sidecar.extraEnv[0].name=EBB_LOG_LEVEL,{source}.name=c,{source}.key=k"
    result = helm.template(major, VERSIONS[-1], "--set", given)
    template = only([one for one in objects(result.text) if one["kind"] == "PodTemplate"], "PodTemplate")
    names = [one["name"] for one in template["template"]["spec"]["initContainers"][0]["env"]]
    assert len(names) == len(set(names))
    assert variables([template])["EBB_LOG_LEVEL"]["valueFrom"] == {"configMapKeyRef": {"name": "c", "key": "k"}}


def test_policy_adds_variables_storage_and_pull_secrets(helm):
    spec = only(helm.ci("sidecar"), "MutatingAdmissionPolicy")["spec"]
    text = spec["mutations"][0]["jsonPatch"]["expression"]
    assert 'valueFrom: Object.spec.initContainers.env.valueFrom{\n' in text
    variables = {variable["name"]: variable["expression"] for variable in spec["variables"]}
    assert '["1.5Gi"]' in variables["storage_limits_wanted"] and '["16Mi"]' in variables["storage_requests_wanted"]
    assert 'variables.pull_secrets.map(name, JSONPatch{' in text


def test_templates_do_not_ask_the_cluster_for_objects():
    # A render without a cluster, as in Argo CD, must give the same objects.
    templates = [path for path in CHART.glob("templates/**/*") if path.is_file()]
    assert [path for path in templates if re.search(r"\blookup\b", path.read_text())] == []
