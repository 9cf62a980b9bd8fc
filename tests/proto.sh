#!/usr/bin/env bash
# Lints the wire contract with buf, installed from npm into the cache folder given, and checks that nothing that was
# there before has gone: against the newest tag, if there is one.
set -eu
. "$(dirname "$0")/lib.sh"
cache=$(folder "$1")
cd "$(dirname "$0")/.."
command -v npm >/dev/null || skip 'npm is not installed; buf needs it'
npm_packages "$cache/buf" @bufbuild/buf@1.75.0
buf=$cache/buf/node_modules/.bin/buf
"$buf" lint proto
echo 'buf lint: clean'
tag=$(git describe --tags --abbrev=0 2>/dev/null || true)
if [ -n "$tag" ]; then
  make_work
  git archive "$tag" proto | tar -x -C "$work"
  "$buf" breaking proto --against "$work/proto"
  echo "buf breaking: nothing lost since $tag"
fi
