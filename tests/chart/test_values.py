"""values.yaml is documented, used by templates and consistent with the program."""

import json
import re

import pytest
import yaml

from generate import MANIFESTS, commented_values, ebb_settings, reference_page
from helm import CHART

# Variables that are not settings.
OTHER = {"EBB_CONFIG", "EBB_ADDR", "EBB_ADMIN_ADDR", "EBB_INJECTOR_IDENTITY"}
COMMENTED, UNCOMMENTED = commented_values()
TEMPLATES = "".join(path.read_text() for path in sorted(CHART.glob("templates/**/*")) if path.is_file())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())


def test_every_value_has_a_comment():
    assert UNCOMMENTED == []


@pytest.mark.parametrize("path", [path for path, _ in COMMENTED])
def test_value_is_read_by_a_template(path):
    assert re.search(rf"\b{path.split('.')[-1]}\b", TEMPLATES)


def test_templates_set_only_variables_of_ebb():
    known = set(re.findall(r"`(EBB_\w+)`", "".join(reference_page()))) | OTHER
    manifests = "".join(path.read_text() for path in MANIFESTS.glob("*.yaml"))
    assert set(re.findall(r"\bEBB_\w+", TEMPLATES + manifests)) - known - {"EBB"} == set()


@pytest.mark.parametrize("part", ["sidecar", "standalone"])
def test_watermarks_are_the_defaults_of_ebb(part):
    defaults = {mark: setting["default"] for mark, setting in ebb_settings()["watermarks"]["properties"].items()}
    assert VALUES[part]["config"]["watermarks"] == defaults


def test_values_ha_equals_the_values_in_ci():
    assert (CHART / "values-ha.yaml").read_text() == (CHART / "ci/ha-values.yaml").read_text()
