"""A minimal HTTP/2 client, which can send invalid input: frames, literal header fields, gRPC messages."""

import socket
import struct

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def integer(value, prefix, first=0):
    """HPACK's integers (RFC 7541, 5.1)."""
    most = (1 << prefix) - 1
    if value < most:
        return bytes([first | value])
    out, value = bytearray([first | most]), value - most
    while value >= 128:
        out.append(value % 128 | 128)
        value //= 128
    return bytes([*out, value])


def literal(name, value):
    """A header field without indexing and without Huffman code."""
    name, value = name.encode(), value.encode()
    return b"\0" + integer(len(name), 7) + name + integer(len(value), 7) + value


def head(path, *more, method="POST", scheme="http"):
    fields = [(":method", method), (":scheme", scheme), (":path", path), (":authority", "ebb"), *more]
    return b"".join(literal(name, value) for name, value in fields)


def dial(address, receive_bytes=None):
    host, port = address.rsplit(":", 1)
    stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if receive_bytes is not None:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    stream.settimeout(5)
    stream.connect((host, int(port)))
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


class Client:
    """One connection. `stream` may be a TLS socket."""

    def __init__(self, stream, settings=()):
        self.stream, self.next = stream, 1
        self.window, self.peer_stream_window, self.buffer = 65_535, 65_535, b""
        payload = b"".join(struct.pack(">HI", key, value) for key, value in settings)
        self.stream.sendall(PREFACE + frame(SETTINGS, 0, 0, payload))

    def read_frame(self):
        """The next frame as (kind, flags, stream, payload); answers and counts connection-level frames."""
        while True:
            if len(self.buffer) >= 9:
                length = int.from_bytes(self.buffer[:3], "big")
                if len(self.buffer) >= 9 + length:
                    kind, flags = self.buffer[3], self.buffer[4]
                    number = int.from_bytes(self.buffer[5:9], "big") & 0x7FFF_FFFF
                    payload, self.buffer = self.buffer[9 : 9 + length], self.buffer[9 + length :]
                    self._note(kind, flags, number, payload)
                    return kind, flags, number, payload
            more = self.stream.recv(1 << 16)
            if not more:
                raise ConnectionError("closed by the server")
            self.buffer += more

    def _note(self, kind, flags, number, payload):
        if kind == SETTINGS and not flags & ACK:
            for at in range(0, len(payload), 6):
                key, value = struct.unpack(">HI", payload[at : at + 6])
                if key == 4:
                    self.peer_stream_window = value
            self.stream.sendall(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self.stream.sendall(frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE and number == 0:
            self.window += int.from_bytes(payload, "big")
        elif kind == GOAWAY:
            raise ConnectionError("GOAWAY")
        elif kind == DATA and payload:
            self.stream.sendall(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", len(payload))))

    def open(self, block, flags=END_HEADERS):
        """Sends HEADERS; returns the number of the stream."""
        number, self.next = self.next, self.next + 2
        self.stream.sendall(frame(HEADERS, flags, number, block))
        return number

    def send(self, number, data, end=True):
        """Sends DATA as the windows allow."""
        stream_window, at = self.peer_stream_window, 0
        while at < len(data) or (end and not data):
            step = min(16_384, len(data) - at, self.window, stream_window)
            if step <= 0 and data:
                before = self.peer_stream_window
                kind, _, of, payload = self.read_frame()
                # New settings change the windows of open streams, too (RFC 9113, 6.9.2).
                stream_window += self.peer_stream_window - before
                if kind == WINDOW_UPDATE and of == number:
                    stream_window += int.from_bytes(payload, "big")
                elif kind == RST_STREAM and of == number:
                    return
                continue
            is_last = end and at + step == len(data)
            self.stream.sendall(frame(DATA, END_STREAM if is_last else 0, number, data[at : at + step]))
            self.window, stream_window, at = self.window - step, stream_window - step, at + step
            if is_last:
                return

    def finish(self, number):
        """Reads until a stream ends; returns its data."""
        data = b""
        while True:
            kind, flags, of, payload = self.read_frame()
            if of == number and kind == RST_STREAM:
                raise ConnectionError("the stream was reset")
            if of == number and kind == DATA:
                data += payload
            if of == number and kind in (DATA, HEADERS) and flags & END_STREAM:
                return data


GRPC = (("content-type", "application/grpc"), ("te", "trailers"))


def field(number, data):
    """A protobuf field of bytes."""
    def varint(value):
        out = bytearray()
        while value >= 128:
            out.append(value % 128 | 128)
            value //= 128
        return bytes([*out, value])
    return varint(number << 3 | 2) + varint(len(data)) + data


def message(data):
    """A gRPC message with its prefix."""
    return b"\0" + struct.pack(">I", len(data)) + data


def fill(address, megabytes, value_bytes=16 << 10):
    """Stores values of this many megabytes; the cache evicts."""
    value = bytes(range(256)) * (value_bytes // 256)
    client = Client(dial(address))
    for number in range((megabytes << 20) // value_bytes):
        if number % 1_000 == 999:
            client.stream.close()
            client = Client(dial(address))
        request = field(1, b"fill-%d" % number) + field(2, value)
        stream = client.open(head("/ebb.v1.CacheService/Set", *GRPC))
        client.send(stream, message(request))
        client.finish(stream)
    client.stream.close()
