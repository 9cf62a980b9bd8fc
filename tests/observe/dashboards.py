"""Generates the Grafana dashboards in charts/ebb/files/dashboards from the panels below.

    dashboards.py FOLDER
"""

import json
import pathlib
import sys

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
POD = '{namespace=~"$namespace", pod=~"$pod"}'


def with_labels(query, labels):
    """Adds the dashboard's selector to each metric of a query, as in `ebb_x[5m]` and `ebb_x{a="b"}`."""
    import re

    def select(found):
        own = found.group(2)
        inner = ", ".join(part for part in (own.strip("{}") if own else "", labels.strip("{}")) if part)
        return f"{found.group(1)}{{{inner}}}"

    return re.sub(r"\b(ebb_[a-z_0-9]+)(\{[^}]*\})?", select, query)


def runs_of_the_cleaner(labels, enable):
    """Marks the minutes with cleaner runs. A range of two minutes contains two scrapes at an interval of one minute."""
    query = "sum by (reason) (changes(ebb_cleaner_runs_total[2m])) > 0"
    return {"name": "Cleaner runs", "datasource": SOURCE, "enable": enable, "hide": False, "iconColor": "orange",
            "expr": with_labels(query, labels), "step": "60s", "titleFormat": "Cleaner run", "textFormat": "{{reason}}",
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
    board = Board("ebb-fleet", "Ebb / Fleet", "All sidecars: memory, distance to the limit, and memory freed.",
                  '{namespace=~"$namespace"}', [DATASOURCE, NAMESPACE], marked=False)  # in a fleet, some cleaner always runs
    board.row("Now")
    board.panel("stat", "Sidecars", "Number of sidecars that Prometheus scrapes.", "none", [("count(ebb_build_info)", "")], 4, 4)
    board.panel("stat", "Memory used", "Memory charged to the containers of all sidecars.", "bytes", [("sum(ebb_memory_used_bytes)", "")], 4, 4)
    board.panel("stat", "Live ÷ resident", "Share of resident memory that holds live keys and values.", "percentunit",
                [("sum(ebb_live_bytes) / sum(ebb_memory_rss_bytes)", "")], 4, 4)
    board.panel("stat", "Memory freed", "Segments freed by the cleaners in the last day.", "bytes",
                [("sum(increase(ebb_cleaner_freed_bytes_total[1d]))", "")], 4, 4)
    board.panel("stat", "Hit ratio", "Hits per read in the last 5 minutes.", "percentunit",
                [("sum(rate(ebb_hits_total[5m])) / (sum(rate(ebb_hits_total[5m])) + sum(rate(ebb_misses_total[5m])))", "")], 4, 4)
    board.panel("stat", "Rejected configurations", "Number of sidecars that rejected the configuration on disk.", "none",
                [("count(ebb_config_good == 0) or vector(0)", "")], 4, 4,
                defaults={"thresholds": {"mode": "absolute", "steps": [{"color": "green", "value": None}, {"color": "red", "value": 1}]}})
    board.row("Memory")
    board.panel("timeseries", "Memory used ÷ limit", "The ten sidecars nearest to their limit.", "percentunit",
                [("topk(10, ebb_memory_used_bytes / ebb_memory_limit_bytes)", "{{namespace}}/{{pod}}")], 12, defaults=SHARE)
    board.panel("timeseries", "Memory of all sidecars", "Sum of limit, used, resident and live memory.", "bytes",
                [("sum(ebb_memory_limit_bytes)", "limit"), ("sum(ebb_memory_used_bytes)", "used"),
                 ("sum(ebb_memory_rss_bytes)", "resident"), ("sum(ebb_live_bytes)", "live")], 12, overrides=LIMIT_DASHED)
    board.panel("timeseries", "Regimes", "Number of sidecars in each memory regime.", "none",
                [("sum by (regime) (ebb_regime)", "{{regime}}")], 12,
                custom={"stacking": {"mode": "normal"}, "fillOpacity": 40, "lineWidth": 0})
    board.panel("timeseries", "Cleaner CPU", "Cores used by compaction, eviction and expiration, by reason.", "none",
                [("sum by (reason) (rate(ebb_cleaner_cpu_seconds_total[5m]))", "{{reason}}")], 12)
    board.row("Traffic")
    board.panel("timeseries", "Requests", "Requests per second, by method.", "reqps",
                [("sum by (method) (rate(ebb_requests_total[5m])) > 0", "{{method}}")], 12)
    board.panel("timeseries", "Misses", "Read misses per second, by reason.", "reqps",
                [("sum by (reason) (rate(ebb_misses_total[5m]))", "{{reason}}")], 12)
    board.panel("timeseries", "Rejections", "Connections and requests rejected by the transport per second, by kind.", "none",
                [("sum by (kind) (rate(ebb_transport_rejections_total[5m]))", "{{kind}}")], 12, defaults={"min": 0})
    board.panel("timeseries", "Log lines dropped", "Lines per second, of the ten sidecars that drop most: their standard error is not read in time.", "none",
                [("topk(10, rate(ebb_log_lines_dropped_total[5m]))", "{{namespace}}/{{pod}}")], 12, defaults={"min": 0})
    board.panel("table", "Sidecars", "Memory and requests of each sidecar; the dashboard Ebb / Pod shows one in detail.", "none",
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
    board = Board("ebb-pod", "Ebb / Pod", "One sidecar: memory, cleaner, traffic and connections.",
                  POD, [DATASOURCE, NAMESPACE, variable("pod", "Pod", 'label_values(ebb_build_info{namespace=~"$namespace"}, pod)', False)], marked=True)
    board.row("Now")
    board.panel("gauge", "Memory used ÷ limit", "Share of the memory limit that is used.", "percentunit",
                [("max(ebb_memory_used_bytes / ebb_memory_limit_bytes)", "")], 4, 6, defaults=SHARE | RATIO_STEPS)
    board.panel("stat", "Limit", "Effective memory limit.", "bytes", [("max(ebb_memory_limit_bytes)", "")], 4, 6)
    board.panel("stat", "Entries", "Number of entries stored.", "short", [("sum(ebb_entries)", "")], 4, 6)
    board.panel("stat", "Hit ratio", "Hits per read in the last 5 minutes.", "percentunit",
                [("sum(rate(ebb_hits_total[5m])) / (sum(rate(ebb_hits_total[5m])) + sum(rate(ebb_misses_total[5m])))", "")], 4, 6)
    board.panel("stat", "Connections", "Open client connections.", "none", [("sum(ebb_open_connections)", "")], 4, 6)
    board.panel("stat", "Uptime", "Time since the process started.", "s", [("max(ebb_uptime_seconds)", "")], 4, 6)
    board.row("Memory")
    board.panel("timeseries", "Memory", "Limit, used, resident and live memory, and the budget. Compaction keeps resident memory close to live memory.", "bytes",
                [("max(ebb_memory_limit_bytes)", "limit"), ("max(ebb_memory_used_bytes)", "used"),
                 ("max(ebb_memory_rss_bytes)", "resident"), ("max(ebb_live_bytes)", "live"), ("max(ebb_budget_bytes)", "budget")],
                16, 10, overrides=LIMIT_DASHED)
    board.panel("timeseries", "Memory by use", "Memory that the cache accounts for, and memory that it does not (overhead).", "bytes",
                [("max(ebb_live_bytes)", "live"), ("max(ebb_item_bytes - ebb_live_bytes)", "item headers"), ("max(ebb_dead_bytes)", "dead"),
                 ("max(ebb_index_bytes)", "index"), ("max(ebb_in_flight_bytes)", "in flight"), ("max(ebb_memory_overhead_bytes)", "overhead")],
                8, 10, custom={"stacking": {"mode": "normal"}, "fillOpacity": 50, "lineWidth": 0})
    board.panel("timeseries", "Regime", "Current memory regime: 1 for the active one.", "none", [("max by (regime) (ebb_regime)", "{{regime}}")],
                8, custom={"stacking": {"mode": "normal"}, "fillOpacity": 50, "lineWidth": 0, "lineInterpolation": "stepAfter"}, defaults=SHARE)
    board.panel("timeseries", "Memory pressure", "Share of time in which tasks in the container stalled on memory (PSI some).", "percentunit",
                [("max(ebb_memory_pressure_ratio)", "last 10 s"), ("max(rate(ebb_memory_stalled_seconds_total[5m]))", "last 5 min")], 8, defaults={"min": 0})
    board.panel("timeseries", "Kernel memory events", "Events in memory.events of the container, in 5 minutes.", "none",
                [("sum by (event) (increase(ebb_cgroup_events_total[5m]))", "{{event}}")], 8)
    board.row("The cleaner")
    board.panel("timeseries", "Runs", "Cleaner runs in 5 minutes, by reason.", "none", [("sum by (reason) (increase(ebb_cleaner_runs_total[5m]))", "{{reason}}")], 8)
    board.panel("timeseries", "Memory freed", "Segments freed per second, by reason.", "Bps",
                [("sum by (reason) (rate(ebb_cleaner_freed_bytes_total[5m]))", "{{reason}}")], 8)
    board.panel("timeseries", "CPU", "Share of one core used by the cleaner, by reason.", "percentunit", [("sum by (reason) (rate(ebb_cleaner_cpu_seconds_total[5m]))", "{{reason}}")], 8)
    board.panel("timeseries", "Bytes copied per byte written", "Cost of compaction.", "none",
                [("sum(rate(ebb_copied_bytes_total[5m])) / sum(rate(ebb_appended_bytes_total[5m]))", "copied ÷ written")], 8, defaults={"min": 0})
    board.panel("timeseries", "Live items moved", "Items copied by the cleaner per second, by reason.", "Bps",
                [("sum by (reason) (rate(ebb_cleaner_moved_bytes_total[5m]))", "{{reason}}")], 8)
    board.panel("timeseries", "Longest step", "CPU time of the longest cleaner step since the start, by reason. A step bounds the wait for the lock of a shard.", "s",
                [("max by (reason) (ebb_cleaner_longest_step_seconds)", "{{reason}}")], 8)
    board.row("Traffic")
    board.panel("timeseries", "Requests", "Requests per second, by method.", "reqps", [("sum by (method) (rate(ebb_requests_total[5m])) > 0", "{{method}}")], 8)
    board.panel("timeseries", "Latency (p99)", "99th percentile of the time in the server, by method.", "s",
                [("histogram_quantile(0.99, sum by (method, le) (rate(ebb_request_duration_seconds_bucket[5m])))", "{{method}}")], 8)
    board.panel("heatmap", "Latency of reads", "Time of Get calls in the server.", "s",
                [('sum by (le) (rate(ebb_request_duration_seconds_bucket{method="get"}[5m]))', "{{le}}")], 8,
                options={"calculate": False, "yAxis": {"unit": "s"}, "color": {"scheme": "Blues"}})
    board.panel("timeseries", "Hits and misses", "Reads per second; misses by reason.", "reqps",
                [("sum(rate(ebb_hits_total[5m]))", "hits"), ("sum by (reason) (rate(ebb_misses_total[5m]))", "miss: {{reason}}")], 8)
    board.panel("timeseries", "Hit ratio by namespace", "Hits per read in the last 5 minutes, of the first 32 namespaces; the others share one series.", "percentunit",
                [("sum by (cache_namespace) (rate(ebb_namespace_hits_total[5m])) / (sum by (cache_namespace) (rate(ebb_namespace_hits_total[5m]))"
                  " + sum by (cache_namespace) (rate(ebb_namespace_misses_total[5m])))", "{{cache_namespace}}")], 8, defaults=SHARE)
    board.panel("timeseries", "Writes by namespace", "Values stored per second.", "reqps",
                [("sum by (cache_namespace) (rate(ebb_namespace_sets_total[5m])) > 0", "{{cache_namespace}}")], 8)
    board.panel("timeseries", "Memory by namespace", "Keys and values, of the first 32 namespaces; the others share one series.", "bytes",
                [("sum by (cache_namespace) (ebb_namespace_live_bytes) > 0", "{{cache_namespace}}")], 8, defaults={"min": 0})
    board.panel("timeseries", "Evictions by namespace", "Entries evicted per second.", "none",
                [("sum by (cache_namespace) (rate(ebb_namespace_evictions_total[5m])) > 0", "{{cache_namespace}}")], 8, defaults={"min": 0})
    board.panel("timeseries", "Traces", "Spans per second, if traces are enabled.", "none",
                [("sum(rate(ebb_spans_sent_total[5m]))", "sent"), ("sum(rate(ebb_spans_dropped_total[5m]))", "dropped")], 8)
    board.panel("timeseries", "Entries removed", "Entries removed per second, by cause.", "none",
                [("sum(rate(ebb_evictions_total[5m]))", "evicted"), ("sum(rate(ebb_expirations_total[5m]))", "expired"),
                 ("sum(rate(ebb_deletes_total[5m]))", "deleted"), ("sum(rate(ebb_invalidated_total[5m]))", "invalidated")], 8)
    board.panel("timeseries", "Writes", "Values stored per second.", "reqps", [("sum(rate(ebb_sets_total[5m]))", "stored")], 8)
    board.panel("timeseries", "Errors", "Failed requests per second by status code, and refusals by reason.", "reqps",
                [('sum by (code) (rate(ebb_requests_total{code!="ok"}[5m])) > 0', "{{code}}"), ("sum by (reason) (rate(ebb_refusals_total[5m])) > 0", "refused: {{reason}}")], 8)
    board.panel("timeseries", "Connections and calls", "Open connections and calls, and connections accepted per second.", "none",
                [("sum(ebb_open_connections)", "connections"), ("sum(ebb_open_calls)", "calls"), ("sum(rate(ebb_accepted_connections_total[5m]))", "accepted/s")], 8)
    board.row("Connections and log")
    board.panel("timeseries", "Connections by listener", "Open connections. At the limit (256 by `connections`, 64 of the HTTP listener) a new connection closes another one.", "none",
                [("sum(ebb_open_connections)", "data"), ("sum(ebb_http_connections)", "HTTP")], 8, defaults={"min": 0})
    board.panel("timeseries", "Rejections", "Connections and requests rejected by the transport per second, by kind.", "none",
                [("sum by (kind) (rate(ebb_transport_rejections_total[5m]))", "{{kind}}")], 8, defaults={"min": 0})
    board.panel("timeseries", "Closed by the HTTP listener", "Connections closed per second, by reason.", "none",
                [("sum by (reason) (rate(ebb_http_closed_connections_total[5m]))", "{{reason}}")], 8, defaults={"min": 0})
    board.panel("timeseries", "Memory of connections", "Memory charged to requests and responses in flight.", "bytes",
                [("sum(ebb_in_flight_bytes)", "in flight"), ("sum(ebb_http_in_flight_bytes)", "HTTP listener")], 8, defaults={"min": 0})
    board.panel("timeseries", "Log lines dropped", "Lines per second: standard error is not read in time.", "none",
                [("sum(rate(ebb_log_lines_dropped_total[5m]))", "lines")], 8, defaults={"min": 0})
    board.panel("timeseries", "Configuration", "Generation of the active configuration, and whether the one on disk is good (1) or rejected (0).", "none",
                [("max(ebb_config_generation)", "generation"), ("min(ebb_config_good)", "good")], 8, custom={"lineInterpolation": "stepAfter"})
    return board


def render():
    return {"fleet.json": fleet().json(), "pod.json": pod().json()}


if __name__ == "__main__":
    for name, text in render().items():
        pathlib.Path(sys.argv[1], name).write_text(text)
