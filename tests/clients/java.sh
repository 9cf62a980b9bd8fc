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
server=0
trap '[ "$server" = 0 ] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
. tests/lib/server.sh
server_start "$work" --socket "$work/ebb.sock"
data=$(server_address "$work" data)
javac -d "$work/classes" -cp "$jars/*" "$here/java/Client.java"
java -cp "$work/classes:$jars/*" Client "$data" "unix:$work/ebb.sock"
