"""What the chart accepts starts: random values that `helm template` accepts are accepted by the programs they configure.

The check is `ebb config check --env`, which has the code of the sidecar's start, in the environment that the chart
renders; and the injector's own check of its arguments. EBB_SEED repeats a run, EBB_CASES sets the number of cases.
"""

import json
import os
import pathlib
import random
import subprocess

import pytest
import yaml

from generate import SCHEMA
from helm import HELMS, VERSIONS, objects

PROGRAM = pathlib.Path(os.environ.get("EBB_PROGRAM", "target/debug/ebb"))
SEED = int(os.environ.get("EBB_SEED", random.SystemRandom().randrange(1 << 32)))
CASES = int(os.environ.get("EBB_CASES", 240))
WHOLE = json.loads(SCHEMA.read_text())
# Values that decide how a program starts.
ROOTS = (
    "sidecar.config",
    "sidecar.static",
    "sidecar.address",
    "sidecar.bindAddress",
    "sidecar.httpAddress",
    "sidecar.ports",
    "sidecar.events",
    "sidecar.extraEnv",
    "sidecar.resources",
    "standalone.config",
    "standalone.static",
    "standalone.events",
    "standalone.extraEnv",
    "standalone.listenAddress",
    "injector.port",
    "injector.httpPort",
    "injector.listenAddress",
    "injector.events",
    "injector.tls.source",
    "injector.tls.certificateLifetime",
    "injector.tls.certificate",
    "injector.watchdog",
    "injector.excludedNamespaces",
)
SIZES = ("", "Ki", "Mi", "Gi", "Ti", "Ei", "k", "M", "G", "B", "MiB", "kB", "KB", "m", "n", "e3", "E6", "e-3", "e18", "e+19")
SPANS = ("ns", "us", "µs", "ms", "s", "m", "h", "d", "w")
NUMBERS = ("0", "1", "2", "3.5", "4", "5", "10", "15", "16", "64", "100", "128", "256", "512", "600", "1023", "1024", "2000", "2001", "3584", "65536", "16384", "16777215.9999999999999999", "3670016.0000000001", "99999999999999999999", "0.1", ".5", "1.", "+2", "00", "-1")


def leaves(schema, path):
    """Leaves of a part of the schema, as path and schema."""
    if "$ref" in schema:
        schema = WHOLE["definitions"][schema["$ref"].split("/")[-1]]
    if "properties" not in schema:
        return [(path, schema)]
    return [leaf for key, part in schema["properties"].items() for leaf in leaves(part, (*path, key))]


def part(path):
    at = WHOLE
    for key in path.split("."):
        at = at["properties"][key]
        if "$ref" in at:
            at = WHOLE["definitions"][at["$ref"].split("/")[-1]]
    return at


LEAVES = [leaf for root in ROOTS for leaf in leaves(part(root), tuple(root.split(".")))]


def value(rng, path, schema):
    """A value at, around or beyond the bounds of a part of the schema."""
    if "enum" in schema:
        return rng.choice([*schema["enum"], "x"] if rng.random() < 0.05 else schema["enum"])
    kinds = schema.get("type", "string")
    kind = rng.choice(kinds if isinstance(kinds, list) else [kinds])
    if kind == "boolean":
        return rng.random() < 0.5
    if kind in ("integer", "number"):
        low, high = schema.get("minimum", 0), schema.get("maximum", 1 << 40)
        return rng.choice([low, high, rng.randint(low, high), rng.randint(low, high), low - 1, high + 1])
    if kind == "array":
        if path[-1] == "excludedNamespaces":
            return rng.sample(["kube-system", "a", "b.c"], 2)
        names = ["EBB_CORES", "EBB_TICK", "EBB_LISTEN", "RUST_BACKTRACE", "A", "A"]
        return [{"name": rng.choice(names), "value": rng.choice(["0", "1", "x y", ""])} for _ in range(rng.randint(0, 2))]
    if path[-1] == "otlpEndpoint":
        return rng.choice(["http://localhost:4317", "http://[::1]:4317", "x y", "http://a:99999", "http://a b", "https://a", "http://"])
    if path[-1] in ("bindAddress", "listenAddress", "httpAddress"):
        return rng.choice(["127.0.0.1", "127.0.0.53", "0.0.0.0", "[::]", "[::1]", "999.1.1.1", "127.0.0.256", "[::::]", "10.1.2.3", "localhost"])
    if "%" in schema.get("pattern", ""):
        share = rng.choice([schema["minimum"], schema["maximum"], rng.randint(0, 101), rng.randint(0, 100), 80.5])
        return rng.choice(["{}%", "{}", "0{}%", "+{} %", "{}.0%"]).format(share)
    if "ms|s" in schema.get("pattern", ""):
        times = [rng.choice(NUMBERS) + rng.choice(SPANS) for _ in range(rng.choice([1, 1, 1, 2]))]
        return rng.choice([" ".join(times), "".join(times), "0"])
    if "Gi" in schema.get("pattern", "") or "GTPE" in schema.get("pattern", ""):
        return rng.choice(NUMBERS) + rng.choice(["", "", " "]) + rng.choice(SIZES)
    return rng.choice(["", "a", "x y"])


def given(rng):
    """Values that differ from the defaults in a few leaves."""
    values = {"injector": {"mode": "webhook"}, "standalone": {"enabled": True}}
    for path, schema in rng.sample(LEAVES, rng.choice([1, 1, 2, 3, 5])):
        at = values
        for key in path[:-1]:
            at = at.setdefault(key, {})
        at[path[-1]] = value(rng, path, schema)
    return values


