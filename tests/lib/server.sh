# shellcheck shell=bash
# Starts a server for a test; to be sourced from the root of the repository, by scripts with `set -eu`.
#
#   server_start WORK [OPTION...]    starts the program with free ports; sets `server` to its process id
#   server_address WORK NAME         prints an address of its line "listening": data, admin or http
#
# `bench` is the load generator, beside the program.
#
# `server_command` holds words that run before the program, such as those that enter a cgroup; none by default.

program=${EBB_PROGRAM:-${CARGO_TARGET_DIR:-target}/debug/ebb}
bench=$(dirname "$program")/ebb-bench
[ -x "$program" ] || cargo build --locked --workspace
server_command=()

server_start() {
  local work=$1
  shift
  : >"$work/said"
  "${server_command[@]}" "$program" serve --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --http-listen 127.0.0.1:0 "$@" \
    >"$work/said" 2>"$work/log" &
  server=$!
  local _
  for _ in $(seq 200); do
    grep -q listening "$work/said" && return
    kill -0 "$server" 2>/dev/null || break
    read -rt 0.05 <> <(:) || true
  done
  echo "the server did not start:" "$(tail -n 3 "$work/log")" >&2
  return 1
}

server_address() { sed -nE "s/.*\b$2=([^ ]+).*/\1/p" "$1/said"; }
