#!/usr/bin/env bash
# A stock Java client (grpc-java) against the server, over TCP and over a Unix socket, with 1,000 different deadlines.
# Fetches grpc-java from Maven Central into the cache folder given.
set -eu
cache=$(mkdir -p "$1" && cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
if ! command -v java >/dev/null || ! command -v mvn >/dev/null; then
  echo 'skipped: there is no java, or no mvn'
  exit 0
fi
sum=$(sha256sum "$here/java/pom.xml" | cut -c1-16)
jars=$cache/java/$sum
if [ ! -d "$jars" ]; then
  echo "fetching grpc-java from Maven Central into $jars"
  mvn -q -f "$here/java/pom.xml" dependency:copy-dependencies -DoutputDirectory="$jars.part"
  mv "$jars.part" "$jars"
fi
work=$(mktemp -d)
trap 'kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
program=${EBB_PROGRAM:-${CARGO_TARGET_DIR:-target}/debug/ebb}
[ -x "$program" ] || cargo build --locked
"$program" serve --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --http-listen 127.0.0.1:0 \
  --socket "$work/ebb.sock" >"$work/said" 2>"$work/log" &
server=$!
for _ in $(seq 200); do
  grep -q listening "$work/said" && break
  read -rt 0.05 <> <(:) || true
done
data=$(sed -E 's/.*data=([^ ]+).*/\1/' "$work/said")
javac -d "$work/classes" -cp "$jars/*" "$here/java/Client.java"
java -cp "$work/classes:$jars/*" Client "$data" "unix:$work/ebb.sock"
