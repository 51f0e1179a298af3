"""Frames of WebSockets one by one, after the cases of Autobahn's test-suite that a proxy could break: `serve` prints the port of an
echo by the `websockets` package, `call ADDRESS CA` sends it frames over TLS, cut wherever they can be."""

import asyncio
import os
import socket
import ssl
import struct
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MIB = 1024 * 1024
closed = {}  # by the path of a WebSocket: how its client has closed it


async def talk(ws):
    try:
        async for message in ws:
            if isinstance(message, str) and message.startswith("close "):
                _, code, reason = message.split(" ", 2)
                await ws.close(int(code), reason)
            elif isinstance(message, str) and message.startswith("how "):
                while message[4:] not in closed:
                    await asyncio.sleep(0.01)
                await ws.send(repr(closed[message[4:]]))
            else:
                await ws.send(message)
    except ConnectionClosed:
        pass
    finally:
        await ws.wait_closed()
        closed[ws.request.path] = (ws.close_code, ws.close_reason)


async def main_serve():
    async with serve(talk, "127.0.0.1", 0, max_size=None, compression="deflate") as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


def frame(kind, payload=b"", fin=True, reserved=0, mask=True):
    head = bytes([fin << 7 | reserved << 4 | kind])
    masked = 0x80 if mask else 0
    if len(payload) < 126:
        head += bytes([masked | len(payload)])
    elif len(payload) < 65536:
        head += struct.pack("!BH", masked | 126, len(payload))
    else:
        head += struct.pack("!BQ", masked | 127, len(payload))
    if not mask:
        return head + payload
    key = os.urandom(4)
    pad = (key * (len(payload) // 4 + 1))[: len(payload)]
    body = int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")
    return head + key + body.to_bytes(len(payload), "big")


class Client:
    """One WebSocket over TLS, frame by frame."""

    def __init__(self, address, context, path):
        host, port = address.rsplit(":", 1)
        tcp = socket.create_connection((host, int(port)), timeout=20)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(tcp, server_hostname="localhost")
        self.send(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Token canary-ada\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.buffer = b""
        while b"\r\n\r\n" not in self.buffer:
            self.fill()
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        assert head.startswith(b"HTTP/1.1 101 "), head

    def send(self, data, cut=None):
        for at in range(0, len(data), cut or max(len(data), 1)):
            self.socket.sendall(data[at : at + (cut or len(data))])

    def fill(self):
        data = self.socket.recv(65536)
        assert data, "the connection ended in the middle"
        self.buffer += data

    def take(self, length):
        parts, missing = [self.buffer[:length]], length - len(self.buffer[:length])
        self.buffer = self.buffer[length:]
        while missing > 0:
            data = self.socket.recv(min(missing, MIB))
            assert data, "the connection ended in the middle"
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def frame(self):
        first, second = self.take(2)
        assert not second & 0x80, "servers do not mask"
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", self.take(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self.take(8))
        return first & 0x0F, self.take(length)

    def expect(self, kind, payload):
        got = self.frame()
        assert got == (kind, payload), (got[0], got[1][:100], kind, payload[:100])

    def expect_end(self):
        assert self.buffer == b"" and self.socket.recv(1) == b"", "nothing follows a close"
        self.socket.close()


def lengths(ws):
    for kind in (TEXT, BINARY):
        for length in (0, 1, 125, 126, 127, 128, 65535, 65536, 65537):
            ws.send(frame(kind, b"*" * length))
            ws.expect(kind, b"*" * length)
    odd = "κόσμε \U0001f30d".encode()
    ws.send(frame(TEXT, odd))
    ws.expect(TEXT, odd)
    ws.send(frame(BINARY, bytes(range(256)) * 100))
    ws.expect(BINARY, bytes(range(256)) * 100)


def large(ws):
    payload = os.urandom(MIB) * 16
    for cut in (None, 997_003):
        ws.send(frame(BINARY, payload), cut)
        ws.expect(BINARY, payload)


def cut_everywhere(ws):
    for payload in (b"a text of some bytes", b"x" * 200):
        whole = frame(TEXT, payload)
        for at in range(1, len(whole)):
            ws.send(whole[:at])
            ws.send(whole[at:])
        for _ in range(1, len(whole)):
            ws.expect(TEXT, payload)
        ws.send(whole, 1)
        ws.expect(TEXT, payload)
    many = b"".join(frame(TEXT, b"%d" % at) for at in range(2000))
    ws.send(many, 1021)
    for at in range(2000):
        ws.expect(TEXT, b"%d" % at)


def fragments(ws):
    for parts in ([b"a", b"b"], [b"", b"a", b""], [b"", b"", b""], [b"x" * 1000] * 50, [b"y" * 200_000] * 5):
        for kind in (TEXT, BINARY):
            for at, part in enumerate(parts):
                ws.send(frame(kind if at == 0 else CONTINUATION, part, fin=at == len(parts) - 1))
                if at < len(parts) - 1:
                    ws.send(frame(PING, b"between %d" % at))
                    ws.expect(PONG, b"between %d" % at)
            ws.expect(kind, b"".join(parts))


def pings(ws):
    for payload in (b"", b"p", bytes(range(125)), b"\0" * 125):
        ws.send(frame(PING, payload))
        ws.expect(PONG, payload)
    ws.send(frame(PONG, b"unsolicited") * 10 + b"".join(frame(PING, b"%d" % at) for at in range(10)))
    for at in range(10):
        ws.expect(PONG, b"%d" % at)


def closes_of_clients(new):
    for code, reason in [(1000, ""), (1001, "away"), (1003, ""), (1011, "x" * 123), (3000, "ü"), (4999, "end")]:
        ws, path = new()
        body = struct.pack("!H", code) + reason.encode()
        ws.send(frame(CLOSE, body))
        ws.expect(CLOSE, body)
        ws.expect_end()
        asks, _ = new()
        asks.send(frame(TEXT, b"how " + path.encode()))
        asks.expect(TEXT, repr((code, reason)).encode())
    ws, path = new()
    ws.send(frame(CLOSE))
    ws.expect(CLOSE, b"")
    ws.expect_end()
    # What comes behind a close is not read, and breaks nothing.
    ws, _ = new()
    ws.send(frame(CLOSE, struct.pack("!H", 1000)) + frame(TEXT, b"2"))
    ws.expect(CLOSE, struct.pack("!H", 1000))


def closes_of_servers(new):
    for code, reason in [(1000, ""), (1001, "bye"), (1011, "ü" * 60), (3999, "x"), (4000, "y" * 123)]:
        ws, _ = new()
        ws.send(frame(TEXT, f"close {code} {reason}".encode()))
        body = struct.pack("!H", code) + reason.encode()
        ws.expect(CLOSE, body)
        ws.send(frame(CLOSE, body))
        ws.expect_end()


def faults(new):
    """What breaks the protocol is the application's to refuse, with the code that it has for it."""
    for code, sent in [
        (1002, frame(TEXT, b"x", reserved=2)),
        (1002, frame(3, b"x")),
        (1002, frame(11)),
        (1002, frame(TEXT, b"x", mask=False)),
        (1002, frame(PING, b"x" * 126)),
        (1002, frame(PING, b"x", fin=False)),
        (1002, frame(CONTINUATION, b"x")),
        (1002, frame(TEXT, b"x", fin=False) + frame(TEXT, b"y")),
        (1002, frame(CLOSE, b"x")),
        (1002, frame(CLOSE, struct.pack("!H", 999))),
        (1007, frame(TEXT, b"\xff\xfe")),
        (1007, frame(TEXT, b"\xce\xba\xe1", fin=False) + frame(CONTINUATION, b"\xf4\x90\x80\x80")),
    ]:
        ws, _ = new()
        ws.send(sent)
        kind, payload = ws.frame()
        assert (kind, payload[:2]) == (CLOSE, struct.pack("!H", code)), (code, sent[:20], kind, payload)


async def compressed(address, context):
    """permessage-deflate is agreed on by the two ends; the gateway has no part in it."""
    ada = {"Authorization": "Token canary-ada"}
    uri, sock = "wss://localhost/ws/deflate", socket.create_connection(address.rsplit(":", 1), timeout=20)
    async with connect(uri, sock=sock, ssl=context, server_hostname="localhost", additional_headers=ada, max_size=None) as ws:
        assert "permessage-deflate" in ws.response.headers["Sec-WebSocket-Extensions"], ws.response.headers
        for message in ["", "a" * 1_000_000, "ü" * 10_000, os.urandom(300_000), b"\0" * 3_000_000]:
            await ws.send(message)
            assert await ws.recv() == message
        parts = ["part %d " % at * 1000 for at in range(20)]
        await ws.send(parts)
        assert await ws.recv() == "".join(parts)


def main_call(address, ca):
    context = ssl.create_default_context(cafile=ca)
    count = 0

    def new():
        nonlocal count
        count += 1
        path = f"/ws/{count}"
        return Client(address, context, path), path

    for case in (lengths, large, cut_everywhere, fragments, pings):
        ws, _ = new()
        case(ws)
        ws.send(frame(CLOSE, struct.pack("!H", 1000)))
        ws.expect(CLOSE, struct.pack("!H", 1000))
        ws.expect_end()
    for case in (closes_of_clients, closes_of_servers, faults):
        case(new)
    asyncio.run(compressed(address, context))
    print("all is well")


if __name__ == "__main__":
    asyncio.run(main_serve()) if sys.argv[1] == "serve" else main_call(*sys.argv[2:])
