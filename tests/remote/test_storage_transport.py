"""Downloads from storage: bodies of every framing, connections that are used again, and broken ones."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from mirror.remote import storage
from mirror.remote.storage import LARGE as IN_THREAD
from mirror.remote.thread_transport import RECEIVE
from mirror.sandbox import Sandbox, World

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
LARGE = bytes(range(256)) * 4000

CERTIFICATE = Path(__file__).with_name("localhost.pem")
"""Of 127.0.0.1, with its key, signed by itself and valid for a hundred years."""


def sized(content):
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(content) + content


def chunked(content):
    pieces = [content[start : start + 300_000] for start in range(0, len(content), 300_000)]
    frames = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + frames + b"0\r\n\r\n"


@asynccontextmanager
async def answering(*answers, closes=(), began=None, tls=None):
    """An address that gives these answers in turn, and the connection of each; closes it after those in `closes`.

    Sets the event `began` with each answer. With `tls`, a context, clients must use TLS.
    """
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
                if began is not None:
                    began.set()
                await writer.drain()
                if place in closes:
                    return
            await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}/file", asked
    finally:
        server.close()
        for writer in connections:
            writer.close()


def client(trusted=None, **options):
    mounts = storage.mounts(ssl.create_default_context(cafile=trusted))
    return httpx.AsyncClient(mounts=mounts, timeout=5, follow_redirects=True, **options)


def fetched(*answers, closes=(), large=False):
    """What the client gets from one request per answer, and on which connection."""
    large = {IN_THREAD: large}

    async def work():
        async with answering(*answers, closes=closes) as (url, asked), client() as http:
            return [(await http.get(url, extensions=large)).content for _ in answers], asked

    return asyncio.run(work())


in_both_ways = pytest.mark.parametrize("large", [False, True], ids=["task", "thread"])


@in_both_ways
@pytest.mark.parametrize("content", [b"", b"a", LARGE], ids=["nothing", "a byte", "much"])
def test_every_framing_gives_the_whole_body_over_one_connection(content, large):
    # The standard library knows no early hints, which no storage sends.
    last = sized(content) if large else b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + sized(content)
    assert fetched(sized(content), chunked(content), last, large=large) == ([content] * 3, [1, 1, 1])


@in_both_ways
def test_over_tls_the_body_is_whole_and_the_certificate_is_checked(large):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    way = {IN_THREAD: large}

    async def work():
        async with answering(*[sized(LARGE)] * 2, tls=context) as (url, asked):
            async with client(trusted=CERTIFICATE) as http:
                bodies = [(await http.get(url, extensions=way)).content for _ in range(2)]
            async with client() as http:
                with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                    await http.get(url, extensions=way)
            return bodies, asked

    assert asyncio.run(work()) == ([LARGE] * 2, [1, 1])


@in_both_ways
def test_a_body_without_a_length_ends_with_its_connection(large):
    assert fetched(HEAD + b"\r\n" + LARGE, sized(b"b"), closes=(0,), large=large) == ([LARGE, b"b"], [1, 2])


@in_both_ways
def test_a_connection_that_the_server_closes_is_not_used_again(large):
    closing = HEAD + b"Connection: close\r\nContent-Length: 1\r\n\r\na"
    assert fetched(closing, sized(b"b"), closes=(0,), large=large) == ([b"a", b"b"], [1, 2])
    assert fetched(sized(b"a"), sized(b"b"), closes=(0,), large=large) == ([b"a", b"b"], [1, 2])


def test_more_than_was_announced_is_not_taken_for_the_next_answer():
    with pytest.raises(httpx.RemoteProtocolError, match="nonsense"):
        fetched(sized(b"a") + b"nonsense", sized(b"b"))
    assert fetched(sized(b"a") + b"nonsense", sized(b"b"), large=True)[0] == [b"a", b"b"]


@in_both_ways
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
def test_an_answer_that_is_not_whole_is_an_error(answer, large):
    """A connection that ends before the answer begins is tried once more."""
    if large and answer in (HEAD, HEAD + b"Content-Length: many\r\n\r\nabc"):
        # The standard library reads to the end of the connection; who receives it compares the size.
        assert len(fetched(answer, closes=(0,), large=True)[0][0]) <= 3
        return
    with pytest.raises(httpx.RemoteProtocolError):
        fetched(answer, answer, closes=(0, 1), large=large)


@in_both_ways
def test_a_signed_address_is_requested_as_it_is_quoted(large):
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
            url = f"http://127.0.0.1:{port}/a%2Fb%7E+c%20d?X-Sig=%2B%2f%3D%20a~b&e=a%26b"
            return (await http.get(url, extensions={IN_THREAD: large})).content

    assert asyncio.run(work()) == b"a"
    assert asked == [b"GET /a%2Fb%7E+c%20d?X-Sig=%2B%2f%3D%20a~b&e=a%26b HTTP/1.1\r\n"]


@in_both_ways
def test_a_server_that_says_nothing_is_given_up_in_time(large):
    async def work():
        async with answering(HEAD) as (url, _), client() as http:
            await http.get(url, timeout=0.05, extensions={IN_THREAD: large})

    with pytest.raises(httpx.ReadTimeout):
        asyncio.run(work())


@in_both_ways
def test_no_connection_and_no_host_are_errors_of_connecting(large):
    async def get(url):
        async with client() as http:
            await http.get(url, extensions={IN_THREAD: large})

    for url in ("http://127.0.0.1:1/x", "http://no-such-host.invalid/x"):
        with pytest.raises(httpx.ConnectError):
            asyncio.run(get(url))


@in_both_ways
def test_redirects_and_encodings_stay_with_httpx(large):
    import gzip

    content = gzip.compress(LARGE)
    packed = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(content) + content
    moved = b"HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n"

    async def work():
        async with answering(moved, packed) as (url, asked), client() as http:
            return (await http.get(url, extensions={IN_THREAD: large})).content, asked

    assert asyncio.run(work()) == (LARGE, [1, 1])


def test_a_scheme_with_a_proxy_is_left_to_httpx(monkeypatch):
    context = ssl.create_default_context()
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert list(storage.mounts(context)) == ["http://", "https://"]
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.com:3128")
    assert list(storage.mounts(context)) == ["http://"]
    monkeypatch.setenv("ALL_PROXY", "http://proxy.example.com:3128")
    assert list(storage.mounts(context)) == []


@in_both_ways
def test_a_body_that_is_left_unread_closes_its_connection(large):
    async def work():
        async with answering(sized(LARGE), sized(b"b")) as (url, asked), client() as http:
            async with http.stream("GET", url, extensions={IN_THREAD: large}):
                pass
            return (await http.get(url, extensions={IN_THREAD: large})).content, asked

    assert asyncio.run(work()) == (b"b", [1, 2])


def received_until_cancelled(*answers, arrived):
    """What a download in a thread got of its body before it was cancelled, which is once so many bytes `arrived`."""

    async def work():
        got, begun, enough = bytearray(), asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def take(piece):
            got.extend(piece)
            if len(got) >= arrived:
                loop.call_soon_threadsafe(enough.set)

        async def download(url):
            async with client() as http, http.stream("GET", url, extensions={IN_THREAD: True}) as answer:
                await answer.extensions[RECEIVE](take)

        async with answering(*answers, began=begun) as (url, _):
            task = asyncio.create_task(download(url))
            await begun.wait()
            if arrived:
                await enough.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        return bytes(got)

    return asyncio.run(work())


def test_a_download_in_a_thread_is_cancelled_while_it_waits_for_more():
    begun = HEAD + b"Content-Length: %d\r\n\r\n" % (2 * len(LARGE)) + LARGE
    got = received_until_cancelled(begun, arrived=500_000)
    assert len(got) >= 500_000
    assert LARGE.startswith(got)


def test_a_download_in_a_thread_is_cancelled_while_it_waits_for_an_answer():
    assert received_until_cancelled(HEAD, arrived=0) == b""


def test_what_the_receiver_raises_ends_the_download_in_a_thread():
    def take(_):
        raise OSError(28, "No space left on device")

    async def work():
        async with answering(sized(LARGE), sized(b"b")) as (url, asked), client() as http:
            with pytest.raises(OSError, match="No space left"):
                async with http.stream("GET", url, extensions={IN_THREAD: True}) as answer:
                    await answer.extensions[RECEIVE](take)
            return (await http.get(url, extensions={IN_THREAD: True})).content, asked

    assert asyncio.run(work()) == (b"b", [1, 2])


def test_the_sandbox_is_read_as_by_any_client():
    with Sandbox(World()) as sandbox:

        async def work():
            async with client() as http:
                return (await http.get(f"{sandbox.storage_url}/storage/files/a/b/c/d")).status_code

        assert asyncio.run(work()) == 403
