"""Checks the chart; see tests/chart.sh. One line a check; ends with 1 when one failed.

Objects are held against the strict schemas of the Kubernetes versions they are for. What a schema cannot see, such as
the types inside a CEL expression, is left to tests/cluster, which has an API server.
"""

import difflib
import functools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import kubernetes_validate
import yaml

import security

CACHE = pathlib.Path(sys.argv[1])
BLESS = "--bless" in sys.argv[2:]
CHART = pathlib.Path("charts/ebb")
MANIFESTS = pathlib.Path("manifests")
HELMS = ("helm3", "helm4")
# A policy needs 1.36; all else works from 1.31 on.
VERSIONS = tuple(f"1.{minor}.0" for minor in range(31, 38))
POLICY_VERSIONS = ("1.36.0", "1.37.0")
# Kinds that Kubernetes has no schema for: what a cluster that has them says, and whose package has their schemas.
FOREIGN = {"monitoring.coreos.com/v1": "prometheus-operator", "cert-manager.io/v1": "cert-manager"}

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


def template(major, version, *arguments, known=tuple(FOREIGN), chart=CHART):
    """What the chart renders for a cluster of that version, which has the foreign kinds that are known."""
    has = [argument for kinds in known for argument in ("--api-versions", kinds)]
    return helm(major, "template", "ebb", chart, "--namespace", "ebb-system", "--kube-version", version, *has, *arguments)


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
OWN = {"listen", "socket", "adminListen", "adminSocket", "httpListen", "limitFile", "cgroupRoot", "pod"}
# Variables that are no knobs.
OTHER = {"EBB_CONFIG", "EBB_ADDR", "EBB_ADMIN_ADDR", "EBB_INJECTOR_IDENTITY"}


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
    check("the schema lets no unknown key through", *lenient(schema, "values"))
    check("the schema and values.yaml have the same keys", *sorted(unlike(schema, values, schema["definitions"], "")))
    text = "".join(read(path) for path in sorted(CHART.glob("templates/**/*")) if path.is_file())
    leaves = {path.split(".")[-1] for path, _ in commented()[0]}
    check("every value is read by a template", *sorted(leaf for leaf in leaves if not re.search(rf"\b{leaf}\b", text)))
    variables = set(re.findall(r"`(EBB_\w+)`", live + boot)) | OTHER
    set_by_us = set(re.findall(r"\bEBB_\w+", text + "".join(read(path) for path in MANIFESTS.glob("*.yaml"))))
    check("every variable that is set is one that Ebb reads", *sorted(set_by_us - variables - {"EBB"}))
    defaults = {mark: knob["default"] for mark, knob in ours["watermarks"]["properties"].items()}
    shown = [values[part]["config"]["watermarks"] for part in ("sidecar", "standalone")]
    check("the watermarks are Ebb's own defaults", *[part for part in shown if part != defaults])

    same = read(CHART / "values-ha.yaml") == read(CHART / "ci/ha-values.yaml")
    check("values-ha.yaml is ci/ha-values.yaml", not same and "they differ")

    header = "# Rendered from charts/ebb by `tests/chart.sh CACHE_DIR --bless`; do not edit.\n"
    namespace = "---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: ebb-system\n"
    for name, given, first in (
        ("webhook", "injector.mode=webhook", namespace),
        ("policy", "injector.mode=policy", ""),
        ("standalone", "injector.mode=none,standalone.enabled=true", namespace),
        ("sidecar", "injector.mode=none,sidecar.example=true", namespace),
    ):
        code, text, why = template("helm4", VERSIONS[-1], "--set", f"tests.enabled=false,{given}")
        # Nobody manages these with Helm.
        lines = [
            line for line in text.splitlines() if not re.search(r"managed-by: Helm$|helm\.sh/chart: |^# Source: ", line)
        ]
        generated(MANIFESTS / f"{name}.yaml", header + first + "\n".join(lines).strip() + "\n" if code == 0 else why)


def lenient(schema, path):
    """Objects of the schema that take keys it does not know; `global` is shared with other charts."""
    if isinstance(schema, list):
        return [found for part in schema for found in lenient(part, path)]
    if not isinstance(schema, dict):
        return []
    is_shared = path == "values.properties.global"
    is_open = "properties" in schema and schema.get("additionalProperties") is not False and not is_shared
    return [path] * is_open + [found for key, part in schema.items() for found in lenient(part, f"{path}.{key}")]


