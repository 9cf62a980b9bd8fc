"""Manifests with sidecars of `ebb inject` fit the strict schemas. EBB_PROGRAM names the program."""

import json
import os
import pathlib
import subprocess

import pytest

import schemas
from helm import VERSIONS

CORPUS = sorted(pathlib.Path("tests/manifests/corpus").iterdir())
PROGRAM = os.environ.get("EBB_PROGRAM", "")


def documents(command, path):
    """The documents of a file after a command, and what it says."""
    words = [PROGRAM, command, "-f", path, "--output", "json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    printed = json.loads(done.stdout)
    return printed["items"] if printed.get("kind") == "List" else [printed]


@pytest.mark.skipif(not PROGRAM, reason="EBB_PROGRAM is not set")
@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_injected_manifest_is_valid_if_the_given_one_is(path):
    # Nothing is injected there, so nothing is removed.
    given, injected = documents("uninject", path), documents("inject", path)
    assert len(given) == len(injected)
    for before, after in zip(given, injected, strict=True):
        if before.get("apiVersion") and not schemas.problems([before], VERSIONS[-1]):
            assert schemas.problems([after], VERSIONS[-1]) == []
