"""Fixtures of the chart's tests; see tests/chart.sh."""

import json
import pathlib

import pytest

from helm import HELMS, VERSIONS, Helm


def pytest_addoption(parser):
    parser.addoption("--tools", type=pathlib.Path, required=True, help="folder with helm3, helm4 and kinds")


@pytest.fixture(scope="session")
def tools(pytestconfig):
    return pytestconfig.getoption("--tools")


@pytest.fixture(scope="session")
def helm(tools):
    """Both majors of Helm. A chart with given values is rendered once a session."""
    return Helm(tools)


@pytest.fixture
def render(helm, tmp_path):
    """Renders the chart with a map of values."""

    def render(values, major=HELMS[-1]):
        path = tmp_path / "values.yaml"
        path.write_text(json.dumps(values))
        return helm.template_anew(major, VERSIONS[-1], "--values", path)

    return render
