"""Checks the chart; see tests/chart.sh. One line a check; ends with 1 when one failed.

Objects are held against the strict schemas of the Kubernetes versions they are for. What a schema cannot see, such as
the types inside a CEL expression, is left to tests/cluster.rs, which has an API server.
"""

import difflib
import json
import os
import pathlib
import re
import subprocess
import sys

import kubernetes_validate
import yaml

CACHE = pathlib.Path(sys.argv[1])
BLESS = "--bless" in sys.argv[2:]
CHART = pathlib.Path("charts/ebb")
MANIFESTS = pathlib.Path("manifests")
HELMS = ("helm3", "helm4")
# A policy needs 1.36; all else works from 1.31 on.
VERSIONS = tuple(f"1.{minor}.0" for minor in range(31, 38))
POLICY_VERSIONS = ("1.36.0", "1.37.0")
# What ci/monitoring-values.yaml makes of the operator's kinds, which Kubernetes has no schema for.
OPERATOR_KINDS = ["PodMonitor", "PrometheusRule", "ServiceMonitor"]
MONITORING = ("--api-versions", "monitoring.coreos.com/v1")

failures = 0


def check(name, *problems):
    """Prints the outcome of one check; no problem is success."""
    global failures
    problems = [str(problem) for problem in problems if problem]
    print(f"{'FAILED' if problems else 'ok    '} {name}", *problems[:10], sep="\n         ", flush=True)
    failures += bool(problems)


def helm(major, *arguments, env=None):
    """Runs Helm: its exit code, what it printed, what it complained about."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(CACHE / "home"),
        "KUBECONFIG": "/dev/null",
        **(env or {}),
    }
    done = subprocess.run(
        [CACHE / major / "helm", *arguments], capture_output=True, text=True, env=environment, timeout=60
    )
    return done.returncode, done.stdout, done.stderr


def template(major, version, *arguments):
    return helm(major, "template", "ebb", CHART, "--namespace", "ebb-system", "--kube-version", version, *arguments)


class Strict(yaml.SafeLoader):
    """YAML in which a key may stand once."""


def once(loader, node):
    keys = [loader.construct_object(key) for key, _ in node.value]
    twice = sorted({str(key) for key in keys if keys.count(key) > 1})
    if twice:
        raise yaml.constructor.ConstructorError(None, None, f"twice: {', '.join(twice)}", node.start_mark)
    return loader.construct_mapping(node, deep=True)


Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, once)


def objects(text):
    return [document for document in yaml.load_all(text, Strict) if document]


def label(document):
    return f"{document['kind']} {document['metadata']['name']}"


def read(path):
    return path.read_text() if path.exists() else ""


def generated(path, expected):
    """Compares a committed file with what it should be; --bless rewrites it."""
    if BLESS:
        path.parent.mkdir(exist_ok=True)
        path.write_text(expected)
    difference = list(
        difflib.unified_diff(read(path).splitlines(), expected.splitlines(), "committed", "expected", n=0)
    )
    stale = [f"stale: tests/chart.sh CACHE_DIR --bless rewrites it", *difference[2:8]] if difference else []
    check(f"{path} is not stale", *stale)


# What is generated: the knobs in the schema, the table of values, the manifests.

# The chart sets these itself.
OWN = {"listen", "socket", "adminListen", "adminSocket", "httpListen", "limitFile", "cgroupRoot"}


def knobs(schema):
    """A part of Ebb's own schema in the draft that both Helm majors read, with unknown keys refused at every level."""
    kept = ("type", "description", "properties", "enum", "const", "oneOf", "pattern", "minimum", "maximum")
    out = {key: value for key, value in schema.items() if key in kept}
    if "oneOf" in out:
        out = {
            "enum": [choice["const"] for choice in out["oneOf"]],
            "description": out["description"],
            "type": "string",
        }
    if "properties" in out:
        out["properties"] = {key: knobs(value) for key, value in out["properties"].items()}
        out["additionalProperties"] = False
    return out


