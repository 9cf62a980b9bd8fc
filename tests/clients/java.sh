#!/usr/bin/env bash
# A stock Java client (grpc-java) against the server, over TCP and over a Unix socket, with 1,000 different deadlines.
# Downloads grpc-java from Maven Central into the cache directory.
set -eu
. "$(dirname "$0")/../lib.sh"
cache=$(folder "$1")
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
{ command -v java && command -v mvn; } >/dev/null || skip 'there is no java, or no mvn'
sum=$(sha256sum "$here/java/pom.xml" | cut -c1-16)
jars=$cache/java/$sum
if [ ! -d "$jars" ]; then
  echo "fetching grpc-java from Maven Central into $jars"
  mvn -q -f "$here/java/pom.xml" dependency:copy-dependencies -DoutputDirectory="$jars.part"
  mv "$jars.part" "$jars"
fi
make_work
find_program
start_server --socket "$work/ebb.sock"
data=$(server_address data)
javac -d "$work/classes" -cp "$jars/*" "$here/java/Client.java"
java -cp "$work/classes:$jars/*" Client "$data" "unix:$work/ebb.sock"
