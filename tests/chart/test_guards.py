"""Guards: values that fit the schema but conflict with each other or with the cluster are refused."""

import json
import re

import pytest

from helm import CHART, HELMS, VERSIONS

# Kubernetes version, values, and a fragment of the message.
GUARDS = (
    ("1.35.4", "injector.mode=policy", "injector.mode: policy needs Kubernetes 1.36 or newer (MutatingAdmissionPolicy v1)"),
    ("1.35.4", "injector.mode=policy", "this cluster is v1.35.4. Set injector.mode to webhook, or upgrade the cluster."),
    ("1.30.9", "injector.mode=none", "kubeVersion: >=1.31.0-0 which is incompatible with Kubernetes v1.30.9"),
    (
        "1.37.0",
        "sidecar.resources.limits.memory=8Mi",
        "sidecar.resources.limits.memory: 8Mi is too small for a cache (at least 16Mi).",
    ),
    ("1.37.0", "standalone.resources.limits.memory=16e6", "16e6 is too small for a cache (at least 16Mi)"),
    ("1.37.0", "sidecar.resources.limits.memory=16777215999m", "16777215999m is too small for a cache (at least 16Mi)"),
    ("1.37.0", "sidecar.resources.limits.memory=0.015Gi", "0.015Gi is too small for a cache (at least 16Mi)"),
    ("1.37.0", "injector.resources.limits.memory=48Mi", "injector.resources.limits.memory: 48Mi is too small for the webhook (at least 64Mi)"),
    ("1.37.0", "injector.resources.limits.memory=0.05Gi", "injector.resources.limits.memory: 0.05Gi is too small"),
    ("1.37.0", "injector.tls.certificateLifetime=2s999ms", "injector.tls.certificateLifetime: 2s999ms is out of range (3s to 2920h)"),
    ("1.37.0", "injector.tls.certificateLifetime=18w", "injector.tls.certificateLifetime: 18w is out of range (3s to 2920h)"),
    ("1.37.0", "injector.watchdog.interval=0.05s", "injector.watchdog.interval: 0.05s is out of range (100ms to 24h)."),
    ("1.37.0", "injector.watchdog.interval=25h", "injector.watchdog.interval: 25h is out of range (100ms to 24h)."),
    ("1.37.0", "sidecar.config.tick=5ms", "sidecar.config.tick: 5ms is out of range (10ms to 2s)."),
    ("1.37.0", "standalone.static.maxValue=4Mi", "standalone.static.maxValue: 4Mi is out of range (1 to 3584Ki)."),
    ("1.37.0", "sidecar.config.maxMemory=1Mi", "sidecar.config.maxMemory: 1Mi is out of range (0, 16Mi to 16Ti)."),
    (
        "1.37.0",
        "sidecar.config.drift.idleOccupancy=90%",
        "sidecar.config.drift.busyOccupancy: 90% must be below sidecar.config.drift.idleOccupancy (90%).",
    ),
    (
        "1.37.0",
        "sidecar.extraEnv[0].name=EBB_CORES,sidecar.extraEnv[0].value=x",
        "sidecar.extraEnv: EBB_CORES is not allowed; settings of Ebb are values of sidecar.config and sidecar.static",
    ),
    (
        "1.37.0",
        "sidecar.config.watermarks.low=94%",
        "sidecar.config.watermarks.low: 94% must be below sidecar.config.watermarks.high (94%).",
    ),
    (
        "1.37.0",
        "standalone.config.watermarks.high=98",
        "standalone.config.watermarks.high: 98% must be below standalone.config.watermarks.critical (98%).",
    ),
    (
        "1.37.0",
        "fullnameOverride=cache-injector-a",
        "fullnameOverride: cache-injector-a could be the name of a component of another release",
    ),
    (
        "1.37.0",
        "sidecar.ports.data=7072",
        "sidecar.ports: the ports must differ (data 7072, which a pod's annotation may open, admin 7071, http 7072).",
    ),
    (
        "1.37.0",
        "sidecar.ports.http=7070",
        "sidecar.ports: the ports must differ (data 7070, which a pod's annotation may open, admin 7071, http 7070).",
    ),
    (
        "1.37.0",
        "injector.failurePolicy=Fail,injector.excludedNamespaces=null",
        "injector.excludedNamespaces: must not be empty if injector.failurePolicy is Fail",
    ),
    ("1.31.0", "injector.failurePolicy=Fail,injector.replicas=1", "injector.replicas: 1 is too few if injector.failurePolicy is Fail (at least 2)"),
    ("1.31.0", "injector.tls.source=secret", "injector.tls.existingSecret: must not be empty if injector.tls.source is secret"),
    ("1.31.0", "injector.tls.source=cert-manager", "Install cert-manager first"),
    (
        "1.31.0",
        "injector.clientCA.configMap=a,injector.clientCA.secret=b",
        "injector.clientCA: name a ConfigMap or a Secret, not both.",
    ),
    ("1.31.0", "injector.httpPort=10250", "injector.httpPort: must differ from injector.port (10250)."),
    ("1.37.0", "injector.failurePolicy=Fail,injector.autoscaling.enabled=true,injector.autoscaling.minReplicas=1", "injector.autoscaling.minReplicas: 1 is too few"),
    (
        "1.31.0",
        "injector.autoscaling.enabled=true,injector.autoscaling.minReplicas=6",
        "injector.autoscaling.minReplicas: 6 must be at most injector.autoscaling.maxReplicas (5).",
    ),
    (
        "1.31.0",
        "injector.autoscaling.enabled=true,injector.resources.requests=null",
        "injector.autoscaling.enabled: CPU use is measured in percent of injector.resources.requests.cpu, which is missing.",
    ),
    (
        "1.31.0",
        "standalone.enabled=true,standalone.autoscaling.enabled=true",
        "standalone.autoscaling.enabled: needs standalone.service.headless, since each pod holds its own entries.",
    ),
    (
        "1.31.0",
        "injector.serviceAccount.create=false",
        "injector.serviceAccount.name: must not be empty if injector.serviceAccount.create is false.",
    ),
    (
        "1.31.0",
        "monitoring.sidecars.scrapeTimeout=31s",
        "monitoring.sidecars.scrapeTimeout: 31s must be at most monitoring.sidecars.interval (30s).",
    ),
    (
        "1.31.0",
        "sidecar.extraEnv[0].name=EBB_LISTEN,sidecar.extraEnv[0].value=x",
        "sidecar.extraEnv: EBB_LISTEN is not allowed; the chart sets it from other values.",
    ),
    ("1.37.0", "sidecar.appEnv[0].name=EBB_ADDR,sidecar.appEnv[0].value=x", "sidecar.appEnv: EBB_ADDR is not allowed"),
    (
        "1.37.0",
        "injector.objectSelector.matchExpressions[0].key=ebb-cache.io/rev,injector.objectSelector.matchExpressions[0].operator=Exists",
        "injector.objectSelector: ebb-cache.io/rev is not allowed; injector.revision selects pods by this label.",
    ),
    (
        "1.31.0",
        "injector.namespaceSelector.matchExpressions[0].key=ebb-cache.io/rev,"
        "injector.namespaceSelector.matchExpressions[0].operator=DoesNotExist",
        "injector.namespaceSelector: ebb-cache.io/rev is not allowed",
    ),
    (
        "1.31.0",
        "standalone.enabled=true,standalone.events=true,standalone.networkPolicy.enabled=true",
        "Add the API server's addresses to standalone.networkPolicy.egressTo.",
    ),
    ("1.31.0", "injector.hostNetwork=true", "injector.port: 10250 is the kubelet's port on the node, which injector.hostNetwork uses."),
    (
        "1.31.0",
        "injector.hostNetwork=true,injector.port=10350,injector.networkPolicy.enabled=true",
        "a NetworkPolicy does not apply to pods in the host's network. Switch it or injector.hostNetwork off.",
    ),
    (
        "1.37.0",
        "standalone.enabled=true,standalone.replicas=2",
        "standalone.replicas: 2 needs standalone.service.headless, since each pod holds its own entries.",
    ),
    (
        "1.37.0",
        "standalone.enabled=true,standalone.service.headless=true,standalone.service.type=NodePort",
        "standalone.service.headless: standalone.service.type must be ClusterIP, not NodePort.",
    ),
    (
        "1.37.0",
        "injector.strategy.rollingUpdate.maxSurge=0,injector.strategy.rollingUpdate.maxUnavailable=0%",
        "injector.strategy.rollingUpdate: maxSurge and maxUnavailable must not both be 0, or no pod could ever be replaced.",
    ),
    (
        "1.37.0",
        "injector.strategy.type=RollingUpdate,injector.strategy.rollingUpdate.maxSurge=00%,injector.strategy.rollingUpdate.maxUnavailable=0",
        "injector.strategy.rollingUpdate: maxSurge and maxUnavailable must not both be 0",
    ),
    (
        "1.37.0",
        "standalone.resources.limits.memory=256Mi",
        "standalone.resources.requests.memory: 512Mi is more than standalone.resources.limits.memory (256Mi).",
    ),
    (
        "1.37.0",
        "sidecar.appEnv[0].name=A,sidecar.appEnv[0].value=a,sidecar.appEnv[1].name=A,sidecar.appEnv[1].value=b",
        "sidecar.appEnv: A occurs twice; a variable has one value.",
    ),
    *(
        ("1.37.0", ",".join(f"{where}.extraEnv[{at}].name=A,{where}.extraEnv[{at}].value=a" for at in (0, 1)), f"{where}.extraEnv: A occurs twice")
        for where in ("injector", "sidecar", "standalone")
    ),
    *(
        (
            "1.37.0",
            f"{where}.service.ipFamilies={{IPv4,IPv6}}{policy}",
            f"{where}.service.ipFamilyPolicy: must be PreferDualStack or RequireDualStack for two {where}.service.ipFamilies, not {said}.",
        )
        for where in ("injector", "standalone")
        for policy, said in (("", "empty"), (f",{where}.service.ipFamilyPolicy=SingleStack", "SingleStack"))
    ),
    (
        "1.37.0",
        "standalone.enabled=true,standalone.service.port=7072,monitoring.standalone.enabled=true,monitoring.standalone.kind=ServiceMonitor",
        "standalone.service.port: 7072 is the port of the metrics in the Service of a ServiceMonitor.",
    ),
    ("1.37.0", "sidecar.securityContext.privileged=true", "sidecar.securityContext.allowPrivilegeEscalation: must be true"),
    ("1.37.0", "sidecar.securityContext.capabilities.add={CAP_SYS_ADMIN}", "sidecar.securityContext.allowPrivilegeEscalation: must be true"),
    ("1.37.0", "injector.mode=policy,injector.port=10444", "injector.port: without effect if injector.mode is policy. Keep the default, or choose another injector.mode."),
)


