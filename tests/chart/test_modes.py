"""A value without effect in the chosen mode is refused: what the chart accepts changes what it renders."""

import pytest

from helm import HELMS, VERSIONS
from test_nulls import VALUES

# Another value than the default, and what it needs beside it in a mode that uses it.
CHANGES = {
    "revision": "canary",
    "failurePolicy": "Fail",
    "excludedNamespaces": ["kube-system"],
    "namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]},
    "objectSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]},
    "timeoutSeconds": 6,
    "replicas": 3,
    "autoscaling": {"enabled": True},
    "port": 10444,
    "httpPort": 10445,
    "listenAddress": "0.0.0.0",
    "hostNetwork": True,
    "tls": {"certificateLifetime": "12h"},
    "runAsUser": 1000,
    "runAsGroup": 1000,
    "serviceAccount": {"annotations": {"a": "b"}},
    "service": {"annotations": {"a": "b"}},
    "logLevel": "debug",
    "logFormat": "text",
    "extraEnv": [{"name": "A", "value": "b"}],
    "strategy": {"type": "Recreate"},
    "revisionHistoryLimit": 3,
    "dnsConfig": {"nameservers": ["10.0.0.10"]},
    "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}],
    "runtimeClassName": "gvisor",
    "clientCA": {"configMap": "ca"},
    "allowedAnnotations": {"pods": []},
    "events": False,
    "resources": {"limits": {"memory": "128Mi"}},
    "watchdog": {"enabled": True},
    "pdb": {"enabled": False},
    "networkPolicy": {"enabled": True},
    "topologySpread": {"enabled": False},
    "podLabels": {"a": "b"},
    "podAnnotations": {"a": "b"},
    "priorityClassName": "high",
    "nodeSelector": {"a": "b"},
    "tolerations": [{"operator": "Exists"}],
    "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone"}]}},
}
BESIDE = {"hostNetwork": {"port": 10444}}
MODES = ("webhook", "policy", "none")
SOURCES = ("self", "cert-manager", "secret")
TLS = {
    "certificateLifetime": "12h",
    "existingSecret": "given",
    "caBundle": "-----BEGIN CERTIFICATE-----",
    "paths": ["sixteen-characters"],
    "issuerRef": {"name": "company"},
    "certificate": {"duration": "720h", "renewBefore": "240h"},
}


def has_effect_or_is_refused(result, path, before):
    if result.code:
        assert f"{path}" in result.why and "without effect if" in result.why, result.why
    else:
        assert result.text != before.text, f"{path} is accepted, and changes nothing"


def test_each_value_of_the_injector_has_a_change():
    assert CHANGES.keys() | {"mode"} == VALUES["injector"].keys()
    assert TLS.keys() | {"source"} == VALUES["injector"]["tls"].keys()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("key", CHANGES)
def test_a_value_has_an_effect_in_its_mode_or_is_refused(render, mode, key):
    before = {"mode": mode} | (BESIDE.get(key, {}) if mode == "webhook" else {})
    given = {"injector": {**before, key: CHANGES[key]}, "sidecar": {"example": True}}
    bare = render({"injector": before, "sidecar": {"example": True}})
    has_effect_or_is_refused(render(given), f"injector.{key}", bare)
    if mode == "webhook":
        assert render(given).code == 0, render(given).why


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("key", TLS)
def test_a_value_has_an_effect_for_its_certificate_or_is_refused(render, source, key):
    before = {"source": source, **({"existingSecret": "tls"} if source == "secret" else {})}
    bare = render({"injector": {"tls": before}})
    has_effect_or_is_refused(render({"injector": {"tls": {**before, key: TLS[key]}}}), f"injector.tls.{key}", bare)


# Values as `--set` takes them, and the paths that the error names.
UNUSED = {
    "injector.mode=policy,injector.clientCA.secret=ca,injector.clientCA.names={a}": "injector.clientCA.names, injector.clientCA.secret",
    "injector.mode=none,injector.failurePolicy=Fail": "injector.failurePolicy",
    "injector.mode=policy,injector.watchdog.enabled=true": "injector.watchdog.enabled",
    "injector.mode=policy,monitoring.injector.enabled=true": "monitoring.injector.enabled",
    "injector.clientCA.names={kube-apiserver}": "injector.clientCA.names",
    "injector.clientCA.key=root.crt": "injector.clientCA.key",
    "injector.tls.source=cert-manager,injector.tls.issuerRef.kind=ClusterIssuer": "injector.tls.issuerRef.kind",
    "injector.tls.paths={sixteen-characters}": "injector.tls.paths",
    "injector.serviceAccount.create=false,injector.serviceAccount.name=a,injector.serviceAccount.annotations.b=c": "injector.serviceAccount.annotations.b",
    "standalone.enabled=true,standalone.service.loadBalancerClass=internal": "standalone.service.loadBalancerClass",
    "standalone.enabled=true,standalone.service.loadBalancerSourceRanges={10.0.0.0/8}": "standalone.service.loadBalancerSourceRanges",
    "standalone.enabled=true,standalone.service.headless=true,standalone.service.port=7071": "standalone.service.port",
}


@pytest.mark.parametrize("major", HELMS)
@pytest.mark.parametrize("given, paths", UNUSED.items(), ids=UNUSED)
def test_names_the_values_without_effect(helm, major, given, paths):
    result = helm.template(major, VERSIONS[-1], "--set", given)
    assert result.code != 0
    assert f": {paths}: without effect if " in result.why


@pytest.mark.parametrize("major", HELMS)
@pytest.mark.parametrize("mode", MODES)
def test_defaults_and_nulls_are_never_without_effect(render, major, mode):
    for given in (VALUES["injector"], dict.fromkeys(VALUES["injector"])):
        result = render({"injector": {**given, "mode": mode}}, major)
        assert result.code == 0, result.why
