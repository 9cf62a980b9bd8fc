"""Fixtures of the tests of metrics, alerts and dashboards; see tests/observe.sh."""

import contextlib
import json
import pathlib
import re
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from types import SimpleNamespace

import pytest

FILES = pathlib.Path("charts/ebb/files")
NAMESPACES = ['a"b', "a\\b", "a\nb", *(f"a-namespace-with-a-name-{number}" for number in range(32))]


def pytest_addoption(parser):
    parser.addoption("--program", type=pathlib.Path, required=True, help="the program ebb")
    parser.addoption("--tools", type=pathlib.Path, required=True, help="folder with promtool and prometheus")


@pytest.fixture(scope="session")
def tools(pytestconfig):
    return pytestconfig.getoption("--tools")


@pytest.fixture(scope="session")
def promtool(tools):
    """Runs promtool; returns its output if it failed, else an empty text."""

    def run(*arguments, stdin=None, folder=None):
        command = [tools / "promtool", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, cwd=folder)
        return (done.stdout + done.stderr)[-1500:] if done.returncode else ""

    return run


def get(url, **headers):
    """Content type and text of a page."""
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as page:
        return page.headers["Content-Type"], page.read().decode()


@contextlib.contextmanager
def running(*command, **options):
    with subprocess.Popen(command, text=True, **options) as child:
        try:
            yield child
        finally:
            child.terminate()


def wait_for(seconds, description, condition):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {description}"
        time.sleep(0.1)


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


@pytest.fixture(scope="session")
def ebb(pytestconfig):
    """A server: its addresses, its page of metrics, and its commands."""
    program = pytestconfig.getoption("--program").resolve()
    listen = [word for name in ("listen", "admin-listen", "http-listen") for word in (f"--{name}", "127.0.0.1:0")]
    command = [program, "serve", "--max-memory", "64Mi", *listen]
    with running(*command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        at = dict(re.findall(r"(\w+)=(\S+)", child.stdout.readline()))

        def call(*arguments, check=False):
            subprocess.run([program, *arguments, "--addr", at["data"]], check=check, capture_output=True)

        def page(**headers):
            return get(f"http://{at['http']}/metrics", **headers)

        yield SimpleNamespace(at=at, call=call, page=page)


@pytest.fixture(scope="session")
def text_page(ebb):
    """Content type and text of the default format."""
    return ebb.page()


@pytest.fixture(scope="session")
def open_page(ebb):
    """Content type and text for a client that accepts OpenMetrics."""
    return ebb.page(Accept="application/openmetrics-text; version=1.0.0")


@pytest.fixture(scope="session")
def prometheus(ebb, text_page, open_page, tools, tmp_path_factory):
    """A Prometheus that scrapes the server each second; answers queries."""
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    settings = folder / "prometheus.yaml"
    target = {"targets": [ebb.at["http"]], "labels": {"namespace": "shop", "pod": "shop-0"}}
    settings.write_text(json.dumps({
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str((FILES / "rules.yaml").resolve())],
        "scrape_configs": [{"job_name": "ebb", "static_configs": [target]}],
    }))
    options = (f"--config.file={settings}", f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}")

    def api(path):
        return json.loads(get(f"http://127.0.0.1:{port}/api/v1/{path}")[1])["data"]

    def query(text):
        try:
            return api(f"query?query={urllib.parse.quote(text)}")["result"]
        except (OSError, KeyError):
            return []

    with running(tools / "prometheus", *options, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        yield SimpleNamespace(api=api, query=query)


@pytest.fixture(scope="session")
def busy_page(ebb, prometheus):
    """The page after calls in more namespaces than get their own label, some with odd names."""
    ebb.call("set", "k", "v", check=True)
    for namespace in NAMESPACES:
        ebb.call("set", "k", "v", "--namespace", namespace)
        ebb.call("get", "none", "--namespace", namespace)
    return ebb.page()[1]


@pytest.fixture(scope="session")
def scraped(ebb, prometheus, busy_page):
    """Prometheus, once it has seen a write."""
    ebb.call("get", "absent")
    ebb.call("set", "k" * 2000, "v")
    wait_for(60, "Prometheus has scraped the server", lambda: prometheus.query('ebb_sets_total{pod="shop-0"} >= 1'))
    return prometheus


@pytest.fixture(scope="session")
def observed(ebb, scraped):
    """Prometheus, once it has seen hits, misses, refusals and their reasons."""
    expected = (
        "rate(ebb_hits_total[1m]) > 0",
        'rate(ebb_misses_total{reason="unknown_key"}[1m]) > 0',
        'rate(ebb_requests_total{code="invalid_argument"}[1m]) > 0',
        'ebb_refusals_total{reason="FIELD_LENGTH"} > 1',
        'ebb_request_duration_seconds_count{method="set", outcome="refused"} > 1',
    )

    def has_seen_traffic():
        ebb.call("get", "k", check=True)
        ebb.call("get", "absent")
        ebb.call("set", "j" * 2000, "v")
        return all(scraped.query(text) for text in expected)

    wait_for(60, "Prometheus has seen hits, misses, refusals and their reasons", has_seen_traffic)
    return scraped
