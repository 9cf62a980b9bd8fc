#!/bin/sh
# The init process of the virtual machine of tests/cgroup2.sh. Runs scenarios in groups of cgroup v2 and prints one line for
# each: `ok NAME: figures`, or `FAILED NAME: reasons; figures` and the end of the server's log.
export PATH=/bin

# A container engine pivots its root, which the initramfs does not allow: continue in a tmpfs.
if [ ! -e /in-tmpfs ]; then
  for tool in $(/bin/busybox --list); do [ -e "/bin/$tool" ] || busybox ln -s busybox "/bin/$tool"; done
  mkdir /next
  mount -t tmpfs root /next
  cp -a /bin /modules /lib* /init /config.json /next # lib* are libraries and lib.sh
  mkdir /next/proc /next/sys /next/dev /next/tmp /next/run
  touch /next/in-tmpfs
  exec switch_root /next /init
fi
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
insmod /modules/loop.ko
echo # the firmware left the cursor within a line
# shellcheck source=../lib.sh
. /lib.sh
work=/tmp
argument() { sed -n "s/.*ebb\.$1=\([^ ]*\).*/\1/p" /proc/cmdline; }
seconds=$(argument seconds)
cgroups=/sys/fs/cgroup
echo '+memory' >$cgroups/cgroup.subtree_control
ADDRESSES='--listen 127.0.0.1:7070 --admin-listen 127.0.0.1:7071 --http-listen 127.0.0.1:7072'
BLIND='EBB_CGROUP_ROOT=/none EBB_MAX_MEMORY=1Gi'
# shellcheck disable=SC2086,SC2163 # words
[ "$(argument mutant)" != blind ] || export $BLIND

mib() { echo $(($1 << 20)); }
in_mib() { echo $(($1 >> 20)); }
problem() { problems="$problems$*; "; }
figure() { figures="$figures, $*"; }