def check_generated():
    ours = json.loads(read(pathlib.Path("docs/configuration.schema.json")))["properties"]
    live, boot = read(pathlib.Path("docs/configuration.md")).split("## Read at the start")
    parts = {
        part: sorted({key.split(".")[0] for key in re.findall(r"^\| `([\w.]+)` \|", text, re.M)} - OWN)
        for part, text in (("live", live), ("boot", boot))
    }
    path = CHART / "values.schema.json"
    schema = json.loads(read(path))
    for part, keys in parts.items():
        schema["definitions"][part] = knobs({"type": "object", "properties": {key: ours[key] for key in keys}})
    generated(path, json.dumps(schema, indent=2, ensure_ascii=False) + "\n")

    path = CHART / "README.md"
    before, rest = read(path).split("<!-- values: generated -->\n")
    _, after = rest.split("<!-- end of values -->\n")
    table, uncommented = values_table()
    generated(path, f"{before}<!-- values: generated -->\n{table}<!-- end of values -->\n{after}")
    check("every value has a comment", *uncommented)

    values = yaml.safe_load(read(CHART / "values.yaml"))
    check("the schema and values.yaml have the same keys", *sorted(unlike(schema, values, schema["definitions"], "")))
    text = "".join(read(path) for path in sorted(CHART.glob("templates/**/*")) if path.is_file())
    leaves = {path.split(".")[-1] for path, _ in commented()[0]}
    check("every value is read by a template", *sorted(leaf for leaf in leaves if not re.search(rf"\b{leaf}\b", text)))
    variables = set(re.findall(r"`(EBB_\w+)`", live + boot)) | {"EBB_ADDR", "EBB_ADMIN_ADDR", "EBB_INJECTOR_IDENTITY"}
    set_by_us = set(re.findall(r"\bEBB_\w+", text + "".join(read(path) for path in MANIFESTS.glob("*.yaml"))))
    check("every variable that is set is one that Ebb reads", *sorted(set_by_us - variables - {"EBB"}))
    defaults = {mark: knob["default"] for mark, knob in ours["watermarks"]["properties"].items()}
    shown = [values[part]["config"]["watermarks"] for part in ("sidecar", "standalone")]
    check("the watermarks are Ebb's own defaults", *[part for part in shown if part != defaults])

    header = "# Rendered from charts/ebb by `tests/chart.sh CACHE_DIR --bless`; do not edit.\n"
    namespace = "---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: ebb-system\n"
    policy = ("--set", "tests.enabled=false")
    for name, arguments, first in (
        ("policy", policy, ""),
        ("standalone", (*policy, "--set", "injector.mode=none,standalone.enabled=true"), namespace),
        ("webhook", (*policy, "--set", "injector.mode=webhook"), namespace),
        ("sidecar", (*policy, "--set", "injector.mode=none,sidecar.example=true"), namespace),
    ):
        code, text, why = template("helm4", POLICY_VERSIONS[-1], *arguments)
        # Nobody manages these with Helm.
        lines = [
            line for line in text.splitlines() if not re.search(r"managed-by: Helm$|helm\.sh/chart: |^# Source: ", line)
        ]
        generated(MANIFESTS / f"{name}.yaml", header + first + "\n".join(lines).strip() + "\n" if code == 0 else why)


def commented():
    """The keys of values.yaml with a comment of their own, as (path, comment); and those without."""
    found, without, stack, comment = [], [], [], None
    for line in read(CHART / "values.yaml").splitlines():
        if matched := re.match(r" *# -- (.*)", line):
            comment = matched[1]
        elif matched := re.match(r"( *)([\w]+):(.*)", line):
            depth, key, rest = len(matched[1]) // 2, matched[2], matched[3].strip()
            stack[depth:] = [(key, comment is not None)]
            path = ".".join(key for key, _ in stack)
            if comment is not None:
                found.append((path, comment))
            elif rest and not any(has for _, has in stack):
                without.append(path)
            comment = None
    return found, without


def values_table():
    values = yaml.safe_load(read(CHART / "values.yaml"))
    rows, (found, without) = ["| value | default | meaning |", "|---|---|---|"], commented()
    for path, comment in found:
        default = values
        for key in path.split("."):
            default = default[key]
        rows.append(f"| `{path}` | `{json.dumps(default)}` | {comment} |")
    return "\n".join(rows) + "\n", without


