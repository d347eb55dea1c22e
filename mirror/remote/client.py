"""The HTTP client of one W&B server: authentication, retries, limits, and errors that a person can act on."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, aclosing, asynccontextmanager
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
    AddressRefused,
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
from mirror.remote.limits import STORAGE_CONNECTIONS, Limiter, asking_for, retry_after
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
"""The default size limit of `Server.download`, which keeps the file in memory."""

MOST_ANSWER = 256 << 20
"""The largest answer to a request; a larger one is broken off, and the request is split into smaller ones."""

CONNECT_SECONDS = 10.0
"""The longest wait for a connection; `timeout` if that is shorter."""

SLOWEST = 5_000
"""After `timeout`, an answer that averages fewer bytes per second than this counts as timed out."""

WHOLE = 5
"""An answer must be complete within this many times `timeout`."""

REST_SECONDS = 15.0
"""How long requests to a host that could not be reached fail at once, so that not each of them waits again."""


@cache
def _certificates() -> SSLContext:
    """Load the certificates once: reading them takes longer than most requests."""
    return httpx.create_ssl_context()


_counted: ContextVar[Counter[str] | None] = ContextVar("counted", default=None)


class Server:
    """A connection to a W&B server. Use it as an async context manager.

    `requests` counts the sent requests by operation; every attempt counts, since every attempt costs the server.
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
        """The address of the server's web pages."""
        self.requests: Counter[str] = Counter()
        self.retries: Counter[str] = Counter()
        self.bytes_received = 0
        self.missing_features: set[str] = set()
        """Features that this server refused; they are not requested again."""
        self.limiter = Limiter(max_concurrency)
        self.clock = ServerClock()
        self._reader = Reader(self.base_url, key_source)
        self._retry = retry or RetryPolicy()
        self._auth = httpx.BasicAuth("api", key)
        self._http = httpx.AsyncClient(
            verify=_certificates(),
            auth=self._auth,
            timeout=httpx.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS), pool=None),
            limits=httpx.Limits(max_connections=max_concurrency, max_keepalive_connections=max_concurrency),
            headers={"User-Agent": f"wandb-mirror/{VERSION}", "Accept-Encoding": "gzip"},
        )
        self._host = urlsplit(self.base_url).netloc
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

    def count_requests(self, project: str = "") -> Counter[str]:
        """Return a counter of the requests that this task, and tasks started by it, send from now on for a project."""
        counter: Counter[str] = Counter()
        _counted.set(counter)
        asking_for.set(project)
        return counter

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()
        if self._keyless is not None:
            await self._keyless.aclose()

    def together(self, *, separate: bool = False) -> AbstractContextManager[Effort]:
        """Let all requests in the block share the retry time of one request.

        A nested block shares the time of the outer one, unless it is `separate`.
        """
        return retry_policy.shared(self._retry.seconds, separate=separate)

    async def graphql(
        self,
        operation: str,
        document: str,
        variables: Mapping[str, Any],
        *,
        bulk: bool = False,
        divisible: bool = False,
    ) -> dict[str, Any]:
        """Send one GraphQL document and return the answer's `data`. When requests must wait, `bulk` ones go last.

        Failures that may be temporary are retried with backoff; a `divisible` request gives up early, so that its
        caller can split it. Raises the errors of `mirror.remote.errors`.
        """
        body = orjson.dumps({"query": document, "variables": dict(variables), "operationName": operation})
        return await self._with_retries(
            operation, lambda: self._attempt(operation, body), bulk=bulk, divisible=divisible
        )

    async def post(self, operation: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Post JSON to a path of the server other than GraphQL's and return the answer; retries as `graphql` does."""
        content = orjson.dumps(dict(body))
        return await self._with_retries(operation, lambda: self._attempt(operation, content, path))

    async def download(self, url: str, *, most_bytes: int = MOST_BYTES) -> bytes:
        """Return the content of a file at a signed address on any host, fetched without the API key.

        Retries as `graphql` does. Raises NotFound, TooMuch (no complete answer), AddressRefused (as an expired address
        is) or CommError (larger than `most_bytes`).
        """
        address = urljoin(f"{self.base_url}/", url)

        async def fetch() -> bytes:
            content = bytearray()
            await self._download(address, content.extend, most_bytes)
            return bytes(content)

        return await self._with_retries("file", fetch, address=address)

    async def download_to(self, url: str, path: Path, *, in_memory: int = -1) -> Source:
        """Download a file of any size to `path`, overwriting what is there; otherwise as `download`.

        A file of at most `in_memory` bytes is returned as bytes instead, and nothing is written.
        """
        address = urljoin(f"{self.base_url}/", url)

        async def fetch() -> Source:
            with Sink(path, in_memory) as sink:
                await self._download(address, sink.write, None)
                return sink.source()

        return await self._with_retries("file", fetch, address=address)

    async def _with_retries(
        self,
        operation: str,
        ask: Callable[[], Awaitable[Result]],
        *,
        bulk: bool = False,
        divisible: bool = False,
        address: str | None = None,
    ) -> Result:
        """Call `ask`, and again with backoff while the failure may be temporary and the retry policy allows it.

        `address` is the address of a file. Time counts from the first failure; waiting for a slot is not a failure.
        """
        scheme, host, path, *_ = urlsplit(address or self.base_url)
        effort = retry_policy.current(self._retry.seconds)
        part = effort.began is not None
        attempt = 0
        while True:
            try:
                async with self._slot(host, bulk=bulk, file=address is not None):
                    self._check_rest(host)
                    # A file may be of any size; only its speed is checked.
                    most_seconds = min(WHOLE * self._timeout, max(effort.left, self._timeout))
                    async with asyncio.timeout(None if address else most_seconds):
                        return await ask()
            except (TimeoutError, Retry) as error:
                if isinstance(error, Retry):
                    failure, after = error.failure, error.after
                else:
                    late = httpx.ReadTimeout("the answer was not complete in time")
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
                        text = f"{failure}; trying smaller requests for up to {effort.left:.0f} s"
                        notices.report(self._notices, failure, text)
                    raise failure from failure.exc
                if notices.is_reported(failure, attempt, wait):
                    self._report_retry(failure, attempt, most, wait, effort)
                await asyncio.sleep(wait)

    def _slot(self, host: str, *, bulk: bool, file: bool) -> AbstractAsyncContextManager[None]:
        """Wait for a turn to send a request to this host. Files of the server's own host use its slots."""
        if file and host != self._host:
            return self.limiter.storage_slot()
        return self.limiter.slot(bulk=bulk, file=file)

    def _report_retry(self, failure: CommError, attempt: int, most: int, wait: float, effort: Effort) -> None:
        """Report the failure, and for how long it is retried at most."""
        each = self._timeout if isinstance(failure, SlowAnswer) else min(self._timeout, CONNECT_SECONDS)
        each = each if isinstance(failure, SlowAnswer | NoConnection) else 0.0
        rest = wait + each + sum(self._retry.longest(later) + each for later in range(attempt, most - 1))
        seconds = max(1.0, min(rest, max(effort.left, wait + each)))
        notices.report(self._notices, failure, f"{failure}; trying again for up to {seconds:.0f} s")

    def _check_rest(self, host: str) -> None:
        """Raise the failure of the last `REST_SECONDS` to connect to this host, if there is one."""
        if (resting := self._resting.get(host)) is not None:
            until, failure = resting
            if time.monotonic() < until:
                raise type(failure)(failure.message, failure.exc)
            del self._resting[host]

    def count(self, operation: str) -> None:
        """Count a request."""
        self.requests[operation] += 1
        if (counted := _counted.get()) is not None:
            counted[operation] += 1

    async def _download(self, address: str, sink: Callable[[bytes], object], most_bytes: int | None) -> None:
        self.count("file")
        # The address without its query: that holds the signature, which is a credential of its own.
        shown = address.partition("?")[0]
        size = 0

        def receive(piece: bytes) -> None:
            nonlocal size
            sink(piece)
            size += len(piece)
            if most_bytes is not None and size > most_bytes:
                raise CommError(f"{shown} is larger than {most_bytes:,} bytes", ValueError(size))

        try:
            async with self._answer(self.keyless, "GET", address) as answer:
                status = answer.status_code
                failure = httpx.HTTPStatusError(f"status {status}", request=answer.request, response=answer)
                if status == httpx.codes.NOT_FOUND:
                    raise NotFound(f"{shown} does not exist", failure)
                if status == httpx.codes.TOO_MANY_REQUESTS or status >= httpx.codes.INTERNAL_SERVER_ERROR:
                    failed = TooMuch(f"{shown} could not be downloaded ({status})", failure)
                    raise Retry(failed, retry_after(answer.headers))
                if status != httpx.codes.OK:
                    raise AddressRefused(f"{shown} was refused ({status})", failure)
                await self._receive(answer, receive)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise CommError(f"{shown!r} is not a valid file address", error) from error
        except httpx.HTTPError as error:
            host = "://".join(urlsplit(address)[:2])
            raise Retry(errors.of_transport(host, urlsplit(address).path, error)) from error
        finally:
            self.bytes_received += size

    @asynccontextmanager
    async def _answer(
        self, client: httpx.AsyncClient, method: str, address: str, **options: Any
    ) -> AsyncIterator[httpx.Response]:
        """Open a response. Connecting, sending and the response head share one timeout, however slowly they drip."""
        async with asyncio.timeout(self.patience) as clock:
            async with client.stream(method, address, **options) as answer:
                clock.reschedule(None)
                yield answer

    async def _receive(self, answer: httpx.Response, sink: Callable[[bytes], object]) -> None:
        """Pass on the body as it arrives. Raises ReadTimeout if it is too slow, even if it never quite stops."""
        began = time.monotonic()
        async with aclosing(answer.aiter_bytes()) as pieces:  # type: ignore[type-var]  # httpx gives a generator
            async for piece in pieces:
                sink(piece)
                self.check_speed(began, answer, answer.num_bytes_downloaded)

    def check_speed(self, began: float, answer: httpx.Response, received: int) -> None:
        """Raise ReadTimeout if a body, of which so much has been received since it began, comes too slowly."""
        if time.monotonic() - began > self._timeout + received / SLOWEST:
            raise httpx.ReadTimeout("the answer comes too slowly", request=answer.request)

    @property
    def keyless(self) -> httpx.AsyncClient:
        """The client for storage, without the API key: storage refuses a second credential, and may be anybody's.

        A connection serves one file after another, and another one is opened only if none is free.
        """
        if self._keyless is None:
            # Imported here: a pass over nothing new downloads nothing.
            from mirror.remote import storage

            self._keyless = httpx.AsyncClient(
                verify=_certificates(),
                mounts=storage.mounts(_certificates()),
                timeout=httpx.Timeout(self._timeout, connect=min(self._timeout, CONNECT_SECONDS), pool=None),
                limits=httpx.Limits(max_connections=STORAGE_CONNECTIONS, max_keepalive_connections=STORAGE_CONNECTIONS),
                follow_redirects=True,
                headers={"User-Agent": f"wandb-mirror/{VERSION}"},
            )
        return self._keyless

    @property
    def auth(self) -> httpx.BasicAuth:
        """The API key, for addresses of this server only."""
        return self._auth

    def is_own(self, address: str) -> bool:
        """Return True for an address of this server that carries no signature, and so needs the key."""
        own, other = urlsplit(self.base_url), urlsplit(address)
        return (own.scheme, own.netloc) == (other.scheme, other.netloc) and not other.query

    @property
    def patience(self) -> float:
        """Seconds for connecting, sending and the head of an answer together."""
        return CONNECT_SECONDS + 2 * self._timeout

    def retry_wait(self, attempt: int) -> float:
        """Return the seconds to wait after this many failures."""
        return self._retry.wait(attempt)

    async def _attempt(self, operation: str, body: bytes, path: str = "graphql") -> dict[str, Any]:
        self.count(operation)
        address, headers = f"{self.base_url}/{path}", {"Content-Type": "application/json"}
        content = bytearray()

        def receive(piece: bytes) -> None:
            content.extend(piece)
            if len(content) > MOST_ANSWER:
                raise TooMuch(f"{self.base_url} answers {operation} with more than {MOST_ANSWER >> 20} MiB")

        try:
            async with self._answer(self._http, "POST", address, content=body, headers=headers) as answer:
                await self._receive(answer, receive)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise Unreachable(f"{self.base_url!r} is not a server address; check WANDB_BASE_URL", error) from error
        except httpx.HTTPError as error:
            raise Retry(errors.of_transport(self.base_url, operation, error)) from error
        finally:
            self.bytes_received += len(content)
            retry_policy.count_received(len(content))
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
        """Return the owner of the key: `username`, `entity`. Raises AuthError for a key that belongs to nobody."""
        from mirror.remote.queries import VIEWER

        viewer = (await self.graphql("Viewer", VIEWER, {})).get("viewer")
        if not viewer:
            raise self._reader.bad_key(None)
        return dict(viewer)
