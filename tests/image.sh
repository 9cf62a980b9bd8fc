#!/usr/bin/env bash
# Builds the image ebb:VERSION with buildah, without a daemon: a static program and nothing else. Prints its size.
#
#   tests/image.sh [NAME [PROGRAM]]           NAME is ebb:VERSION if not given; PROGRAM is built if not given
#   tests/image.sh NAME ARCH[=PROGRAM]...     one NAME for several of amd64 and arm64: a list of NAME-amd64 and NAME-arm64
#
# Build a PROGRAM for another architecture on a machine of that architecture, or cross-compile it with Rust's target
# (rustup target add aarch64-unknown-linux-gnu) and a linker (on Debian gcc-aarch64-linux-gnu and libc6-dev-arm64-cross). An
# emulator (qemu-user-static) runs it as a check; without one only the ELF header is checked.
set -eu
. "$(dirname "$0")/lib.sh"
cd "$(dirname "$0")/.."
version=$(sed -nE 's/^version = "(.*)"/\1/p' Cargo.toml | head -n 1)
name=${1:-ebb:$version}
command -v buildah >/dev/null || die 'buildah not found; install it with your package manager'
make_work

# Name of an architecture for the kernel and Rust, and its number in an ELF header.
machine_of() { case $1 in amd64) echo x86_64 ;; arm64) echo aarch64 ;; esac; }
elf_of() { case $1 in amd64) echo 62 ;; arm64) echo 183 ;; esac; }
case $(uname -m) in
  x86_64) own=amd64 ;;
  aarch64) own=arm64 ;;
  *) die "$(uname -m) is none of the architectures that there are images for: amd64, arm64" ;;
esac

# Builds the program for an architecture, and prints its path.
build() {
  local target linker
  target=$(machine_of "$1")-unknown-linux-gnu
  if [ "$1" != "$own" ]; then
    linker=CARGO_TARGET_$(tr 'a-z-' 'A-Z_' <<<"$target")_LINKER
    export "$linker=${!linker:-$(machine_of "$1")-linux-gnu-gcc}"
  fi
  # build.rs has the other options of the linker. A program for another machine needs glibc 2.36 or newer to be linked.
  RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --target "$target" >&2
  echo "${CARGO_TARGET_DIR:-target}/$target/release/ebb"
}

# Prepares a directory with the program for an architecture, to be copied into an image.
prepare() {
  local arch=$1 program=$2 found emulator='' strip=strip
  mkdir "$work/$arch"
  cp "$program" "$work/$arch/ebb"
  [ "$(head -c 4 "$program" | tail -c 3)" = ELF ] || die "$program is no program: it has no ELF header"
  found=$(od -An -j18 -N2 -tu2 "$program" | tr -d ' ')
  [ "$found" = "$(elf_of "$arch")" ] ||
    die "$program is not for $arch: its ELF header names machine $found, and $arch is $(elf_of "$arch")"
  if [ "$arch" != "$own" ]; then
    emulator=qemu-$(machine_of "$arch")-static
    strip=$(machine_of "$arch")-linux-gnu-strip
  fi
  if command -v "$strip" >/dev/null; then
    "$strip" "$work/$arch/ebb"
  else
    echo "$arch: $strip not found, so the program keeps its symbols" >&2
  fi
  if [ -z "$emulator" ] || command -v "$emulator" >/dev/null; then
    $emulator "$work/$arch/ebb" --version >/dev/null || die "$program does not run here"
  else
    echo "$arch: $emulator not found, so the program was not run" >&2
  fi
}

kib() { echo $((($1 + 1023) / 1024)); }
say() {
  local program=$work/$2/ebb
  echo "$1: $(kib "$(stat -c %s "$program")") KiB, $(kib "$(gzip -c "$program" | wc -c)") KiB to pull"
}
bud() { buildah bud --isolation chroot --quiet --arch "$1" --file Containerfile "${@:2}" "$work/$1"; }

case ${2:-} in
  amd64 | amd64=* | arm64 | arm64=*)
    archs=()
    for word in "${@:2}"; do
      arch=${word%%=*}
      [ -n "$(machine_of "$arch")" ] || die "$word: it must be amd64 or arm64, and may name a program: arm64=PROGRAM"
      [ ! -e "$work/$arch" ] || die "$arch is there twice"
      program=${word#"$arch"}
      program=${program#=}
      [ -n "$program" ] || program=$(build "$arch")
      prepare "$arch" "$program"
      archs+=("$arch")
    done
    # Remove entries of earlier images with this name from the list.
    buildah manifest rm "$name" >/dev/null 2>&1 || buildah rmi "$name" >/dev/null 2>&1 || true
    for arch in "${archs[@]}"; do buildah rmi "$name-$arch" >/dev/null 2>&1 || true; done
    buildah manifest create "$name" >/dev/null
    for arch in "${archs[@]}"; do
      buildah manifest add "$name" "$(bud "$arch" --tag "$name-$arch")" >/dev/null
      say "$name, $arch" "$arch"
    done
    ;;
  *)
    program=${2:-}
    [ -n "$program" ] || program=$(build "$own")
    prepare "$own" "$program"
    bud "$own" --tag "$name" >/dev/null
    say "$name" "$own"
    ;;
esac
