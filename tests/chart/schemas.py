"""Checks objects against strict schemas: Kubernetes' own and those of foreign kinds.

What a schema cannot see, such as the types inside a CEL expression, is left to tests/cluster, which has an API server.
"""

import json
import subprocess

import kubernetes_validate

from helm import FOREIGN, label


def problems(documents, version):
    """Violations of the schemas of a Kubernetes version, without foreign kinds."""
    found = []
    for document in documents:
        if document["apiVersion"] in FOREIGN:
            continue
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            found.append(f"{label(document)}: there is no such kind")
        except kubernetes_validate.ValidationError as error:
            found.append(f"{label(document)}: {'.'.join(map(str, error.path))}: {error.message[:200]}")
    return found


def foreign_problem(kinds, group, documents):
    """Violations of the schemas of a foreign group in the folder `kinds`, as text; empty if there are none."""
    package = kinds / FOREIGN[group] / "node_modules/@kubernetes-models" / FOREIGN[group]
    command = ["node", "tests/chart/kinds.mjs", package]
    done = subprocess.run(command, input=json.dumps(documents), capture_output=True, text=True, timeout=60)
    return (done.stderr[-500:] or f"exit code {done.returncode}") if done.returncode else ""
