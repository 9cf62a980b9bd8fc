"""Renders the chart with both majors of Helm, and finds objects in the result."""

import functools
import os
import pathlib
import subprocess
from typing import NamedTuple

import yaml

CHART = pathlib.Path("charts/ebb")
CI = sorted(CHART.glob("ci/*-values.yaml"))
HELMS = ("helm3", "helm4")
# A policy needs 1.36; everything else works with 1.31 or newer.
VERSIONS = tuple(f"1.{minor}.0" for minor in range(31, 38))
POLICY_VERSIONS = ("1.36.0", "1.37.0")
# Foreign kinds by API group, with the npm package of their schemas.
FOREIGN = {"monitoring.coreos.com/v1": "prometheus-operator", "cert-manager.io/v1": "cert-manager"}


class Result(NamedTuple):
    code: int
    text: str
    why: str


class Helm:
    def __init__(self, tools):
        self.tools = tools
        self.template = functools.cache(self.template_anew)
        self.objects = functools.cache(self.objects_anew)

    def run(self, major, *arguments):
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.tools / "home"), "KUBECONFIG": "/dev/null"}
        command = [self.tools / major / "helm", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
        return Result(done.returncode, done.stdout, done.stderr)

    def template_anew(self, major, version, *arguments, known=tuple(FOREIGN), chart=CHART):
        """Renders the chart for a cluster with this version and the known foreign kinds."""
        has = [argument for group in known for argument in ("--api-versions", group)]
        release = ("template", "ebb", chart, "--namespace", "ebb-system", "--kube-version", version)
        return self.run(major, *release, *has, *arguments)

    def objects_anew(self, *arguments, major=HELMS[-1], version=VERSIONS[-1], **options):
        """The rendered objects. Tests share them and must not change them."""
        result = self.template(major, version, *arguments, **options)
        assert result.code == 0, result.why
        return objects(result.text)

    def ci(self, name, **options):
        """The objects of ci/NAME-values.yaml."""
        return self.objects("--values", CHART / f"ci/{name}-values.yaml", **options)


class Strict(yaml.SafeLoader):
    """YAML loader that refuses duplicate keys."""


def mapping_without_duplicates(loader, node):
    keys = [loader.construct_object(key) for key, _ in node.value]
    twice = sorted({str(key) for key in keys if keys.count(key) > 1})
    if twice:
        raise yaml.constructor.ConstructorError(None, None, f"twice: {', '.join(twice)}", node.start_mark)
    return loader.construct_mapping(node, deep=True)


Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping_without_duplicates)


def objects(text):
    return [document for document in yaml.load_all(text, Strict) if document]


def label(document):
    return f"{document['kind']} {document['metadata']['name']}"


def of_kind(documents, kind):
    return [document for document in documents if document["kind"] == kind]


def only(documents, kind):
    (document,) = of_kind(documents, kind)
    return document


def pods(documents):
    """Yields labels and pod specs. For a PodTemplate, the spec contains only the sidecar."""
    for document in documents:
        if document["kind"] == "Deployment":
            yield label(document), document["spec"]["template"]["spec"]
        elif document["kind"] == "Pod":
            yield label(document), document["spec"]
        elif document["kind"] == "PodTemplate":
            yield label(document), {**document["template"]["spec"], "containers": []}
        elif document["kind"] == "ConfigMap" and "sidecar.yaml" in document["data"]:
            yield from pods(objects(document["data"]["sidecar.yaml"]))
