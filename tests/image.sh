#!/usr/bin/env bash
# Builds the image ebb:VERSION with buildah, without a daemon: a static program and nothing else. Prints its size.
#
#   tests/image.sh [NAME [PROGRAM]]      NAME is ebb:VERSION if not given; PROGRAM is built if not given
set -eu
cd "$(dirname "$0")/.."
version=$(sed -nE 's/^version = "(.*)"/\1/p' Cargo.toml | head -n 1)
name=${1:-ebb:$version}
program=${2:-}
if ! command -v buildah >/dev/null; then
  echo 'there is no buildah; install it with your package manager' >&2
  exit 1
fi
if [ -z "$program" ]; then
  target=$(rustc -vV | sed -n 's/^host: //p')
  # Packed relocations (glibc 2.36 or newer on the machine that builds) leave 0.5 MiB out of the file and, since they need
  # not be read at the start, 0.9 MiB out of what is resident.
  RUSTFLAGS='-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs' \
    cargo build --release --locked --target "$target"
  program=${CARGO_TARGET_DIR:-target}/$target/release/ebb
fi
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
cp "$program" "$context/ebb"
strip "$context/ebb"
"$context/ebb" --version >/dev/null || { echo "$program does not run here" >&2; exit 1; }
buildah bud --isolation chroot --quiet --tag "$name" --file Containerfile "$context" >/dev/null
kib() { echo $((($1 + 1023) / 1024)); }
echo "$name: $(kib "$(stat -c %s "$context/ebb")") KiB, $(kib "$(gzip -c "$context/ebb" | wc -c)") KiB to pull"
