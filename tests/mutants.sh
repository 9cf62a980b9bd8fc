#!/usr/bin/env bash
# Plants every bug that cargo-mutants knows into the engine's rules and tables, one at a time, and runs the engine's quick
# tests against each. Prints how many were noticed, and the bugs that were not. Takes hours.
#
#   tests/mutants.sh CACHE [OPTION OF cargo mutants]...
#   tests/mutants.sh .cache --shard 0/8       an eighth of them
#   tests/mutants.sh .cache -f crates/engine/src/store/slot.rs
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cache=$(folder "${1:?usage: tests/mutants.sh CACHE [OPTION]...}")
cd "$(dirname "$0")/.."
shift
version=27.1.0
tool=$cache/mutants-$version
if [ ! -x "$tool/bin/cargo-mutants" ]; then
  echo "installing cargo-mutants $version into $tool"
  cargo install --quiet --locked --root "$tool" "cargo-mutants@$version"
fi

files=(store/{slot,item,index,policy,ledger,segment,clean,migrate,relocate}.rs cleaner/plan.rs decide/mod.rs)
chosen=()
case " $* " in
*' -f '*) ;;
*) for file in "${files[@]}"; do chosen+=(-f "crates/engine/src/$file"); done ;;
esac
# Debug information is of no use to a test that is only asked whether it passes.
export CARGO_PROFILE_TEST_DEBUG=0 CARGO_PROFILE_DEV_DEBUG=0 RUST_BACKTRACE=0
status=0
"$tool/bin/cargo-mutants" mutants "${chosen[@]}" --output "$cache" --no-shuffle --no-times --timeout 60 \
  --package ebb-engine --cargo-arg=--lib --jobs "${EBB_MUTANTS_JOBS:-2}" "$@" || status=$?
out=$cache/mutants.out
printf '%s caught, %s timed out, %s do not build, %s not noticed:\n' \
  "$(wc -l <"$out/caught.txt")" "$(wc -l <"$out/timeout.txt")" "$(wc -l <"$out/unviable.txt")" "$(wc -l <"$out/missed.txt")"
cat "$out/missed.txt"
# 2: some were not noticed. Anything else but 0 and 3 (some timed out) is a failure of the run itself.
case $status in 0 | 2 | 3) ;; *) exit "$status" ;; esac
