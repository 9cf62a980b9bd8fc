#!/usr/bin/env bash
# The promise that matters: in a container with a memory limit, at any write rate, beside clients that do not read and
# thousands of calls at once, Ebb is not killed. A real memory cgroup, a real server, `EBB_STORM_SECONDS` (default 5) for each limit.
#
#   EBB_STORM_SECONDS=30 tests/storm.sh
set -eu
. "$(dirname "$0")/lib.sh"
seconds=${EBB_STORM_SECONDS:-5}
cd "$(dirname "$0")/.."
find_program
[ -x "$bench" ] || die "$bench not found; build it with cargo build --workspace"

if [ -w /sys/fs/cgroup/memory ]; then # v1
  parent=/sys/fs/cgroup/memory$(sed -n 's/^[0-9]*:memory://p' /proc/self/cgroup)
  limit_file=memory.limit_in_bytes
elif [ -w /sys/fs/cgroup ] && grep -qw memory /sys/fs/cgroup/cgroup.subtree_control 2>/dev/null; then
  parent=/sys/fs/cgroup
  limit_file=memory.max
else
  skip 'no memory cgroup can be made here (not root, or no controller)'
fi

make_work
server_group=''
on_exit() {
  stop_all
  [ -z "$server_group" ] || rmdir "$server_group" 2>/dev/null || true
}

for mib in 64 128 256; do
  server_group=$parent/ebb-storm-$$-$mib
  mkdir "$server_group"
  echo $((mib << 20)) >"$server_group/$limit_file"
  # shellcheck disable=SC2119 # without options
  start_server
  data=$(server_address data)
  admin=$(server_address admin)
  said=$("$bench" storm --addr "$data" --seconds "$seconds")
  kill -0 "$server" || { echo "killed at $mib MiB"; dmesg 2>/dev/null | tail -3; exit 1; }
  kills=$(cat "$server_group"/memory.oom_control "$server_group"/memory.events 2>/dev/null | sed -n 's/^oom_kill //p')
  peak=$(cat "$server_group"/memory.max_usage_in_bytes "$server_group"/memory.peak 2>/dev/null | head -1)
  echo "$mib MiB: $said; peak $((peak >> 20)) MiB; oom kills $kills"
  [ "${kills:-0}" = 0 ]
  "$program" stats --admin-addr "$admin" >"$work/stats"
  stop "$server"
  rmdir "$server_group"
  server_group=''
done
