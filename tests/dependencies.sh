#!/usr/bin/env bash
# Checks licences, sources and duplicates of the dependencies, and known vulnerabilities if their database can be reached.
# Builds cargo-deny from the registry of Rust into the cache folder given. The rules are in .cargo/deny.toml.
set -eu
. "$(dirname "$0")/lib.sh"
cache=$(folder "$1")
cd "$(dirname "$0")/.."
version=0.20.2
deny=$cache/cargo-deny-$version/bin/cargo-deny
if [ ! -x "$deny" ]; then
  # For a check of a second, a build without optimization is the shorter way.
  env -u CARGO_BUILD_TARGET -u RUSTFLAGS CARGO_TARGET_DIR="$cache/cargo-deny-build" \
    cargo install cargo-deny --version "$version" --locked --debug --no-default-features --quiet \
    --root "$cache/cargo-deny-$version" || skip 'cargo-deny could not be installed'
  rm -rf "$cache/cargo-deny-build"
fi
"$deny" --locked check --deny unnecessary-skip --deny unmatched-skip licenses bans sources
if timeout 120 "$deny" fetch db 2>"$cache/cargo-deny.log"; then
  "$deny" --locked check --disable-fetch advisories
else
  tail -n 1 "$cache/cargo-deny.log"
  echo 'skipped: the database of advisories cannot be reached from here; advisories and yanked versions were not checked'
fi
