#!/usr/bin/env bash
# The promise that matters: in a container with a memory limit, at any write rate, beside clients that do not read and
# thousands of calls at once, Ebb is not killed. A real memory cgroup, a real server, `EBB_STORM_SECONDS` (default 5) for each limit.
#
#   EBB_STORM_SECONDS=30 tests/storm.sh
set -eu
seconds=${EBB_STORM_SECONDS:-5}
. tests/lib/server.sh
[ -x "$bench" ] || { echo "there is no $bench: cargo build --workspace makes it"; exit 1; }

if [ -w /sys/fs/cgroup/memory ]; then # v1
  parent=/sys/fs/cgroup/memory$(sed -n 's/^[0-9]*:memory://p' /proc/self/cgroup)
  limit_file=memory.limit_in_bytes
elif [ -w /sys/fs/cgroup ] && grep -qw memory /sys/fs/cgroup/cgroup.subtree_control 2>/dev/null; then
  parent=/sys/fs/cgroup
  limit_file=memory.max
else
  echo 'skipped: no memory cgroup can be made here (not root, or no controller)'
  exit 0
fi

work=$(mktemp -d)
server=0 group=''
finish() {
  [ "$server" = 0 ] || kill -9 "$server" 2>/dev/null || true
  wait 2>/dev/null || true
  [ -z "$group" ] || rmdir "$group" 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT

for mib in 64 128 256; do
  group=$parent/ebb-storm-$$-$mib
  mkdir "$group"
  echo $((mib << 20)) >"$group/$limit_file"
  # shellcheck disable=SC2016 # the inner shell enters the cgroup
  server_command=(sh -c 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"' sh "$group")
  server_start "$work"
  data=$(server_address "$work" data)
  admin=$(server_address "$work" admin)
  said=$("$bench" storm --addr "$data" --seconds "$seconds")
  kill -0 "$server" || { echo "killed at $mib MiB"; dmesg 2>/dev/null | tail -3; exit 1; }
  kills=$(cat "$group"/memory.oom_control "$group"/memory.events 2>/dev/null | sed -n 's/^oom_kill //p')
  peak=$(cat "$group"/memory.max_usage_in_bytes "$group"/memory.peak 2>/dev/null | head -1)
  echo "$mib MiB: $said; peak $((peak >> 20)) MiB; oom kills $kills"
  [ "${kills:-0}" = 0 ]
  "$program" stats --admin-addr "$admin" >"$work/stats"
  kill "$server"
  wait "$server" || true
  server=0
  rmdir "$group"
  group=''
done