def unlike(schema, values, definitions, path):
    """Keys that the schema has and values.yaml has not, or the other way round; what is inside a free map is not."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].split("/")[-1]]
    whole = path in ("sidecar.config", "standalone.config")
    whole = whole or path.endswith(("Probe", ".resources"))
    if not isinstance(values, dict) or "properties" not in schema or not values or whole:
        return set()
    at = lambda key: f"{path}.{key}".strip(".")
    out = {f"{at(key)} is in one of them only" for key in schema["properties"].keys() ^ values.keys()}
    for key in schema["properties"].keys() & values.keys():
        out |= unlike(schema["properties"][key], values[key], definitions, at(key))
    return out


# Good values: linted, rendered twice by both majors, validated.


def validate(documents, version, monitors):
    problems, unknown = [], []
    for document in documents:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            unknown.append(document["kind"])
        except kubernetes_validate.ValidationError as error:
            problems.append(f"{version}: {label(document)}: {'.'.join(map(str, error.path))}: {error.message[:200]}")
    if sorted(unknown) != sorted(monitors):
        problems.append(f"{version}: kinds without a schema: {unknown}; only {monitors} are expected")
    return problems


def check_good_values():
    for path in sorted(CHART.glob("ci/*-values.yaml")):
        name = path.name.removesuffix("-values.yaml")
        given = yaml.safe_load(read(path)) or {}
        needs_policy = given.get("injector", {}).get("mode", "policy") == "policy"
        versions = POLICY_VERSIONS if needs_policy else VERSIONS
        monitoring = MONITORING if name == "monitoring" else ()
        problems, renders = [], {}
        for major in HELMS:
            code, said, why = helm(major, "lint", "--strict", CHART, "--values", path, "--kube-version", versions[-1])
            if code != 0:
                problems.append(f"{major} lint: {said}{why}")
        for version in versions:
            for major in HELMS:
                code, text, why = template(major, version, "--values", path, *monitoring)
                if code != 0:
                    problems.append(f"{major}: {why}")
                    continue
                renders[version, major] = objects(text)
                if version == versions[-1] and template(major, version, "--values", path, *monitoring)[1] != text:
                    problems.append(f"{major}: two renders differ")
            # Kinds that one major has no place for come in another order.
            by_helm = [sorted(renders.get((version, major), []), key=label) for major in HELMS]
            if by_helm[0] != by_helm[1]:
                problems.append(f"{version}: the two majors of Helm render different objects")
            if by_helm[1]:
                problems += validate(by_helm[1], version, OPERATOR_KINDS if monitoring else [])
        kinds = len(renders.get((versions[-1], "helm4"), []))
        check(f"ci/{path.name}: {kinds} objects, Kubernetes {versions[0]} to {versions[-1]}, Helm 3 and 4", *problems)


# What the objects must say.


def rendered(*arguments):
    return objects(template("helm4", POLICY_VERSIONS[-1], *arguments)[1])


def only(documents, kind):
    (document,) = [document for document in documents if document["kind"] == kind]
    return document


def literal(text):
    """The CEL literal that a text begins with, as JSON would have it; an expression that is none is null."""
    tokens = re.findall(r'"(?:[^"\\]|\\.)*"|[\w.]+|\S', text)
    at = 0

    def value():
        nonlocal at
        token = tokens[at]
        at += 1
        if token.startswith("Object"):
            token = tokens[at]
            at += 1
        if token == "{":
            out = {}
            while tokens[at] != "}":
                key = tokens[at].strip('"')
                at += 2
                out[key] = value()
                expression = tokens[at] not in ",}"
                if expression:
                    out[key] = skip()
                at += tokens[at] == ","
            at += 1
            return out
        if token == "[":
            out = []
            while tokens[at] != "]":
                out.append(value())
                at += tokens[at] == ","
            at += 1
            return out
        return json.loads(token) if re.match(r'"|\d+$|true$|false$', token) else None

    def skip():
        nonlocal at
        depth = 0
        while depth or tokens[at] not in ",}":
            depth += (tokens[at] in "{[(") - (tokens[at] in "}])")
            at += 1

    return value()


def check_contents():
    example = only(rendered("--values", CHART / "ci/none-values.yaml"), "PodTemplate")["template"]
    spec, sidecar = example["spec"], example["spec"]["initContainers"][0]
    security = sidecar["securityContext"]
    mounts = {mount["name"]: mount["mountPath"] for mount in sidecar["volumeMounts"]}
    facts = {
        "is the first init container, and restarted for ever": (sidecar["name"], sidecar["restartPolicy"])
        == ("ebb", "Always"),
        "has a startup probe each second": (
            sidecar["startupProbe"]["periodSeconds"],
            sidecar["startupProbe"]["httpGet"]["path"],
        )
        == (1, "/readyz"),
        "has no preStop and no readiness probe": not {"lifecycle", "readinessProbe"} & sidecar.keys(),
        "asks for as much memory as it may use": sidecar["resources"]["requests"]["memory"]
        == sidecar["resources"]["limits"]["memory"],
        "has no CPU limit": "cpu" not in sidecar["resources"]["limits"],
        "fits restricted pod security": security["runAsNonRoot"]
        and security["capabilities"] == {"drop": ["ALL"]}
        and not security["allowPrivilegeEscalation"]
        and security["seccompProfile"] == {"type": "RuntimeDefault"},
        "is resized in place": [policy["restartPolicy"] for policy in sidecar["resizePolicy"]] == ["NotRequired"] * 2,
        "mounts its configuration and the socket": mounts == {"ebb-config": "/etc/ebb", "ebb-socket": "/run/ebb"},
        "shares the socket with the application": spec["containers"][0]["volumeMounts"][0]["mountPath"] == "/run/ebb"
        and spec["containers"][0]["env"] == [{"name": "EBB_ADDR", "value": "unix:/run/ebb/ebb.sock"}],
    }
    check("the sidecar", *[f"not so: it {fact}" for fact, holds in facts.items() if not holds])

    policy = only(rendered(), "MutatingAdmissionPolicy")["spec"]
    expression = policy["mutations"][0]["jsonPatch"]["expression"]
    added = lambda path: [literal(part) for part in re.split(rf'path: "{path}",\s+value: ', expression)[1:]]
    (container,) = added("/spec/initContainers/0")
    wanted = {**sidecar, "resources": None}
    check(
        "the policy's container is the sidecar",
        *[
            f"{key}: {container.get(key)} is not {wanted.get(key)}"
            for key in container.keys() | wanted.keys()
            if container.get(key) != wanted.get(key)
        ],
    )
    volumes = added("/spec/volumes/-")
    shown = json.loads(json.dumps(spec["volumes"]))
    for volume in shown:
        for source in volume.get("projected", {}).get("sources", []):
            if "configMap" in source:
                source["configMap"]["name"] = None
    check("the policy's volumes are the sidecar's", volumes != shown and f"{volumes} is not {shown}")

    pods = [
        document["spec"]["template"]["spec"]
        for document in rendered("--values", CHART / "ci/standalone-values.yaml")
        if document["kind"] == "Deployment"
    ]
    check(
        "the stand-alone pod needs no token and no service variables",
        *[pod for pod in pods if pod["automountServiceAccountToken"] or pod["enableServiceLinks"]],
    )
    path = CHART / "ci/monitoring-values.yaml"
    documents = rendered("--values", path, *MONITORING)
    monitors = [document for document in documents if document["apiVersion"] == "monitoring.coreos.com/v1"]
    package = CACHE / "operator/node_modules/@kubernetes-models/prometheus-operator"
    if package.exists():
        command = ["node", "tests/chart/monitors.mjs", package]
        done = subprocess.run(command, input=json.dumps(monitors), capture_output=True, text=True, timeout=60)
        check(f"{len(monitors)} monitors and rules fit the operator's schema", done.returncode and done.stderr[:500])
    else:
        print("skip   monitors and rules: there is no npm to install the operator's schema with")
    without = [document for document in rendered("--values", path) if document["apiVersion"].startswith("monitoring.")]
    check("there are none where the cluster does not know them", without)
    rule = next(document for document in monitors if document["kind"] == "PrometheusRule")
    alerts = [alert for group in rule["spec"]["groups"] for alert in group["rules"]]
    ours = yaml.safe_load(read(CHART / "files/rules.yaml").replace("docs/operations.md", "https://example.com/ebb/operations"))
    check(f"the {len(alerts)} alerts arrive as they are tested", rule["spec"] != ours and "they differ")
    boards = next(document for document in documents if "dashboards" in document["metadata"]["name"])
    texts = {f"ebb-{path.name}": json.loads(read(path)) for path in CHART.glob("files/dashboards/*.json")}
    arrived = {name: json.loads(text) for name, text in boards["data"].items()}
    check(f"and the {len(texts)} dashboards, too", arrived != texts and "they differ")
    # Helm 3 wants a cluster even for a dry run on the client.
    arguments = "injector.mode=none,standalone.enabled=true,monitoring.sidecars.enabled=true"
    code, said, why = helm("helm4", "install", "ebb", CHART, "--dry-run=client", "--set", arguments)
    missing = [
        words
        for words in ("The shared cache is at ebb.default:7070", "Warning: monitoring is enabled")
        if words not in said
    ]
    check("the notes after an installation", *(missing and [*missing, why]))


# Bad values: refused by the schema with the key's name, or by a guard with its sentence.

BAD = {
    "injector.mode=webhooks": "mode",
    "injector.failurePolicy=Maybe": "failurePolicy",
    "injector.replicas=0": "replicas",
    "injector.replica=2": "replica",
    "injector.timeoutSeconds=60": "timeoutSeconds",
    "injector.tls.source=openssl": "source",
    "injector.tls.caBundle=none": "caBundle",
    "injector.tls.rotate=daily": "rotate",
    "sidecars.address=tcp": "sidecars",
    "sidecar.address=udp": "address",
    "sidecar.ports.data=70000": "data",
    "sidecar.ports.grpc=1": "grpc",
    "sidecar.resources.limits.memory=256MB": "memory",
    "sidecar.resources.limits.memory=null": "memory",
    "sidecar.resources.requests.cpu=50 m": "cpu",
    "sidecar.resources.limits.gpu=1": "gpu",
    "sidecar.config.watermark.low=1": "watermark",
    "sidecar.config.watermarks.lowest=1": "lowest",
    "sidecar.config.watermarks.low=half": "low",
    "sidecar.config.logLevel=loud": "logLevel",
    "sidecar.boot.listen=0.0.0.0:1": "listen",
    "sidecar.boot.logFormat=xml": "logFormat",
    "sidecar.configMapName=Ebb_Config": "configMapName",
    "sidecar.httpAddress=localhost": "httpAddress",
    "sidecar.runAsUser=0": "runAsUser",
    "sidecar.startupProbe.httpGet=x": "httpGet",
    "standalone.replicas=-1": "replicas",
    "standalone.service.type=ExternalName": "type",
    "standalone.pdb.maxUnavailable=one": "maxUnavailable",
    "standalone.topologySpread.whenUnsatisfiable=Never": "whenUnsatisfiable",
    "image.digest=sha256:abc": "digest",
    "image.pullPolicy=Sometimes": "pullPolicy",
    "monitoring.sidecars.interval=soon": "interval",
    "tests.enabled=maybe": "enabled",
}

GUARDS = (
    ("1.35.4", "", "injector.mode is policy, which needs Kubernetes 1.36 or newer (MutatingAdmissionPolicy v1)"),
    ("1.35.4", "", "this cluster is v1.35.4. Set injector.mode to webhook, or upgrade the cluster."),
    ("1.30.9", "injector.mode=none", "kubeVersion: >=1.31.0-0 which is incompatible with Kubernetes v1.30.9"),
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
        "sidecar.config.watermarks.critical=101",
        "sidecar.config.watermarks.critical (101%) must not be above 100%.",
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
    ("1.31.0", "injector.mode=webhook,injector.failurePolicy=Fail,injector.replicas=1", "injector.replicas is 1: while"),
    ("1.31.0", "injector.mode=webhook,injector.tls.source=secret", "injector.tls.existingSecret is empty"),
    ("1.31.0", "injector.mode=webhook,injector.tls.source=cert-manager", "Install cert-manager first"),
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


def check_refusals():
    for major in HELMS:
        problems = []
        for given, key in BAD.items():
            code, _, why = template(major, POLICY_VERSIONS[-1], "--set", given)
            if code == 0 or "schema" not in why or key not in why:
                problems.append(f"{given}: {why.strip() or 'accepted'}")
        check(f"{len(BAD)} bad values are refused by the schema, {major}", *problems)
        problems = []
        for version, given, sentence in GUARDS:
            code, _, why = template(major, version, *(("--set", given) if given else ()))
            if code == 0 or sentence not in why:
                problems.append(f"{version} {given}: {why.strip() or 'accepted'}")
        check(f"{len(GUARDS)} guards say their sentence, {major}", *problems)


def check_injected():
    """What `ebb inject` makes of the pods of tests/inject is valid in every version in which the pod itself was."""
    folder, problems, valid = pathlib.Path("tests/inject"), [], 0
    for path in sorted(folder.glob("injected/*.yaml")):
        if path.stem == "unknown-fields":
            continue
        injected, given = (yaml.safe_load(read(at)) for at in (path, folder / "pods" / path.name))
        for version in VERSIONS:
            if not validate([given], version, []):
                valid += 1
                problems += [f"{path.stem}, {version}: {problem}" for problem in validate([injected], version, [])]
    check(f"{valid} injected pods are valid, Kubernetes {VERSIONS[0]} to {VERSIONS[-1]}", *problems)


check_generated()
check_injected()
check_good_values()
check_contents()
check_refusals()
sys.exit(failures > 0)
