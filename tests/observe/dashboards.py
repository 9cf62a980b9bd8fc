"""Writes the Grafana dashboards: charts/ebb/files/dashboards/*.json are generated from the panels below.

    dashboards.py FOLDER
"""

import json
import pathlib
import sys

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
POD = '{namespace=~"$namespace", pod=~"$pod"}'


def with_labels(query, labels):
    """Puts the dashboard's selector into each metric of a query: `ebb_x[5m]` and `ebb_x{a="b"}` alike."""
    import re

    def select(found):
        own = found.group(2)
        inner = ", ".join(part for part in (own.strip("{}") if own else "", labels.strip("{}")) if part)
        return f"{found.group(1)}{{{inner}}}"

    return re.sub(r"\b(ebb_[a-z_0-9]+)(\{[^}]*\})?", select, query)


def runs_of_the_cleaner(labels, enable):
    """Marks the minutes in which a cleaner has run; two minutes hold two scrapes that are a minute apart."""
    query = "sum by (reason) (changes(ebb_cleaner_runs_total[2m])) > 0"
    return {"name": "Runs of the cleaner", "datasource": SOURCE, "enable": enable, "hide": False, "iconColor": "orange",
            "expr": with_labels(query, labels), "step": "60s", "titleFormat": "The cleaner has run", "textFormat": "{{reason}}",
            "tagKeys": "reason", "useValueForTime": False}


class Board:
    def __init__(self, uid, title, description, labels, variables, marked):
        self.labels, self.panels, self.y, self.x, self.row_height = labels, [], 0, 0, 0
        self.body = {
            "uid": uid,
            "title": title,
            "description": description,
            "tags": ["ebb", "cache"],
            "timezone": "browser",
            "schemaVersion": 39,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,
            "time": {"from": "now-3h", "to": "now"},
            "refresh": "30s",
            "templating": {"list": variables},
            "annotations": {"list": [runs_of_the_cleaner(labels, marked)]},
            "links": [],
        }

    def place(self, width, height):
        if self.x + width > 24:
            self.x, self.y = 0, self.y + self.row_height
            self.row_height = 0
        at = {"x": self.x, "y": self.y, "w": width, "h": height}
        self.x += width
        self.row_height = max(self.row_height, height)
        return at

    def row(self, title):
        self.x, self.y, self.row_height = 0, self.y + self.row_height, 0
        self.panels.append({"type": "row", "title": title, "collapsed": False, "id": len(self.panels) + 1,
                            "gridPos": self.place(24, 1), "panels": []})
        self.x, self.y, self.row_height = 0, self.y + 1, 0

    def panel(self, kind, title, description, unit, queries, width=8, height=8, **options):
        defaults = {"unit": unit, "custom": options.pop("custom", {})} if kind == "timeseries" else {"unit": unit}
        if kind == "timeseries":
            defaults["custom"] = {"lineWidth": 2, "fillOpacity": 8, "showPoints": "never", "spanNulls": False} | defaults["custom"]
        defaults |= options.pop("defaults", {})
        targets = [
            {"refId": chr(65 + i), "datasource": SOURCE, "expr": with_labels(query, self.labels), "legendFormat": legend}
            | ({"format": "table", "instant": True} if kind == "table" else {})
            | ({"instant": True} if kind in ("stat", "gauge") else {})
            | ({"format": "heatmap"} if kind == "heatmap" else {})
            for i, (query, legend) in enumerate(queries)
        ]
        self.panels.append({
            "type": kind, "title": title, "description": description, "id": len(self.panels) + 1,
            "datasource": SOURCE, "gridPos": self.place(width, height), "targets": targets,
            "fieldConfig": {"defaults": defaults, "overrides": options.pop("overrides", [])},
            "options": options.pop("options", {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}} if kind == "timeseries" else {"reduceOptions": {"calcs": ["lastNotNull"]}}),
        } | options)

    def json(self):
        return json.dumps(self.body | {"panels": self.panels}, indent=1) + "\n"


