#!/usr/bin/env bash
# A stock Python client (grpcio) against the server, over TCP and over a Unix socket, whose path C-core clients send as
# :authority. Runs the commands of README.md unchanged, then further tests. Installs grpcio into the cache directory.
set -eu
. "$(dirname "$0")/../lib.sh"
cache=$(folder "$1")
version=1.85.1
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
command -v python3 >/dev/null || skip 'python3 is not installed'
python_packages "$cache/python" "grpcio==$version" "grpcio-tools==$version"
make_work
find_program
start_server --socket "$work/ebb.sock"
data=$(server_address data)

# Run in a separate directory that contains the contract.
export PATH=$cache/python/bin:$PATH
stubs=$(tests/block.sh README.md 'pip install grpcio') snippet=$(tests/block.sh README.md 'import os, grpc')
example=$(tests/block.sh docs/injection-by-example.md 'import json')
leases=$(tests/block.sh docs/leases.md 'import os, grpc')
ln -s "$PWD/proto" "$work/proto"
cd "$work"
eval "$stubs" >/dev/null
for address in "$data" "unix:$work/ebb.sock"; do
  said=$(EBB_ADDR=$address python3 -c "$snippet")
  [ "$said" = "b'hello'" ] || { echo "$address: README.md's Python says $said"; exit 1; }
done
echo "README.md's Python says b'hello'"
for address in "$data" "unix:$work/ebb.sock" 127.0.0.1:1; do
  said=$(EBB_ADDR=$address python3 -c "$example
loaded = []
prices = [price(item, lambda item: loaded.append(item) or 7) for item in ('$address', '$address')]
print(prices, len(loaded))")
  expected=1
  [ "$address" != 127.0.0.1:1 ] || expected=2
  [ "$said" = "[7, 7] $expected" ] || { echo "$address: the Python of docs/injection-by-example.md says $said"; exit 1; }
done
echo "the Python of docs/injection-by-example.md loads a value once, and works without a cache"
for address in "$data" "unix:$work/ebb.sock" 127.0.0.1:1; do
  said=$(EBB_ADDR=$address python3 -c "$leases
import threading
loaded, values = [], []
def load():
    loaded.append(1)
    return b'7'
def call():
    values.append(get_or_load(b'$address', load))
threads = [threading.Thread(target=call) for _ in range(20)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(set(values), len(values), len(loaded))")
  expected=1
  [ "$address" != 127.0.0.1:1 ] || expected=20
  [ "$said" = "{b'7'} 20 $expected" ] || { echo "$address: the Python of docs/leases.md says $said"; exit 1; }
done
echo "the Python of docs/leases.md loads a value once in 20 threads"
PYTHONPATH=$work python3 "$here/client.py" "$data" "unix:$work/ebb.sock"
