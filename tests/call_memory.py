"""What connections, open calls and header fields take of a server's memory, which is what its constants charge for them
(`CONNECTION_BYTES`, `CALL_BYTES`, `QUEUED_CALL_BYTES`, `FIELD_BYTES` and `unfinished_bytes` in src/transport/): anonymous memory
of the process, before and after 200 connections have done the same, in KiB a connection.

    EBB_PROGRAM=target/release/ebb python3 -B tests/call_memory.py
"""

import pathlib
import re
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent / "attacks"))
import wire
from cgroup import ebb

CONNECTIONS = 200
HEAD = wire.head("/ebb.v1.CacheService/Get", *wire.GRPC)
BY_REFERENCE = b"\x40\x01a\x01b"


def literals(count, value):
    return b"".join(wire.literal(f"x{number:04}", value) for number in range(count))


def calls(count, fields=b""):
    """Opens this many calls and does not finish them."""
    frames = (wire.frame(wire.HEADERS, wire.END_HEADERS, 2 * i + 1, HEAD + fields) for i in range(count))
    return b"".join(frames)


def unfinished(fields):
    """A header block that does not end."""
    block = HEAD + fields
    pieces = [block[at : at + 16_000] for at in range(0, len(block), 16_000)]
    more = (wire.frame(wire.CONTINUATION, 0, 1, piece) for piece in pieces[1:])
    return wire.frame(wire.HEADERS, 0, 1, pieces[0]) + b"".join(more)


def waiting(count):
    """A pipe with this many reads that wait for the lease of one key; the first of all connections holds it."""
    head = wire.frame(wire.HEADERS, wire.END_HEADERS, 1, wire.head("/ebb.v1.CacheService/Pipe", *wire.GRPC))
    lease = b"\x08\x80\xdd\xdb\x01\x10\x80\xdd\xdb\x01"  # an hour, and as long a wait
    get = b"\x0a\x01k\x32" + bytes([len(lease)]) + lease
    operation = b"\x08\x01\x12" + bytes([len(get)]) + get
    message = b"\0" + len(operation).to_bytes(4, "big") + operation
    return head + wire.frame(wire.DATA, 0, 1, message * count)


STATES = {
    "connected": b"",
    "1 open call": calls(1),
    "10 open calls, all run": calls(10),
    "100 open calls, most wait": calls(100),
    "a pipe with 8 reads that wait": waiting(8),
    "a pipe with 16 reads that wait": waiting(16),
    "10 open calls with 100 fields": calls(10, literals(100, "")),
    "10 calls refused for 200 fields": calls(10, BY_REFERENCE + b"\xbe" * 200),
    "unfinished: 400 fields": unfinished(literals(400, "")),
    "unfinished: 400 fields of 20 bytes": unfinished(literals(400, "v" * 20)),
    "unfinished: 400 fields by reference": unfinished(BY_REFERENCE + b"\xbe" * 400),
    "unfinished: a value of 15 KB": unfinished(b"\x40\x01a" + wire.integer(16_000, 7) + b"v" * 15_000),
}


def anonymous_kib(process):
    rollup = pathlib.Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    return int(re.search(r"^Anonymous:\s+(\d+) kB", rollup, re.M)[1])


def settled_kib(process):
    """Anonymous memory once it no longer changes."""
    before = anonymous_kib(process)
    while True:
        time.sleep(1)
        now = anonymous_kib(process)
        if abs(now - before) <= 64:
            return now
        before = now


def main():
    free = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]
    for name, sent in STATES.items():
        command = [ebb(), "serve", "--max-memory", "1Gi", *free]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            address = dict(re.findall(r"(\w+)=(\S+)", process.stdout.readline()))["data"]
            before = settled_kib(process)
            crowd = [wire.dial(address) for _ in range(CONNECTIONS)]
            for stream in crowd:
                stream.sendall(wire.PREFACE + wire.frame(wire.SETTINGS, 0, 0) + sent)
            after = settled_kib(process)
            print(f"{name:<36} {(after - before) / CONNECTIONS:>8.1f} KiB a connection", flush=True)
            for stream in crowd:
                stream.close()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


if __name__ == "__main__":
    main()
