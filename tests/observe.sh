#!/usr/bin/env bash
# What Prometheus and Grafana make of Ebb: the format, the alerts and their stories, and every query of the dashboards
# asked of a real Prometheus that has scraped a real server. Unpacks Prometheus from Debian's package into the cache folder
# given, where there is none.
#
#   tests/observe.sh CACHE_DIR            check
#   tests/observe.sh CACHE_DIR --bless    rewrite the dashboards
set -eu
cache=$(mkdir -p "$1" && cd "$1" && pwd)/observe
cd "$(dirname "$0")/.."
skip() { echo "skipped: $*"; exit 0; }
command -v python3 >/dev/null || skip 'there is no python3'
mkdir -p "$cache"
if command -v promtool >/dev/null && command -v prometheus >/dev/null; then
  tools=$(dirname "$(command -v promtool)")
else
  tools=$cache/usr/bin
  if [ ! -x "$tools/promtool" ]; then
    command -v apt-get >/dev/null || skip 'there is no promtool, and no apt-get to fetch one with'
    echo "unpacking prometheus from Debian's package into $cache"
    (cd "$cache" && { apt-get download prometheus || { apt-get update && apt-get download prometheus; }; } >log 2>&1 && dpkg -x prometheus_*.deb .) ||
      { tail -n 3 "$cache/log"; skip 'prometheus cannot be fetched'; }
  fi
fi
program=${EBB_PROGRAM:-${CARGO_TARGET_DIR:-target}/debug/ebb}
[ -x "$program" ] || cargo build --locked
exec python3 -B tests/observe/check.py "$program" "$tools" "${2:-}"
