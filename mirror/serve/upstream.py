"""The real server behind the endpoint: executes writes, and answers what the mirror does not hold."""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import cached_property
from ssl import SSLContext

import httpx
from msgspec import Struct
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from mirror.errors import CommError
from mirror.remote import errors
from mirror.remote.errors import NoConnection, SlowAnswer
from mirror.serve.guard import raw_path
from mirror.serve.signing import SIGNATURE

log = logging.getLogger("mirror.serve")

FORWARDED = "x-wandb-mirror"
"""The header of a forwarded request: a mirror whose server is a mirror must not forward to itself for ever."""

CONNECT_SECONDS = 5.0
READ_SECONDS = 60.0
WHOLE_SECONDS = 120.0
"""How long a complete GraphQL answer may take to arrive."""

REST_SECONDS = 10.0
"""How long requests fail at once after the server could not be reached, so that offline work is not slow."""

REFUSES = 400
FAILS = 500
"""The statuses from which the server refuses, and from which it fails."""

RETRY_SECONDS = 0.5
"""How soon a request that the server failed is sent again, where the mirror can wait for the answer."""

FAILING_SECONDS = 30.0
"""How long a server that only failed is not asked again where the mirror has an answer, too."""

_FOLDERS = (b"files/", b"artifacts/", b"artifactsV2/")
"""The starts of the paths of files that need the key."""

_REQUEST_HEADERS = ("content-type", "content-encoding", "accept", "accept-encoding", "range", "user-agent")
_RESPONSE_HEADERS = (
    "content-type",
    "content-encoding",
    "content-length",
    "content-range",
    "etag",
    "location",
    "retry-after",
)


class Upstream(Struct, dict=True):
    """Forwards requests to the server with the mirror's API key. `address` returns the server's base URL."""

    address: Callable[[], str]
    key: Callable[[], str]
    _resting_until: float = 0.0
    _failing_until: float = 0.0

    async def graphql(self, request: Request, body: bytes) -> Response:
        """Return the complete answer, with file addresses replaced by those of the endpoint. Raises CommError.

        Official clients send the key only to the address in WANDB_BASE_URL, and files need it.
        """
        async with self._sent(request, body) as answer:
            try:
                async with asyncio.timeout(WHOLE_SECONDS):
                    text = await answer.aread()
            except httpx.HTTPError as error:
                raise errors.of_transport(self.address(), "a forwarded request", error) from error
            except TimeoutError as error:
                raise SlowAnswer(f"{self.address()} did not answer a forwarded request in time", error) from error
        theirs, ours = (f'"{base.rstrip("/")}/'.encode() for base in (self.address(), str(request.base_url)))
        headers = {name: answer.headers[name] for name in ("content-type", "retry-after") if name in answer.headers}
        for folder in _FOLDERS:
            text = text.replace(theirs + folder, ours + folder)
        return Response(text, answer.status_code, headers)

    async def better(self, request: Request, body: bytes, seconds: float | None) -> Response | None:
        """Return the answer in place of one that the mirror has; None if the server cannot be reached.

        With `seconds`, failures of the server are retried for so long; after that there is none for a while, unless the
        server answers another request.
        """
        if seconds is not None and time.monotonic() < self._failing_until:
            return None
        try:
            async with asyncio.timeout(seconds):
                with suppress(CommError):
                    answer = await self.graphql(request, body)
                    while seconds is not None and answer.status_code >= FAILS:
                        await asyncio.sleep(RETRY_SECONDS)
                        answer = await self.graphql(request, body)
                    return answer
        except TimeoutError:
            self._failing_until = time.monotonic() + FAILING_SECONDS
        return None

    async def file(self, request: Request, body: bytes) -> Response:
        """Return the server's answer as a stream. Raises CommError if the server cannot be reached."""
        async with AsyncExitStack() as stack:
            answer = await stack.enter_async_context(self._sent(request, body))
            headers = {name: answer.headers[name] for name in _RESPONSE_HEADERS if name in answer.headers}
            closing = BackgroundTask(stack.pop_all().aclose)
            return StreamingResponse(answer.aiter_raw(), answer.status_code, headers, background=closing)

    @asynccontextmanager
    async def _sent(self, request: Request, body: bytes) -> AsyncIterator[httpx.Response]:
        """Send the request and yield the response, whose body has not been read yet."""
        base_url = self.address().rstrip("/")
        if FORWARDED in request.headers:
            raise CommError("this request was forwarded by a mirror already")
        if time.monotonic() < self._resting_until:
            raise NoConnection(f"cannot reach {base_url}; it is asked again in a moment")
        headers = {name: request.headers[name] for name in _REQUEST_HEADERS if name in request.headers}
        # The server does not know the signatures of addresses that were signed here.
        signed = SIGNATURE in request.query_params
        basic = base64.b64encode(f"api:{self.key()}".encode()).decode()
        headers |= {"authorization": f"Basic {basic}", FORWARDED: "1"}
        path = raw_path(request.scope)
        query = f"?{request.url.query}" if request.url.query and not signed else ""
        timeout = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
        async with httpx.AsyncClient(verify=self._ssl, timeout=timeout) as client:
            try:
                forwarded = client.build_request(
                    request.method, f"{base_url}{path}{query}", headers=headers, content=body or None
                )
                answer = await client.send(forwarded, stream=True)
            except httpx.HTTPError as error:
                failure = errors.of_transport(base_url, "a forwarded request", error)
                if isinstance(failure, NoConnection):
                    self._resting_until = time.monotonic() + REST_SECONDS
                log.info("%s", failure)
                raise failure from error
            if answer.status_code < FAILS:
                self._failing_until = 0.0
            try:
                yield answer
            finally:
                await answer.aclose()

    @cached_property
    def _ssl(self) -> SSLContext:
        """Load the certificates once: reading them takes longer than most requests."""
        return httpx.create_ssl_context()


class MirrorOnly(Upstream):
    """In place of the server for callers that read only what is mirrored."""

    async def graphql(self, request: Request, body: bytes) -> Response:
        """Raise CommError."""
        del request, body
        raise CommError("a token of the mirror reads only what is mirrored")

    async def file(self, request: Request, body: bytes) -> Response:
        """Raise CommError."""
        return await self.graphql(request, body)
