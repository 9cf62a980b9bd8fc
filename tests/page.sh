#!/usr/bin/env bash
# The live page in a headless Chromium: loaded, watched while a cache is filled and emptied through a stock Node client,
# lost and found again, without a browser's streams, on a phone, in the dark. Installs what it needs into the cache folder
# given; Chromium itself comes from Debian's packages, where the test may install them.
#
#   tests/page.sh CACHE_DIR            check
#   tests/page.sh CACHE_DIR --bless    take docs/live-page.png anew
set -eu
cache=$(mkdir -p "$1" && cd "$1" && pwd)/page
cd "$(dirname "$0")/.."
skip() { echo "skipped: $*"; exit 0; }
command -v npm >/dev/null || skip 'there is no npm'
browser=${EBB_CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}
if [ -z "$browser" ] && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  echo "installing chromium from Debian's packages"
  { apt-get install -y --no-install-recommends chromium || { apt-get update && apt-get install -y --no-install-recommends chromium; }; } >"$cache.log" 2>&1 ||
    { tail -n 3 "$cache.log"; skip 'chromium cannot be installed'; }
  browser=$(command -v chromium || true)
fi
[ -n "$browser" ] || skip 'there is no Chromium, and only root may install one'
if [ ! -d "$cache/node_modules/axe-core" ]; then
  echo "installing playwright-core, axe-core, @grpc/grpc-js and @grpc/proto-loader from npm into $cache"
  npm install --silent --no-fund --no-audit --prefix "$cache" \
    playwright-core@1.65.1 axe-core@4.11.0 @grpc/grpc-js@1.14.0 @grpc/proto-loader@0.8.0
fi
program=${EBB_PROGRAM:-${CARGO_TARGET_DIR:-target}/debug/ebb}
[ -x "$program" ] || cargo build --locked
cp tests/page/page.mjs "$cache/page.mjs" # node looks for modules beside the script
exec node "$cache/page.mjs" "$program" "$browser" "$PWD" "${2:-}"
