#!/bin/sh
# The first process of the virtual machine of tests/cgroup2.sh: runs scenarios in cgroups of version 2 and prints a line
# for each, `ok NAME: figures` or `FAILED NAME: why`.
export PATH=/bin
for tool in $(busybox --list); do [ -e "/bin/$tool" ] || busybox ln -s busybox "/bin/$tool"; done
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
argument() { sed -n "s/.*ebb\.$1=\([^ ]*\).*/\1/p" /proc/cmdline; }
seconds=$(argument seconds)
groups=/sys/fs/cgroup
echo '+memory' >$groups/cgroup.subtree_control
ADDRESSES='--listen 127.0.0.1:7070 --admin-listen 127.0.0.1:7071 --http-listen 127.0.0.1:7072'

ok() { echo "ok $*"; }
fail() {
  echo "FAILED $*"
  tail -n 5 /tmp/log | sed 's/^/log: /'
}
mib() { echo $(($1 << 20)); }
event() { sed -n "s/^$2 //p" "$1/memory.events"; }
# Waits up to $1 tenths of a second for a condition.
within() {
  left=$1
  shift
  until "$@"; do
    left=$((left - 1))
    [ $left -gt 0 ] || return 1
    usleep 100000
  done
}
listens() { grep -q listening /tmp/said; }
# Starts a server in group $1, with more arguments.
serve() {
  group=$1
  shift
  : >/tmp/said
  sh -c 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"' sh "$group" "$@" >/tmp/said 2>/tmp/log &
  server=$!
  within 300 listens || fail "$group: the server did not start"
}
ebb_serve() {
  group=$1
  shift
  serve "$group" /bin/ebb serve $ADDRESSES "$@"
}
stop() {
  kill "$server" 2>/dev/null
  wait "$server" 2>/dev/null
  server=0
}
make() { mkdir "$groups/$1" && echo "$groups/$1"; }
# An emulated processor is slow: few calls at once, large values.
storm() { ebb bench storm --seconds "${1:-$seconds}" --calls 200 --large 20 2>&1; }
is_evicting() { [ "$(metric ebb_evictions_total)" != 0 ] || ! ebb bench storm --seconds 2 --calls 0 --large 90 >/tmp/fill>&1; }
# Writes until the cache is full.
fill() { within 60 is_evicting && [ "$(metric ebb_evictions_total)" != 0 ] || fail "fill: $(cat /tmp/fill)"; }
metric() { wget -qO- http://127.0.0.1:7072/metrics 2>/dev/null | sed -n "s/^$1 //p" | head -n 1; }
limit_is() { [ "$(metric ebb_memory_limit_bytes)" = "$1" ]; }
used_below() { [ "$(cat "$group/memory.current")" -le "$1" ]; }
unharmed() { kill -0 "$server" 2>/dev/null && [ "$(event "$group" oom_kill)" = 0 ]; }
# Says how a group fared.
judge() {
  name=$1
  shift
  peak=$(($(cat "$group/memory.peak" 2>/dev/null || echo 0) >> 20))
  figures="peak $peak MiB, high $(event "$group" high), max $(event "$group" max), oom_kill $(event "$group" oom_kill)"
  if unharmed; then ok "$name: $* $figures"; else fail "$name: $* $figures"; fi
}

storms() {
  for mib in 64 128 256; do
    group=$(make storm-$mib)
    mib $mib >"$group/memory.max"
    ebb_serve "$group"
    fill
    said=$(storm) || fail "storm-$mib: $said"
    judge "storm at memory.max $mib MiB" "$said;"
    stop
    rmdir "$group"
  done
}

high() {
  group=$(make high)
  mib 128 >"$group/memory.max"
  mib 96 >"$group/memory.high"
  ebb_serve "$group"
  limit_is "$(mib 96)" || fail "memory.high below memory.max: the limit is $(metric ebb_memory_limit_bytes)"
  fill
  calm=$(event "$group" high)
  [ "$calm" = 0 ] || fail "memory.high while calm: $calm events"
  before=$(sed -n 's/^full .*total=//p' "$group/memory.pressure")
  said=$(storm) || fail "memory.high: $said"
  stalled=$(($(sed -n 's/^full .*total=//p' "$group/memory.pressure") - before))
  judge 'storm at memory.high 96 MiB' "$said; full stall $((stalled / 1000)) ms;"
  [ "$stalled" -lt $((seconds * 100000)) ] || fail "memory.high: full stall $((stalled / 1000)) ms in $seconds s"
  stop
  rmdir "$group"
}

resized() {
  group=$(make resized)
  mib 256 >"$group/memory.max"
  printf %s "$(mib 256)" >/tmp/limit
  EBB_LIMIT_FILE=/tmp/limit ebb_serve "$group"
  fill
  before=$(($(cat "$group/memory.current") >> 20))
  # As a kubelet does: the new limit is in the file first, in the cgroup once less is used.
  printf %s "$(mib 128)" >/tmp/limit
  within 20 used_below "$(mib 128)" || fail "limit lowered: $before MiB are $(($(cat "$group/memory.current") >> 20)) MiB after 2 s"
  mib 128 >"$group/memory.max"
  storm 2 >/dev/null || fail 'limit lowered: the storm failed'
  judge 'limit lowered from 256 to 128 MiB' "$before MiB before;"
  mib 256 >"$group/memory.max"
  printf %s "$(mib 256)" >/tmp/limit
  within 20 limit_is "$(mib 256)" || fail "limit raised: it is $(metric ebb_memory_limit_bytes)"
  judge 'limit raised to 256 MiB'
  # Without the file: memory.high alone.
  fill
  mib 160 >"$group/memory.high"
  within 20 used_below "$(mib 160)" || fail "memory.high lowered: $(($(cat "$group/memory.current") >> 20)) MiB after 2 s"
  judge 'memory.high lowered to 160 MiB'
  stop
  rmdir "$group"
}

nested() {
  parent=$(make pod)
  mib 96 >"$parent/memory.max"
  echo '+memory' >"$parent/cgroup.subtree_control"
  group=$(make pod/container)
  ebb_serve "$group"
  limit_is "$(mib 96)" || fail "nested: the limit is $(metric ebb_memory_limit_bytes)"
  fill
  said=$(storm) || fail "nested: $said"
  judge 'storm in a group whose parent has 96 MiB' "$said;"
  stop
  rmdir "$group" "$parent"
}

oom_group() {
  group=$(make together)
  mib 96 >"$group/memory.max"
  echo 1 >"$group/memory.oom.group"
  echo 0 >"$group/memory.swap.max" 2>/dev/null || true
  ebb_serve "$group"
  fill
  said=$(storm) || fail "memory.oom.group: $said"
  judge 'storm with memory.oom.group and no swap' "$said;"
  stop
  rmdir "$group"
}

# As in a container: the group is the root of what is seen, and nothing can be written.
namespace() {
  group=$(make container)
  mib 96 >"$group/memory.max"
  serve "$group" /bin/unshare -C -m sh -c \
    "umount /sys/fs/cgroup && mount -t cgroup2 -o ro cgroup2 /sys/fs/cgroup && exec /bin/ebb serve $ADDRESSES"
  limit_is "$(mib 96)" || fail "namespace: the limit is $(metric ebb_memory_limit_bytes)"
  fill
  said=$(storm) || fail "namespace: $said"
  judge 'storm in a cgroup namespace, read-only' "$said;"
  stop
  rmdir "$group"
}

page_cache() {
  group=$(make cached)
  mib 128 >"$group/memory.max"
  ebb_serve "$group"
  fill
  insmod /modules/loop.ko 2>/dev/null
  dd if=/dev/zero of=/tmp/disk bs=1M count=200 2>/dev/null
  mke2fs -F /tmp/disk >/dev/null 2>&1
  mkdir -p /tmp/disk.d
  mount -t ext2 -o loop /tmp/disk /tmp/disk.d || mount -t ext4 -o loop /tmp/disk /tmp/disk.d || fail 'page cache: no disk'
  items=$(metric ebb_entries)
  sh -c 'echo $$ >"$1/cgroup.procs"; dd if=/dev/zero of=/tmp/disk.d/file bs=1M count=150 2>/dev/null; cat /tmp/disk.d/file' \
    sh "$group" >/dev/null
  judge 'page cache of another process' "$items entries before, $(metric ebb_entries) after;"
  [ "$(metric ebb_entries)" -ge $((items * 9 / 10)) ] || fail "page cache: $(metric ebb_entries) of $items items are left"
  stop
  umount /tmp/disk.d
  rm /tmp/disk
  rmdir "$group"
}

psi_off() {
  [ ! -e /proc/pressure/memory ] || cat /proc/pressure/memory >/dev/null 2>&1 && fail 'PSI is on'
  group=$(make quiet)
  mib 96 >"$group/memory.max"
  ebb_serve "$group"
  fill
  said=$(storm) || fail "PSI off: $said"
  judge 'storm without PSI' "$said;"
  stop
  rmdir "$group"
}

case $(argument scenarios) in
  all) for scenario in storms high resized nested oom_group namespace page_cache; do $scenario; done ;;
  *) "$(argument scenarios)" ;;
esac
echo done
poweroff -f
