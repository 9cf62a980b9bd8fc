"""Checks metrics, alerts and dashboards; see tests/observe.sh. One line per check; exits with 1 if one failed."""

import contextlib
import json
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

import dashboards

PROGRAM, TOOLS = sys.argv[1], pathlib.Path(sys.argv[2])
BLESS = "--bless" in sys.argv[3:]
FILES = pathlib.Path("charts/ebb/files")
failures = 0


def check(name, *problems):
    """Prints the outcome of one check, which succeeds without problems."""
    global failures
    problems = [str(problem) for problem in problems if problem]
    print(f"{'FAILED' if problems else 'ok    '} {name}", *problems[:10], sep="\n         ", flush=True)
    failures += bool(problems)


def tool(name, *arguments, stdin=None, folder=None):
    """Runs a tool; returns its output if it failed, else an empty string."""
    done = subprocess.run([TOOLS / name, *arguments], input=stdin, capture_output=True, text=True, cwd=folder)
    return (done.stdout + done.stderr)[-1500:] if done.returncode else ""


def get(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as page:
        return page.headers["Content-Type"], page.read().decode()


@contextlib.contextmanager
def running(*command, **options):
    child = subprocess.Popen(command, text=True, **options)
    try:
        yield child
    finally:
        child.terminate()
        child.wait(10)


def until(what, condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            check(what, f"not within {seconds} s")
            return
        time.sleep(0.1)
    check(what)


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def names(text):
    """The metrics named in a text; a histogram without the suffix of its series."""
    found = set(re.findall(r"\bebb_[a-z_]+", text))
    return {re.sub(r"(?<=seconds)_(bucket|sum|count)$", "", name) for name in found}


def files():
    """The checks that need no server."""
    for name, text in dashboards.render().items():
        path = FILES / "dashboards" / name
        if BLESS:
            path.write_text(text)
        check(f"{path} is as generated", path.read_text() != text and "stale; tests/observe.sh CACHE --bless rewrites it")
    rules = (FILES / "rules.yaml").read_text()
    check("the rules can be read", tool("promtool", "check", "rules", str(FILES / "rules.yaml")))
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy("tests/observe/rules_test.yaml", folder)
        rules_at = pathlib.Path(folder, "rules.yaml")
        rules_at.write_text(rules)
        check("the alerts pass their scenarios", tool("promtool", "test", "rules", "rules_test.yaml", folder=folder))
        # A mutant for each alert, which never fires: a scenario must detect it.
        for alert in re.findall(r"alert: (\w+)", rules):
            at = rules.index(f"alert: {alert}\n")
            rules_at.write_text(rules[:at] + rules[at:].replace("expr: ", "expr: vector(0) > 1 and ", 1))
            silent = tool("promtool", "test", "rules", "rules_test.yaml", folder=folder)
            check(f"a scenario detects that {alert} is silent", not silent and "no scenario fails", "parse error" in silent and silent)
    runbooks = pathlib.Path("docs/operations.md").read_text()
    headings = {re.sub(r"[^\w -]", "", line[4:]).lower().replace(" ", "-") for line in runbooks.splitlines() if line.startswith("### ")}
    links = re.findall(r"runbook_url: docs/operations\.md#(\S+)", rules)
    check("every alert has a runbook", *(f"{link} is no heading" for link in links if link not in headings))
    return rules


def server(rules):
    command = [PROGRAM, "serve", "--max-memory", "64Mi", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]
    with running(*command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as ebb, tempfile.TemporaryDirectory() as folder:
        line = ebb.stdout.readline()
        at = dict(re.findall(r"(\w+)=(\S+)", line))
        kind, page = get(f"http://{at['http']}/metrics")
        check("who does not ask for OpenMetrics gets the text format", "version=0.0.4" not in kind and kind)
        check("promtool finds nothing wrong with it", tool("promtool", "check", "metrics", stdin=page))
        kind, page = get(f"http://{at['http']}/metrics", Accept="application/openmetrics-text; version=1.0.0")
        check("and who asks gets OpenMetrics", ("openmetrics" not in kind or not page.endswith("# EOF\n")) and kind)
        check(f"the page has {len(page)} bytes, at most 60 KB", len(page) > 60_000 and "too many")
        took = []
        for _ in range(200):
            began = time.perf_counter()
            get(f"http://{at['http']}/metrics")
            took.append(time.perf_counter() - began)
        print(f"       a scrape takes {sorted(took)[100] * 1e3:.2f} ms in the median, this client included")

        documented = names(pathlib.Path("docs/metrics.md").read_text())
        declared = {name for name in documented if not name.startswith("ebb_injector_")}
        served = names("\n".join(line for line in page.splitlines() if not line.startswith("#")))
        check("every metric that is served is documented", *sorted(served - declared))
        check("and every one that is documented is served", *sorted(declared - served))
        used = names(rules) | names("".join(dashboards.render().values())) - {"ebb_fleet", "ebb_pod"}
        check("alerts and dashboards use metrics that exist", *sorted(used - documented))

        port = free_port()
        settings = pathlib.Path(folder, "prometheus.yaml")
        settings.write_text(json.dumps({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str((FILES / "rules.yaml").resolve())],
            "scrape_configs": [{"job_name": "ebb", "static_configs": [{"targets": [at["http"]], "labels": {"namespace": "shop", "pod": "shop-0"}}]}],
        }))
        prometheus = [TOOLS / "prometheus", f"--config.file={settings}", f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"]
        with running(*prometheus, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            def query(text):
                url = f"http://127.0.0.1:{port}/api/v1/query?query={urllib.parse.quote(text)}"
                try:
                    return json.loads(get(url)[1])["data"]["result"]
                except (OSError, KeyError):
                    return []

            data = ["--addr", at["data"]]
            subprocess.run([PROGRAM, "set", "k", "v", *data], check=True, capture_output=True)
            for namespace in ['a"b', "a\\b", "a\nb", *(f"a-namespace-with-a-name-{number}" for number in range(32))]:
                subprocess.run([PROGRAM, "set", "k", "v", "--namespace", namespace, *data], capture_output=True)
                subprocess.run([PROGRAM, "get", "none", "--namespace", namespace, *data], capture_output=True)
            page = get(f"http://{at['http']}/metrics")[1]
            check("names that callers chose do not break the page", tool("promtool", "check", "metrics", stdin=page))
            named = re.findall(r"^ebb_namespace_misses_total.*$", page, re.M)
            check("of namespaces the first 32 are named", len(named) != 33 and len(named))
            check(f"then it has {len(page)} bytes, at most 60 KB", len(page) > 60_000 and "too many")
            subprocess.run([PROGRAM, "get", "absent", *data], capture_output=True)
            subprocess.run([PROGRAM, "set", "k" * 2000, "v", *data], capture_output=True)
            until("Prometheus has scraped it", lambda: query('ebb_sets_total{pod="shop-0"} >= 1'))

            def traffic():
                subprocess.run([PROGRAM, "get", "k", *data], check=True, capture_output=True)
                subprocess.run([PROGRAM, "get", "absent", *data], capture_output=True)
                subprocess.run([PROGRAM, "set", "j" * 2000, "v", *data], capture_output=True)
                return query("rate(ebb_hits_total[1m]) > 0") and query('rate(ebb_misses_total{reason="unknown_key"}[1m]) > 0') and query(
                    'rate(ebb_requests_total{code="invalid_argument"}[1m]) > 0') and query(
                    'ebb_refusals_total{reason="FIELD_LENGTH"} > 1') and query('ebb_request_duration_seconds_count{method="set", outcome="refused"} > 1')

            until("with hits, misses, refusals and their reasons", traffic)
            refused = query('ebb_request_duration_seconds_count{outcome="refused"}')
            check("how long refusals took is told of what was refused", {one["metric"]["method"] for one in refused} != {"set"} and refused)
            for board in ("fleet", "pod"):
                body = json.loads((FILES / "dashboards" / f"{board}.json").read_text())
                asked = [(panel["title"], target["expr"]) for panel in body["panels"] for target in panel.get("targets", [])]
                asked += [(annotation["name"], annotation["expr"]) for annotation in body["annotations"]["list"]]
                empty = []
                for title, text in asked:
                    text = text.replace("$namespace", ".*").replace("$pod", "shop-0")
                    if not query(text.removesuffix("> 0")):  # what is shown where it is above nothing may be nothing
                        empty.append(f"{title}: {text}")
                check(f"each of the {len(asked)} queries of the dashboard {board} has an answer", *empty)
            state = json.loads(get(f"http://127.0.0.1:{port}/api/v1/rules")[1])
            rules_in_use = [rule for group in state["data"]["groups"] for rule in group["rules"]]
            check("the rules are evaluated without an error", *(rule["lastError"] for rule in rules_in_use if rule.get("lastError")))


server(files())
sys.exit(1 if failures else 0)
