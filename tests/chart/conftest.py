"""Fixtures of the chart's tests; see tests/chart.sh."""

import pathlib

import pytest

from helm import Helm


def pytest_addoption(parser):
    parser.addoption("--tools", type=pathlib.Path, required=True, help="folder with helm3, helm4 and kinds")


@pytest.fixture(scope="session")
def tools(pytestconfig):
    return pytestconfig.getoption("--tools")


@pytest.fixture(scope="session")
def helm(tools):
    """Both majors of Helm. A chart with given values is rendered once a session."""
    return Helm(tools)
