#!/usr/bin/env bash
# The engine on kernels with pages of 4, 16 and 64 KiB, as some arm64 machines have: its tests, built for arm64, in an
# emulator that tells the program that size (qemu-user). Debian has no arm64 kernel with larger pages to boot: what the
# emulator cannot show is such a kernel's own madvise. A command of its own, of some minutes; needs root on Debian once, to
# install the emulator and a cross linker, and adds the Rust target.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$(dirname "$0")/.."
target=aarch64-unknown-linux-gnu
install_tools qemu-aarch64-static:qemu-user-static aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu \
  /usr/aarch64-linux-gnu/lib/libc.a:libc6-dev-arm64-cross
rustup target add "$target" 2>/dev/null
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/pages CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export RUSTFLAGS='-C target-feature=+crt-static'
program=$(cargo test --locked --package ebb-engine --lib --target "$target" --no-run --message-format json |
  sed -n 's/.*"executable":"\([^"]*\)".*/\1/p')
for bytes in 4096 16384 65536; do
  echo "pages of $bytes bytes"
  timeout 600 qemu-aarch64-static -p "$bytes" "$program" store:: | grep -E '^test result|FAILED|panicked'
done