# Reports a scenario, ends its server and removes its group.
end() { # name
  peak=$(in_mib "$(cat "$group/memory.peak" 2>/dev/null || echo 0)")
  figure "peak $peak MiB, events high $(event high) max $(event max) oom_kill $(event oom_kill)"
  figures=${figures#, }
  if [ -z "$problems" ]; then
    echo "ok $1: $figures"
  else
    echo "FAILED $1: $problems$figures"
    tail -n 5 "$work/server.log" | sed 's/^/log: /'
  fi
  stop "$server"
  rmdir "$group"
}
# Starts a scenario in a new group below $cgroups.
begin() {
  group=$cgroups/$1 problems='' figures='' server=0
  mkdir "$group"
}
event() { sed -n "s/^$1 //p" "$group/memory.events"; }
# Total memory stall time of all tasks of the group, in milliseconds.
full_stall_ms() { echo $(($(sed -n 's/^full .*total=//p' "$group/memory.pressure") / 1000)); }

# wait_for, with a timeout as a problem of the scenario.
expect_within() { wait_for "$@" || problem "not within $1 s: $2"; }
serve_by() {
  start server "$@"
  server=$started
  expect_within 120 'the server listens' server_listens
}
# shellcheck disable=SC2086 # words
serve() { serve_by in_group "$group" env "$@" ebb serve $ADDRESSES; }

metric() { wget -qO- http://127.0.0.1:7072/metrics 2>/dev/null | sed -n "s/^$1 //p" | head -n 1; }
limit_is() { [ "$(metric ebb_memory_limit_bytes)" = "$(mib "$1")" ]; }
expect_limit() {
  wait_for 5 'the limit is followed' limit_is "$1" ||
    problem "the server's limit is $(metric ebb_memory_limit_bytes), not $1 MiB"
}
used_below() { [ "$(cat "$group/memory.current")" -le "$(mib "$1")" ]; }
# Expects the program below a limit within 2 s on a real processor: an emulated one has 15 s, or what is given, and the figures
# say how long it took.
expect_used_below() { # MiB, seconds
  before=$(in_mib "$(cat "$group/memory.current")")
  began=$(uptime_ms)
  wait_for "${2:-15}" 'memory falls' used_below "$1" || problem "$before MiB did not fall below $1 MiB within ${2:-15} s"
  figure "$before to $(in_mib "$(cat "$group/memory.current")") MiB in $(($(uptime_ms) - began)) ms"
}
expect_events() { # name, most
  [ "$(event "$1")" -le "$2" ] || problem "$(event "$1") events of $1, at most $2 expected"
}
expect_alive() {
  kill -0 "$server" 2>/dev/null || problem 'the server has ended'
  expect_events oom_kill 0
}
written() { metric ebb_appended_bytes_total; }
# One round of writing: bursts of calls, stalled scans and pipes, and writers. Values are larger than those of a storm on
# real hardware, to move more bytes on an emulated processor.
round() { # stalled readers, seed
  said=$(ebb-bench storm --seconds "$seconds" --calls 500 --medium 50 --stalled "$1" --seed "$2" 2>&1)
}
# Rounds of writing until the server has written $1 MiB, by its own count, and evicts.
storm() { # MiB
  from=$(written)
  rounds=0
  until [ $((${now:=$from} - from)) -ge "$(mib "$1")" ] && [ "$(evictions)" != 0 ]; do
    rounds=$((rounds + 1))
    [ $rounds -le 40 ] || { problem "the storm is too weak: $(in_mib $((now - from))) MiB written"; break; }
    round 16 $rounds || { problem "the storm failed: $said"; break; }
    now=$(written)
  done
  figure "$(in_mib $((now - from))) MiB written, $(evictions) entries evicted"
  unset now
  expect_alive
}
evictions() { metric ebb_evictions_total; }
# Writes as fast as an emulated processor can.
write_for() { said=$(ebb-bench storm --seconds "$1" --calls 0 --stalled 0 --medium 100 --large 0 --seed "$2" 2>&1); }
# Seconds that the governor has watched the memory for.
watched() {
  wget -qO- http://127.0.0.1:7072/metrics 2>/dev/null | sed -n 's/^ebb_regime_seconds_total{.*} //p' |
    awk '{ sum += $1 } END { printf "%d", sum }'
}
watched_beyond() { [ "$(watched)" -gt "$1" ]; }
# Waits until the governor has watched for $1 seconds more.
watch_on() { expect_within 20 'the governor reads on' watched_beyond $(($(watched) + $1 - 1)); }
# Whether nothing is evicted while the governor watches for a second.
settled() {
  then=$(evictions)
  watch_on 2
  [ "$(evictions)" = "$then" ]
}
# Checks that the storm is strong enough: it must kill a server that does not know its limit.
control() {
  begin control
  mib 64 >"$group/memory.max"
  # shellcheck disable=SC2086 # words
  serve $BLIND
  rounds=0
  while [ $rounds -lt 60 ] && write_for 2 $rounds; do rounds=$((rounds + 1)); done
  [ "$(event oom_kill)" -ge 1 ] || problem 'a server that ignores its limit outlived the storm'
  end 'a server that ignores 64 MiB is killed'
}

storms() {
  for size in 64 128 256; do
    begin storm-$size
    mib $size >"$group/memory.max"
    serve
    expect_limit $size
    storm $size
    expect_events max 0
    end "storm at memory.max $size MiB"
  done
}

high() {
  begin high
  mib 96 >"$group/memory.max"
  mib 64 >"$group/memory.high"
  serve
  expect_limit 64
  write_for "$seconds" 1 || problem "writing failed: $said"
  expect_events high 0
  calm_ms=$(full_stall_ms)
  began=$(date +%s)
  storm 64
  took=$(($(date +%s) - began))
  stalled=$(($(full_stall_ms) - calm_ms))
  figure "full stall $calm_ms ms before, $stalled ms in $took s of storm"
  expect_events high 50
  [ "$calm_ms" -le 10 ] || problem 'stalls while calm'
  [ "$stalled" -le $((took * 10)) ] || problem 'stalls for more than 1 % of the storm'
  end 'memory.high 64 MiB below memory.max 96 MiB'
}

# Lowers a limit like a kubelet: first in the file, and in the cgroup once use is below it. If memory.max is set below use,
# the kernel kills at once, so no program can follow that.
resized() {
  begin resized
  mib 128 >"$group/memory.max"
  mib 128 >/tmp/limit
  serve EBB_LIMIT_FILE=/tmp/limit
  storm 128
  mib 64 >/tmp/limit
  expect_used_below 64
  used_below 64 && mib 64 >"$group/memory.max"
  storm 64
  end 'limit lowered from 128 to 64 MiB below use'

  begin raised
  mib 64 >"$group/memory.max"
  serve
  storm 32
  mib 128 >"$group/memory.max"
  expect_limit 128
  rounds=0
  while used_below 80 && [ $rounds -lt 20 ]; do
    rounds=$((rounds + 1))
    round 16 $((100 + rounds)) || { problem "the storm failed: $said"; break; }
  done
  ! used_below 80 || problem 'the new room is not used'
  # memory.high may be set below use: the kernel throttles and reclaims, but does not kill. Threads that allocate
  # memory sleep for up to 2 s each time, including those that free it.
  mib 64 >"$group/memory.high"
  expect_used_below 64 30
  expect_limit 64
  storm 64
  end 'limit raised from 64 to 128 MiB, memory.high lowered to 64 MiB below use'
}

nested() {
  begin pod
  mib 64 >"$group/memory.max"
  echo '+memory' >"$group/cgroup.subtree_control"
  begin pod/container
  echo max >"$group/memory.max"
  serve
  expect_limit 64
  storm 64
  kills=$(sed -n 's/^oom_kill //p' $cgroups/pod/memory.events)
  [ "$kills" = 0 ] || problem "$kills kills in the parent"
  hits=$(sed -n 's/^max //p' $cgroups/pod/memory.events)
  [ "$hits" = 0 ] || problem "the parent reached its limit $hits times"
  figure "peak of the parent $(in_mib "$(cat $cgroups/pod/memory.peak)") MiB"
  end 'limit of 64 MiB in the parent alone'
  rmdir $cgroups/pod
}

# A machine with swap: a group without swap, and one with swap that does not need it.
swap() {
  dd if=/dev/zero of=/tmp/swap bs=1M count=128 2>/dev/null
  losetup /dev/loop1 /tmp/swap
  mkswap /dev/loop1 >/dev/null
  swapon /dev/loop1
  for most in 0 max; do
    begin swap-$most
    [ "$(grep -c . /proc/swaps)" -gt 1 ] || problem 'the machine has no swap'
    mib 64 >"$group/memory.max"
    echo 1 >"$group/memory.oom.group"
    echo $most >"$group/memory.swap.max"
    serve
    storm 64
    expect_events max 0
    swapped=$(cat "$group/memory.swap.current")
    figure "swapped $swapped bytes"
    [ "$swapped" = 0 ] || problem 'memory was swapped out'
    end "memory.oom.group, memory.swap.max $most, on a machine with swap"
  done
  swapoff /dev/loop1
  losetup -d /dev/loop1
  rm /tmp/swap
}

# The group is the root of what the process sees, and the mount is read-only. busybox's own unshare, which its shell
# prefers to a file of that name, has no cgroup namespaces.
namespace() {
  begin namespaced
  mib 64 >"$group/memory.max"
  serve_by in_group "$group" /bin/unshare --cgroup --mount sh -c \
    "umount $cgroups && mount -t cgroup2 -o ro cgroup2 $cgroups && exec ebb serve $ADDRESSES"
  [ "$(readlink /proc/self/ns/cgroup)" != "$(readlink /proc/$server/ns/cgroup)" ] || problem 'no namespace of its own'
  grep -q " $cgroups ro," /proc/$server/mountinfo || problem 'the mount is not read-only'
  expect_limit 64
  storm 64
  expect_events max 0
  end 'cgroup namespace, read-only mount'
}

# A runc container like containerd's: its own namespaces, read-only mounts, no capabilities.
container() {
  bundle=/tmp/bundle
  mkdir -p $bundle/rootfs $bundle/volume
  cp /bin/ebb $bundle/rootfs/ebb
  cp /config.json $bundle/config.json
  echo '+memory +pids +cpu' >$cgroups/cgroup.subtree_control
  begin kubepods
  echo '+memory' >"$group/cgroup.subtree_control"
  mkdir "$group/pod"
  serve_by runc run --bundle $bundle ebb
  group=$cgroups/kubepods/pod/ebb
  [ "$(cat "$group/memory.max")" = "$(mib 64)" ] || problem "memory.max is $(cat "$group/memory.max")"
  process=$(head -n 1 "$group/cgroup.procs")
  [ "$(readlink /proc/self/ns/cgroup)" != "$(readlink "/proc/$process/ns/cgroup")" ] || problem 'no namespace of its own'
  grep -q " $cgroups ro," "/proc/$process/mountinfo" || problem 'the mount is not read-only'
  expect_limit 64
  storm 32
  runc update --memory "$(mib 128)" --memory-swap "$(mib 128)" ebb || problem 'runc cannot raise the limit'
  expect_limit 128
  storm 64
  ! used_below 64 || problem 'the new room is not used'
  mib 64 >$bundle/volume/memory-limit
  expect_used_below 64
  runc update --memory "$(mib 64)" --memory-swap "$(mib 64)" ebb || problem 'runc cannot lower the limit'
  storm 32
  figure "events max $(event max), peak $(in_mib "$(cat "$group/memory.peak")") MiB"
  runc kill ebb TERM
  expect_within 20 'the container has ended' ended
  figure "oom_kill $(event oom_kill 2>/dev/null || echo 0) after the end"
  group=$cgroups/kubepods
  rmdir "$group/pod/ebb" "$group/pod" 2>/dev/null
  end 'container of runc: 64 MiB, raised to 128, lowered to 64'
}
ended() { ! kill -0 "$server" 2>/dev/null; }

# Another process reads and writes files: the kernel reclaims page cache before it kills, so Ebb must not shrink.
page_cache() {
  begin cached
  mib 96 >"$group/memory.max"
  serve
  storm 64
  dd if=/dev/zero of=/tmp/disk bs=1M count=140 2>/dev/null
  mke2fs -F /tmp/disk >/dev/null 2>&1
  mkdir -p /tmp/mounted
  mount -t ext4 -o loop /tmp/disk /tmp/mounted || problem 'the disk cannot be mounted'
  expect_within 20 'evictions end' settled
  entries=$(metric ebb_entries)
  before=$(evictions)
  (in_group "$group" sh -c 'dd if=/dev/zero of=/tmp/mounted/file bs=1M count=100 2>/dev/null
    for turn in 1 2 3; do cat /tmp/mounted/file; done') >/dev/null
  watch_on 3
  cached=$(sed -n 's/^file //p' "$group/memory.stat")
  figure "$(in_mib "$cached") MiB of page cache, $entries entries before, $(metric ebb_entries) after"
  [ "$cached" -gt "$(mib 8)" ] || problem 'no page cache is charged to the group'
  [ "$(evictions)" = "$before" ] || problem "page cache evicted $(($(evictions) - before)) entries"
  expect_alive
  end 'page cache of another process'
  umount /tmp/mounted
  rm /tmp/disk
}

without_psi() {
  begin without-psi
  ! cat /proc/pressure/memory >/dev/null 2>&1 || problem 'PSI is on'
  mib 64 >"$group/memory.max"
  serve
  storm 64
  expect_events max 0
  end 'without PSI'
}

# A kernel without IPv6 (the kernel argument ipv6.disable=1): `[::]` becomes 0.0.0.0.
without_ipv6() {
  begin without-ipv6
  [ ! -e /proc/net/if_inet6 ] || problem 'the kernel has IPv6'
  mib 64 >"$group/memory.max"
  ADDRESSES='--listen 127.0.0.1:7070 --admin-listen 127.0.0.1:7071 --http-listen [::]:7072'
  serve
  expect_limit 64
  grep -q 'this kernel has no IPv6' "$work/server.log" || problem 'the log does not say that IPv6 is missing'
  end 'without IPv6'
}

for scenario in $(argument scenarios | tr , ' '); do $scenario; done
echo 'done'
poweroff -f
