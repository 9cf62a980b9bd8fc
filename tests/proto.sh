#!/usr/bin/env bash
# Lints the wire contract with buf, installed from npm into the cache folder given, and checks that nothing of the baseline
# has gone: tests/contract/baseline.txtpb, the contract that clients may rely on.
#
#   tests/proto.sh CACHE [--bless]       --bless makes the present contract the baseline; do so at a release
set -eu
. "$(dirname "$0")/lib.sh"
cache=$(folder "$1")
cd "$(dirname "$0")/.."
baseline=tests/contract/baseline.txtpb
command -v npm >/dev/null || skip 'npm is not installed; buf needs it'
npm_packages "$cache/buf" @bufbuild/buf@1.75.0
buf=$cache/buf/node_modules/.bin/buf
"$buf" lint proto
echo 'buf lint: clean'
if [ "${2:-}" = --bless ]; then
  "$buf" build proto --path proto/ebb --exclude-source-info --output "$baseline"
fi
"$buf" breaking proto --against "$baseline"
echo 'buf breaking: nothing of the baseline has gone'