def commented():
    """The keys of values.yaml with a comment of their own, as (path, comment); and those without."""
    found, without, stack, comment = [], [], [], None
    for line in read(CHART / "values.yaml").splitlines():
        if matched := re.match(r" *# -- (.*)", line):
            comment = matched[1]
        elif comment is not None and (matched := re.match(r" *# (.*)", line)):
            comment = f"{comment} {matched[1]}"
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


def validate(documents, version):
    """What the schemas of a Kubernetes version find; foreign kinds are not theirs."""
    problems = []
    for document in documents:
        if document["apiVersion"] in FOREIGN:
            continue
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            problems.append(f"{version}: {label(document)}: there is no such kind")
        except kubernetes_validate.ValidationError as error:
            problems.append(f"{version}: {label(document)}: {'.'.join(map(str, error.path))}: {error.message[:200]}")
    return problems


def foreign_problem(group, documents):
    """The first thing that the schemas of a foreign group find; none if all is well."""
    package = CACHE / "kinds" / FOREIGN[group] / "node_modules/@kubernetes-models" / FOREIGN[group]
    command = ["node", "tests/chart/kinds.mjs", package]
    done = subprocess.run(command, input=json.dumps(documents), capture_output=True, text=True, timeout=60)
    return done.returncode and (done.stderr[-500:] or "it ended without a word")


def check_foreign():
    """All objects of foreign kinds that ci/ leads to, against the schemas of whose they are."""
    if not (CACHE / "kinds").exists():
        return print("skip   monitors and certificates: there is no npm to install their schemas with")
    everything = [document for path in sorted(CHART.glob("ci/*-values.yaml")) for document in rendered("--values", path)]
    for group, package in FOREIGN.items():
        documents = [document for document in everything if document["apiVersion"] == group]
        kinds = sorted({document["kind"] for document in documents})
        found = foreign_problem(group, documents)
        check(f"{len(documents)} objects fit the schemas of {package}: {', '.join(kinds)}", found)
        for kind in kinds:
            found = next(document for document in documents if document["kind"] == kind)
            broken = {**found, "spec": {**found["spec"], "planted": True}}
            if not foreign_problem(group, [broken]):
                check(f"a {kind} with a field that is none is noticed", "it is not")


def check_good_values():
    for path in sorted(CHART.glob("ci/*-values.yaml")):
        given = yaml.safe_load(read(path)) or {}
        needs_policy = given.get("injector", {}).get("mode") == "policy"
        versions = POLICY_VERSIONS if needs_policy else VERSIONS
        problems, renders = [], []
        for major in HELMS:
            code, said, why = helm(major, "lint", "--strict", CHART, "--values", path, "--kube-version", versions[-1])
            if code != 0:
                problems.append(f"{major} lint: {said}{why}")
            for version in (versions[0], versions[-1], versions[-1]):
                code, text, why = template(major, version, "--values", path)
                if code != 0:
                    problems.append(f"{major}: {why}")
                renders.append((major, text))
        if len({(major, text) for major, text in renders}) > len(HELMS):
            problems.append("two renders of one Helm differ")
        # Kinds that one major has no place for come in another order.
        three, four = (sorted(objects(dict(renders)[major]), key=label) for major in HELMS)
        if three != four:
            problems.append("the two majors of Helm render different objects")
        for version in versions:
            problems += validate(four, version)
        check(f"ci/{path.name}: {len(four)} objects, Kubernetes {versions[0]} to {versions[-1]}, Helm 3 and 4", *problems)


# What the objects must say.


@functools.cache
def rendered(*arguments, **known):
    return objects(template("helm4", VERSIONS[-1], *arguments, **known)[1])


def only(documents, kind):
    (document,) = [document for document in documents if document["kind"] == kind]
    return document


def with_values(name, **known):
    return rendered("--values", CHART / f"ci/{name}-values.yaml", **known)


def check_sidecar():
    spec = only(with_values("none"), "PodTemplate")["template"]["spec"]
    sidecar = spec["initContainers"][0]
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
        "is resized in place": [policy["restartPolicy"] for policy in sidecar["resizePolicy"]] == ["NotRequired"] * 2,
        "mounts its configuration and the socket": mounts == {"ebb-config": "/etc/ebb", "ebb-socket": "/run/ebb"},
        "shares the socket with the application": spec["containers"][0]["volumeMounts"][0]["mountPath"] == "/run/ebb"
        and spec["containers"][0]["env"] == [{"name": "EBB_ADDR", "value": "unix:/run/ebb/ebb.sock"}],
    }
    check("the sidecar", *[f"not so: it {fact}" for fact, holds in facts.items() if not holds])


