"""One HTTP client to one W&B server: authentication, retries, limits, and errors that a person can act on."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from ssl import SSLContext
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urljoin

import httpx
import orjson

from mirror.errors import AuthError, CommError
from mirror.remote.clock import ServerClock
from mirror.remote.lenient import loads
from mirror.remote.limits import Limiter, asking_for, retry_after
from mirror.remote.sink import Sink, Source
from mirror.version import VERSION

Result = TypeVar("Result")

MOST_BYTES = 8 << 20
"""The largest file that `Server.download` takes into memory unless told otherwise."""


class NotFound(CommError):
    """The server does not have it, or the key may not see it; the server does not tell which."""

    exit_code = 1


class FeatureMissing(CommError):
    """The server refuses the query itself: it is older than the field that was asked for, or wants other arguments."""


class Unreachable(CommError):
    """The server cannot be reached, or wants no requests for now; asking for something else would not help."""


class TooMuch(CommError):
    """An answer did not come whole however often it was asked for; a smaller question may do."""


@cache
def _certificates() -> SSLContext:
    """Made once: reading them takes longer than most requests."""
    return httpx.create_ssl_context()


_counted: ContextVar[Counter[str] | None] = ContextVar("counted", default=None)


@dataclass(frozen=True)
class Patience:
    """How long to insist: attempts and seconds in all, and the first and the longest wait between two attempts.

    A server that can't be connected to at all is given up sooner, after `connects` attempts.
    """

    attempts: int = 8
    connects: int = 4
    seconds: float = 300.0
    first_wait: float = 0.5
    longest_wait: float = 30.0

    def wait(self, attempt: int) -> float:
        """Exponential backoff with full jitter."""
        return random.uniform(0.5, 1.0) * min(self.longest_wait, self.first_wait * 2.0**attempt)  # noqa: S311


class _Retry(Exception):
    """The attempt failed in a way that may pass."""

    def __init__(self, failure: CommError, after: float | None = None, *, connecting: bool = False) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.after = after
        self.connecting = connecting


def _parsed(content: bytes) -> Any:
    """An answer. Raises ValueError for one that is not whole, or no JSON."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        # A run's name that is half of a surrogate pair must not spoil the answer for all the others.
        return loads(content)


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
        patience: Patience | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.requests: Counter[str] = Counter()
        self.retries: Counter[str] = Counter()
        self.bytes_received = 0
        self.lacks: set[str] = set()
        """What this server was found not to have; asked for once only."""
        self.limiter = Limiter(max_concurrency)
        self.clock = ServerClock()
        self._key_source = key_source
        self._patience = patience or Patience()
        self._http = httpx.AsyncClient(
            verify=_certificates(),
            auth=httpx.BasicAuth("api", key),
            timeout=httpx.Timeout(timeout, pool=None),
            limits=httpx.Limits(max_connections=max_concurrency, max_keepalive_connections=max_concurrency),
            headers={"User-Agent": f"wandb-mirror/{VERSION}", "Accept-Encoding": "gzip"},
        )
        self._timeout = timeout
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

    async def graphql(
        self, operation: str, document: str, variables: Mapping[str, Any], *, bulk: bool = False
    ) -> dict[str, Any]:
        """Ask one GraphQL document and return its `data`. Where requests must wait, `bulk` ones go last.

        Network failures, 429, 5xx, broken JSON and unexplained GraphQL errors are tried again with backoff.
        Raises AuthError (bad key), NotFound, FeatureMissing (query refused), TooMuch (no whole answer) or CommError.
        """
        body = orjson.dumps({"query": document, "variables": dict(variables), "operationName": operation})
        return await self._insist(operation, lambda: self._attempt(operation, body), bulk=bulk)

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

        return await self._insist("file", take, file=True)

    async def download_to(self, url: str, path: Path, *, in_memory: int = -1) -> Source:
        """As `download`, of any size, into a file that is not there yet or is written over.

        What has no more than `in_memory` bytes is given back instead, and no file is made.
        """
        address = urljoin(f"{self.base_url}/", url)

        async def take() -> Source:
            with Sink(path, in_memory) as sink:
                await self._download(address, sink.write, None)
                return sink.source()

        return await self._insist("file", take, file=True)

    async def _insist(
        self, operation: str, ask: Callable[[], Awaitable[Result]], *, bulk: bool = False, file: bool = False
    ) -> Result:
        """Ask, and ask again with backoff while the failure may pass and patience lasts.

        Patience counts from the first failure: waiting for one's turn is none.
        """
        started = 0.0
        attempt = 0
        while True:
            try:
                async with self.limiter.slot(bulk=bulk, file=file):
                    return await ask()
            except _Retry as retry:
                started = started or time.monotonic()
                attempt += 1
                self.retries[operation] += 1
                wait = max(self._patience.wait(attempt - 1), retry.after or 0.0)
                spent = time.monotonic() - started
                most = self._patience.connects if retry.connecting else self._patience.attempts
                if attempt >= most or spent + wait > self._patience.seconds:
                    raise retry.failure from retry.failure.exc
                await asyncio.sleep(wait)

    def _count(self, operation: str) -> None:
        self.requests[operation] += 1
        if (counted := _counted.get()) is not None:
            counted[operation] += 1

    async def _download(self, address: str, sink: Callable[[bytes], object], most_bytes: int | None) -> None:
        self._count("file")
        # The address without its query: that holds the signature, which is a credential of its own.
        shown = address.partition("?")[0]
        size = 0
        try:
            async with self._without_key().stream("GET", address) as answer:
                status = answer.status_code
                failure = httpx.HTTPStatusError(f"status {status}", request=answer.request, response=answer)
                if status == httpx.codes.NOT_FOUND:
                    raise NotFound(f"{shown} is not there", failure)
                if status == httpx.codes.TOO_MANY_REQUESTS or status >= httpx.codes.INTERNAL_SERVER_ERROR:
                    raise _Retry(TooMuch(f"{shown} was not given ({status})", failure), retry_after(answer.headers))
                if status != httpx.codes.OK:
                    raise CommError(f"{shown} was refused ({status})", failure)
                async for piece in answer.aiter_bytes():
                    sink(piece)
                    size += len(piece)
                    if most_bytes is not None and size > most_bytes:
                        raise CommError(f"{shown} is larger than {most_bytes:,} bytes", failure)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise CommError(f"{shown!r} is no address of a file", error) from error
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise _Retry(TooMuch(f"{shown} did not come whole ({reason})", error)) from error
        finally:
            self.bytes_received += size

    def _without_key(self) -> httpx.AsyncClient:
        """A client that has no key to send: storage refuses a second credential, and may be anybody's."""
        if self._keyless is None:
            self._keyless = httpx.AsyncClient(
                verify=_certificates(),
                timeout=self._timeout,
                follow_redirects=True,
                headers={"User-Agent": f"wandb-mirror/{VERSION}"},
            )
        return self._keyless

    async def _attempt(self, operation: str, body: bytes, path: str = "graphql") -> dict[str, Any]:
        self._count(operation)
        try:
            answer = await self._http.post(
                f"{self.base_url}/{path}", content=body, headers={"Content-Type": "application/json"}
            )
        except httpx.TimeoutException as error:
            raise _Retry(TooMuch(f"{self.base_url} did not answer {operation} in time", error)) from error
        except (httpx.RemoteProtocolError, httpx.ReadError) as error:
            raise _Retry(TooMuch(f"{self.base_url} broke off its answer to {operation}", error)) from error
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise Unreachable(f"{self.base_url!r} is no address of a server; check WANDB_BASE_URL", error) from error
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            message = f"cannot reach {self.base_url} ({reason}); check the network and WANDB_BASE_URL"
            raise _Retry(Unreachable(message, error), connecting=True) from error
        self.bytes_received += len(answer.content)
        self.limiter.learn(answer.headers)
        self.clock.learn(answer.headers)
        return self._read(operation, answer, within="data" if path == "graphql" else None)

    def _read(self, operation: str, answer: httpx.Response, *, within: str | None) -> dict[str, Any]:
        status = answer.status_code
        failure = httpx.HTTPStatusError(f"status {status}", request=answer.request, response=answer)
        if status == httpx.codes.UNAUTHORIZED:
            raise self._bad_key(failure)
        if status == httpx.codes.TOO_MANY_REQUESTS:
            after = retry_after(answer.headers)
            self.limiter.refused(after)
            message = f"{self.base_url} limits the rate of requests (429); try again later"
            raise _Retry(Unreachable(message, failure), after)
        if status >= httpx.codes.INTERNAL_SERVER_ERROR:
            after = retry_after(answer.headers)
            if after is not None:
                self.limiter.pause(after)
            raise _Retry(TooMuch(f"{self.base_url} failed to answer {operation} ({status})", failure), after)
        try:
            content = _parsed(answer.content)
        except ValueError as error:
            if status >= httpx.codes.BAD_REQUEST:
                raise CommError(f"{self.base_url} refused {operation} ({status})", failure) from error
            raise _Retry(TooMuch(f"{self.base_url} sent a broken answer to {operation}", error)) from error
        if not isinstance(content, dict):
            raise CommError(f"{self.base_url} does not speak the W&B API; check WANDB_BASE_URL", failure)
        if errors := content.get("errors"):
            raise self._refusal(operation, status, errors, failure)
        if status >= httpx.codes.BAD_REQUEST:
            raise CommError(f"{self.base_url} refused {operation} ({status})", failure)
        if within is None:
            return content
        data = content.get(within)
        if not isinstance(data, dict):
            raise _Retry(TooMuch(f"{self.base_url} sent an empty answer to {operation}", failure))
        return data

    def _refusal(self, operation: str, status: int, errors: Any, failure: httpx.HTTPStatusError) -> Exception:
        """Sort GraphQL errors, which come with 200 as well as with 4xx, by what can be done about them."""
        messages = [
            str(error.get("message", error)) if isinstance(error, dict) else str(error)
            for error in (errors if isinstance(errors, list) else [errors])
        ]
        text = "; ".join(" ".join(message.split()) for message in messages)[:300]
        low = text.lower()
        if status == httpx.codes.FORBIDDEN or "permission" in low or "forbidden" in low:
            return CommError(f"{self.base_url} denies {operation}: {text}", failure)
        if "cannot query field" in low or "unknown argument" in low or "unknown type" in low or "filter" in low:
            return FeatureMissing(f"{self.base_url} refuses {operation}: {text}", failure)
        if status == httpx.codes.NOT_FOUND or "not found" in low or "could not find" in low:
            return NotFound(f"{self.base_url} has not found it: {text}", failure)
        refused = CommError(f"{self.base_url} answered {operation} with an error: {text}", failure)
        return refused if status in (400, 409, 422) else _Retry(refused)

    def _bad_key(self, failure: BaseException | None) -> AuthError:
        source = f" from {self._key_source}" if self._key_source else ""
        return AuthError(
            f"{self.base_url} does not accept the API key{source}; run `mirror login` or set WANDB_API_KEY", failure
        )

    async def viewer(self) -> dict[str, Any]:
        """Who the key belongs to: `username`, `entity`. Raises AuthError for a key that is nobody's."""
        from mirror.remote.queries import VIEWER

        viewer = (await self.graphql("Viewer", VIEWER, {})).get("viewer")
        if not viewer:
            raise self._bad_key(None)
        return dict(viewer)
