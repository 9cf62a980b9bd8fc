#!/usr/bin/env bash
# The live page in a headless Chromium: loaded, watched while a cache is filled and emptied through a stock Node client,
# lost and found again, without a browser's streams, on a phone, in the dark. Installs what it needs into the cache folder
# given; Chromium itself comes from Debian's packages, where the test may install them.
#
#   tests/page.sh CACHE_DIR            check
#   tests/page.sh CACHE_DIR --bless    take docs/live-page.png anew
set -eu
. "$(dirname "$0")/lib.sh"
cache=$(folder "$1")/page
cd "$(dirname "$0")/.."
command -v npm >/dev/null || skip 'npm is not installed'
browser=${EBB_CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}
if [ -z "$browser" ]; then
  install_packages chromium || skip 'Chromium is not installed, and cannot be installed'
  browser=$(command -v chromium)
fi
npm_packages "$cache" playwright-core@1.65.1 axe-core@4.11.0 @grpc/grpc-js@1.14.0 @grpc/proto-loader@0.8.0
find_program
cp tests/page/page.mjs "$cache/page.mjs" # node looks for modules beside the script
exec node "$cache/page.mjs" "$program" "$browser" "$PWD" "${2:-}"