def pods(documents):
    """What is run: (whose, the spec). Of a PodTemplate the sidecar is ours, and the application is not."""
    for document in documents:
        if document["kind"] == "Deployment":
            yield label(document), document["spec"]["template"]["spec"]
        elif document["kind"] == "Pod":
            yield label(document), document["spec"]
        elif document["kind"] == "PodTemplate":
            yield label(document), {**document["template"]["spec"], "containers": []}
        elif document["kind"] == "ConfigMap" and "sidecar.yaml" in document["data"]:
            yield from pods(objects(document["data"]["sidecar.yaml"]))


def check_pod_security():
    seen, said = 0, []
    for path in sorted(CHART.glob("ci/*-values.yaml")):
        expected = ["hostNetwork is true"] if path.name.startswith("host-network") else []
        for whose, spec in pods(rendered("--values", path)):
            found, seen = security.problems(spec), seen + 1
            ours = expected if whose == "Deployment ebb-injector" else []
            said += [f"{path.name}: {whose}: {found} instead of {ours}"] if found != ours else []
    check(f"{seen} pods that ci/ leads to fit restricted pod security", *said)
    run = dict(pods(with_values("pss")))
    kinds = {"Deployment ebb", "Deployment ebb-injector", "Pod ebb-test-check", "Pod ebb-test-injection"}
    kinds |= {"Pod ebb-test-standalone", "PodTemplate ebb-sidecar"}
    check("ci/pss-values.yaml has each of them", *(kinds ^ run.keys()))
    spec = run["Deployment ebb-injector"]
    check(f"{len(security.PLANTED)} planted faults are noticed", *security.unnoticed(spec))


def rules(documents, kind):
    return [rule for document in documents if document["kind"] == kind for rule in document["rules"]]