# Guards for clusters with cert-manager.
CERTIFICATES = (
    ("duration=59m", "injector.tls.certificate.duration: 59m is out of range (1h, and 35040h with the chart's own CA)."),
    ("duration=40000h", "injector.tls.certificate.duration: 40000h is out of range"),
    ("renewBefore=2160h", "injector.tls.certificate.renewBefore: 2160h is out of range (5m, and below injector.tls.certificate.duration, 2160h)."),
    ("renewBefore=4m", "injector.tls.certificate.renewBefore: 4m is out of range"),
)


def refusal(helm, major, version, given):
    return helm.template(major, version, "--set", given, known=())


def certificate_refusal(helm, major, given):
    values = f"injector.tls.source=cert-manager,injector.tls.certificate.{given}"
    return helm.template(major, VERSIONS[-1], "--set", values)


def name_refusal(helm, major, version="1.36.0", *arguments):
    return helm.run(major, "template", "2026", CHART, "--kube-version", version, *arguments)


@pytest.mark.parametrize("major", HELMS)
def test_names_of_services_begin_with_a_letter_before_kubernetes_1_37(helm, major):
    assert "and that of the release, 2026, does not. Set fullnameOverride" in name_refusal(helm, major).why
    for version, *more in (("1.37.0",), ("1.36.0", "--set", "fullnameOverride=cache"), ("1.36.0", "--set", "injector.mode=none")):
        result = name_refusal(helm, major, version, *more)
        assert result.code == 0, result.why


