"""The `websockets` package on both sides of the gateway: `serve` prints its port, `call ADDRESS` talks."""

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import InvalidStatus


async def talk(socket):
    await socket.send(socket.request.headers.get("X-User-Id", "anonymous"))
    async for message in socket:
        if message == "bye":
            await socket.close(4001, "as you wish")
        await socket.send(message)


async def main_serve():
    async with serve(talk, "127.0.0.1", 0, max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


async def main_call(address):
    ada = {"Authorization": "Token canary-ada"}
    async with connect(f"ws://{address}/ws", additional_headers=ada, max_size=None) as socket:
        assert await socket.recv() == "42"
        for message in ["", "text", "ü" * 1000, b"\0\xff" * 100_000, "x" * 3_000_000]:
            await socket.send(message)
            assert await socket.recv() == message
        await (await socket.ping())
        await socket.send("bye")
        await socket.wait_closed()
        assert (socket.close_code, socket.close_reason) == (4001, "as you wish"), socket.close_code

    sockets = [await connect(f"ws://{address}/ws", additional_headers=ada) for _ in range(100)]
    for at, socket in enumerate(sockets):
        await socket.recv()
        await socket.send(str(at))
    assert [await socket.recv() for socket in sockets] == [str(at) for at in range(100)]
    for socket in sockets:
        await socket.close()

    for headers in [{}, {"Authorization": "Token canary-unknown"}]:
        try:
            await connect(f"ws://{address}/ws", additional_headers=headers)
        except InvalidStatus as refused:
            assert refused.response.status_code == 401
            assert refused.response.headers["WWW-Authenticate"] == "Token"
        else:
            raise AssertionError("let in")
    print("all is well")


if __name__ == "__main__":
    asyncio.run(main_serve() if sys.argv[1] == "serve" else main_call(sys.argv[2]))
