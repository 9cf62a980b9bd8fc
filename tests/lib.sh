# shellcheck shell=dash
# Functions for shell tests, to be sourced. tests/cgroup2/init.sh uses it in busybox: no arrays and no other bash features.

# Ends the script as skipped or as failed.
skip() {
  echo "skipped: $*"
  exit 0
}
die() {
  echo "$*" >&2
  exit 1
}

# Creates a directory and prints its absolute path.
folder() { mkdir -p "$1" && (cd "$1" && pwd); }

# Waiting. Tests wait for conditions, never for fixed times: this file contains the only `sleep` of the shell tests.

uptime_ms() {
  local up _
  read -r up _ </proc/uptime
  # The 1 keeps hundredths such as 08 from being read as an octal number.
  echo $((${up%.*} * 1000 + (1${up#*.} - 100) * 10))
}

# wait_for SECONDS DESCRIPTION COMMAND...
# Runs the command until it succeeds. After SECONDS it prints the description, calls `diagnose` and fails.
wait_for() {
  local seconds="$1" description="$2" deadline
  shift 2
  deadline=$(($(uptime_ms) + seconds * 1000))
  until "$@" >/dev/null 2>&1; do
    if [ "$(uptime_ms)" -ge "$deadline" ]; then
      echo "not within $seconds s: $description" >&2
      diagnose
      return 1
    fi
    sleep 0.1
  done
}

# Prints diagnostics after a timeout; a script may define its own.
diagnose() { :; }

# wait_for as a check, with a line of output.
check_within() { wait_for "$@" && echo "ok     $2"; }

# Files and processes of a test.

processes=''

# Sets `work` to a new directory. When the script ends, `on_exit` runs, processes end, and the directory is removed. The path
# is short, since the path of a socket is limited to about a hundred bytes.
make_work() {
  work=$(mktemp -d /tmp/ebb.XXXXXX)
  trap finish EXIT
}
finish() {
  local process _
  # bash runs the trap in a background process, too, if that is terminated before its command has begun.
  read -r process _ </proc/self/stat
  [ "$process" = $$ ] || return 0
  on_exit
  stop_all
  rm -rf "$work"
}

# Cleans up everything except processes and $work; a script may define its own.
on_exit() { :; }

# start NAME COMMAND...
# Runs a command in the background, its output in $work/NAME.out and $work/NAME.log; sets `started` to its process id.
start() {
  local name="$1"
  shift
  # Truncate it here: the background process may do so too late for the next reader.
  : >"$work/$name.out"
  "$@" >"$work/$name.out" 2>"$work/$name.log" &
  started=$!
  processes="$started $processes"
}

# Terminates a started process and waits for its end.
stop() {
  local left='' other
  kill "$1" 2>/dev/null || true
  wait "$1" 2>/dev/null || true
  # The kernel may give its id to another process.
  for other in $processes; do [ "$other" = "$1" ] || left="$left $other"; done
  processes=$left
}

# Ends processes in reverse order.
stop_all() {
  local process
  for process in $processes; do stop "$process"; done
}

# in_group GROUP COMMAND...
# Runs a command in a cgroup. Replaces the shell: to be called in a subshell or through `start`.
# shellcheck disable=SC2016 # the inner shell enters the group
in_group() { exec sh -c 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"' sh "$@"; }

# The server.

# Sets `program` and `bench`, the load generator in the same directory; builds them if they are missing.
find_program() {
  program=${EBB_PROGRAM:-${CARGO_TARGET_DIR:-target}/debug/ebb}
  # shellcheck disable=SC2034 # for the scripts
  bench=$(dirname "$program")/ebb-bench
  [ -x "$program" ] || cargo build --locked --workspace
}

# start_server [OPTION...]
# Starts the program with free ports, in the cgroup `server_group` if that is set; sets `server` to its process id.
start_server() {
  start server ${server_group:+in_group "$server_group"} \
    "$program" serve --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --http-listen 127.0.0.1:0 "$@"
  server=$started
  wait_for 10 'the server listens' server_has_begun && server_listens && return
  echo "the server did not start: $(tail -n 3 "$work/server.log")" >&2
  return 1
}
server_listens() { grep -q listening "$work/server.out"; }
server_has_begun() { server_listens || ! kill -0 "$server"; }

# Prints an address of the server: data, admin or http.
server_address() { sed -nE "s/.*\b$1=([^ ]+).*/\1/p" "$work/server.out"; }

# Packages: pinned, from the ordinary registries, into the cache. Installations are reported on standard error.

# is_pinned FOLDER PIN...
# Whether exactly these packages are installed there.
is_pinned() {
  local into="$1"
  shift
  [ "$(cat "$into/pinned" 2>/dev/null)" = "$*" ]
}

# python_packages FOLDER NAME==VERSION...
# A virtual environment with packages from PyPI.
python_packages() {
  local into="$1"
  shift
  is_pinned "$into" "$@" && return
  echo "installing $* from PyPI into $into" >&2
  python3 -m venv "$into" && "$into/bin/pip" install --quiet --disable-pip-version-check "$@" && echo "$*" >"$into/pinned"
}

# npm_packages FOLDER NAME@VERSION...
npm_packages() {
  local into="$1"
  shift
  is_pinned "$into" "$@" && return
  echo "installing $* from npm into $into" >&2
  npm install --silent --no-fund --no-audit --prefix "$into" "$@" && echo "$*" >"$into/pinned"
}

# install_tools TOOL[:PACKAGE]...
# Installs missing programs from Debian's packages. The package has the name of the program if not given.
install_tools() {
  local missing='' tool
  for tool; do command -v "${tool%%:*}" >/dev/null || missing="$missing ${tool#*:}"; done
  # shellcheck disable=SC2086 # one word a package
  [ -z "$missing" ] || install_packages $missing
}
install_packages() {
  if [ "$(id -u)" != 0 ]; then
    echo "only root may install $*" >&2
    return 1
  fi
  echo "installing $* from Debian's packages" >&2
  run_apt env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
}

# run_apt COMMAND...
# Runs a command that needs Debian's lists of packages, again with new lists if it fails. Prints the end of what it said when
# it fails for good.
run_apt() {
  local log
  if ! command -v apt-get >/dev/null; then
    echo 'apt-get not found' >&2
    return 1
  fi
  log=$(mktemp)
  if "$@" >"$log" 2>&1 || { apt-get update && "$@"; } >>"$log" 2>&1; then
    rm "$log"
  else
    tail -n 3 "$log" >&2
    rm "$log"
    return 1
  fi
}
