"""The schema of the chart's values is complete and closed, and names each refused key."""

import json

import pytest
import yaml

from generate import SCHEMA
from helm import CHART, HELMS, VERSIONS

SCHEMA_OF_VALUES = json.loads(SCHEMA.read_text())
# An invalid value, and the key in the message.
BAD = {
    "injector.mode=webhooks": "mode",
    "injector.failurePolicy=Maybe": "failurePolicy",
    "injector.replicas=0": "replicas",
    "injector.replica=2": "replica",
    "injector.timeoutSeconds=60": "timeoutSeconds",
    "injector.port=443": "port",
    "injector.watchdog.maxPerMinute=0": "maxPerMinute",
    "injector.watchdog.maxPerMinute=1000": "maxPerMinute",
    "injector.watchdog.interval=often": "interval",
    "injector.listenAddress=10.1.2.3": "listenAddress",
    "sidecar.bindAddress=999.1.1.1": "bindAddress",
    "sidecar.livenessProbe.successThreshold=2": "successThreshold",
    "sidecar.readinessProbe.terminationGracePeriodSeconds=5": "terminationGracePeriodSeconds",
    "sidecar.static.cores=0": "cores",
    "sidecar.static.requestFile=/x": "requestFile",
    "sidecar.config.pacing.cpu=0%": "cpu",
    "sidecar.config.watermarks.critical=100%": "critical",
    "injector.rbac.create=true": "rbac",
    "injector.listenAddress=localhost": "listenAddress",
    "injector.hostNetwork=maybe": "hostNetwork",
    "injector.pdb.maxUnavailable=half": "maxUnavailable",
    "injector.podLabels.app\\.kubernetes\\.io/name=mine": "app.kubernetes.io/name",
    "injector.namespaceSelector.matchLabels.a=b": "matchLabels",
    "injector.objectSelector.matchExpressions[0].operator=Is": "operator",
    "injector.networkPolicy.egressTo[0].cidr=10.0.0.1/32": "cidr",
    "injector.networkPolicy.apiServerCIDRs={10.0.0.1}": "apiServerCIDRs",
    "injector.networkPolicy.apiServerCIDRs={10.0.0.256/32}": "apiServerCIDRs",
    "injector.networkPolicy.apiServerCIDRs={10.0.0.0/33}": "apiServerCIDRs",
    "injector.networkPolicy.apiServerCIDRs={fd00::/129}": "apiServerCIDRs",
    "injector.allowedAnnotations.pods={no-such}": "pods",
    "injector.allowedAnnotations.namespaces={config.ebb-cache.io/image}": "namespaces",
    "injector.allowedAnnotations.deployments={image}": "deployments",
    "injector.clientCA.key=a/b": "key",
    "injector.clientCA.names[0]=": "names",
    "injector.clientCA.file=ca.crt": "file",
    "injector.tls.paths={fifteen-letters}": "paths",
    "injector.tls.paths={with/a/slash/in/it/x}": "paths",
    "injector.tls.paths={With-Capital-Letters}": "paths",
    "injector.tls.source=openssl": "source",
    "injector.tls.caBundle=none": "caBundle",
    "injector.tls.certificateLifetime=daily": "certificateLifetime",
    "injector.tls.certificate.duration=90d": "duration",
    "injector.logLevel=loud": "logLevel",
    "injector.logFormat=xml": "logFormat",
    "injector.strategy.type=Canary": "type",
    "injector.strategy.maxSurge=1": "maxSurge",
    "injector.revisionHistoryLimit=-1": "revisionHistoryLimit",
    "injector.runAsUser=0": "runAsUser",
    "injector.dnsConfig.nameserver=1.1.1.1": "nameserver",
    "injector.hostAliases[0].hostnames[0]=a": "hostAliases",
    "injector.service.ipFamilies={IPv5}": "ipFamilies",
    "injector.service.ipFamilyPolicy=Dual": "ipFamilyPolicy",
    "injector.service.type=NodePort": "type",
    "injector.autoscaling.minReplicas=0": "minReplicas",
    "injector.extraArgs={--x}": "extraArgs",
    "injector.extraEnv[0].name=1A": "extraEnv",
    "sidecar.extraEnv[0].name=A": "extraEnv",
    "sidecar.extraEnv[0].name=A,sidecar.extraEnv[0].valueFrom.secretKeyRef.name=a": "secretKeyRef",
    "sidecar.extraEnv[0].name=A,sidecar.extraEnv[0].valueFrom.fileKeyRef.path=a": "fileKeyRef",
    "sidecar.extraEnv[0].name=A,sidecar.extraEnv[0].value=a,sidecar.extraEnv[0].valueFrom.fieldRef.fieldPath=a": "extraEnv",
    "sidecar.appEnv[0].name=A,sidecar.appEnv[0].valueFrom.fieldRef.fieldPath=a": "appEnv",
    "sidecar.resources.limits.ephemeral-storage=1GB": "ephemeral-storage",
    "commonAnnotations.a=1": "commonAnnotations",
    "commonLabels.app\\.kubernetes\\.io/name=mine": "app.kubernetes.io/name",
    "commonLabels.app\\.kubernetes\\.io/part-of=mine": "app.kubernetes.io/part-of",
    "monitoring.rules.labels.app\\.kubernetes\\.io/instance=mine": "app.kubernetes.io/instance",
    "standalone.podLabels.ebb-cache\\.io/inject=enabled": "ebb-cache.io/inject",
    "monitoring.sidecars.scrapeTimeout=soon": "scrapeTimeout",
    "monitoring.sidecars.relabelings=x": "relabelings",
    "standalone.service.loadBalancerSourceRanges={10.0.0.0}": "loadBalancerSourceRanges",
    "sidecars.address=tcp": "sidecars",
    "sidecar.address=udp": "address",
    "sidecar.ports.data=70000": "data",
    "sidecar.ports.grpc=1": "grpc",
    "sidecar.resources.limits.memory=256MB": "memory",
    "sidecar.resources.limits.memory=null": "memory",
    "sidecar.resources.limits.memory=64mi": "memory",
    "sidecar.resources.limits.memory=0e6": "memory",
    "sidecar.resources.requests.memory=1..5Gi": "memory",
    "injector.resources.limits.memory=0.0Gi": "memory",
    "standalone.resources.limits.memory=1e": "memory",
    "sidecar.config.watermarks.high=101%": "high",
    "sidecar.config.defaults.ttl=5": "ttl",
    "sidecar.static.drainTimeout=1500": "drainTimeout",
    "injector.tls.certificateLifetime=0s": "certificateLifetime",
    "injector.watchdog.interval=5": "interval",
    "monitoring.injector.interval=1.5m": "interval",
    "sidecar.resources.requests.cpu=50 m": "cpu",
    "sidecar.resources.limits.gpu=1": "gpu",
    "sidecar.config.watermark.low=1": "watermark",
    "sidecar.config.watermarks.lowest=1": "lowest",
    "sidecar.config.watermarks.low=half": "low",
    "sidecar.config.logLevel=loud": "logLevel",
    "sidecar.static.listen=0.0.0.0:1": "listen",
    "sidecar.static.logFormat=xml": "logFormat",
    "sidecar.configMapName=Ebb_Config": "configMapName",
    "sidecar.httpAddress=127.0.0.1": "httpAddress",
    "sidecar.runAsUser=0": "runAsUser",
    "sidecar.startupProbe.httpGet=x": "httpGet",
    "standalone.replicas=-1": "replicas",
    "standalone.service.type=ExternalName": "type",
    "standalone.pdb.maxUnavailable=one": "maxUnavailable",
    "standalone.topologySpread.whenUnsatisfiable=Never": "whenUnsatisfiable",
    "image.digest=sha256:abc": "digest",
    "image.pullPolicy=Sometimes": "pullPolicy",
    "monitoring.sidecars.interval=soon": "interval",
    "monitoring.injector.kind=Probe": "kind",
    "monitoring.annotation.enabled=true": "annotation",
    "tests.enabled=maybe": "enabled",
}


