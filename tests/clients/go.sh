#!/usr/bin/env bash
# A stock Go client (grpc-go) against the server, over TCP and over a Unix socket. Downloads grpc-go and the generators of
# its code as Go modules, pinned in go/go.mod, and builds in the cache directory.
set -eu
. "$(dirname "$0")/../lib.sh"
cache=$(folder "$1")
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
command -v go >/dev/null || skip 'there is no go'
command -v npm >/dev/null || skip 'npm is not installed; buf, which calls the generators, needs it'
npm_packages "$cache/buf" @bufbuild/buf@1.75.0
client=$cache/go-client
mkdir -p "$client/bin"
cp "$here"/go/* "$client"
(cd "$client" && GOBIN=$client/bin go install tool)
plugin() { printf '{"local": "%s/bin/%s", "out": "%s", "opt": ["paths=source_relative"]}' "$client" "$1" "$client"; }
template="{\"version\": \"v2\", \"plugins\": [$(plugin protoc-gen-go), $(plugin protoc-gen-go-grpc)]}"
"$cache/buf/node_modules/.bin/buf" generate proto --path proto/ebb/v1/cache.proto --template "$template"
(cd "$client" && go build -o bin/client .)
make_work
find_program
start_server --socket "$work/ebb.sock"
"$client/bin/client" "$(server_address data)" "unix:$work/ebb.sock"
