"""The dashboards are current, and every query returns data."""

import json

import pytest

import dashboards
from conftest import FILES


@pytest.mark.parametrize("name, text", dashboards.render().items(), ids=dashboards.render())
def test_is_current(name, text):
    current = (FILES / "dashboards" / name).read_text()
    assert current.splitlines() == text.splitlines(), "tests/observe.sh CACHE_DIR --bless rewrites it"
    assert current == text


def queries():
    """Queries of the dashboards, with dashboard and panel."""
    for board in ("fleet", "pod"):
        body = json.loads((FILES / f"dashboards/{board}.json").read_text())
        for panel in body["panels"]:
            for number, target in enumerate(panel.get("targets", [])):
                yield pytest.param(target["expr"], id=f"{board}-{panel['title']}-{number}")
        for annotation in body["annotations"]["list"]:
            yield pytest.param(annotation["expr"], id=f"{board}-{annotation['name']}")


@pytest.mark.parametrize("query", list(queries()))
def test_query_has_an_answer(observed, query):
    query = query.replace("$namespace", ".*").replace("$pod", "shop-0")
    # A panel that shows only values above zero may be empty.
    assert observed.query(query.removesuffix("> 0"))
