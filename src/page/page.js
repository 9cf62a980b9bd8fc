"use strict";
// Draws the stream /events. The state holds the last hour; each event redraws the whole page from it.
const state = { points: [], receipts: [], receiptColumns: [], now: null, before: null, pointSeconds: 5, minutes: 60, peaks: [0, 0, 0], mouse: null };
const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);

// ---- words and numbers
const plural = (n, one) => `${count(n)} ${one}${n === 1 ? "" : "s"}`;
const count = (n) => Math.round(n).toLocaleString("en");
function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (n >= 1024 && unit < 4) { n /= 1024; unit += 1; }
  return [n >= 100 || unit === 0 ? n.toFixed(0) : n.toFixed(1), units[unit]];
}
const size = (n) => bytes(n).join(" ");
const micros = (n) => n < 1000 ? `${n} µs` : n < 1e6 ? `${(n / 1000).toFixed(n < 1e4 ? 1 : 0)} ms` : `${(n / 1e6).toFixed(1)} s`;
const clock = (ms, seconds) => new Date(ms).toLocaleTimeString([], seconds ? {} : { hour: "2-digit", minute: "2-digit" });
function span(ms) {
  const [d, h, m, s] = [ms / 864e5, ms / 36e5 % 24, ms / 6e4 % 60, ms / 1000 % 60].map(Math.floor);
  return d ? `${d}d ${h}h` : h ? `${h}h ${m}m` : m ? `${m}m ${s}s` : `${s}s`;
}
function figure(id, value, unit) {
  $(id).replaceChildren(value, ...(unit ? [element("small", {}, unit)] : []));
}
function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
function shape(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// ---- charts
// Distance of grid lines, for about `wanted` lines up to `most`: a power of two for bytes, else 1, 2 or 5 by a power of ten.
function step(most, wanted, base) {
  let unit = 1;
  const least = most / wanted;
  if (base === 2) { while (unit < least) unit *= 2; return unit; }
  unit = 10 ** Math.floor(Math.log10(least || 1));
  return [1, 2, 5, 10].map((n) => n * unit).find((n) => n >= least) || unit;
}
function frame(id, label, most, unit, base) {
  const box = $(id), width = box.clientWidth || 600, height = box.clientHeight || 150;
  const area = { left: 58, right: width - 10, top: 10, bottom: height - 22 };
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": label });
  const each = step(most, area.bottom > 200 ? 5 : 3, base), top = Math.max(most, each);
  const y = (value) => area.bottom - (area.bottom - area.top) * Math.min(value, top * 1.02) / top;
  for (let value = 0; value <= top * 1.001; value += each) {
    svg.append(shape("line", { class: "grid", x1: area.left, x2: area.right, y1: y(value), y2: y(value) }));
    svg.append(shape("text", { class: "axis", x: area.left - 8, y: y(value) + 4, "text-anchor": "end" }, unit(value)));
  }
  return { box, svg, area, y };
}
function times(chart, from, to) {
  const { area, svg } = chart;
  chart.x = (ms) => area.left + (area.right - area.left) * (ms - from) / (to - from);
  const each = [15e3, 3e4, 6e4, 18e4, 6e5].find((n) => (to - from) / n * 84 <= area.right - area.left) || 6e5;
  for (let at = Math.ceil(from / each) * each; at <= to; at += each) {
    const x = chart.x(at);
    if (x < area.right - 14 && x > area.left + 10) svg.append(shape("text", { class: "axis", x, y: area.bottom + 17, "text-anchor": "middle" }, clock(at, each < 6e4)));
  }
}
function path(chart, points, of) {
  let text = "", pen = "M";
  for (const point of points) {
    const value = of(point);
    if (value === null) { pen = "M"; continue; }
    text += `${pen}${chart.x(point.at).toFixed(1)} ${chart.y(value).toFixed(1)}`;
    if (pen === "M") text += "h0"; // a single point is drawn as a dot
    pen = "L";
  }
  return text;
}
const line = (chart, points, of, kind) => chart.svg.append(shape("path", { class: `l ${kind}`, d: path(chart, points, of) }));
const empty = (chart, words) => chart.svg.append(shape("text", { class: "axis", x: (chart.area.left + chart.area.right) / 2, y: (chart.area.top + chart.area.bottom) / 2, "text-anchor": "middle" }, words));

function drawMemory(points, from, to) {
  const n = state.now, most = Math.max(...points.map((p) => Math.max(p.used, p.rss)), n.limit_bytes);
  const label = `Memory over the last ${state.minutes} minutes: limit ${size(n.limit_bytes)}, used ${size(n.used_bytes)}, resident ${size(n.rss_bytes)}, live ${size(n.live_bytes)}`;
  const chart = frame("memory", label, most * 1.04, size, 2);
  times(chart, from, to);
  if (points.length > 1) {
    const first = points[0], last = points[points.length - 1];
    const ground = `L${chart.x(last.at).toFixed(1)} ${chart.area.bottom}L${chart.x(first.at).toFixed(1)} ${chart.area.bottom}Z`;
    chart.svg.append(shape("path", { class: "a live", d: path(chart, points, (p) => p.live) + ground }));
    for (const kind of ["live", "used", "rss", "limit"]) line(chart, points, (p) => p[kind], kind);
  } else empty(chart, "Waiting for the first points.");
  const held = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.receipt : null;
  for (const receipt of state.receipts.filter((r) => r.started_at_ms >= from)) {
    const words = describe(receipt);
    const mark = shape("circle", {
      class: receipt.evicted_items ? "mark evicts" : "mark", r: 5.5, cx: chart.x(receipt.started_at_ms).toFixed(1),
      cy: chart.y(receipt.rss_after_bytes).toFixed(1), tabindex: 0, role: "img", "aria-label": words.replaceAll("\n", ", "),
      "data-receipt": receipt.id,
    });
    for (const event of ["mouseenter", "focus"]) mark.addEventListener(event, () => tip(mark, words));
    for (const event of ["mouseleave", "blur"]) mark.addEventListener(event, () => tip(null));
    chart.svg.append(mark);
  }
  chart.box.replaceChildren(chart.svg);
  const again = held && chart.svg.querySelector(`[data-receipt="${held}"]`);
  if (again) again.focus({ preventScroll: true });
  else if (!isOnMark(state.mouse)) tip(null); // a removed mark gets no mouseleave event
}
const isOnMark = (place) => Boolean(place && document.elementFromPoint(...place)?.classList.contains("mark"));
function describe(r) {
  const did = [`${size(r.moved_bytes)} moved`, `${plural(r.freed_segments, "segment")} freed`];
  if (r.evicted_items) did.push(`${plural(r.evicted_items, "entry").replace("entrys", "entries")} evicted`);
  return [`Receipt ${r.id}: ${r.reason.replaceAll("_", " ")}, ${clock(r.started_at_ms, true)}`, did.join(", "),
    `resident ${size(r.rss_before_bytes)} → ${size(r.rss_after_bytes)}`,
    `${micros(r.cpu_us)} of CPU in ${micros(r.duration_us)}, longest step ${micros(r.longest_step_us)}`].join("\n");
}
function tip(at, words) {
  const box = $("tip");
  box.hidden = !at;
  if (!at) return;
  box.textContent = words;
  const place = at.getBoundingClientRect();
  const left = Math.min(Math.max(8, place.left + place.width / 2 - box.offsetWidth / 2), innerWidth - box.offsetWidth - 8);
  const above = place.top - box.offsetHeight - 10;
  // The page's policy allows styles set by a script, but not style attributes in the markup.
  box.style.left = `${left + scrollX}px`;
  box.style.top = `${(above > 0 ? above : place.bottom + 10) + scrollY}px`;
}
function drawRatio(points, from, to) {
  const chart = frame("ratio", "Hit ratio", 100, (v) => `${v} %`, 10);
  times(chart, from, to);
  const of = rates(points, (a, b) => {
    const hits = b.hits - a.hits, reads = hits + b.misses - a.misses;
    return reads > 0 ? 100 * hits / reads : null;
  });
  of.some((p) => p.value !== null) ? line(chart, of, (p) => p.value, "hit") : empty(chart, "No reads yet.");
  chart.box.replaceChildren(chart.svg);
}
function drawLatency(points, from, to) {
  const most = Math.max(...points.map((p) => p.p99), 20);
  const chart = frame("latency", "Latency of requests in the server", most * 1.1, (v) => micros(Math.round(v)), 10);
  times(chart, from, to);
  if (points.some((p) => p.p99)) {
    line(chart, points, (p) => p.p99 || null, "p99");
    line(chart, points, (p) => p.p50 || null, "p50");
  } else empty(chart, "No requests yet.");
  chart.box.replaceChildren(chart.svg);
}
const rates = (points, of) => points.slice(1).map((p, i) => ({ at: p.at, value: of(points[i], p) }));
function drawSegments() {
  const counts = state.now.occupancy, most = Math.max(...counts, 1);
  const total = counts.reduce((a, b) => a + b, 0);
  const chart = frame("segments", `${plural(total, "segment")}; ${counts[9]} of them at least 90 % live`, most, (v) => count(v), 10);
  const { area } = chart, wide = (area.right - area.left) / 10;
  counts.forEach((n, i) => {
    const y = chart.y(n), x = area.left + i * wide;
    const bar = shape("rect", { class: i < 5 ? "bar low" : "bar", x: x + 3, y, width: wide - 6, height: Math.max(0, area.bottom - y), rx: 2, role: "img", "aria-label": `${i * 10} to ${i * 10 + 10} percent live: ${plural(n, "segment")}` });
    bar.append(shape("title", {}, `${i * 10}–${i * 10 + 10} % live: ${plural(n, "segment")} of ${size(state.now.one_segment_bytes)}`));
    chart.svg.append(bar, shape("text", { class: "axis", x: x + wide / 2, y: area.bottom + 17, "text-anchor": "middle" }, i % 2 ? "" : `${i * 10} %`));
  });
  chart.box.replaceChildren(chart.svg);
}

// ---- words
function drawTiles() {
  const n = state.now, b = state.before || n, share = n.limit_bytes ? n.used_bytes / n.limit_bytes : 0;
  figure("used", ...bytes(n.used_bytes));
  $("used-note").textContent = `${(share * 100).toFixed(0)} % of ${size(n.limit_bytes)} (${n.limit_source})`;
  Object.assign($("used-meter"), { value: share, low: .88, high: .94, optimum: .5 });
  figure("rss", ...bytes(n.rss_bytes));
  $("rss-note").textContent = n.live_bytes > 1 << 20 ? `${(n.rss_bytes / n.live_bytes).toFixed(2)} × live` : "";
  figure("live", ...bytes(n.live_bytes));
  $("live-note").textContent = plural(n.entries, "entry").replace("entrys", "entries");
  const hits = n.hits - b.hits, reads = hits + n.misses - b.misses, all = n.hits + n.misses;
  const [part, of] = reads > 0 ? [hits, reads] : [n.hits, all];
  of ? figure("hits", (100 * part / of).toFixed(1), "%") : figure("hits", "–");
  $("hits-note").textContent = reads > 0 ? "in the last second" : of ? "since the start" : "no reads yet";
  const seconds = Math.max(1, (n.at_ms - b.at_ms) / 1000);
  figure("rate", count((n.requests - b.requests) / seconds), "/s");
  $("rate-note").textContent = plural(n.open_connections, "connection");
  n.p99_us ? figure("p99", ...micros(n.p99_us).split(" ")) : figure("p99", "–");
  $("p99-note").textContent = n.p99_us ? `p99; p50 ${micros(n.p50_us)}` : "no recent requests";
  const regime = $("regime");
  if (regime.textContent !== n.regime) regime.textContent = n.regime;
  regime.className = `regime ${n.regime}`;
  $("uptime").textContent = `· up ${span(n.uptime_ms)}`;
  document.title = `Ebb · ${size(n.used_bytes)} of ${size(n.limit_bytes)}`;
}
function drawWhere() {
  const n = state.now, engine = n.segment_bytes + n.index_bytes + n.in_flight_bytes;
  const rows = [["live keys and values", n.live_bytes], ["item headers", n.item_bytes - n.live_bytes], ["dead data awaiting compaction", n.dead_bytes],
    ["empty space in segments", Math.max(0, n.segment_bytes - n.item_bytes - n.dead_bytes)], ["index", n.index_bytes],
    ["requests and responses in flight", n.in_flight_bytes], ["overhead (not the cache)", Math.max(0, n.used_bytes - engine)]];
  const body = element("tbody", {}, ...rows.map(([what, amount]) => element("tr", {}, element("td", {}, what), element("td", { class: "n" }, size(amount)))));
  $("where").replaceChildren(element("table", {}, body));
}
function drawFindings() {
  const found = state.now.findings.map((f) => element("li", { class: f.severity },
    element("b", {}, `${f.severity}: ${f.evidence}`), element("br", {}), f.remedy, " ", element("code", {}, f.link)));
  $("findings").replaceChildren(...(found.length ? found : [element("li", { class: "none" }, "All is well.")]));
}
function drawReceipts() {
  const last = state.receipts.slice(-16).reverse();
  const rows = last.map((r) => element("tr", {}, ...[clock(r.started_at_ms, true), r.reason.replaceAll("_", " "), micros(r.duration_us), micros(r.cpu_us),
    micros(r.longest_step_us), size(r.moved_bytes), count(r.evicted_items), count(r.freed_segments), `${size(r.rss_before_bytes)} → ${size(r.rss_after_bytes)}`].map((t) => element("td", {}, t))));
  if (rows.length) $("receipts").replaceChildren(...rows);
}
function drawConfig() {
  const config = state.now.config;
  $("config-note").textContent = `generation ${config.generation}, since ${new Date(config.at).toLocaleString()}${config.problem ? "; the configuration on disk is rejected" : ""}`;
  $("config").replaceChildren(...config.settings.map((row) => element("tr", {}, ...[row.key, row.value, row.source].map((cell) => element("td", {}, cell)))));
}
function draw() {
  if (!state.now) return;
  // A server younger than the time range is shown from its first point, but at least one minute.
  const to = state.now.at_ms, oldest = Math.min(state.points.length ? state.points[0].at : to, to - 6e4);
  const from = Math.max(to - state.minutes * 6e4, oldest);
  const here = { at: to, limit: state.now.limit_bytes, used: state.now.used_bytes, rss: state.now.rss_bytes, live: state.now.live_bytes,
    hits: state.now.hits, misses: state.now.misses, requests: state.now.requests, p50: state.now.p50_us, p99: state.now.p99_us };
  const points = [...state.points.filter((p) => p.at >= from && p.at < to), here];
  drawTiles(); drawMemory(points, from, to); drawRatio(points.slice(0, -1), from, to); drawLatency(points.slice(0, -1), from, to);
  drawSegments(); drawWhere(); drawFindings(); drawReceipts(); drawConfig();
}

// ---- the stream
function trouble(words) { $("trouble").textContent = words || ""; $("trouble").hidden = !words; }
function point([at, limit, used, rss, live, hits, misses, requests, p50, p99]) {
  return { at: at * 1000, limit: limit * 1024, used: used * 1024, rss: rss * 1024, live: live * 1024, hits, misses, requests, p50, p99 };
}
// A row holds differences from the row before, except the two latencies at its end.
function summed(rows) {
  const sum = Array(8).fill(0);
  return rows.map((row) => [...sum.map((_, i) => sum[i] += row[i]), ...row.slice(8)]);
}
const receipt = (row) => Object.fromEntries(state.receiptColumns.map((name, i) => [name, row[i]]));
// Messages hold 64-bit numbers as strings.
const numbers = (message) => Object.fromEntries(Object.entries(message).map(([name, value]) => [name, /^-?\d+$/.test(value) ? Number(value) : value]));
function take({ stats, ...rest }) {
  const now = { ...numbers(stats), ...numbers(stats.memory), ...rest, config: { ...rest.config, ...numbers({ at: rest.config.applied_at_ms }) } };
  state.before = state.now;
  state.now = now;
  state.receipts = [...state.receipts, ...now.receipts.map(receipt)].slice(-120);
  const last = state.points[state.points.length - 1];
  state.peaks = [now.used_bytes, now.rss_bytes, now.live_bytes].map((n, i) => Math.max(n, state.peaks[i]));
  if (!last || now.at_ms >= last.at + state.pointSeconds * 1000) {
    state.points.push(point([now.at_ms / 1000, now.limit_bytes / 1024, ...state.peaks.map((n) => n / 1024), now.hits, now.misses, now.requests, now.p50_us, now.p99_us]));
    state.points = state.points.slice(-720);
    state.peaks = [0, 0, 0];
  }
}
function listen() {
  const stream = new EventSource("events");
  stream.addEventListener("history", (event) => {
    const said = JSON.parse(event.data);
    state.receiptColumns = said.receipt_columns;
    Object.assign(state, { receipts: said.receipts.map(receipt), points: summed(said.points).map(point), pointSeconds: said.point_seconds, now: null, before: null });
    $("version").textContent = said.version;
  });
  stream.addEventListener("now", (event) => { trouble(); take(JSON.parse(event.data)); draw(); });
  stream.onerror = () => {
    $("regime").textContent = "not connected";
    $("regime").className = "regime";
    trouble(stream.readyState === EventSource.CLOSED
      ? "The server refused the stream: too many pages are open, or it is shutting down. Reload the page."
      : "Connection lost; reconnecting.");
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 5000);
  };
}
for (const button of document.querySelectorAll("[data-minutes]")) {
  button.addEventListener("click", () => {
    state.minutes = Number(button.dataset.minutes);
    for (const other of document.querySelectorAll("[data-minutes]")) other.setAttribute("aria-pressed", String(other === button));
    draw();
  });
}
addEventListener("resize", draw);
addEventListener("mousemove", (event) => { state.mouse = [event.clientX, event.clientY]; });
document.addEventListener("mouseleave", () => { state.mouse = null; });
addEventListener("keydown", (event) => { if (event.key === "Escape") tip(null); });
if (window.EventSource) listen();
else trouble("This browser cannot receive a stream of events. `ebb stats --watch` and /metrics show the same figures.");
