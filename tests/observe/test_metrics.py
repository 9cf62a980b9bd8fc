"""The metrics page: formats, size, documentation, and parsing by Prometheus."""

import pathlib
import re
import time

import dashboards
from conftest import FILES

PAGE_BYTES_MAX = 60_000


def names(text):
    """Names of the metrics in a text; a histogram has one name."""
    found = set(re.findall(r"\bebb_[a-z_]+", text))
    return {re.sub(r"(?<=seconds)_(bucket|sum|count)$", "", name) for name in found}


DOCUMENTED = names(pathlib.Path("docs/metrics.md").read_text())


def served(page):
    return names("\n".join(line for line in page.splitlines() if not line.startswith("#")))


def test_serves_the_text_format_by_default(text_page):
    assert "version=0.0.4" in text_page[0]


def test_promtool_finds_nothing_wrong(promtool, text_page):
    assert promtool("check", "metrics", stdin=text_page[1]) == ""


def test_serves_openmetrics_on_request(open_page):
    kind, page = open_page
    assert "openmetrics" in kind
    assert page.endswith("# EOF\n")


def test_page_is_small(open_page):
    assert len(open_page[1]) <= PAGE_BYTES_MAX


def test_scrape_is_quick(ebb, text_page, open_page, capsys):
    took = []
    for _ in range(200):
        began = time.perf_counter()
        ebb.page()
        took.append(time.perf_counter() - began)
    median_ms = sorted(took)[100] * 1e3
    with capsys.disabled():
        print(f"\na scrape takes {median_ms:.2f} ms in the median, this client included")
    assert median_ms < 100


def test_every_served_metric_is_documented(open_page):
    assert served(open_page[1]) - DOCUMENTED == set()


def test_every_documented_metric_is_served(open_page):
    ours = {name for name in DOCUMENTED if not name.startswith("ebb_injector_")}
    assert ours - served(open_page[1]) == set()


def test_alerts_and_dashboards_use_metrics_that_exist():
    used = names((FILES / "rules.yaml").read_text()) | names("".join(dashboards.render().values()))
    assert used - {"ebb_fleet", "ebb_pod"} - DOCUMENTED == set()


def test_names_that_callers_choose_do_not_break_the_page(promtool, busy_page):
    assert promtool("check", "metrics", stdin=busy_page) == ""


def test_only_the_first_32_namespaces_have_metrics_of_their_own(busy_page):
    # Plus the default namespace.
    assert len(re.findall(r"^ebb_namespace_misses_total.*$", busy_page, re.M)) == 33


def test_page_is_small_with_many_namespaces(busy_page):
    assert len(busy_page) <= PAGE_BYTES_MAX


def test_prometheus_scrapes_the_server(scraped):
    assert scraped.query('up{pod="shop-0"} == 1')


def test_hits_misses_and_refusals_reach_prometheus(observed):
    assert observed.query("ebb_hits_total > 0")


def test_durations_of_refusals_are_those_of_the_refused_method(observed):
    refused = observed.query('ebb_request_duration_seconds_count{outcome="refused"}')
    assert {one["metric"]["method"] for one in refused} == {"set"}
