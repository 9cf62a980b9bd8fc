"""Generates parts of the chart: settings in its schema, the table of values, and manifests/.

    generate.py TOOLS    rewrites the files; see tests/chart.sh
"""

import functools
import json
import pathlib
import re
import sys

import yaml

from helm import CHART, VERSIONS, Helm

MANIFESTS = pathlib.Path("manifests")
SCHEMA = CHART / "values.schema.json"
README = CHART / "README.md"
DEFAULTS = CHART / "files/defaults.yaml"
BOUNDS = CHART / "files/bounds.yaml"
# Settings that the chart derives from its own values.
OWN = {"listen", "socket", "adminListen", "adminSocket", "httpListen", "limitFile", "requestFile", "cgroupRoot", "pod"}


def ebb_settings():
    """Ebb's own schema, by setting."""
    return json.loads(pathlib.Path("docs/configuration.schema.json").read_text())["properties"]


def reference_page():
    """docs/configuration.md in two parts: dynamic and static settings."""
    return pathlib.Path("docs/configuration.md").read_text().split("## Static settings")


def settings(schema):
    """Converts a part of Ebb's schema to the draft of both Helm majors, and refuses unknown keys at every level."""
    kept = ("type", "description", "properties", "enum", "const", "oneOf", "pattern", "minimum", "maximum")
    out = {key: value for key, value in schema.items() if key in kept}
    if "oneOf" in out:
        out = {
            "enum": [choice["const"] for choice in out["oneOf"]],
            "description": out["description"],
            "type": "string",
        }
    if "properties" in out:
        out["properties"] = {key: settings(value) for key, value in out["properties"].items()}
        out["additionalProperties"] = False
    return out


def parts():
    """The settings of the chart's `config` and `static`, as name of the schema's definition and properties."""
    ours = ebb_settings()
    for part, text in zip(("live", "static"), reference_page(), strict=True):
        keys = sorted({key.split(".")[0] for key in re.findall(r"^\| `([\w.]+)` \|", text, re.M)} - OWN)
        yield part, {key: ours[key] for key in keys}


def schema(_helm):
    out = json.loads(SCHEMA.read_text())
    for part, properties in parts():
        out["definitions"][part] = settings({"type": "object", "properties": properties})
    return json.dumps(out, indent=2, ensure_ascii=False) + "\n"


def amounts(properties, path=()):
    """Sizes and durations among settings, as path and schema."""
    for key, setting in properties.items():
        if "x-minimum" in setting:
            yield ".".join((*path, key)), setting
        yield from amounts(setting.get("properties", {}), (*path, key))


def bounds(_helm):
    """What the schema cannot express: bounds of amounts in strings, and defaults of settings that are compared."""
    out = [
        "# Generated from docs/configuration.schema.json by `tests/chart.sh CACHE_DIR --bless`; do not edit.",
        "# Bounds of sizes (in bytes) and durations (in milliseconds); templates/validate.yaml compares them.",
    ]
    for part, properties in parts():
        out.append({"live": "config", "static": "static"}[part] + ":")
        for path, setting in sorted(amounts(properties)):
            unit = "bytes" if "number" in setting["type"] else "milliseconds"
            out.append(
                f"  {path}: {{unit: {unit}, min: {setting['x-minimum']}, max: {setting['x-maximum']}, "
                f"zero: {json.dumps(setting.get('x-zero', False))}, range: {json.dumps(setting['x-range'])}}}"
            )
    drift = ebb_settings()["drift"]["properties"]
    out.append("# Defaults of settings that are compared with others.\ndrift:")
    out += [f"  {key}: {json.dumps(drift[key]['default'])}" for key in ("busyOccupancy", "idleOccupancy")]
    return "\n".join(out) + "\n"


def commented_values():
    """Keys of values.yaml with their own comment, as (path, comment), and keys without one."""
    found, without, stack, comment = [], [], [], None
    for line in (CHART / "values.yaml").read_text().splitlines():
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


def defaults(_helm):
    """The values again: a template cannot read values.yaml, and completes values from this file."""
    header = "# Generated from values.yaml by `tests/chart.sh CACHE_DIR --bless`; do not edit.\n"
    return header + yaml.safe_dump(yaml.safe_load((CHART / "values.yaml").read_text()), sort_keys=False, width=120)


def readme(_helm):
    before, rest = README.read_text().split("<!-- values: generated -->\n")
    _, after = rest.split("<!-- end of values -->\n")
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    rows = ["| value | default | meaning |", "|---|---|---|"]
    for path, comment in commented_values()[0]:
        default = functools.reduce(lambda at, key: at[key], path.split("."), values)
        rows.append(f"| `{path}` | `{json.dumps(default)}` | {comment} |")
    table = "\n".join(rows) + "\n"
    return f"{before}<!-- values: generated -->\n{table}<!-- end of values -->\n{after}"


def manifest(given, namespace, helm):
    result = helm.template_anew("helm4", VERSIONS[-1], "--set", f"tests.enabled=false,{given}")
    assert result.code == 0, result.why
    # These manifests are not managed by Helm.
    marks = re.compile(r"managed-by: Helm$|helm\.sh/chart: |^# Source: ")
    text = "\n".join(line for line in result.text.splitlines() if not marks.search(line))
    first = "---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: ebb-system\n" if namespace else ""
    header = "# Rendered from charts/ebb by `tests/chart.sh CACHE_DIR --bless`; do not edit.\n"
    return header + first + text.strip() + "\n"


# Functions that generate each file. The order matters: manifests are rendered with the schema.
FILES = {
    SCHEMA: schema,
    DEFAULTS: defaults,
    BOUNDS: bounds,
    README: readme,
    MANIFESTS / "webhook.yaml": functools.partial(manifest, "injector.mode=webhook", True),
    MANIFESTS / "policy.yaml": functools.partial(manifest, "injector.mode=policy", False),
    MANIFESTS / "standalone.yaml": functools.partial(manifest, "injector.mode=none,standalone.enabled=true", True),
    MANIFESTS / "sidecar.yaml": functools.partial(manifest, "injector.mode=none,sidecar.example=true", True),
}

if __name__ == "__main__":
    for path, make in FILES.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(make(Helm(pathlib.Path(sys.argv[1]))))
