#!/usr/bin/env bash
# A stock Python client (grpcio) against the server, over TCP and over a Unix socket, whose path C-core clients send as
# :authority. Installs grpcio into the cache folder given.
set -eu
cache=$1
version=1.85.1
here=$(cd "$(dirname "$0")" && pwd)
if ! command -v python3 >/dev/null; then
  echo 'skipped: there is no python3'
  exit 0
fi
if [ ! -x "$cache/python/bin/python" ]; then
  echo "installing grpcio and grpcio-tools $version from PyPI into $cache/python"
  python3 -m venv "$cache/python"
  "$cache/python/bin/pip" install --quiet "grpcio==$version" "grpcio-tools==$version"
fi
work=$(mktemp -d)
trap 'kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
"$cache/python/bin/python" -m grpc_tools.protoc -I proto --python_out="$work" --grpc_python_out="$work" \
  proto/ebb/v1/cache.proto proto/ebb/v1/admin.proto
program=${EBB_PROGRAM:-${CARGO_TARGET_DIR:-target}/debug/ebb}
[ -x "$program" ] || cargo build --locked
"$program" serve --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --http-listen 127.0.0.1:0 \
  --socket "$work/ebb.sock" >"$work/said" 2>"$work/log" &
server=$!
for _ in $(seq 200); do
  grep -q listening "$work/said" && break
  read -rt 0.05 <> <(:) || true
done
data=$(sed -E 's/.*data=([^ ]+).*/\1/' "$work/said")
PYTHONPATH=$work "$cache/python/bin/python" "$here/client.py" "$data" "unix:$work/ebb.sock"
