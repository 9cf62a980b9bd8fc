"""Values that the API server would refuse do not fit the schema, wherever a value of their kind may stand.

The rules are those of Kubernetes' validation; an API server is not asked. The places are read from the schema, so a value
that is added with one of these kinds is tested, too.
"""

import json

import pytest

from generate import SCHEMA
from helm import HELMS

WHOLE = json.loads(SCHEMA.read_text())
LONG = "a" * 64
HOST = ".".join(["a" * 63] * 4)
# What a place needs beside the value under test.
BESIDE = {
    "topologyKey": "topology.kubernetes.io/zone",
    "weight": 1,
    "preference": {"matchExpressions": [{"key": "a", "operator": "Exists"}]},
    "podAffinityTerm": {"topologyKey": "zone"},
    "cidr": "10.0.0.0/8",
    "name": "a",
    "key": "a",
    "ip": "10.0.0.1",
}


def one(**fields):
    return [fields]


SELECTOR_EXPRESSIONS = (
    one(key="a", operator="In"),
    one(key="a", operator="In", values=[]),
    one(key="a", operator="NotIn"),
    one(key="a", operator="NotIn", values=[]),
    one(key="a", operator="Exists", values=["b"]),
    one(key="a", operator="DoesNotExist", values=["b"]),
    one(key="a", operator="in", values=["b"]),
    one(key="a"),
    one(key="a", operator="In", values=["b c"]),
    one(key="a", operator="In", values=["-b"]),
    one(key="a", operator="In", values=[LONG]),
    one(key="", operator="Exists"),
    one(key="a b", operator="Exists"),
    one(key="a/b/c", operator="Exists"),
    one(key="/a", operator="Exists"),
    one(key="A.b/c", operator="Exists"),
    one(key=LONG, operator="Exists"),
    one(key=f"{HOST}/a", operator="Exists"),
)
# The kind, values that Kubernetes accepts, and values that it refuses.
KINDS = {
    "expressions": (
        [
            one(key="a", operator="In", values=["b", ""]),
            one(key="example.com/A_b.c", operator="NotIn", values=["a" * 63]),
            one(key="a" * 63, operator="Exists"),
            one(key=f"{HOST[2:-1]}/a", operator="DoesNotExist", values=[]),
        ],
        [*SELECTOR_EXPRESSIONS, one(key="a", operator="Gt", values=["1"])],
    ),
    "nodeExpressions": (
        [one(key="a", operator="Gt", values=["4"]), one(key="a", operator="In", values=["b"]), one(key="a", operator="Exists")],
        [
            *SELECTOR_EXPRESSIONS,
            one(key="a", operator="Gt"),
            one(key="a", operator="Gt", values=["1", "2"]),
            one(key="a", operator="Lt", values=["many"]),
        ],
    ),
    "labelSelector": (
        [{}, {"matchLabels": {"example.com/a": "b"}}],
        [{"matchLabels": {"a b": "c"}}, {"matchLabels": {"a": "-"}}, {"matchLabels": {"a": 1}}, {"matchLabel": {"a": "b"}}],
    ),
    "nodeTerm": (
        [{}, {"matchFields": one(key="metadata.name", operator="In", values=["node-1"])}],
        [
            {"matchFields": one(key="metadata.uid", operator="In", values=["a"])},
            {"matchFields": one(key="metadata.name", operator="In", values=["a", "b"])},
            {"matchFields": one(key="metadata.name", operator="Exists")},
            {"matchLabels": {"a": "b"}},
        ],
    ),
    "podTerm": (
        [{"topologyKey": "zone", "namespaces": ["a"], "labelSelector": {}, "matchLabelKeys": ["pod-template-hash"]}],
        [
            {},
            {"topologyKey": ""},
            {"topologyKey": "zone", "namespaces": ["a.b"]},
            {"topologyKey": "zone", "matchLabelKeys": ["a"]},
        ],
    ),
    "affinity": (
        [{}],
        [
            {"podAffinities": {}},
            {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
            {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}},
            {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": one(weight=0, preference={})}},
            {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": one(weight=1)}},
            {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": one(weight=101, podAffinityTerm={"topologyKey": "a"})}},
            {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": one(topologyKey="a")}},
        ],
    ),
    "tolerations": (
        [
            one(operator="Exists"),
            one(key="a", value="b"),
            one(key="a", operator="Exists", effect="NoExecute", tolerationSeconds=5),
            one(key="a", operator="Gt", value="-5"),
        ],
        [
            one(key="a", operator="Exists", value="b"),
            one(key="a", operator="Exist"),
            one(key="a", operator="Exists", effect="NoStart"),
            one(key="a", operator="Exists", effect="NoSchedule", tolerationSeconds=5),
            one(key="a", operator="Exists", tolerationSeconds=5),
            one(operator="Equal", value="b"),
            one(value="b"),
            one(key="", effect="NoSchedule"),
            one(key="a b"),
            one(key="a", value="b c"),
            one(key="a", value=LONG),
            one(key="a", operator="Lt", value="many"),
            one(key="a", operater="Exists"),
        ],
    ),
    "peers": (
        [one(podSelector={}, namespaceSelector={}), one(ipBlock={"cidr": "fd00::/8", "except": ["fd00:1::/32"]})],
        [
            one(),
            one(ipBlock={}),
            one(ipBlock={"cidr": "10.0.0.1"}),
            one(ipBlock={"cidr": "10.0.0.0/8", "except": ["10.0.0.0"]}),
            one(ipBlock={"cidr": "10.0.0.0/8"}, podSelector={}),
        ],
    ),
    "cidr": (
        ["0.0.0.0/0", "10.1.2.3/32", "::/0", "fd00::/8", "2001:db8:1:2:3:4:5:6/128", "::ffff:0:0/96", "64:ff9b::10.0.0.0/120"],
        ["10.0.0.0", "10.0.0.256/8", "10.0.0/8", "10.0.0.0/33", "10.01.0.0/16", ":::/8", "1::2::3/64", "1:2:3:4:5:6:7:8:9/64", "fd00::/129", "::12345/64"],
    ),
    "ip": (
        ["10.0.0.1", "::1", "fd00::1:2", "1:2:3:4:5:6:7::"],
        ["10.0.0", "10.0.0.256", "localhost", "[::1]", "::g", "10.0.0.1/32"],
    ),
    "labels": (
        [{"example.com/a": "b", "c": ""}],
        [{"a b": "c"}, {"a": "b c"}, {"a": LONG}, {LONG: "a"}, {"a": True}, {"Example.com/a": "b"}],
    ),
    "annotations": (
        [{"Example.com/a": "any text\n"}],
        [{"a b": "c"}, {"a/b/c": "d"}, {LONG: "a"}, {"": "a"}, {"a": 1}],
    ),
    "strategy": (
        [{}, {"type": "Recreate"}, {"rollingUpdate": {"maxSurge": "150%", "maxUnavailable": 0}}, {"rollingUpdate": {"maxUnavailable": "100%", "maxSurge": 0}}],
        [
            {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}},
            {"rollingUpdate": {"maxSurge": "1"}},
            {"rollingUpdate": {"maxSurge": -1}},
            {"rollingUpdate": {"maxUnavailable": "101%"}},
            {"rollingUpdate": {"maxUnavailable": "half"}},
            {"rollingUpdate": {"maxReplicas": 1}},
        ],
    ),
    "pdb": ([{"maxUnavailable": "050%"}, {"maxUnavailable": 0}], [{"maxUnavailable": "101%"}, {"maxUnavailable": "1"}, {"maxUnavailable": -1}, {"minAvailable": 1}]),
    "configKey": (["ca.crt", ".a"], ["", ".", "..", "..a", "a/b", "a b", "a" * 254]),
    "id": ([1, 2147483647], [0, -1, 2147483648]),
    "relabelings": (
        [one(action="HashMod", modulus=2, sourceLabels=["a"], targetLabel="b")],
        [one(action="remove"), one(sourceLabel=["a"]), one(modulus="2"), one(sourceLabels="a")],
    ),
    "registry": (
        ["", "registry.example:5000/team", "[fd00::1]:5000"],
        ["https://registry.example", "registry example", "registry.example/"],
    ),
    "repository": (
        ["ebb", "team/ebb__a.b-c", "localhost:5000/ebb"],
        ["ebb:1.0", "ebb@sha256:0", "Ebb", "a//b", "a b", "/ebb"],
    ),
    "profile": (
        [{"type": "RuntimeDefault"}, {"type": "Localhost", "localhostProfile": "a.json"}],
        [{}, {"type": "Default"}, {"type": "Localhost"}, {"type": "Unconfined", "localhostProfile": "a"}],
    ),
    "capabilities": ([["NET_BIND_SERVICE"]], ["NET_ADMIN", ["net_admin"]]),
}
# Fields that stand in one place only.
FIELDS = (
    ("injector.dnsConfig", {"nameservers": ["10.0.0.10"], "searches": ["svc.local.", "_tcp.a", "."]}, [
        {"nameservers": ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]},
        {"searches": ["a b"]},
        {"searches": ["a"] * 33},
        {"options": [{"name": ""}]},
    ]),
    ("injector.hostAliases", [{"ip": "::1", "hostnames": ["a.b"]}], [
        [{"ip": "10.0.0.1", "hostnames": ["a_b"]}],
        [{"ip": "10.0.0.1", "hostnames": ["*.a"]}],
    ]),
    ("injector.extraEnv", [
        {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}},
        {"name": "B", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
        {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
    ], [
        [{"name": "A", "valueFrom": source}]
        for source in (
            {"fieldRef": {"fieldPath": "metadata.names"}},
            {"fieldRef": {"fieldPath": "spec.nodeName", "apiVersion": "v2"}},
            {"resourceFieldRef": {"resource": "cpu"}},
            {"resourceFieldRef": {"resource": "limits.gpu"}},
            {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1Mi"}},
            {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1m"}},
            {"resourceFieldRef": {"resource": "limits.memory", "divisor": "3Mi"}},
        )
    ]),
    ("sidecar.securityContext", {"seLinuxOptions": {"level": "s0"}, "procMount": "Default"}, [
        {"seLinuxOptions": {"levels": "s0"}},
        {"seLinuxOptions": {"level": 0}},
        {"procMount": "Masked"},
        {"capabilities": {"drops": ["ALL"]}},
    ]),
    ("standalone.replicas", 0, [4294967296]),
    ("standalone.service.loadBalancerClass", "", ["a b", "a/b/c", LONG]),
)


def places(kind, schema=WHOLE, path=(), seen=()):
    """Paths of the values of a kind: names of keys, 0 for the items of a list."""
    if "$ref" in schema:
        name = schema["$ref"].split("/")[-1]
        if name == kind:
            yield path
        if name not in seen:
            yield from places(kind, WHOLE["definitions"][name], path, (*seen, name))
    for key, inner in schema.get("properties", {}).items():
        yield from places(kind, inner, (*path, key), seen)
    if isinstance(schema.get("items"), dict):
        yield from places(kind, schema["items"], (*path, 0), seen)
    for inner in [*schema.get("allOf", []), *schema.get("anyOf", [])]:
        yield from places(kind, inner, path, seen)


def at(path, value, schema=WHOLE):
    """Values with this one at a path, and what the place needs beside it."""
    while "$ref" in schema:
        schema = WHOLE["definitions"][schema["$ref"].split("/")[-1]]
    if not path:
        return value
    key, *rest = path
    if key == 0:
        return [at(rest, value, schema["items"])]
    parts = [schema, *schema.get("anyOf", [])]
    inner = next(part["properties"][key] for part in parts if key in part.get("properties", {}))
    return {name: BESIDE[name] for name in schema.get("required", []) if name != key} | {key: at(rest, value, inner)}


PLACES = {kind: sorted(set(places(kind)), key=str) for kind in KINDS}


def is_refused(result, path):
    key = [str(key) for key in path if key][-1]
    assert result.code != 0
    assert "schema" in result.why and key in result.why, result.why


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_a_place(kind):
    assert PLACES[kind]


@pytest.mark.parametrize("kind, path", [(kind, path) for kind in KINDS for path in PLACES[kind]], ids=str)
def test_each_place_of_a_kind_accepts_and_refuses(render, kind, path):
    good, bad = KINDS[kind]
    assert render(at(path, good[0])).code == 0, render(at(path, good[0])).why
    is_refused(render(at(path, bad[0])), path)


@pytest.mark.parametrize("major", HELMS)
@pytest.mark.parametrize("kind, value", [(kind, value) for kind in KINDS for value in KINDS[kind][1]], ids=str)
def test_refuses_what_kubernetes_refuses(render, major, kind, value):
    path = PLACES[kind][0]
    is_refused(render(at(path, value), major), path)


@pytest.mark.parametrize("major", HELMS)
@pytest.mark.parametrize("kind, value", [(kind, value) for kind in KINDS for value in KINDS[kind][0]], ids=str)
def test_accepts_what_kubernetes_accepts(render, major, kind, value):
    result = render(at(PLACES[kind][-1], value), major)
    assert result.code == 0, result.why


@pytest.mark.parametrize("major", HELMS)
@pytest.mark.parametrize("path, good, bad", FIELDS, ids=[path for path, _, _ in FIELDS])
def test_fields_follow_the_rules_of_kubernetes(render, major, path, good, bad):
    path = path.split(".")
    result = render(at(path, good), major)
    assert result.code == 0, result.why
    for value in bad:
        is_refused(render(at(path, value), major), path)
