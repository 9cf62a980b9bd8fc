"""Values that fit the schema but not each other or the cluster: a guard refuses them with its sentence."""

import json
import re

import pytest

from helm import CHART, HELMS, VERSIONS

# A Kubernetes version, values, and a part of the sentence.
GUARDS = (
    ("1.35.4", "injector.mode=policy", "injector.mode is policy, which needs Kubernetes 1.36 or newer (MutatingAdmissionPolicy v1)"),
    ("1.35.4", "injector.mode=policy", "this cluster is v1.35.4. Set injector.mode to webhook, or upgrade the cluster."),
    ("1.30.9", "injector.mode=none", "kubeVersion: >=1.31.0-0 which is incompatible with Kubernetes v1.30.9"),
    (
        "1.37.0",
        "sidecar.resources.limits.memory=8Mi",
        "sidecar.resources.limits.memory (8Mi) must be at least 16Mi: no cache starts with less.",
    ),
    ("1.37.0", "standalone.resources.limits.memory=16e6", "(16e6) must be at least 16Mi"),
    ("1.37.0", "sidecar.resources.limits.memory=16777215999m", "(16777215999m) must be at least 16Mi"),
    ("1.37.0", "sidecar.resources.limits.memory=0.015Gi", "(0.015Gi) must be at least 16Mi"),
    ("1.37.0", "injector.resources.limits.memory=48Mi", "injector.resources.limits.memory (48Mi) must be at least 64Mi"),
    ("1.37.0", "injector.resources.limits.memory=0.05Gi", "injector.resources.limits.memory (0.05Gi) must be at least"),
    ("1.37.0", "injector.tls.certificateLifetime=2s999ms", "injector.tls.certificateLifetime (2s999ms) must be 3s to 2920h: a certificate ends"),
    ("1.37.0", "injector.tls.certificateLifetime=18w", "injector.tls.certificateLifetime (18w) must be 3s to 2920h: a certificate ends"),
    ("1.37.0", "injector.watchdog.interval=0.05s", "injector.watchdog.interval (0.05s) must be at least 100ms."),
    (
        "1.37.0",
        "sidecar.config.watermarks.low=94%",
        "sidecar.config.watermarks.low (94%) must be below sidecar.config.watermarks.high (94%).",
    ),
    (
        "1.37.0",
        "standalone.config.watermarks.high=99",
        "standalone.config.watermarks.high (99%) must be below standalone.config.watermarks.critical (98%).",
    ),
    (
        "1.37.0",
        "sidecar.config.watermarks.critical=100%",
        "sidecar.config.watermarks.critical (100%) must not be above 99%: nothing would ever be urgent.",
    ),
    (
        "1.37.0",
        "sidecar.ports.http=7070",
        "sidecar.ports must be three different ports; they are data 7070, admin 7071 and http 7070.",
    ),
    (
        "1.37.0",
        "injector.failurePolicy=Fail,injector.excludedNamespaces=null",
        "injector.failurePolicy is Fail and injector.excludedNamespaces is empty",
    ),
    ("1.31.0", "injector.failurePolicy=Fail,injector.replicas=1", "injector.replicas is 1: while"),
    ("1.31.0", "injector.tls.source=secret", "injector.tls.existingSecret is empty"),
    ("1.31.0", "injector.tls.source=cert-manager", "Install cert-manager first"),
    ("1.31.0", "injector.httpPort=10250", "injector.port and injector.httpPort must differ; both are 10250."),
    ("1.37.0", "sidecar.appEnv[0].name=EBB_ADDR,sidecar.appEnv[0].value=x", "sidecar.appEnv must not have EBB_ADDR"),
    ("1.37.0", "injector.mode=policy,injector.watchdog.enabled=true", "of the webhook's pods, and injector.mode is policy."),
    (
        "1.31.0",
        "injector.watchdog.enabled=true,injector.objectSelector.matchExpressions[0].key=a,"
        "injector.objectSelector.matchExpressions[0].operator=Exists",
        "injector.watchdog.enabled goes by the label ebb-cache.io/inject alone",
    ),
    (
        "1.31.0",
        "standalone.enabled=true,standalone.events=true,standalone.networkPolicy.enabled=true",
        "put the API server's addresses into standalone.networkPolicy.egressTo.",
    ),
    ("1.31.0", "injector.hostNetwork=true", "on the node, where 10250 is the kubelet's: set injector.port to another."),
    (
        "1.31.0",
        "injector.hostNetwork=true,injector.port=10350,injector.networkPolicy.enabled=true",
        "with injector.hostNetwork no NetworkPolicy applies to it. Switch one of them off.",
    ),
    (
        "1.37.0",
        "standalone.enabled=true,standalone.replicas=2",
        "standalone.replicas is 2, but each pod holds its own entries, and one address would lead to any of them.",
    ),
    (
        "1.37.0",
        "standalone.enabled=true,standalone.service.headless=true,standalone.service.type=NodePort",
        "standalone.service.headless needs standalone.service.type ClusterIP; it is NodePort.",
    ),
)


def refusal(helm, major, version, given):
    return helm.template(major, version, "--set", given, known=())


@pytest.mark.parametrize("major", HELMS)
@pytest.mark.parametrize("version, given, sentence", GUARDS, ids=[given for _, given, _ in GUARDS])
def test_refuses_with_its_sentence(helm, major, version, given, sentence):
    result = refusal(helm, major, version, given)
    assert result.code != 0
    assert sentence in result.why


# This one is about what a cluster has already.
SENTENCES = [
    sentence
    for found in re.findall(r'fail \(?(?:printf )?("(?:[^"\\]|\\.)*")', (CHART / "templates/validate.yaml").read_text())
    if "injects in this cluster already" not in (sentence := json.loads(found))
]


@pytest.mark.parametrize("major", HELMS)
@pytest.mark.parametrize("sentence", SENTENCES)
def test_each_guard_has_a_test(helm, major, sentence):
    pattern = re.sub(r"%[sd]", ".*", re.escape(sentence).replace("%%", "%"))
    assert re.search(pattern, "".join(refusal(helm, major, version, given).why for version, given, _ in GUARDS))