def open_objects(schema, path):
    """Objects of the schema that accept unknown keys; `global` is shared with other charts."""
    if isinstance(schema, list):
        return [found for part in schema for found in open_objects(part, path)]
    if not isinstance(schema, dict):
        return []
    is_shared = path == "values.properties.global"
    is_open = "properties" in schema and schema.get("additionalProperties") is not False and not is_shared
    # Conditions add to an object that is closed elsewhere.
    parts = {key: part for key, part in schema.items() if key not in ("if", "then", "else", "not")}
    inner = [found for key, part in parts.items() for found in open_objects(part, f"{path}.{key}")]
    return [path] * is_open + inner


def unlike(schema, values, definitions, path):
    """Keys that are in only one of schema and values.yaml, except inside free maps."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].split("/")[-1]]
    is_whole = path in ("sidecar.config", "standalone.config") or path.endswith(("Probe", ".resources"))
    if not isinstance(values, dict) or "properties" not in schema or not values or is_whole:
        return set()
    at = lambda key: f"{path}.{key}".strip(".")
    out = {at(key) for key in schema["properties"].keys() ^ values.keys()}
    for key in schema["properties"].keys() & values.keys():
        out |= unlike(schema["properties"][key], values[key], definitions, at(key))
    return out


def test_lets_no_unknown_key_through():
    assert open_objects(SCHEMA_OF_VALUES, "values") == []


def test_has_the_keys_of_the_values():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert unlike(SCHEMA_OF_VALUES, values, SCHEMA_OF_VALUES["definitions"], "") == set()


@pytest.mark.parametrize("major", HELMS)
@pytest.mark.parametrize("given, key", BAD.items(), ids=BAD)
def test_refuses_a_bad_value(helm, major, given, key):
    result = helm.template(major, VERSIONS[-1], "--set", given)
    assert result.code != 0
    assert "schema" in result.why
    assert key in result.why
