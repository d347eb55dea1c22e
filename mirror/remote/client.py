"""One HTTP client to one W&B server: authentication, retries, limits, and errors that a person can act on."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, aclosing, asynccontextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from ssl import SSLContext
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urljoin, urlsplit

import httpx
import orjson

from mirror.addresses import app_of
from mirror.remote import errors, notices, retry_policy
from mirror.remote.answers import Reader, Retry
from mirror.remote.clock import ServerClock
from mirror.remote.errors import (
    CommError,
    FeatureMissing,
    NoConnection,
    NotFound,
    RateLimited,
    SlowAnswer,
    TooMuch,
    Unanswered,
    Unreachable,
)
from mirror.remote.limits import Limiter, asking_for, retry_after
from mirror.remote.retry_policy import Effort, RetryPolicy
from mirror.remote.sink import Sink, Source
from mirror.version import VERSION

__all__ = [
    "MOST_BYTES",
    "FeatureMissing",
    "NotFound",
    "RetryPolicy",
    "Server",
    "TooMuch",
    "Unanswered",
    "Unreachable",
]

Result = TypeVar("Result")

MOST_BYTES = 8 << 20
"""The largest file that `Server.download` takes into memory unless told otherwise."""

MOST_ANSWER = 256 << 20
"""The largest answer to a question; one that grows beyond is broken off, and less is asked for at once."""

CONNECT_SECONDS = 10.0
"""The longest wait for a connection; `timeout` if that is shorter."""

SLOWEST = 5_000
"""Bytes a second, on average, below which an answer counts as one that does not come, once `timeout` is over."""

WHOLE = 5
"""An answer to a question has so many times `timeout` to come whole."""

REST_SECONDS = 15.0
"""How long a host that could not be connected to is left alone, so that not every request finds it out anew."""


@cache
def _certificates() -> SSLContext:
    """Made once: reading them takes longer than most requests."""
    return httpx.create_ssl_context()


_counted: ContextVar[Counter[str] | None] = ContextVar("counted", default=None)


class Server:
    """A connection to a W&B server. Use it as an async context manager.

    `requests` counts what was sent, by operation; every attempt counts, since every attempt costs the server.
    """

    def __init__(
        self,
        base_url: str,
        key: str,
        *,
        key_source: str = "",
        timeout: float = 30.0,
        max_concurrency: int = 8,
        retry: RetryPolicy | None = None,
        app_url: str | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.app_url = app_url or app_of(base_url)
        """Where the pages lie that the server shows to people."""
        self.requests: Counter[str] = Counter()
        self.retries: Counter[str] = Counter()
        self.bytes_received = 0
        self.missing_features: set[str] = set()
        """What this server was found not to have; asked for once only."""
        self.limiter = Limiter(max_concurrency)
        self.clock = ServerClock()
        self._reader = Reader(self.base_url, key_source)
        self._retry = retry or RetryPolicy()
        self._http = httpx.AsyncClient(
            verify=_certificates(),
            auth=httpx.BasicAuth("api", key),
            timeout=httpx.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS), pool=None),
            limits=httpx.Limits(max_connections=max_concurrency, max_keepalive_connections=max_concurrency),
            headers={"User-Agent": f"wandb-mirror/{VERSION}", "Accept-Encoding": "gzip"},
        )
        self._timeout = timeout
        self._notices = notices.Notices(notices.log.warning)
        self._resting: dict[str, tuple[float, NoConnection]] = {}
        self._keyless: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def count_requests(self, asking: str = "") -> Counter[str]:
        """A counter of the requests that this task, and tasks started by it, send from now on for a project."""
        counter: Counter[str] = Counter()
        _counted.set(counter)
        asking_for.set(asking)
        return counter

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()
        if self._keyless is not None:
            await self._keyless.aclose()

    def together(self, *, anew: bool = False) -> AbstractContextManager[Effort]:
        """Let all that is asked in the block share the time that one question may take, as its smaller forms do.

        Within such a block the outer one holds, unless time is to be counted `anew`.
        """
        return retry_policy.shared(self._retry.seconds, anew=anew)

    async def graphql(
        self,
        operation: str,
        document: str,
        variables: Mapping[str, Any],
        *,
        bulk: bool = False,
        divisible: bool = False,
    ) -> dict[str, Any]:
        """Ask one GraphQL document and return its `data`. Where requests must wait, `bulk` ones go last.

        What may pass is tried again with backoff; a `divisible` question is soon given up, for its caller to ask for
        less. Raises the errors of `mirror.remote.errors`.
        """
        body = orjson.dumps({"query": document, "variables": dict(variables), "operationName": operation})
        return await self._insist(operation, lambda: self._attempt(operation, body), bulk=bulk, divisible=divisible)

    async def post(self, operation: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Post JSON to another address of the server than GraphQL's, insisting as `graphql` does; its answer."""
        content = orjson.dumps(dict(body))
        return await self._insist(operation, lambda: self._attempt(operation, content, path))

    async def download(self, url: str, *, most_bytes: int = MOST_BYTES) -> bytes:
        """The content of a file behind a signed address, fetched without the key, whichever host it leads to.

        Tried again as `graphql` is. Raises NotFound, TooMuch (no whole answer) or CommError: refused, as an address
        that expired is, or larger than `most_bytes`.
        """
        address = urljoin(f"{self.base_url}/", url)

        async def take() -> bytes:
            content = bytearray()
            await self._download(address, content.extend, most_bytes)
            return bytes(content)

        return await self._insist("file", take, address=address)

    async def download_to(self, url: str, path: Path, *, in_memory: int = -1) -> Source:
        """As `download`, of any size, into a file that is not there yet or is written over.

        What has no more than `in_memory` bytes is given back instead, and no file is made.
        """
        address = urljoin(f"{self.base_url}/", url)

        async def take() -> Source:
            with Sink(path, in_memory) as sink:
                await self._download(address, sink.write, None)
                return sink.source()

        return await self._insist("file", take, address=address)

    async def _insist(
        self,
        operation: str,
        ask: Callable[[], Awaitable[Result]],
        *,
        bulk: bool = False,
        divisible: bool = False,
        address: str | None = None,
    ) -> Result:
        """Ask, and ask again with backoff while the failure may pass and the retry policy allows it.

        `address` is that of a file. Time counts from the first failure: waiting for one's turn is none.
        """
        scheme, host, path, *_ = urlsplit(address or self.base_url)
        effort = retry_policy.current(self._retry.seconds)
        part = effort.began is not None
        attempt = 0
        while True:
            try:
                async with self.limiter.slot(bulk=bulk, file=address is not None):
                    self._check_rest(host)
                    # A file may be of any size; its pace is looked at instead.
                    most_seconds = min(WHOLE * self._timeout, max(effort.left, self._timeout))
                    async with asyncio.timeout(None if address else most_seconds):
                        return await ask()
            except (TimeoutError, Retry) as error:
                if isinstance(error, Retry):
                    failure, after = error.failure, error.after
                else:
                    late = httpx.ReadTimeout("the answer did not come whole")
                    what = path if address else operation
                    failure, after = errors.of_transport(f"{scheme}://{host}", what, late), None
                attempt += 1
                self.retries[operation] += 1
                wait = max(self._retry.wait(attempt - 1), after or 0.0)
                effort.failed(failure, wait)
                most = self._retry.tries(failure, divisible=divisible, part=part) if errors.passes(failure) else 1
                if attempt >= most or not effort.allows(failure, wait):
                    if isinstance(failure, NoConnection):
                        self._resting[host] = (time.monotonic() + REST_SECONDS, failure)
                    if divisible and isinstance(failure, SlowAnswer) and not effort.over:
                        text = f"{failure}; less is asked for at once, for up to {effort.left:.0f} s"
                        notices.tell(self._notices, failure, text)
                    raise failure from failure.exc
                if notices.worth(failure, attempt, wait):
                    self._tell(failure, attempt, most, wait, effort)
                await asyncio.sleep(wait)

    def _tell(self, failure: CommError, attempt: int, most: int, wait: float, effort: Effort) -> None:
        """Say what is wrong, and the longest that this is tried again."""
        each = self._timeout if isinstance(failure, SlowAnswer) else min(self._timeout, CONNECT_SECONDS)
        each = each if isinstance(failure, SlowAnswer | NoConnection) else 0.0
        rest = wait + each + sum(self._retry.longest(later) + each for later in range(attempt, most - 1))
        seconds = max(1.0, min(rest, max(effort.left, wait + each)))
        notices.tell(self._notices, failure, f"{failure}; trying again for up to {seconds:.0f} s")

    def _check_rest(self, host: str) -> None:
        """Raise at once what was found out about this host a moment ago."""
        if (resting := self._resting.get(host)) is not None:
            until, failure = resting
            if time.monotonic() < until:
                raise type(failure)(failure.message, failure.exc)
            del self._resting[host]

    def _count(self, operation: str) -> None:
        self.requests[operation] += 1
        if (counted := _counted.get()) is not None:
            counted[operation] += 1

    async def _download(self, address: str, sink: Callable[[bytes], object], most_bytes: int | None) -> None:
        self._count("file")
        # The address without its query: that holds the signature, which is a credential of its own.
        shown = address.partition("?")[0]
        size = 0

        def take(piece: bytes) -> None:
            nonlocal size
            sink(piece)
            size += len(piece)
            if most_bytes is not None and size > most_bytes:
                raise CommError(f"{shown} is larger than {most_bytes:,} bytes", ValueError(size))

        try:
            async with self._answer(self._without_key(), "GET", address) as answer:
                status = answer.status_code
                failure = httpx.HTTPStatusError(f"status {status}", request=answer.request, response=answer)
                if status == httpx.codes.NOT_FOUND:
                    raise NotFound(f"{shown} is not there", failure)
                if status == httpx.codes.TOO_MANY_REQUESTS or status >= httpx.codes.INTERNAL_SERVER_ERROR:
                    raise Retry(TooMuch(f"{shown} was not given ({status})", failure), retry_after(answer.headers))
                if status != httpx.codes.OK:
                    raise CommError(f"{shown} was refused ({status})", failure)
                await self._receive(answer, take)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise CommError(f"{shown!r} is no address of a file", error) from error
        except httpx.HTTPError as error:
            host = "://".join(urlsplit(address)[:2])
            raise Retry(errors.of_transport(host, urlsplit(address).path, error)) from error
        finally:
            self.bytes_received += size

    @asynccontextmanager
    async def _answer(
        self, client: httpx.AsyncClient, method: str, address: str, **options: Any
    ) -> AsyncIterator[httpx.Response]:
        """The head of an answer; connecting, asking and the head have their time together, however they drip."""
        async with asyncio.timeout(CONNECT_SECONDS + 2 * self._timeout) as clock:
            async with client.stream(method, address, **options) as answer:
                clock.reschedule(None)
                yield answer

    async def _receive(self, answer: httpx.Response, sink: Callable[[bytes], object]) -> None:
        """The body as it comes. Raises ReadTimeout where it comes too slowly to wait for, though never quite stops."""
        began = time.monotonic()
        async with aclosing(answer.aiter_bytes()) as pieces:  # type: ignore[type-var]  # httpx gives a generator
            async for piece in pieces:
                sink(piece)
                if time.monotonic() - began > self._timeout + answer.num_bytes_downloaded / SLOWEST:
                    raise httpx.ReadTimeout("the answer comes too slowly", request=answer.request)

    def _without_key(self) -> httpx.AsyncClient:
        """A client that has no key to send: storage refuses a second credential, and may be anybody's."""
        if self._keyless is None:
            self._keyless = httpx.AsyncClient(
                verify=_certificates(),
                timeout=httpx.Timeout(self._timeout, connect=min(self._timeout, CONNECT_SECONDS)),
                follow_redirects=True,
                headers={"User-Agent": f"wandb-mirror/{VERSION}"},
            )
        return self._keyless

    async def _attempt(self, operation: str, body: bytes, path: str = "graphql") -> dict[str, Any]:
        self._count(operation)
        address, headers = f"{self.base_url}/{path}", {"Content-Type": "application/json"}
        content = bytearray()

        def take(piece: bytes) -> None:
            content.extend(piece)
            if len(content) > MOST_ANSWER:
                raise TooMuch(f"{self.base_url} answers {operation} with more than {MOST_ANSWER >> 20} MiB")

        try:
            async with self._answer(self._http, "POST", address, content=body, headers=headers) as answer:
                await self._receive(answer, take)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise Unreachable(f"{self.base_url!r} is no address of a server; check WANDB_BASE_URL", error) from error
        except httpx.HTTPError as error:
            raise Retry(errors.of_transport(self.base_url, operation, error)) from error
        finally:
            self.bytes_received += len(content)
        self.limiter.learn(answer.headers)
        self.clock.learn(answer.headers)
        try:
            return self._reader.read(operation, answer, bytes(content), within="data" if path == "graphql" else None)
        except Retry as retry:
            if isinstance(retry.failure, RateLimited):
                self.limiter.refused(retry.after)
            elif retry.after is not None:
                self.limiter.pause(retry.after)
            raise

    async def viewer(self) -> dict[str, Any]:
        """Who the key belongs to: `username`, `entity`. Raises AuthError for a key that is nobody's."""
        from mirror.remote.queries import VIEWER

        viewer = (await self.graphql("Viewer", VIEWER, {})).get("viewer")
        if not viewer:
            raise self._reader.bad_key(None)
        return dict(viewer)
