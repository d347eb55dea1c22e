"""Downloads from storage: bodies of every framing, connections that are used again, and broken ones."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager

import httpx
import pytest

from mirror.remote import storage_transport
from mirror.sandbox import Sandbox, World

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
LARGE = bytes(range(256)) * 4000


def sized(content):
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(content) + content


def chunked(content):
    pieces = [content[start : start + 300_000] for start in range(0, len(content), 300_000)]
    frames = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + frames + b"0\r\n\r\n"


@asynccontextmanager
async def answering(*answers, closes=()):
    """An address that gives these answers in turn, and the connection of each; closes it after those in `closes`."""
    left, asked, connections = list(enumerate(answers)), [], []

    async def serve(reader, writer):
        connections.append(writer)
        number = len(connections)
        try:
            while left:
                await reader.readuntil(b"\r\n\r\n")
                place, answer = left.pop(0)
                asked.append(number)
                writer.write(answer)
                await writer.drain()
                if place in closes:
                    return
            await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/file", asked
    finally:
        server.close()
        for writer in connections:
            writer.close()


def client(**options):
    mounts = storage_transport.mounts(ssl.create_default_context())
    return httpx.AsyncClient(mounts=mounts, timeout=5, follow_redirects=True, **options)


def fetched(*answers, closes=()):
    """What the client gets from one request per answer, and on which connection."""

    async def work():
        async with answering(*answers, closes=closes) as (url, asked), client() as http:
            return [(await http.get(url)).content for _ in answers], asked

    return asyncio.run(work())


@pytest.mark.parametrize("content", [b"", b"a", LARGE])
def test_every_framing_gives_the_whole_body_over_one_connection(content):
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + sized(content)
    assert fetched(sized(content), chunked(content), early) == ([content] * 3, [1, 1, 1])


def test_a_body_without_a_length_ends_with_its_connection():
    assert fetched(HEAD + b"\r\n" + LARGE, sized(b"b"), closes=(0,)) == ([LARGE, b"b"], [1, 2])


def test_a_connection_that_the_server_closes_is_not_used_again():
    closing = HEAD + b"Connection: close\r\nContent-Length: 1\r\n\r\na"
    assert fetched(closing, sized(b"b"), closes=(0,)) == ([b"a", b"b"], [1, 2])
    assert fetched(sized(b"a"), sized(b"b"), closes=(0,)) == ([b"a", b"b"], [1, 2])


def test_more_than_was_announced_is_not_taken_for_the_next_answer():
    with pytest.raises(httpx.RemoteProtocolError, match="nonsense"):
        fetched(sized(b"a") + b"nonsense", sized(b"b"))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9\r\n",
        HEAD,
        HEAD + b"Content-Length: 10\r\n\r\nabc",
        HEAD + b"Content-Length: many\r\n\r\nabc",
        chunked(LARGE)[:-5],
    ],
    ids=["nothing", "another protocol", "half a head", "half a body", "no length", "half of the chunks"],
)
def test_an_answer_that_is_not_whole_is_an_error(answer):
    """A connection that ends before the answer begins is tried once more."""
    with pytest.raises(httpx.RemoteProtocolError):
        fetched(answer, answer, closes=(0, 1))


def test_a_signed_address_is_requested_as_it_is_quoted():
    asked = []

    async def serve(reader, writer):
        asked.append(await reader.readline())
        writer.write(sized(b"a"))
        await writer.drain()
        writer.close()

    async def work():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server, client() as http:
            port = server.sockets[0].getsockname()[1]
            return (await http.get(f"http://127.0.0.1:{port}/a%2Fb%7E+c%20d?X-Sig=%2B%2f%3D%20a~b&e=a%26b")).content

    assert asyncio.run(work()) == b"a"
    assert asked == [b"GET /a%2Fb%7E+c%20d?X-Sig=%2B%2f%3D%20a~b&e=a%26b HTTP/1.1\r\n"]


def test_a_server_that_says_nothing_is_given_up_in_time():
    async def work():
        async with answering(HEAD) as (url, _), client() as http:
            await http.get(url, timeout=0.05)

    with pytest.raises(httpx.ReadTimeout):
        asyncio.run(work())


def test_no_connection_and_no_host_are_errors_of_connecting():
    async def get(url):
        async with client() as http:
            await http.get(url)

    for url in ("http://127.0.0.1:1/x", "http://no-such-host.invalid/x"):
        with pytest.raises(httpx.ConnectError):
            asyncio.run(get(url))


def test_redirects_and_encodings_stay_with_httpx():
    import gzip

    content = gzip.compress(LARGE)
    packed = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(content) + content
    moved = b"HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n"

    async def work():
        async with answering(moved, packed) as (url, asked), client() as http:
            return (await http.get(url)).content, asked

    assert asyncio.run(work()) == (LARGE, [1, 1])


def test_a_scheme_with_a_proxy_is_left_to_httpx(monkeypatch):
    context = ssl.create_default_context()
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert list(storage_transport.mounts(context)) == ["http://", "https://"]
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.com:3128")
    assert list(storage_transport.mounts(context)) == ["http://"]
    monkeypatch.setenv("ALL_PROXY", "http://proxy.example.com:3128")
    assert list(storage_transport.mounts(context)) == []


def test_a_body_that_is_left_unread_closes_its_connection():
    async def work():
        async with answering(sized(LARGE), sized(b"b")) as (url, asked), client() as http:
            async with http.stream("GET", url):
                pass
            return (await http.get(url)).content, asked

    assert asyncio.run(work()) == (b"b", [1, 2])


def test_the_sandbox_is_read_as_by_any_client():
    with Sandbox(World()) as sandbox:

        async def work():
            async with client() as http:
                return (await http.get(f"{sandbox.storage_url}/storage/files/a/b/c/d")).status_code

        assert asyncio.run(work()) == 403