def check_rights():
    """What costs a right is off as it comes, and brings the right along when it is on."""
    evicting = {"apiGroups": [""], "resources": ["pods/eviction"], "verbs": ["create"]}
    listing = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}
    plain, watching = rules(with_values("default"), "ClusterRole"), rules(with_values("watchdog"), "ClusterRole")
    added = [rule for rule in watching if rule not in plain]
    arguments = only(with_values("watchdog"), "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]
    wanted = {"--watchdog", "--watchdog-interval=1m", "--watchdog-max-per-minute=20"}
    wanted |= {"--watchdog-excluded=kube-system,kube-public,kube-node-lease", "--lease=ebb-injector"}
    check("the watchdog may list and evict pods, and nothing more", added != [listing, evicting] and added)
    check("and is told how often and how many", *(wanted - set(arguments)))
    documents = with_values("events")
    found = rules([document for document in documents if document["metadata"]["name"] == "ebb-standalone"], "Role")
    wanted = [{"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]}]
    check("a stand-alone cache with Events may write Events", found != wanted and found)
    for name, token in (("standalone", False), ("events", True)):
        spec = dict(pods(with_values(name)))["Deployment ebb"]
        facts = (spec["automountServiceAccountToken"], "serviceAccountName" in spec, spec["enableServiceLinks"])
        expected = (token, token, False)
        check(f"it has {'a' if token else 'no'} token, ci/{name}-values.yaml", facts != expected and facts)
    bound = [document["kind"] for document in rendered("--set", "rbac.create=false") if "Role" in document["kind"]]
    check("rbac.create: false leaves no role", *bound)


def check_selectors():
    """Expressions of one's own come beside those that keep the system's and the injector's own namespaces out."""
    excluded = ["kube-system", "kube-public", "kube-node-lease", "ebb-system"]
    ours = {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": excluded}
    theirs = {"key": "environment", "operator": "NotIn", "values": ["test", "build"]}
    batch = {"key": "batch", "operator": "DoesNotExist"}
    for name in ("selectors", "selectors-policy"):
        documents = with_values(name)
        places = [webhook for document in documents for webhook in document.get("webhooks", [])]
        bindings = [document for document in documents if document["kind"] == "MutatingAdmissionPolicyBinding"]
        bindings = [binding for binding in bindings if not binding["metadata"]["name"].startswith("test.")]
        places += [binding["spec"]["matchResources"] for binding in bindings]
        bad = [
            place
            for place in places
            if place["namespaceSelector"]["matchExpressions"] != [ours, theirs]
            or batch not in place["objectSelector"]["matchExpressions"]
        ]
        check(f"selectors add to ours, ci/{name}-values.yaml", len(places) != 2 and f"{len(places)} places", *bad)


def check_monitoring():
    path = CHART / "ci/monitoring-values.yaml"
    documents = rendered("--values", path)
    without = [document for document in rendered("--values", path, known=()) if document["apiVersion"] in FOREIGN]
    check("there are no monitors where the cluster does not know them", *map(label, without))
    services = [document for document in documents if document["kind"] == "Service"]
    unmatched = []
    for monitor in documents:
        if monitor["kind"] == "ServiceMonitor":
            wanted = monitor["spec"]["selector"]["matchLabels"].items()
            found = [one for one in services if wanted <= one["metadata"]["labels"].items()]
            ports = [port["name"] for service in found for port in service["spec"]["ports"]]
            unmatched += [label(monitor)] if len(found) != 1 or monitor["spec"]["endpoints"][0]["port"] not in ports else []
    check("a ServiceMonitor finds its Service and port", *unmatched)
    rule = only(documents, "PrometheusRule")
    alerts = [alert for group in rule["spec"]["groups"] for alert in group["rules"]]
    ours = yaml.safe_load(read(CHART / "files/rules.yaml").replace("docs/operations.md", "https://example.com/ebb/operations"))
    check(f"the {len(alerts)} alerts arrive as they are tested", rule["spec"] != ours and "they differ")
    for what, there, *arguments in (
        ("no webhook", False, "--set", "injector.mode=none"),
        ("a webhook that is not scraped", False, "--set", "monitoring.injector.enabled=false"),
        ("one that is by its annotations", True, "--set", "monitoring.injector.enabled=false,monitoring.annotations.enabled=true"),
    ):
        groups = only(rendered("--values", path, *arguments), "PrometheusRule")["spec"]["groups"]
        wanted = ours["groups"] if there else [group for group in ours["groups"] if group["name"] != "ebb-webhook"]
        check(f"{what}: {len(groups)} groups of alerts", groups != wanted and [group["name"] for group in groups])
    boards = next(document for document in documents if "dashboards" in document["metadata"]["name"])
    texts = {f"ebb-{path.name}": json.loads(read(path)) for path in CHART.glob("files/dashboards/*.json")}
    arrived = {name: json.loads(text) for name, text in boards["data"].items()}
    check(f"and the {len(texts)} dashboards, too", arrived != texts and "they differ")


# The notes after an installation: values, the foreign kinds that are known, and words that must be there, or (-) must not.
TEST = "helm test ebb --namespace ebb-system"
NOTES = (
    ("image.tag=v1", FOREIGN, ("kubectl label namespace NAME ebb-cache.io/inject=enabled", "ebb check", TEST, "-Warning")),
    ("injector.mode=policy", FOREIGN, ("kubectl label namespace NAME", TEST, "-Warning")),
    ("injector.mode=none", FOREIGN, ("injector.mode is none: nothing is injected.", "-helm test", "-Warning")),
    ("injector.excludedNamespaces={kube-system,default}", FOREIGN, ("kube-system, default, ebb-system.", "-helm test")),
    ("injector.replicas=1", FOREIGN, ("Warning: there is one pod of the webhook.",)),
    ("standalone.enabled=true", FOREIGN, ("The shared cache is at ebb.ebb-system:7070", "configmap ebb-standalone")),
    ("sidecar.address=tcp", FOREIGN, ("EBB_ADDR says: 127.0.0.1:7070",)),
    ("monitoring.rules.enabled=true", FOREIGN, ("-Warning",)),
    ("monitoring.rules.enabled=true", (), ("Warning: monitoring is enabled",)),
)


def check_notes():
    """Helm 3 shows notes to a cluster only, so both majors render them as the text of an object."""
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(CHART, pathlib.Path(folder) / "ebb")
        (copy / "templates/NOTES.txt").rename(copy / "NOTES.txt")
        shown = "kind: ConfigMap\nmetadata: {name: notes}\ndata:\n  notes: {{ tpl (.Files.Get \"NOTES.txt\") . | toJson }}\n"
        (copy / "templates/notes.yaml").write_text(shown)
        for major in HELMS:
            problems = []
            for given, known, words in NOTES:
                arguments = ("--set", given, "--show-only", "templates/notes.yaml")
                code, text, why = template(major, VERSIONS[-1], *arguments, known=known, chart=copy)
                said = objects(text)[0]["data"]["notes"] if code == 0 else ""
                bad = [word for word in words if (word.lstrip("-") in said) == word.startswith("-")]
                problems += [f"{given}: {bad} of {said or why}"] if bad or "no value" in said or "%!" in said else []
            check(f"{len(NOTES)} notes after an installation, {major}", *problems)
    code, said, why = helm("helm4", "install", "ebb", CHART, "--dry-run=client")
    check("and they are what Helm 4 shows", *([] if "kubectl label namespace NAME" in said else [why]))


# Amounts in every form: what is Kubernetes' own takes what Kubernetes takes, what is Ebb's takes what its parser takes.

MEMORY = ("0.5Gi", "129e6", "1.29E8", "128974848000m", ".5Gi", "+64Mi", "1.5Gi", "1Ti", "1e9", "0.001Ti", "2E", "16777216")
LENGTHS = ("90s", "1m30s", "1.5h", "2h", "1h 30m", "90000ms")
# As numbers of a values file, which Helm reads as floats.
NUMBERS = {"memory": (129e6, 67108864, 1e9), "watermark": (80, 80.0, "80.0%", "+80", "080 %")}


def check_amounts():
    def sidecar_memory(documents):
        container = only(documents, "PodTemplate")["template"]["spec"]["initContainers"][0]
        return container["resources"]["limits"]["memory"]

    def argument(documents, name):
        spec = next(one for one in documents if one["kind"] == "Deployment")["spec"]["template"]["spec"]
        found = [word for word in spec["containers"][0]["args"] if word.startswith(f"--{name}=")]
        return found[0].split("=")[1] if found else None

    for major in HELMS:
        problems = []

        def renders(given, read, expected, *arguments):
            code, text, why = template(major, VERSIONS[-1], *arguments)
            found = code == 0 and read(objects(text))
            if found != expected:
                problems.append(f"{given}: {why.strip() or found}")

        for size in MEMORY:
            given = f"sidecar.resources.limits.memory={size},injector.mode=none,sidecar.example=true"
            renders(given, lambda documents: str(sidecar_memory(documents)), size, "--set", given)
            for mode in ("webhook", "policy"):
                given = f"injector.mode={mode},sidecar.resources.requests.memory={size},standalone.resources.limits.memory={size}"
                renders(given, bool, True, "--set", given)
        for length in LENGTHS:
            given = f"injector.tls.rotate={length},injector.watchdog.enabled=true,injector.watchdog.interval={length}"
            renders(given, lambda documents: argument(documents, "leaf"), length, "--set", given)
            renders(given, lambda documents: argument(documents, "watchdog-interval"), length, "--set", given)
        for given in (
            "monitoring.sidecars.enabled=true,monitoring.sidecars.interval=1m30s",
            "injector.tls.source=cert-manager,injector.tls.certificate.duration=2160h0m0s",
            "sidecar.resources.limits.cpu=15e-1,sidecar.resources.requests.cpu=.25",
            "sidecar.resources.requests.cpu=250000u",
        ):
            renders(given, bool, True, "--set", given)
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "values.yaml"
            for number in NUMBERS["memory"]:
                values = {"injector": {"mode": "none"}, "sidecar": {"example": True, "resources": {"limits": {"memory": number}}}}
                path.write_text(json.dumps(values))
                renders(number, lambda documents: float(sidecar_memory(documents)), float(number), "--values", path)
            for share in NUMBERS["watermark"]:
                for low, taken in ((share, True), ("95%", False)):
                    marks = {"low": low, "high": share if low != share else "94%"}
                    path.write_text(json.dumps({"sidecar": {"config": {"watermarks": marks}}}))
                    code, _, why = template(major, VERSIONS[-1], "--values", path)
                    if (code == 0) != taken or not taken and "(95%) must be below" not in why:
                        problems.append(f"watermarks {marks}: {why.strip() or 'accepted'}")
        check(f"amounts are taken in every form, {major}", *problems)


# Bad values: refused by the schema with the key's name, or by a guard with its sentence.

BAD = {
    "injector.mode=webhooks": "mode",
    "injector.failurePolicy=Maybe": "failurePolicy",
    "injector.replicas=0": "replicas",
    "injector.replica=2": "replica",
    "injector.timeoutSeconds=60": "timeoutSeconds",
    "injector.port=443": "port",
    "injector.watchdog.maxPerMinute=0": "maxPerMinute",
    "injector.watchdog.interval=often": "interval",
    "injector.rbac.create=true": "rbac",
    "injector.listenAddress=localhost": "listenAddress",
    "injector.hostNetwork=maybe": "hostNetwork",
    "injector.pdb.maxUnavailable=half": "maxUnavailable",
    "injector.podLabels.app\\.kubernetes\\.io/name=mine": "app.kubernetes.io/name",
    "injector.namespaceSelector.matchLabels.a=b": "matchLabels",
    "injector.objectSelector.matchExpressions[0].operator=Is": "operator",
    "injector.networkPolicy.egressTo[0].cidr=10.0.0.1/32": "cidr",
    "injector.tls.source=openssl": "source",
    "injector.tls.caBundle=none": "caBundle",
    "injector.tls.rotate=daily": "rotate",
    "injector.tls.certificate.duration=90d": "duration",
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
    "sidecar.boot.drainTimeout=1500": "drainTimeout",
    "injector.tls.rotate=0s": "rotate",
    "injector.watchdog.interval=5": "interval",
    "monitoring.injector.interval=1.5m": "interval",
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
    "monitoring.injector.kind=Probe": "kind",
    "monitoring.annotation.enabled=true": "annotation",
    "tests.enabled=maybe": "enabled",
}

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
    ("1.37.0", "injector.tls.rotate=2s999ms", "injector.tls.rotate (2s999ms) must be 3s to 2920h: a certificate ends"),
    ("1.37.0", "injector.tls.rotate=18w", "injector.tls.rotate (18w) must be 3s to 2920h: a certificate ends"),
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


def unfired(said):
    """Sentences of validate.yaml that are not among what was said; one is about what a cluster has already."""
    text = read(CHART / "templates/validate.yaml")
    sentences = [json.loads(found) for found in re.findall(r'fail \(?(?:printf )?("(?:[^"\\]|\\.)*")', text)]
    pattern = lambda sentence: re.sub(r"%[sd]", ".*", re.escape(sentence).replace("%%", "%"))
    return [
        sentence
        for sentence in sentences
        if not re.search(pattern(sentence), said) and "injects in this cluster already" not in sentence
    ]


def check_refusals():
    for major in HELMS:
        problems, said = [], ""
        for given, key in BAD.items():
            code, _, why = template(major, VERSIONS[-1], "--set", given)
            if code == 0 or "schema" not in why or key not in why:
                problems.append(f"{given}: {why.strip() or 'accepted'}")
        check(f"{len(BAD)} bad values are refused by the schema, {major}", *problems)
        problems = []
        for version, given, sentence in GUARDS:
            code, _, why = template(major, version, "--set", given, known=())
            said += why
            if code == 0 or sentence not in why:
                problems.append(f"{version} {given}: {why.strip() or 'accepted'}")
        check(f"{len(GUARDS)} guards say their sentence, {major}", *problems)
        check("and no other is there", *unfired(said))


def check_injected():
    """What `ebb inject` makes of the pods of tests/inject is valid in every version in which the pod itself was."""
    folder, problems, valid = pathlib.Path("tests/inject"), [], 0
    for path in sorted(folder.glob("injected/*.yaml")):
        if path.stem == "unknown-fields":
            continue
        injected, given = (yaml.safe_load(read(at)) for at in (path, folder / "pods" / path.name))
        for version in VERSIONS:
            if not validate([given], version):
                valid += 1
                problems += [f"{path.stem}, {version}: {problem}" for problem in validate([injected], version)]
    check(f"{valid} injected pods are valid, Kubernetes {VERSIONS[0]} to {VERSIONS[-1]}", *problems)


check_generated()
check_injected()
check_good_values()
check_amounts()
check_foreign()
check_sidecar()
check_pod_security()
check_rights()
check_selectors()
check_monitoring()
check_notes()
check_refusals()
sys.exit(failures > 0)
