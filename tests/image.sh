#!/usr/bin/env bash
# Builds the image ebb:VERSION with buildah, without a daemon: a static program and nothing else. Prints its size.
#
#   tests/image.sh [NAME]      NAME is ebb:VERSION if not given
set -eu
cd "$(dirname "$0")/.."
version=$(sed -nE 's/^version = "(.*)"/\1/p' Cargo.toml | head -n 1)
name=${1:-ebb:$version}
target=x86_64-unknown-linux-gnu
if ! command -v buildah >/dev/null; then
  echo 'there is no buildah; install it with your package manager' >&2
  exit 1
fi
RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --target "$target"
program=${CARGO_TARGET_DIR:-target}/$target/release/ebb
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
cp "$program" "$context/ebb"
strip "$context/ebb"
buildah bud --isolation chroot --quiet --tag "$name" --file Containerfile "$context"
echo "$name: $(($(stat -c %s "$context/ebb") / 1024)) KiB"
