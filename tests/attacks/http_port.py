"""Attacks on the HTTP port of a full cache: probes are answered meanwhile, and the kernel kills nothing."""

import http.client
import socket
import sys
import threading
import time

import cgroup

CROWD = 64
KIB = 1 << 10


def dial(program):
    host, port = program.address["http"].rsplit(":", 1)
    stream = socket.create_connection((host, int(port)), timeout=5)
    # A small window, so that unread data stays in the server.
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
    return stream


def send(stream, data, seconds=2):
    """Sends as much as the server accepts within a time; a refusal ends it."""
    stream.settimeout(seconds)
    try:
        stream.sendall(data)
    except OSError:
        pass


def crowd_sends(data):
    def attack(program, crowd):
        for _ in range(CROWD):
            crowd.append(dial(program))
        threads = [threading.Thread(target=send, args=(stream, data)) for stream in crowd]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return attack


def silent(program, crowd):
    for _ in range(1_000):
        crowd.append(dial(program))


def slow_loris(program, crowd):
    for _ in range(CROWD):
        crowd.append(dial(program))
        send(crowd[-1], b"GET /metrics HTTP/1.1\r\nHost: ebb\r\n")
    for _ in range(20):
        time.sleep(0.1)
        for stream in crowd:
            send(stream, b"a: b\r\n")


HEAD = b"GET /metrics HTTP/1.1\r\nHost: ebb\r\n"
CHUNK = b"10000\r\n" + b"x" * (64 * KIB) + b"\r\n"
ATTACKS = {
    "one header of 400 KB, unfinished": crowd_sends(HEAD + b"X: " + b"x" * (400 * KIB)),
    "header fields of 400 KB, unfinished": crowd_sends(HEAD + b"a:\r\n" * (100 * KIB)),
    "a request line of 400 KB, unfinished": crowd_sends(b"GET /" + b"x" * (400 * KIB)),
    "a body of 400 KB, unfinished": crowd_sends(HEAD + b"Content-Length: 99999999\r\n\r\n" + b"x" * (400 * KIB)),
    "chunked bodies without end": crowd_sends(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNK * 6),
    "1,000 pipelined requests, nothing read": crowd_sends((HEAD + b"\r\n") * 1_000),
    "the stream of the live page, nothing read": crowd_sends(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "HTTP/2 prefaces": crowd_sends(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0" * 10_000),
    "1,000 connections that send nothing": silent,
    "header fields byte by byte": slow_loris,
}


def probe(program, path):
    """Duration of a probe, in seconds; None if the status is not 200."""
    host, port = program.address["http"].rsplit(":", 1)
    since = time.monotonic()
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        print(f"a probe failed after {time.monotonic() - since:.3f} s: {error!r}", file=sys.stderr)
        return None
    finally:
        connection.close()
    return time.monotonic() - since if status == 200 else None


def main():
    if cgroup.parent() is None:
        print("skipped: no memory cgroup can be made here (not root, or no controller)")
        return
    verdict = cgroup.Verdict()
    for mib in [32, 48, 64]:
        for name, attack in ATTACKS.items():
            with cgroup.Cgroup(mib) as group, cgroup.cache(group) as program:
                crowd, probes = [], []
                attacker = threading.Thread(target=attack, args=(program, crowd))
                attacker.start()
                # At least three probes after the last byte, like the kubelet's.
                while attacker.is_alive() or len(probes) < 6:
                    probes += [probe(program, "/livez"), probe(program, "/readyz")]
                    time.sleep(0.02)
                attacker.join()
                answered = [seconds for seconds in probes if seconds is not None]
                slowest = max(answered, default=0)
                verdict.judge(
                    f"{name} ({len(probes)} probes, the slowest {slowest * 1000:.0f} ms)", program,
                    **{"every probe answered": len(answered) == len(probes), "within 1 s": slowest < 1})
                for stream in crowd:
                    stream.close()
    verdict.end()


if __name__ == "__main__":
    sys.exit(main())
