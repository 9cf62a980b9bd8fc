#!/usr/bin/env bash
# What Prometheus and Grafana make of Ebb: the format, the alerts and their scenarios, and every query of the dashboards
# asked of a real Prometheus that has scraped a real server. Unpacks Prometheus from Debian's package into the cache folder
# given, where there is none.
#
#   tests/observe.sh CACHE_DIR              check
#   tests/observe.sh CACHE_DIR --bless      rewrite the dashboards
#   tests/observe.sh CACHE_DIR -k alert     check with options of pytest
set -eu
. "$(dirname "$0")/lib.sh"
cache=$(folder "$1/observe")
shift
cd "$(dirname "$0")/.."
command -v python3 >/dev/null || skip 'python3 is not installed'
if command -v promtool >/dev/null && command -v prometheus >/dev/null; then
  tools=$(dirname "$(command -v promtool)")
else
  tools=$cache/usr/bin
  if [ ! -x "$tools/promtool" ]; then
    echo "unpacking prometheus from Debian's package into $cache"
    (cd "$cache" && run_apt apt-get download prometheus && dpkg -x prometheus_*.deb .) ||
      skip 'promtool is not installed, and Prometheus cannot be downloaded'
  fi
fi
python_packages "$cache/python" pytest==9.1.1
find_program
if [ "${1:-}" = --bless ]; then
  shift
  "$cache/python/bin/python" -B tests/observe/dashboards.py charts/ebb/files/dashboards
fi
exec "$cache/python/bin/python" -B -m pytest tests/observe --program "$program" --tools "$tools" "$@"