@pytest.mark.parametrize("major", HELMS)
@pytest.mark.parametrize("given, sentence", CERTIFICATES, ids=[given for given, _ in CERTIFICATES])
def test_refuses_a_certificate_that_is_never_renewed_in_time(helm, major, given, sentence):
    result = certificate_refusal(helm, major, given)
    assert result.code != 0
    assert sentence in result.why


@pytest.mark.parametrize("major", HELMS)
@pytest.mark.parametrize("version, given, sentence", GUARDS, ids=[given for _, given, _ in GUARDS])
def test_refuses_with_its_message(helm, major, version, given, sentence):
    result = refusal(helm, major, version, given)
    assert result.code != 0
    assert sentence in result.why


TEXTS = "".join((CHART / "templates" / name).read_text() for name in ("validate.yaml", "_checks.tpl", "_helpers.tpl"))
# The excepted message depends on objects in the cluster.
SENTENCES = [
    sentence
    for found in re.findall(r'fail \(?(?:printf )?("(?:[^"\\]|\\.)*")', TEXTS)
    if "injects in this cluster already" not in (sentence := json.loads(found))
]


@pytest.mark.parametrize("major", HELMS)
@pytest.mark.parametrize("sentence", SENTENCES)
def test_each_guard_has_a_test(helm, major, sentence):
    pattern = re.sub(r"%[sd]", ".*", re.escape(sentence).replace("%%", "%"))
    said = [refusal(helm, major, version, given).why for version, given, _ in GUARDS]
    said += [certificate_refusal(helm, major, given).why for given, _ in CERTIFICATES]
    said.append(name_refusal(helm, major).why)
    assert re.search(pattern, "".join(said))
