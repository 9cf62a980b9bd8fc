#!/usr/bin/env bash
# A stock Node client (grpc-js) against the server, over TCP and over a Unix socket. Installs it into the cache directory.
set -eu
. "$(dirname "$0")/../lib.sh"
cache=$(folder "$1")
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
command -v npm >/dev/null || skip 'npm is not installed'
npm_packages "$cache/node" @grpc/grpc-js@1.14.0 @grpc/proto-loader@0.8.0
make_work
find_program
start_server --socket "$work/ebb.sock"
node "$here/node/client.mjs" "$cache/node" "$PWD/proto" "$(server_address data)" "unix:$work/ebb.sock"
