#!/usr/bin/env bash
# Lints the wire contract with buf, installed from npm into the cache folder given, and checks that nothing that was
# there before has gone: against the newest tag, if there is one.
set -eu
cache=$1
version=1.75.0
if ! command -v npm >/dev/null; then
  echo 'skipped: there is no npm to install buf with'
  exit 0
fi
if [ ! -x "$cache/buf/node_modules/.bin/buf" ]; then
  echo "installing @bufbuild/buf $version from npm into $cache/buf"
  npm install --silent --no-fund --no-audit --prefix "$cache/buf" "@bufbuild/buf@$version"
fi
buf=$cache/buf/node_modules/.bin/buf
"$buf" lint proto
echo 'buf lint: clean'
tag=$(git describe --tags --abbrev=0 2>/dev/null || true)
if [ -n "$tag" ]; then
  before=$(mktemp -d)
  git archive "$tag" proto | tar -x -C "$before"
  "$buf" breaking proto --against "$before/proto"
  echo "buf breaking: nothing lost since $tag"
fi
