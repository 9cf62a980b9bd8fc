"""Attacks on the data port of a full cache, in memory cgroups of 64 and 96 MiB, beside an honest client that stores small
values. The kernel must kill nothing, the peak must stay below the limit less a quarter of Ebb's reserve, the honest client
must be refused nothing, and what was in flight must come back."""

import socket
import struct
import threading
import time

import wire
from cgroup import MIB, Cgroup, Verdict, cache

SERVICE = "/ebb.v1.CacheService/"


class Honest(threading.Thread):
    """Repeatedly stores a small value on one connection."""

    def __init__(self, address):
        super().__init__()
        self.address, self.over = address, threading.Event()
        self.answers, self.refused, self.failure, self.seconds = 0, 0, None, []

    def run(self):
        try:
            client = wire.Client(wire.dial(self.address))
            while not self.over.is_set():
                began = time.monotonic()
                stream = client.open(wire.head(SERVICE + "Set", *wire.GRPC))
                request = wire.field(1, b"honest-%d" % (self.answers % 50)) + wire.field(2, bytes(4 << 10))
                client.send(stream, wire.message(request))
                # A refusal has trailers only.
                self.refused += not client.finish(stream)
                self.answers += 1
                self.seconds.append(time.monotonic() - began)
        except (OSError, ConnectionError) as error:
            self.failure = error

    def p99_ms(self):
        return sorted(self.seconds)[len(self.seconds) * 99 // 100] * 1e3 if self.seconds else float("nan")


def in_flight(program):
    """Bytes in flight, from /metrics."""
    host, port = program.address["http"].rsplit(":", 1)
    with socket.create_connection((host, int(port)), 5) as stream:
        stream.sendall(b"GET /metrics HTTP/1.1\r\nhost: ebb\r\nconnection: close\r\n\r\n")
        page = b"".join(iter(lambda: stream.recv(1 << 16), b""))
    for line in page.decode().splitlines():
        if line.startswith("ebb_in_flight_bytes "):
            return float(line.split()[1])
    raise SystemExit("no ebb_in_flight_bytes in /metrics")


def batches(address):
    """Repeated fields of empty elements: short on the wire, long once decoded."""
    lists = [("BatchSet", 0x0A), ("BatchGet", 0x0A), ("BatchDelete", 0x0A), ("Set", 0x62)]
    for size in (400_000, 1_000_000, 4_100_000):
        for method, key in lists:
            client = wire.Client(wire.dial(address))
            for _ in range(2):
                stream = client.open(wire.head(SERVICE + method, *wire.GRPC))
                client.send(stream, wire.message(bytes([key, 0]) * (size // 2)))
                assert client.finish(stream) == b"", f"{method} of {size // 2} elements was carried out"
            tags = bytes([0x62, 0]) * (size // 2)
            stream = client.open(wire.head(SERVICE + "Pipe", *wire.GRPC))
            client.send(stream, wire.message(wire.field(3, tags)))
            assert client.finish(stream) == b"", "a pipe carried it out"
            client.stream.close()


def crowd(address, seconds, sent):
    """Opens 250 connections and keeps them open; connection `n` sends the frames `sent(n)` after its settings."""
    streams = []
    for number in range(250):
        try:
            stream = wire.dial(address)
            stream.sendall(wire.PREFACE + wire.frame(wire.SETTINGS, 0, 0))
            stream.sendall(sent(number))
            streams.append(stream)
        except OSError:
            pass  # the server may close it
    time.sleep(seconds)  # the connections stay open meanwhile, which is the attack
    for stream in streams:
        stream.close()


def open_calls(address, fields):
    """Calls that are opened and never finished, with `fields` header fields by reference."""
    # One field in the table, then references of one byte each.
    block = wire.head(SERVICE + "Get", *wire.GRPC) + b"\x40\x01a\x01b" + b"\xbe" * fields
    calls = b"".join(wire.frame(wire.HEADERS, wire.END_HEADERS, 2 * i + 1, block) for i in range(100))
    crowd(address, 3, lambda _: calls)


def unfinished_headers(address):
    """Header blocks that never end: long lists of fields by reference, and long values."""
    blocks = [
        wire.head(SERVICE + "Get", *wire.GRPC) + b"\x40\x01a\x01b" + b"\xbe" * 1_900,
        wire.head(SERVICE + "Get", *wire.GRPC) + b"\x40\x01a" + wire.integer(60_000, 7) + bytes(59_000),
    ]

    def sent(number):
        block = blocks[number % len(blocks)]
        pieces = [block[at : at + 16_000] for at in range(0, len(block), 16_000)]
        first = wire.frame(wire.HEADERS, 0, 1, pieces[0])
        if number % 4 == 3:
            # A client must not send PUSH_PROMISE, but it has a header block, too.
            first = wire.frame(5, 0, 1, struct.pack(">I", 2) + pieces[0])
        return first + b"".join(wire.frame(wire.CONTINUATION, 0, 1, piece) for piece in pieces[1:])

    crowd(address, 3, sent)


def kept_frames(address):
    """Calls whose path enters the table of header fields and comes in a frame of 15 KB."""
    def call(i):
        path = b"\x44" + wire.integer(2, 7) + b"/%c" % (33 + i)
        block = path + wire.literal("a", "v" * 15_000)
        return wire.frame(wire.HEADERS, wire.END_HEADERS | wire.END_STREAM, 2 * i + 1, block)

    calls = b"".join(call(i) for i in range(90))
    crowd(address, 2, lambda _: calls)


def trailers(address):
    """Calls that wait to run, with long lists of trailers."""
    block = wire.head(SERVICE + "Get", *wire.GRPC) + b"\x40\x01a\x01b"
    fields = b"\xbe" * 1_800

    def sent(_):
        opened = b"".join(wire.frame(wire.HEADERS, wire.END_HEADERS, 2 * i + 1, block) for i in range(40))
        ended = wire.END_HEADERS | wire.END_STREAM
        return opened + b"".join(wire.frame(wire.HEADERS, ended, 2 * i + 1, fields) for i in range(39, -1, -1))

    crowd(address, 3, sent)


def announced(address, connections):
    """Large messages that are announced and not sent, with pings."""
    crowd = [wire.Client(wire.dial(address)) for _ in range(connections)]
    for client in crowd:
        for _ in range(20):
            stream = client.open(wire.head(SERVICE + "Set", *wire.GRPC))
            client.stream.sendall(wire.frame(wire.DATA, 0, stream, b"\0" + struct.pack(">I", 3 << 20) + bytes(100)))
    for _ in range(600):
        for client in crowd:
            try:
                client.stream.sendall(wire.frame(wire.PING, 0, 0, bytes(8)))
            except OSError:
                pass
        time.sleep(1 / 300)  # the rate of the attack
    for client in crowd:
        client.stream.close()


def control_frames(address):
    """Unsolicited frames."""
    floods = [
        wire.frame(wire.PING, wire.ACK, 0, bytes(8)),
        wire.frame(wire.PING, 0, 0, bytes(8)),
        wire.frame(wire.SETTINGS, 0, 0),
        wire.frame(wire.WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)),
        wire.frame(2, 0, 1, struct.pack(">IB", 0, 9)),
        wire.frame(0x77, 0, 0, b"unknown"),
    ]
    for flood in floods:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            try:
                client = wire.Client(wire.dial(address))
                while time.monotonic() < end:
                    client.stream.sendall(flood * 500)
            except OSError:
                pass  # closed by the server: again


def deaf(address):
    """A client with windows of 0 for responses."""
    stream = wire.dial(address)
    no_window = struct.pack(">HI", 4, 0)
    stream.sendall(wire.PREFACE + wire.frame(wire.SETTINGS, 0, 0, no_window))
    return stream


def in_parallel(number, send):
    """Calls `send` in `number` threads; a connection that the server closes ends its thread."""
    def one():
        try:
            send()
        except OSError:
            pass

    threads = [threading.Thread(target=one) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def pinned_buffers(address, size, filler):
    """Unread requests in frames of `size` bytes, each in a buffer that `filler` fills up."""
    pair = wire.frame(wire.DATA, 0, 1, bytes(size)) + filler

    def send():
        client = deaf(address)
        head = wire.head(SERVICE + "Pipe", *wire.GRPC)
        client.sendall(wire.frame(wire.HEADERS, wire.END_HEADERS, 1, head))
        get = wire.message(wire.field(1, b"fill-1"))
        client.sendall(wire.frame(wire.DATA, 0, 1, wire.message(wire.field(2, get[5:]))))
        client.sendall(wire.frame(wire.DATA, 0, 1, b"\0" + struct.pack(">I", 1 << 20)))
        for _ in range(min(60_000 // size, 3_000) // 20):
            client.sendall(pair * 20)
        time.sleep(1)  # the requests stay unread meanwhile, which is the attack
        client.close()

    in_parallel(8, send)


def unread_rest(address):
    """Calls that wait for their client or for quota, and keep sending unread data."""
    watch, get = "/grpc.health.v1.Health/Watch", SERVICE + "Get"

    def send():
        client = deaf(address)
        for i in range(90):
            path, request = [(watch, b""), (get, wire.field(1, b"fill-%d" % i))][i % 2]
            stream, head = 2 * i + 1, wire.head(path, *wire.GRPC)
            client.sendall(wire.frame(wire.HEADERS, wire.END_HEADERS, stream, head))
            client.sendall(wire.frame(wire.DATA, 0, stream, wire.message(request)))
            client.sendall(wire.frame(wire.DATA, 0, stream, bytes(15_000)) * 4)
        time.sleep(2)  # nothing is read meanwhile, which is the attack
        client.close()

    in_parallel(60, send)


def idle_pipes(address):
    """Idle pipes that have stored and read a large value and stored many small ones."""
    store = wire.field(3, wire.field(1, b"large") + wire.field(2, bytes(200_000)))
    read = wire.field(2, wire.field(1, b"large"))
    small = wire.message(wire.field(3, wire.field(1, b"small") + wire.field(2, b"v"))) * 600

    def send():
        client = wire.Client(wire.dial(address), settings=((4, 1 << 20),))
        client.stream.sendall(wire.frame(wire.WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 30)))
        for _ in range(20):
            stream, answered = client.open(wire.head(SERVICE + "Pipe", *wire.GRPC)), 0
            client.send(stream, wire.message(store) + wire.message(read) + small, end=False)
            while answered < 200_000:
                kind, _, of, payload = client.read_frame()
                answered += len(payload) if (kind, of) == (wire.DATA, stream) else 0
                if (kind, of) == (wire.HEADERS, stream) and answered:
                    break  # refused
        time.sleep(3)  # the pipes do nothing meanwhile, which is the attack
        client.stream.close()

    in_parallel(20, send)


def endless(address):
    """Calls with a complete message and an open request."""
    large = wire.message(wire.field(1, b"large") + wire.field(2, bytes(60_000)))

    def send():
        stream = wire.dial(address)
        stream.sendall(wire.PREFACE + wire.frame(wire.SETTINGS, 0, 0))
        for number in range(1, 80, 2):
            head = wire.head(SERVICE + "Set", *wire.GRPC)
            stream.sendall(wire.frame(wire.HEADERS, wire.END_HEADERS, number, head))
            for at in range(0, len(large), 16_384):
                stream.sendall(wire.frame(wire.DATA, 0, number, large[at : at + 16_384]))
        time.sleep(2)  # the requests stay open meanwhile, which is the attack
        stream.close()

    in_parallel(60, send)


def reflection(address):
    """Reflection streams: with long requests, with unread responses, and past their deadline."""
    path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    ask = wire.field(4, b"ebb.v1.CacheService")
    long = wire.message(ask + wire.field(99, bytes(200_000)))

    def send():
        client = wire.Client(wire.dial(address), settings=((4, 0),))
        for number in range(30):
            timeout = [("grpc-timeout", "50m")] if number % 3 == 0 else []
            stream = client.open(wire.head(path, *wire.GRPC, *timeout))
            client.stream.sendall(wire.frame(wire.DATA, 0, stream, wire.message(ask)) * 20)
            for at in range(0, 60_000, 15_000):
                client.stream.sendall(wire.frame(wire.DATA, 0, stream, long[at : at + 15_000]))
        time.sleep(2)  # the streams stay open meanwhile, which is the attack
        client.stream.close()

    in_parallel(60, send)


def idle_connections(address):
    """More connections than the cap, which only send pings."""
    crowd = []
    for _ in range(300):
        try:
            crowd.append(wire.Client(wire.dial(address)))
        except OSError:
            pass
    end = time.monotonic() + 4
    while time.monotonic() < end:
        for client in crowd:
            try:
                client.stream.sendall(wire.frame(wire.PING, 0, 0, bytes(8)))
            except OSError:
                pass
        time.sleep(0.25)  # the rate of the attack
    late = Honest(address)
    late.start()
    while late.is_alive() and late.answers < 10 and time.monotonic() < end + 10:
        late.over.wait(0.05)
    late.over.set()
    late.join()
    for client in crowd:
        client.stream.close()
    assert late.answers >= 10, f"a new connection is let in: {late.answers} answers, {late.failure}"


def unread(address):
    """Requests with unread responses, and pipes that are written meanwhile."""
    crowd = []
    for _ in range(50):
        client = wire.Client(wire.dial(address, receive_bytes=4096))
        for i in range(50):
            key = wire.field(1, b"fill-%d" % i)
            stream = client.open(wire.head(SERVICE + "Get", *wire.GRPC))
            client.stream.sendall(wire.frame(wire.DATA, wire.END_STREAM, stream, wire.message(key)))
        crowd.append(client)
    time.sleep(3)  # nothing is read meanwhile, which is the attack
    for client in crowd:
        client.stream.close()


ATTACKS = {
    "batches of empty elements": batches,
    "25,000 open calls": lambda address: open_calls(address, 0),
    "25,000 open calls with 200 fields": lambda address: open_calls(address, 200),
    "250 unfinished header blocks": unfinished_headers,
    "250 tables of kept frames": kept_frames,
    "10,000 calls with long trailers": trailers,
    "announced messages, 1 connection": lambda address: announced(address, 1),
    "announced messages, 8 connections": lambda address: announced(address, 8),
    "control frames": control_frames,
    "300 idle connections": idle_connections,
    "answers that are not read": unread,
    "bytes that pin buffers": lambda address: pinned_buffers(address, 1, wire.frame(0x77, 0, 0, bytes(7_900))),
    "small frames that pin buffers": lambda address: pinned_buffers(address, 256, wire.frame(0x77, 0, 0, bytes(7_900))),
    "requests with a rest that is not read": unread_rest,
    "idle pipes": idle_pipes,
    "requests that do not end": endless,
    "reflection": reflection,
}


def main():
    verdict = Verdict()
    for mib in (64, 96):
        for name, attack in ATTACKS.items():
            with Cgroup(mib) as group, cache(group) as program:
                if group.is_v1:
                    # The peak of filling the cache and the program's pages do not count for the attack.
                    (group.path / "memory.max_usage_in_bytes").write_text("0")
                honest = Honest(program.address["data"])
                honest.start()
                failure = None
                try:
                    attack(program.address["data"])
                except (OSError, AssertionError) as error:
                    failure = error
                honest.over.set()
                honest.join()
                settles = time.monotonic() + 20
                while program.is_alive() and in_flight(program) > 256 << 10 and time.monotonic() < settles:
                    time.sleep(0.1)
                holds = {
                    f"carried out ({failure})": failure is None,
                    f"honest client answered ({honest.answers}, {honest.failure})": honest.answers > 0 and not honest.failure,
                    f"honest client refused nothing ({honest.refused})": honest.refused == 0,
                    "in flight back to zero": program.is_alive() and in_flight(program) <= 256 << 10,
                    "quiet log": len(program.log().splitlines()) < 300,
                }
                if group.peak() is not None:
                    holds["peak below the limit less a quarter of the reserve"] = group.peak() <= group.limit - group.limit // 64
                verdict.judge(f"data_port, {name} (honest p99 {honest.p99_ms():.1f} ms)", program, **holds)
    verdict.end()


if __name__ == "__main__":
    main()