def variable(name, label, query, multi):
    return {"name": name, "label": label, "type": "query", "datasource": SOURCE, "query": {"query": query, "refId": name},
            "definition": query, "refresh": 2, "sort": 1, "includeAll": multi, "multi": multi,
            "current": {"text": "All", "value": "$__all"} if multi else {}, "allValue": ".*" if multi else None}


DATASOURCE = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {}}
NAMESPACE = variable("namespace", "Namespace", "label_values(ebb_build_info, namespace)", True)
SHARE = {"min": 0, "max": 1}
RATIO_STEPS = {"thresholds": {"mode": "absolute", "steps": [
    {"color": "green", "value": None}, {"color": "orange", "value": 0.94}, {"color": "red", "value": 0.97}]}}
LIMIT_DASHED = [{"matcher": {"id": "byName", "options": "limit"}, "properties": [
    {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 6]}}, {"id": "custom.fillOpacity", "value": 0},
    {"id": "color", "value": {"mode": "fixed", "fixedColor": "red"}}]}]


def fleet():
    board = Board("ebb-fleet", "Ebb / Fleet", "All sidecars: who is large, who is near the limit, who gives memory back.",
                  '{namespace=~"$namespace"}', [DATASOURCE, NAMESPACE], marked=False)  # of many, some cleaner always runs
    board.row("Now")
    board.panel("stat", "Sidecars", "Sidecars that are scraped.", "none", [("count(ebb_build_info)", "")], 4, 4)
    board.panel("stat", "Memory used", "By all of them.", "bytes", [("sum(ebb_memory_used_bytes)", "")], 4, 4)
    board.panel("stat", "Live ÷ resident", "How much of what is resident holds keys and values.", "percentunit",
                [("sum(ebb_live_bytes) / sum(ebb_memory_rss_bytes)", "")], 4, 4)
    board.panel("stat", "Given back", "What the cleaners have freed in the last day.", "bytes",
                [("sum(increase(ebb_cleaner_freed_bytes_total[1d]))", "")], 4, 4)
    board.panel("stat", "Hit ratio", "Of all reads in the last five minutes.", "percentunit",
                [("sum(rate(ebb_hits_total[5m])) / (sum(rate(ebb_hits_total[5m])) + sum(rate(ebb_misses_total[5m])))", "")], 4, 4)
    board.panel("stat", "Rejected configurations", "Sidecars whose configuration on disk is not in force.", "none",
                [("count(ebb_config_good == 0) or vector(0)", "")], 4, 4,
                defaults={"thresholds": {"mode": "absolute", "steps": [{"color": "green", "value": None}, {"color": "red", "value": 1}]}})
    board.row("Memory")
    board.panel("timeseries", "Used of limit", "The ten nearest to their limit.", "percentunit",
                [("topk(10, ebb_memory_used_bytes / ebb_memory_limit_bytes)", "{{namespace}}/{{pod}}")], 12, defaults=SHARE)
    board.panel("timeseries", "All together", "Limit, use and live bytes of the fleet.", "bytes",
                [("sum(ebb_memory_limit_bytes)", "limit"), ("sum(ebb_memory_used_bytes)", "used"),
                 ("sum(ebb_memory_rss_bytes)", "resident"), ("sum(ebb_live_bytes)", "live")], 12, overrides=LIMIT_DASHED)
    board.panel("timeseries", "Regimes", "How many sidecars are in which.", "none",
                [("sum by (regime) (ebb_regime)", "{{regime}}")], 12,
                custom={"stacking": {"mode": "normal"}, "fillOpacity": 40, "lineWidth": 0})
    board.panel("timeseries", "Cleaners' CPU", "Cores that compaction, eviction and expiration cost, by reason.", "none",
                [("sum by (reason) (rate(ebb_cleaner_cpu_seconds_total[5m]))", "{{reason}}")], 12)
    board.row("Traffic")
    board.panel("timeseries", "Requests", "A second, by method.", "reqps",
                [("sum by (method) (rate(ebb_requests_total[5m])) > 0", "{{method}}")], 12)
    board.panel("timeseries", "Misses by reason", "A second.", "reqps",
                [("sum by (reason) (rate(ebb_misses_total[5m]))", "{{reason}}")], 12)
    board.panel("timeseries", "Rejections", "Connections and calls that the transports ended, a second, by kind.", "none",
                [("sum by (kind) (rate(ebb_transport_rejections_total[5m]))", "{{kind}}")], 12, defaults={"min": 0})
    board.panel("timeseries", "Log lines dropped", "A second: the ten sidecars whose standard error nobody reads in time.", "none",
                [("topk(10, rate(ebb_log_lines_dropped_total[5m]))", "{{namespace}}/{{pod}}")], 12, defaults={"min": 0})
    board.panel("table", "Sidecars", "Each with its figures; the pod's dashboard shows one of them.", "none",
                [("sum by (namespace, pod) (ebb_memory_used_bytes)", "used"),
                 ("sum by (namespace, pod) (ebb_memory_limit_bytes)", "limit"),
                 ("sum by (namespace, pod) (ebb_live_bytes)", "live"),
                 ("sum by (namespace, pod) (rate(ebb_requests_total[5m]))", "requests")], 24, 10,
                options={"showHeader": True, "sortBy": [{"displayName": "used", "desc": True}]},
                transformations=[{"id": "merge", "options": {}}, {"id": "organize", "options": {
                    "excludeByName": {"Time": True},
                    "renameByName": {"Value #A": "used", "Value #B": "limit", "Value #C": "live", "Value #D": "requests/s"}}}],
                overrides=[{"matcher": {"id": "byName", "options": name}, "properties": [{"id": "unit", "value": "bytes"}]}
                           for name in ("used", "limit", "live")])
    return board


