#!/usr/bin/env bash
# The memory promise on cgroup v2, as the clusters run it: a Debian kernel in a virtual machine (qemu, emulated, no
# hardware needed) with nothing in it but busybox and the static program, and the scenarios of tests/cgroup2/init.sh.
# Takes qemu, busybox and the kernel from Debian's packages; the kernel is unpacked into the cache folder, not installed.
#
#   tests/cgroup2.sh .cache target/x86_64-unknown-linux-gnu/debug/ebb
set -eu
cache=$(mkdir -p "$1" && cd "$1" && pwd) program=$2
here=$(cd "$(dirname "$0")" && pwd)
seconds=${EBB_STORM_SECONDS:-5}

packages=()
command -v qemu-system-x86_64 >/dev/null || packages+=(qemu-system-x86)
command -v cpio >/dev/null || packages+=(cpio)
file -L /bin/busybox 2>/dev/null | grep -q 'statically linked' || packages+=(busybox-static)
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ] || [ "$(uname -m)" != x86_64 ]; then
  echo 'skipped: needs root on a Debian machine of x86_64'
  exit 0
fi
if [ ${#packages[@]} -gt 0 ]; then
  echo "installing ${packages[*]} from Debian's packages"
  apt-get update -q >/dev/null
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${packages[@]}" >/dev/null
fi
kernel=$cache/cgroup2/kernel
if [ ! -d "$kernel" ]; then
  echo "unpacking a kernel from Debian's packages into $kernel"
  mkdir -p "$cache/cgroup2"
  rm -rf "$kernel.part" && mkdir "$kernel.part"
  apt-get update -q >/dev/null
  image=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9]\)/\1/p' | head -1)
  (cd "$kernel.part" && apt-get download -q "$image" >/dev/null 2>&1 && dpkg -x ./*.deb . && rm ./*.deb)
  mv "$kernel.part" "$kernel"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root"/{bin,dev,proc,sys,tmp,modules}
cp "$program" "$root/bin/ebb"
strip --strip-debug "$root/bin/ebb"
cp -L /bin/busybox "$root/bin/busybox"
ln -s busybox "$root/bin/sh"
cp "$here/cgroup2/init.sh" "$root/init"
find "$kernel" -name loop.ko -exec cp {} "$root/modules/" \;
# For a cgroup namespace; busybox has no word for it.
unshare=$(command -v unshare)
cp "$unshare" "$root/bin/unshare"
for library in $(ldd "$unshare" | grep -o '/[^ ]*'); do
  mkdir -p "$root/$(dirname "$library")"
  cp -L "$library" "$root/$library"
done
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/initramfs"

failed=0
boot() { # scenarios, kernel arguments
  echo "-- $1"
  timeout 900 qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 1536 -nographic -no-reboot -nodefaults \
    -serial stdio -kernel "$kernel"/boot/vmlinuz-* -initrd "$work/initramfs" \
    -append "console=ttyS0 quiet panic=-1 $2 ebb.scenarios=$1 ebb.seconds=$seconds" </dev/null | tr -d '\r' |
    tee "$work/console" | grep -aE '^(ok|FAILED|log):? ' || true
  grep -aq '^FAILED' "$work/console" && failed=1
  grep -aq '^done$' "$work/console" || { echo 'FAILED: the machine did not come to its end'; tail -n 30 "$work/console"; failed=1; }
}
boot all psi=1
boot psi_off psi=0
exit "$failed"
