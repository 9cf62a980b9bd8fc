#!/usr/bin/env bash
# The memory promise on cgroup v2, independent of this machine's version: boots a Debian kernel in an emulated machine
# (qemu, without virtualization) with busybox, runc, the static program and `ebb-bench`, and runs the scenarios of
# tests/cgroup2/init.sh.
# qemu, busybox, runc and the kernel come from Debian's packages; the kernel is unpacked into the cache, not installed.
#
#   tests/cgroup2.sh CACHE_DIR PROGRAM                  every scenario: a boot with PSI, and one without PSI and IPv6
#   tests/cgroup2.sh CACHE_DIR PROGRAM storms,resized   these scenarios, with PSI
#
# EBB_STORM_SECONDS: seconds of one round of writing (default 3); a storm takes rounds until it has stored its minimum.
# EBB_CGROUP2_MUTANT=blind hides the cgroup from the servers: then every scenario except `control` must fail.
set -eu
. "$(dirname "$0")/lib.sh"
cache=$(folder "$1") program=$2 only=${3:-}
here=$(cd "$(dirname "$0")" && pwd)
[ "$(uname -m)" = x86_64 ] || skip 'the virtual machine is an x86_64 one'
{ [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; } || skip 'only root on Debian can install qemu and a kernel'
file -L "$program" | grep -q 'static' || skip "$program is not a static program"

kernel=$cache/cgroup2/kernel
# shellcheck disable=SC2329 # run_apt calls it
unpack_kernel() {
  local image
  rm -rf "$kernel.part" && mkdir -p "$kernel.part" && chmod 777 "$kernel.part" &&
    image=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9]\)/\1/p' | head -n 1) &&
    (cd "$kernel.part" && apt-get download -q "$image" && dpkg -x ./*.deb . && rm ./*.deb) && mv "$kernel.part" "$kernel"
}
install_machine() {
  install_tools qemu-system-x86_64:qemu-system-x86 cpio runc || return
  file -L /bin/busybox 2>/dev/null | grep -q 'statically linked' || install_packages busybox-static || return
  [ ! -d "$kernel" ] || return 0
  echo "unpacking the kernel of linux-image-cloud-amd64 into $kernel" >&2
  run_apt unpack_kernel
}
install_machine || die 'FAILED: the packages of the virtual machine cannot be installed'

make_work
root=$work/root
mkdir -p "$root"/{bin,modules}
for file in ebb ebb-bench; do strip --strip-debug -o "$root/bin/$file" "$(dirname "$program")/$file"; done
cp -L /bin/busybox "$root/bin/busybox"
ln -s busybox "$root/bin/sh"
cp "$here/cgroup2/init.sh" "$root/init"
cp "$here/lib.sh" "$root/lib.sh"
cp "$here/cgroup2/config.json" "$root/config.json"
cp "$(find "$kernel" -name loop.ko)" "$root/modules/"
for tool in unshare runc; do # busybox's unshare knows no cgroup namespace
  path=$(command -v "$tool")
  cp -L "$path" "$root/bin/$tool"
  for library in $(ldd "$path" | grep -o '/[^ ]*'); do
    mkdir -p "$root/$(dirname "$library")"
    cp -L "$library" "$root/$library"
  done
done
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/initramfs"

failed=0
# The emulator runs string instructions byte by byte, so the kernel must not prefer them (erms, fsrm).
boot() { # scenarios, kernel arguments
  timeout 900 qemu-system-x86_64 -accel tcg,thread=multi -cpu max,erms=off,fsrm=off -smp 2 -m 1536 -nographic -no-reboot -nodefaults \
    -serial stdio -kernel "$kernel"/boot/vmlinuz-* -initrd "$work/initramfs" -append "console=ttyS0 loglevel=0 panic=-1 $2 \
    ebb.scenarios=$1 ebb.seconds=${EBB_STORM_SECONDS:-3} ebb.mutant=${EBB_CGROUP2_MUTANT:-}" </dev/null |
    sed -u 's,\r,,g' | tee "$work/console" | grep --line-buffered -aE '^(ok|FAILED|log:) ' || true
  if grep -aq '^FAILED' "$work/console"; then failed=1; fi
  grep -aq '^done$' "$work/console" || { echo 'FAILED: the machine did not reach its end'; tail -n 30 "$work/console"; failed=1; }
}
all=control,storms,high,resized,nested,swap,namespace,container,page_cache
boot "${only:-$all}" psi=1
[ -n "$only" ] || boot without_psi,without_ipv6 "psi=0 ipv6.disable=1"
exit "$failed"