def pod():
    board = Board("ebb-pod", "Ebb / Pod", "One sidecar: where its memory is, what its cleaner does, how it answers.",
                  POD, [DATASOURCE, NAMESPACE, variable("pod", "Pod", 'label_values(ebb_build_info{namespace=~"$namespace"}, pod)', False)], marked=True)
    board.row("Now")
    board.panel("gauge", "Used of limit", "What counts against the limit.", "percentunit",
                [("max(ebb_memory_used_bytes / ebb_memory_limit_bytes)", "")], 4, 6, defaults=SHARE | RATIO_STEPS)
    board.panel("stat", "Limit", "And where it comes from, in the legend of the chart below.", "bytes", [("max(ebb_memory_limit_bytes)", "")], 4, 6)
    board.panel("stat", "Entries", "That can be read.", "short", [("sum(ebb_entries)", "")], 4, 6)
    board.panel("stat", "Hit ratio", "Of the reads of the last five minutes.", "percentunit",
                [("sum(rate(ebb_hits_total[5m])) / (sum(rate(ebb_hits_total[5m])) + sum(rate(ebb_misses_total[5m])))", "")], 4, 6)
    board.panel("stat", "Connections", "Of callers.", "none", [("sum(ebb_open_connections)", "")], 4, 6)
    board.panel("stat", "Up", "Since its process started.", "s", [("max(ebb_uptime_seconds)", "")], 4, 6)
    board.row("Memory")
    board.panel("timeseries", "Memory", "Resident and live bytes lie close together: that is what Ebb is for.", "bytes",
                [("max(ebb_memory_limit_bytes)", "limit"), ("max(ebb_memory_used_bytes)", "used"),
                 ("max(ebb_memory_rss_bytes)", "resident"), ("max(ebb_live_bytes)", "live"), ("max(ebb_budget_bytes)", "budget")],
                16, 10, overrides=LIMIT_DASHED)
    board.panel("timeseries", "Where it is", "What the cache accounts for, and what it does not (drift).", "bytes",
                [("max(ebb_live_bytes)", "live"), ("max(ebb_item_bytes - ebb_live_bytes)", "kept beside it"), ("max(ebb_dead_bytes)", "dead"),
                 ("max(ebb_index_bytes)", "index"), ("max(ebb_in_flight_bytes)", "in flight"), ("max(ebb_memory_drift_bytes)", "drift")],
                8, 10, custom={"stacking": {"mode": "normal"}, "fillOpacity": 50, "lineWidth": 0})
    board.panel("timeseries", "Regime", "1 for what the memory is like.", "none", [("max by (regime) (ebb_regime)", "{{regime}}")],
                8, custom={"stacking": {"mode": "normal"}, "fillOpacity": 50, "lineWidth": 0, "lineInterpolation": "stepAfter"}, defaults=SHARE)
    board.panel("timeseries", "Pressure", "Share of time in which somebody in the container waited for memory.", "percentunit",
                [("max(ebb_memory_pressure_ratio)", "of the last 10 s"), ("max(rate(ebb_memory_stalled_seconds_total[5m]))", "of five minutes")], 8, defaults={"min": 0})
    board.panel("timeseries", "What the kernel counted", "In memory.events, in five minutes.", "none",
                [("sum by (event) (increase(ebb_cgroup_events_total[5m]))", "{{event}}")], 8)
    board.row("The cleaner")
    board.panel("timeseries", "Runs", "In five minutes, by reason.", "none", [("sum by (reason) (increase(ebb_cleaner_runs_total[5m]))", "{{reason}}")], 8)
    board.panel("timeseries", "Given back", "Bytes of segments a second, by reason.", "Bps",
                [("sum by (reason) (rate(ebb_cleaner_freed_bytes_total[5m]))", "{{reason}}")], 8)
    board.panel("timeseries", "CPU", "Share of a core, by reason.", "percentunit", [("sum by (reason) (rate(ebb_cleaner_cpu_seconds_total[5m]))", "{{reason}}")], 8)
    board.panel("timeseries", "Copied for each byte written", "The cost of keeping memory together.", "none",
                [("sum(rate(ebb_copied_bytes_total[5m])) / sum(rate(ebb_appended_bytes_total[5m]))", "copied ÷ written")], 8, defaults={"min": 0})
    board.panel("timeseries", "Moved", "Bytes of live items a second, by reason.", "Bps",
                [("sum by (reason) (rate(ebb_cleaner_moved_bytes_total[5m]))", "{{reason}}")], 8)
    board.panel("timeseries", "Longest step", "So far, in CPU time: nobody waits for longer on a shard's lock.", "s",
                [("max by (reason) (ebb_cleaner_longest_step_seconds)", "{{reason}}")], 8)
    board.row("Traffic")
    board.panel("timeseries", "Requests", "A second, by method.", "reqps", [("sum by (method) (rate(ebb_requests_total[5m])) > 0", "{{method}}")], 8)
    board.panel("timeseries", "Latency", "In the server, by method, 99th percentile.", "s",
                [("histogram_quantile(0.99, sum by (method, le) (rate(ebb_request_duration_seconds_bucket[5m])))", "{{method}}")], 8)
    board.panel("heatmap", "Latency of reads", "Calls of Get, in the server.", "s",
                [('sum by (le) (rate(ebb_request_duration_seconds_bucket{method="get"}[5m]))', "{{le}}")], 8,
                options={"calculate": False, "yAxis": {"unit": "s"}, "color": {"scheme": "Blues"}})
    board.panel("timeseries", "Hits and misses", "A second; misses by reason.", "reqps",
                [("sum(rate(ebb_hits_total[5m]))", "hits"), ("sum by (reason) (rate(ebb_misses_total[5m]))", "missed: {{reason}}")], 8)
    board.panel("timeseries", "Hit ratio by namespace", "Of the cache's first 32 namespaces, those that are read.", "percentunit",
                [("sum by (cache_namespace) (rate(ebb_namespace_hits_total[5m])) / (sum by (cache_namespace) (rate(ebb_namespace_hits_total[5m]))"
                  " + sum by (cache_namespace) (rate(ebb_namespace_misses_total[5m])))", "{{cache_namespace}}")], 8, defaults=SHARE)
    board.panel("timeseries", "Writes by namespace", "A second.", "reqps",
                [("sum by (cache_namespace) (rate(ebb_namespace_sets_total[5m])) > 0", "{{cache_namespace}}")], 8)
    board.panel("timeseries", "Traces", "Spans a second, where traces are switched on.", "none",
                [("sum(rate(ebb_spans_sent_total[5m]))", "sent"), ("sum(rate(ebb_spans_dropped_total[5m]))", "lost")], 8)
    board.panel("timeseries", "Entries that go", "A second, and why.", "none",
                [("sum(rate(ebb_evictions_total[5m]))", "evicted"), ("sum(rate(ebb_expirations_total[5m]))", "expired"),
                 ("sum(rate(ebb_deletes_total[5m]))", "deleted"), ("sum(rate(ebb_invalidated_total[5m]))", "invalidated")], 8)
    board.panel("timeseries", "Writes", "A second.", "reqps", [("sum(rate(ebb_sets_total[5m]))", "stored")], 8)
    board.panel("timeseries", "Errors", "A second, by status, and what is refused by reason.", "reqps",
                [('sum by (code) (rate(ebb_requests_total{code!="ok"}[5m])) > 0', "{{code}}"), ("sum by (reason) (rate(ebb_refusals_total[5m])) > 0", "refused: {{reason}}")], 8)
    board.panel("timeseries", "Connections and calls", "Open now, and accepted a second.", "none",
                [("sum(ebb_open_connections)", "connections"), ("sum(ebb_open_calls)", "calls"), ("sum(rate(ebb_accepted_connections_total[5m]))", "accepted/s")], 8)
    board.row("Connections and log")
    board.panel("timeseries", "Connections of their bound", "A connection above 256 (`connections`), or 64 of the HTTP listener, closes another one.", "none",
                [("sum(ebb_open_connections)", "data"), ("sum(ebb_http_connections)", "HTTP")], 8, defaults={"min": 0})
    board.panel("timeseries", "Rejections", "Connections and calls that the transport ended, a second, by kind.", "none",
                [("sum by (kind) (rate(ebb_transport_rejections_total[5m]))", "{{kind}}")], 8, defaults={"min": 0})
    board.panel("timeseries", "Closed by the HTTP listener", "Connections a second, by reason.", "none",
                [("sum by (reason) (rate(ebb_http_closed_connections_total[5m]))", "{{reason}}")], 8, defaults={"min": 0})
    board.panel("timeseries", "Memory of connections", "Charged to requests and responses that are being handled.", "bytes",
                [("sum(ebb_in_flight_bytes)", "in flight"), ("sum(ebb_http_in_flight_bytes)", "HTTP listener")], 8, defaults={"min": 0})
    board.panel("timeseries", "Log lines dropped", "A second: nobody has read standard error in time.", "none",
                [("sum(rate(ebb_log_lines_dropped_total[5m]))", "lines")], 8, defaults={"min": 0})
    board.panel("timeseries", "Configuration", "Its generation, and whether what is on disk is in force.", "none",
                [("max(ebb_config_generation)", "generation"), ("min(ebb_config_good)", "good")], 8, custom={"lineInterpolation": "stepAfter"})
    return board


def render():
    return {"fleet.json": fleet().json(), "pod.json": pod().json()}


if __name__ == "__main__":
    for name, text in render().items():
        pathlib.Path(sys.argv[1], name).write_text(text)
