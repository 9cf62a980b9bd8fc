"""How long an honest client waits beside an attack: once the attack is aimed at the server that the client uses, once, in
turn, at a sink that reads everything and answers it with as little work as can be. The ratio of the two is what the
attack costs others within the server: attacker and sink have a processor to themselves, server and client another one, or
the figure would be of how the system shares two processors among four that are busy.

    EBB_PROGRAM=target/release/ebb python3 -B tests/attack_latency.py [ROUNDS]
"""

import asyncio
import multiprocessing
import os
import pathlib
import statistics
import struct
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent / "attacks"))
import data_port
import wire
from cgroup import Cgroup, cache

MIB = 96
SECONDS = 3
ALL_PROCESSORS = os.sched_getaffinity(0)
# grpc-status: 8, the status of a refused call.
REFUSED = b"\x88" + wire.literal("content-type", "application/grpc") + wire.literal("grpc-status", "8")


class Sink(asyncio.Protocol):
    """Refuses every finished call, and reopens all windows."""

    def connection_made(self, transport):
        self.transport, self.buffer, self.greeted = transport, b"", False
        transport.write(wire.frame(wire.SETTINGS, 0, 0))

    def data_received(self, data):
        self.buffer += data
        if not self.greeted and len(self.buffer) >= len(wire.PREFACE):
            self.buffer, self.greeted = self.buffer[len(wire.PREFACE):], True
        at, answers = 0, []
        while self.greeted and len(self.buffer) >= at + 9:
            length = int.from_bytes(self.buffer[at:at + 3], "big")
            if len(self.buffer) < at + 9 + length:
                break
            kind, flags = self.buffer[at + 3], self.buffer[at + 4]
            stream = int.from_bytes(self.buffer[at + 5:at + 9], "big")
            at += 9 + length
            if kind == wire.DATA and length:
                for number in (0, stream):
                    answers.append(wire.frame(wire.WINDOW_UPDATE, 0, number, struct.pack(">I", length)))
            if kind in (wire.DATA, wire.HEADERS) and flags & wire.END_STREAM:
                answers.append(wire.frame(wire.HEADERS, wire.END_HEADERS | wire.END_STREAM, stream, REFUSED))
        self.buffer = self.buffer[at:]
        if answers and not self.transport.is_closing():
            self.transport.write(b"".join(answers))


def use_processor(number):
    """Binds this process and its children to one processor, if there are several."""
    processors = sorted(ALL_PROCESSORS)
    os.sched_setaffinity(0, {processors[number % len(processors)]})


def serve_sink(ready):
    use_processor(0)

    async def serve():
        server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", 0, backlog=1024)
        ready.send("127.0.0.1:%d" % server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


def honest(address, over, figures):
    """Small sequential writes in a separate process, so that the attacker's interpreter does not slow them down."""
    client = data_port.Honest(address)
    client.over = over
    client.run()
    figures.send((client.p99_ms(), client.answers, client.refused, str(client.failure or "")))


def attack(name, address):
    """Repeats short attacks, so that every figure covers some seconds."""
    use_processor(0)
    end, carried_out = time.monotonic() + SECONDS, 0
    while time.monotonic() < end:
        began = time.monotonic()
        try:
            data_port.ATTACKS[name](address)
        except (OSError, AssertionError):
            pass  # the sink may close, or carry out what a server refuses
        carried_out += time.monotonic() - began > 0.05
    sys.exit(0 if carried_out else "the attack did not take place")


def beside(name, target, server):
    """The client's p99 in ms while `target` is attacked."""
    over, (receive, send) = multiprocessing.Event(), multiprocessing.Pipe(False)
    client = multiprocessing.Process(target=honest, args=(server, over, send))
    client.start()
    attacker = multiprocessing.Process(target=attack, args=(name, target))
    attacker.start()
    attacker.join(60)
    is_over = attacker.exitcode is not None
    attacker.kill()
    over.set()
    p99, answers, refused, failure = receive.recv()
    client.join()
    if is_over and attacker.exitcode != 0:
        raise SystemExit(f"{name}: the attack did not take place")
    if refused or failure or not answers:
        raise SystemExit(f"{name}: the honest client had {answers} answers, {refused} refusals {failure}")
    return p99


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    use_processor(1)
    receive, send = multiprocessing.Pipe(False)
    sink = multiprocessing.Process(target=serve_sink, args=(send,), daemon=True)
    sink.start()
    sink_address = receive.recv()
    print(f"{'attack':<36} {'p99 beside it':>14} {'beside a sink':>14} {'ratio':>6}   (ms, medians of {rounds})")
    for name in data_port.ATTACKS:
        attacked, calm = [], []
        for _ in range(rounds):
            with Cgroup(MIB) as group, cache(group) as program:
                calm.append(beside(name, sink_address, program.address["data"]))
                attacked.append(beside(name, program.address["data"], program.address["data"]))
        here, there = statistics.median(attacked), statistics.median(calm)
        print(f"{name:<36} {here:>14.2f} {there:>14.2f} {here / there:>6.2f}", flush=True)
    sink.kill()


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    main()
