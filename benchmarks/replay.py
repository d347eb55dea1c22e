"""A server that replays another server's answers from memory, so that only the client's own time is measured.

    python benchmarks/replay.py URL

Prints its address. The first request of a kind is forwarded to URL; later ones get the same answer at once.
"""

from __future__ import annotations

import asyncio
import http.client
import sys
from urllib.parse import urlsplit

_CONNECTION_HEADERS = ("connection", "content-length", "transfer-encoding", "accept-encoding", "host")

RequestKey = tuple[str, str, bytes]


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, known: dict[RequestKey, bytes]) -> None:
    """Answer the requests of one connection until it is closed."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, path, _ = head[0].split(" ", 2)
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
            body = await _body(reader, headers)
            if (method, path, body) not in known:
                known[method, path, body] = await asyncio.to_thread(_forward, method, path, headers, body)
            writer.write(known[method, path, body])
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") != "chunked":
        return await reader.readexactly(int(headers.get("content-length", "0")))
    pieces = []
    while size := int((await reader.readline()).strip(), 16):
        pieces.append(await reader.readexactly(size))
        await reader.readline()
    await reader.readline()
    return b"".join(pieces)


def _forward(method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
    target = urlsplit(sys.argv[1])
    connection = http.client.HTTPConnection(target.hostname or "127.0.0.1", target.port)
    sent = {name: value for name, value in headers.items() if name not in _CONNECTION_HEADERS}
    connection.request(method, path, body, sent)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    kind = response.getheader("content-type", "application/json")
    status = f"HTTP/1.1 {response.status} {response.reason}"
    head = f"{status}\r\ncontent-type: {kind}\r\ncontent-length: {len(content)}\r\n\r\n"
    return head.encode("latin-1") + content


async def main() -> None:
    """Listen on a free port until the process is stopped."""
    known: dict[RequestKey, bytes] = {}
    server = await asyncio.start_server(lambda reader, writer: answer(reader, writer, known), "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
