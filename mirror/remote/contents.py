"""Downloads the content of files at signed addresses, through connections of its own, from any byte on.

Passes and downloads do not wait for each other: these requests neither count against the server's quota nor take a
place of `server.max_concurrency`.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit

import httpx
from msgspec import Struct

from mirror.errors import CommError
from mirror.remote import errors, queries
from mirror.remote.client import Server
from mirror.remote.errors import NotFound, Refused, TooMuch
from mirror.remote.limits import LONGEST_PAUSE, retry_after
from mirror.remote.run_records import moment
from mirror.remote.storage import LARGE
from mirror.remote.thread_transport import RECEIVE, STOPPING_SECONDS, Receive
from mirror.store.records import ProjectKey
from mirror.threads import in_thread
from mirror.wandb_json import UNREADABLE, unreadable

CONNECTIONS = 16
"""Downloads at a time."""

ATTEMPTS = 5
"""How often in a row a download may fail to receive anything new before it is given up for now."""

BREAKS = 100
"""How often a download may break off in all before it is given up for now, although it received more each time."""

PIECE = 512 << 10
"""Bytes that are passed on at a time; this bounds the memory of a download."""

LARGE_BYTES = 2_000_000
"""A download of this many bytes gets a thread of its own, if no proxy is between."""

COUNTED_BYTES = 8 << 20
"""After this many bytes a download in a thread reports what it has received."""


class Sink(Protocol):
    """Receives a content. `size` is how many of its bytes are there already, `expected` how many there should be.

    One that is not `resumable` is restarted when a connection breaks off. The methods are called in threads: a disk may
    hold them up.
    """

    size: int
    expected: int
    resumable: bool

    def write(self, piece: bytes | bytearray) -> None:
        """Add the next bytes."""

    def restart(self) -> None:
        """Drop everything that was received: the server sends the content from its start."""


class Outgrown(CommError):
    """The server sends more bytes than it lists."""


class SetAside(TooMuch):
    """The server wants this content to be asked for `after` seconds, which is too long to wait for it."""

    def __init__(self, failure: CommError, after: float) -> None:
        super().__init__(f"{failure}; the server wants it to be asked for again after {after:,.0f} s", failure)
        self.after = after


class Address(Struct, frozen=True):
    """Where a content is, and what the server says of it now."""

    url: str
    size: int
    mimetype: str | None
    md5: str | None
    updated_at: datetime | None


Names = Mapping[str, Sequence[str]]


async def addresses(server: Server, project: ProjectKey, names: Names) -> dict[tuple[str, str], Address]:
    """Return the address of each of these files, named by run; files that do not exist any more are left out."""
    variables: dict[str, Any] = {
        "entity": project.entity,
        "project": project.project,
        "first": max(map(len, names.values()), default=0),
    }
    for index, (run_id, wanted) in enumerate(names.items()):
        variables |= {f"run{index}": run_id, f"names{index}": list(wanted)}
    document = queries.content_addresses(len(names))
    data = await server.graphql("MirrorContents", document, variables, bulk=True, divisible=len(names) > 1)
    found: dict[tuple[str, str], Address] = {}
    try:
        for index, run_id in enumerate(names):
            run = (data.get("project") or {}).get(f"r{index}") or {}
            for edge in (run.get("files") or {}).get("edges") or ():
                if (address := _address(edge["node"])) is not None:
                    found[run_id, edge["node"]["name"]] = address
    except UNREADABLE as error:
        raise unreadable("the address of a file", error) from error
    return found


def _address(node: Mapping[str, Any]) -> Address | None:
    url = node["directUrl"] or node["url"]
    size = int(node["sizeBytes"] or 0)
    return Address(url, size, node["mimetype"], node["md5"] or None, moment(node["updatedAt"])) if url else None


class ContentClient:
    """Downloads contents from a server and its object stores."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def fetch(self, url: str, sink: Sink) -> None:
        """Receive the rest of a content into the sink.

        A connection that breaks off is opened again where it ended, as long as something new arrives, and no more than
        BREAKS times. Raises NotFound, Refused (also for an address that has expired), Outgrown, SetAside, another
        CommError, or OSError of the sink.
        """
        try:
            address = urljoin(f"{self._server.base_url}/", url)
            urlsplit(address)
        except ValueError as error:
            raise CommError(f"{url.partition('?')[0]!r} is not a valid file address", error) from error
        failed = breaks = 0
        furthest, waited = sink.size, 0.0
        while True:
            try:
                await self._receive(address, sink)
            except _Broken as broken:
                breaks += 1
                failed = 1 if sink.size > furthest else failed + 1
                furthest = max(furthest, sink.size)
                if not sink.resumable:
                    await in_thread(sink.restart)
                waited += broken.after or 0.0
                if waited > LONGEST_PAUSE:
                    raise SetAside(broken.failure, broken.after or 0.0) from broken
                if failed >= ATTEMPTS or breaks >= BREAKS:
                    raise broken.failure from broken
                await asyncio.sleep(max(self._server.retry_wait(failed - 1), broken.after or 0.0))
            else:
                return

    async def _receive(self, address: str, sink: Sink) -> None:
        # Without the query, which holds the signature: a credential of its own.
        shown = address.partition("?")[0]
        address = _exact(address)
        start = sink.size
        # The bytes as they are stored: their MD5 is what the server lists.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        self._server.count("content")
        try:
            async with self._answer(address, headers, large=sink.expected - start >= LARGE_BYTES) as answer:
                await self._check(answer, shown, sink)
                await self._pass_on(answer, shown, sink)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise CommError(f"{shown!r} is not a valid file address", error) from error
        except (httpx.HTTPError, TimeoutError) as error:
            host = "://".join(urlsplit(address)[:2])
            failure = error if isinstance(error, httpx.HTTPError) else httpx.ReadTimeout("no answer in time")
            raise _Broken(errors.of_transport(host, urlsplit(address).path, failure)) from error

    async def _pass_on(self, answer: httpx.Response, shown: str, sink: Sink) -> None:
        """Pass on the body as it arrives. Digests of large contents are taken in threads, beside other downloads."""
        began = time.monotonic()
        receive: Receive | None = answer.extensions.get(RECEIVE)
        if receive is not None:
            await self._pass_on_in_thread(receive, began, answer, shown, sink)
            return
        received = bytearray()
        try:
            async for piece in answer.aiter_raw():
                received += piece
                _check_size(sink, len(received), shown)
                self._server.bytes_received += len(piece)
                self._server.check_speed(began, answer, answer.num_bytes_downloaded)
                if len(received) >= PIECE:
                    batch, received = received, bytearray()
                    await _finished(asyncio.to_thread(sink.write, batch))
        except Exception:
            # The connection broke off: what arrived until then is kept.
            if sink.size + len(received) <= sink.expected:
                await _finished(asyncio.to_thread(sink.write, received))
            raise
        if received:
            await _finished(asyncio.to_thread(sink.write, received))

    async def _pass_on_in_thread(
        self, receive: Receive, began: float, answer: httpx.Response, shown: str, sink: Sink
    ) -> None:
        start = counted = sink.size
        loop = asyncio.get_running_loop()

        def count() -> None:
            nonlocal counted
            self._server.bytes_received += sink.size - counted
            counted = sink.size

        def take(piece: bytes | bytearray) -> None:
            _check_size(sink, len(piece), shown)
            sink.write(piece)
            if sink.size - counted >= COUNTED_BYTES:
                loop.call_soon_threadsafe(count)
            self._server.check_speed(began, answer, sink.size - start)

        try:
            await receive(take)
        finally:
            count()

    @asynccontextmanager
    async def _answer(self, address: str, headers: Mapping[str, str], *, large: bool) -> AsyncIterator[httpx.Response]:
        async with asyncio.timeout(self._server.patience) as clock:
            # An address of the server itself, as it gives where it has no object store, needs the key.
            auth = self._server.auth if self._server.is_own(address) else None
            async with self._server.keyless.stream(
                "GET", address, headers=headers, auth=auth, extensions={LARGE: large}
            ) as answer:
                clock.reschedule(None)
                yield answer

    async def _check(self, answer: httpx.Response, shown: str, sink: Sink) -> None:
        """Raise for an answer that is not the rest of the content, and restart the sink for all of it."""
        status = answer.status_code
        failure = httpx.HTTPStatusError(f"status {status}", request=answer.request, response=answer)
        if status == httpx.codes.PARTIAL_CONTENT and sink.size:
            if answer.headers.get("content-range", "").startswith(f"bytes {sink.size}-"):
                return
            await in_thread(sink.restart)
            raise _Broken(CommError(f"{shown}: the server sent another part than requested", failure))
        if status == httpx.codes.OK:
            if sink.size:
                await in_thread(sink.restart)
            return
        if status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and sink.size:
            await in_thread(sink.restart)
            raise _Broken(CommError(f"{shown} is shorter than before", failure))
        if status == httpx.codes.NOT_FOUND:
            raise NotFound(f"{shown} does not exist", failure)
        if status == httpx.codes.TOO_MANY_REQUESTS or status >= httpx.codes.INTERNAL_SERVER_ERROR:
            text = f"{shown} could not be downloaded ({status})"
            raise _Broken(TooMuch(text, failure), retry_after(answer.headers))
        raise Refused(f"{shown} was refused ({status})", failure)


def _check_size(sink: Sink, more: int, shown: str) -> None:
    if sink.size + more > sink.expected:
        raise Outgrown(f"{shown} is larger than the {sink.expected:,} bytes that the server lists")


async def _finished(work: Coroutine[Any, Any, None]) -> None:
    """Wait for work in a thread; if this is cancelled, for STOPPING_SECONDS more, so that it can come to its end."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task], timeout=STOPPING_SECONDS)
        raise


def _exact(address: str) -> str:
    """Return the address with `.` and `..` in its path encoded: they are parts of a name, and not to be resolved."""
    path, mark, query = address.partition("?")
    return re.sub(r"(?<=/)\.{1,2}(?=/|$)", lambda dots: "%2E" * len(dots[0]), path) + mark + query


class _Broken(Exception):
    """A download broke off; it may go on where it ended."""

    def __init__(self, failure: CommError, after: float | None = None) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.after = after
