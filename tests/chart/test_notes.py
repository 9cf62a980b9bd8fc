"""The notes after an installation."""

import pathlib
import shutil

import pytest

from helm import CHART, FOREIGN, HELMS, VERSIONS, objects

TEST = "helm test ebb --namespace ebb-system"
KNOWN = tuple(FOREIGN)
# Values, the foreign API groups of the cluster, and text that the notes contain or (with -) do not contain.
NOTES = (
    ("image.tag=v1", KNOWN, ("kubectl label namespace NAME ebb-cache.io/inject=enabled", "ebb check", TEST, "-Warning")),
    ("injector.mode=policy", KNOWN, ("kubectl label namespace NAME", TEST, "-Warning")),
    ("injector.mode=none", KNOWN, ("injector.mode is none: sidecars are not injected.", "-helm test", "-Warning")),
    ("injector.excludedNamespaces={kube-system,default}", KNOWN, ("kube-system, default, ebb-system.", "-helm test")),
    ("injector.replicas=1", KNOWN, ("Warning: the webhook has one replica.",)),
    ("standalone.enabled=true", KNOWN, ("The shared cache is at ebb.ebb-system:7070", "configmap ebb-standalone")),
    ("sidecar.address=tcp", KNOWN, ("EBB_ADDR: 127.0.0.1:7070",)),
    ("monitoring.rules.enabled=true", KNOWN, ("-Warning",)),
    ("monitoring.rules.enabled=true", (), ("Warning: monitoring is enabled",)),
)


@pytest.fixture(scope="module")
def chart_of_notes(tmp_path_factory):
    """A chart that renders its notes as an object, since `helm template` of Helm 3 does not print notes."""
    copy = pathlib.Path(shutil.copytree(CHART, tmp_path_factory.mktemp("notes") / "ebb"))
    (copy / "templates/NOTES.txt").rename(copy / "NOTES.txt")
    (copy / "templates/notes.yaml").write_text(
        "kind: ConfigMap\nmetadata: {name: notes}\n"
        'data:\n  notes: {{ tpl (.Files.Get "NOTES.txt") . | toJson }}\n'
    )
    return copy


@pytest.mark.parametrize("major", HELMS)
@pytest.mark.parametrize("given, known, words", NOTES, ids=[given for given, _, _ in NOTES])
def test_notes_contain(helm, chart_of_notes, major, given, known, words):
    arguments = ("--set", given, "--show-only", "templates/notes.yaml")
    result = helm.template(major, VERSIONS[-1], *arguments, known=known, chart=chart_of_notes)
    assert result.code == 0, result.why
    notes = objects(result.text)[0]["data"]["notes"]
    for word in words:
        assert (word.removeprefix("-") in notes) is not word.startswith("-"), word
    assert "no value" not in notes and "%!" not in notes


def test_helm_4_shows_the_notes(helm):
    result = helm.run("helm4", "install", "ebb", CHART, "--dry-run=client")
    assert "kubectl label namespace NAME" in result.text, result.why
