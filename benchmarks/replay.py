"""A server that answers from memory what another one answered before: what is left is the client's own time.

    python benchmarks/replay.py URL

Prints its address. The first time that a request comes it is passed on to URL; from then on its answer is ready.
"""

from __future__ import annotations

import asyncio
import http.client
import sys
from urllib.parse import urlsplit

_OF_THE_CONNECTION = ("connection", "content-length", "transfer-encoding", "accept-encoding", "host")

Asked = tuple[str, str, bytes]


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, known: dict[Asked, bytes]) -> None:
    """Answer what comes over one connection until it is closed."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, path, _ = head[0].split(" ", 2)
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
            body = await _body(reader, headers)
            if (method, path, body) not in known:
                known[method, path, body] = await asyncio.to_thread(_passed_on, method, path, headers, body)
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


def _passed_on(method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
    target = urlsplit(sys.argv[1])
    connection = http.client.HTTPConnection(target.hostname or "127.0.0.1", target.port)
    sent = {name: value for name, value in headers.items() if name not in _OF_THE_CONNECTION}
    connection.request(method, path, body, sent)
    told = connection.getresponse()
    content = told.read()
    connection.close()
    kind = told.getheader("content-type", "application/json")
    head = f"HTTP/1.1 {told.status} {told.reason}\r\ncontent-type: {kind}\r\ncontent-length: {len(content)}\r\n\r\n"
    return head.encode("latin-1") + content


async def main() -> None:
    """Listen on a free port until the process is ended."""
    known: dict[Asked, bytes] = {}
    server = await asyncio.start_server(lambda reader, writer: answer(reader, writer, known), "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
