#!/usr/bin/env bash
# Attacks on real programs in real memory cgroups, with one file per port in tests/attacks/. A test fails if the kernel kills
# the program, a probe is not answered, or another client is refused during the attack.
#
#   tests/attacks.sh            every attack
#   tests/attacks.sh http_port  the attacks of tests/attacks/http_port.py
set -eu
. "$(dirname "$0")/lib.sh"
cd "$(dirname "$0")/.."
command -v python3 >/dev/null || skip 'python3 is not installed'
find_program
export EBB_PROGRAM=$program
failed=0
names=("$@")
if [ ${#names[@]} -eq 0 ]; then
  for file in tests/attacks/*.py; do
    case $file in */cgroup.py | */wire.py) ;; *) names+=("$(basename "$file" .py)") ;; esac
  done
fi
for name in "${names[@]}"; do
  echo "-- $name"
  python3 -B "tests/attacks/$name.py" || failed=1
done
exit "$failed"