def environment(container, folder):
    """The container's environment; its volume is a folder, and fields of the pod have any value."""
    variables = {variable["name"]: variable.get("value", "pod") for variable in container["env"]}
    return {**variables, "EBB_CONFIG": str(folder)}


def problems(rendered, folder):
    """What the programs refuse of the rendered objects."""
    found = []

    def check(what, arguments, expected, variables):
        done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, env=variables, timeout=60)
        if done.returncode != expected:
            found.append(f"{what}: exit code {done.returncode}: {done.stderr.strip()}")

    for document in rendered:
        file = folder / "ebb.yaml"
        if document["kind"] == "ConfigMap" and "sidecar.yaml" in document["data"]:
            (template,) = objects(document["data"]["sidecar.yaml"])
            file.unlink(missing_ok=True)
            (sidecar,) = template["template"]["spec"]["initContainers"]
            check("sidecar", ["config", "check", "--env"], 0, environment(sidecar, folder))
        elif document["kind"] == "ConfigMap" and "ebb.yaml" in document["data"]:
            text = document["data"]["ebb.yaml"]
        elif document["kind"] == "Deployment":
            (container,) = document["spec"]["template"]["spec"]["containers"]
            if "env" in container and container["args"] == ["serve"]:
                file.write_text(text)
                check("standalone", ["config", "check", "--env"], 0, environment(container, folder))
            else:
                # Arguments are checked before the template is read, and this template does not exist.
                arguments = [argument for argument in container["args"] if not argument.startswith("--template")]
                check("injector", [*arguments, "--template=/nonexistent/template"], 64, {})
    return found


@pytest.fixture
def run(helm, tmp_path):
    def run(major, values, number):
        file = tmp_path / f"{number}.json"
        # As YAML, since Helm reads the numbers of JSON as floats, too.
        file.write_text(yaml.safe_dump(values, allow_unicode=True))
        options = {"chart": pathlib.Path(os.environ["EBB_CHART"])} if "EBB_CHART" in os.environ else {}
        result = helm.template_anew(major, VERSIONS[-1], "--values", file, **options)
        return None if result.code else problems(objects(result.text), tmp_path)

    return run


def test_what_the_chart_accepts_starts(run):
    print(f"EBB_SEED={SEED}")
    rng = random.Random(SEED)
    accepted, wrong = 0, []
    for number in range(CASES):
        values = given(rng)
        found = run(HELMS[number % 2], values, number)
        accepted += found is not None
        wrong += [f"{json.dumps(values)}: {problem}" for problem in found or []]
    assert not wrong, f"EBB_SEED={SEED}, {accepted} of {CASES} accepted\n" + "\n".join(wrong)
    # The test is worth little if almost everything is refused.
    assert CASES / 5 < accepted < CASES, f"EBB_SEED={SEED}"


# Edges of the bounds, as (values, whether the chart accepts them).
EDGES = {
    "sidecar.static.maxValue=3584Ki": True,
    "sidecar.static.maxValue=3.5Mi": True,
    "sidecar.static.maxValue=4Mi": False,
    "sidecar.static.maxValue=3670016.0000000001": False,
    "sidecar.static.maxValue=0": False,
    "sidecar.static.maxValue=4MB": False,
    "sidecar.static.streamWindow=31Ki": False,
    "sidecar.static.headerList=1025Ki": False,
    "sidecar.static.defaultMemory=15Mi": False,
    "sidecar.static.inFlight=1Ki": False,
    "sidecar.static.cores=0": False,
    "sidecar.static.cores=64": True,
    "sidecar.static.cores=65": False,
    "sidecar.static.streams=0": False,
    "sidecar.static.connections=65537": False,
    "sidecar.static.otlpEndpoint=x y": False,
    "sidecar.static.otlpEndpoint=http://agent:4317": True,
    "sidecar.static.idleTimeout=0": False,
    "sidecar.static.handshakeTimeout=9ms": False,
    "sidecar.config.tick=5ms": False,
    "sidecar.config.tick=2s": True,
    "sidecar.config.tick=2001ms": False,
    "sidecar.config.pacing.cpu=0%": False,
    "sidecar.config.pacing.stepMicros=9": False,
    "sidecar.config.maxMemory=0": True,
    "sidecar.config.maxMemory=1Mi": False,
    "sidecar.config.maxMemory=16Mi": True,
    "sidecar.config.drift.busyOccupancy=49%": False,
    "sidecar.config.drift.busyOccupancy=98%": False,
    "sidecar.config.drift.idleOccupancy=90%": False,
    "sidecar.config.watermarks.high=100%": False,
    "standalone.static.maxValue=4Mi": False,
    "standalone.config.tick=5ms": False,
    "injector.watchdog.maxPerMinute=601": False,
    "injector.watchdog.interval=1ms": False,
    "injector.tls.certificateLifetime=8760h": False,
    "sidecar.bindAddress=10.1.2.3": False,
    "sidecar.httpAddress=127.0.0.1": False,
    "sidecar.extraEnv[0].name=EBB_CORES,sidecar.extraEnv[0].value=x": False,
}


@pytest.mark.parametrize("major", HELMS)
@pytest.mark.parametrize("given, fits", EDGES.items(), ids=EDGES)
def test_edges_of_the_bounds(helm, major, given, fits):
    result = helm.template(major, VERSIONS[-1], "--set", f"standalone.enabled=true,{given}")
    assert (result.code == 0) == fits, result.why
