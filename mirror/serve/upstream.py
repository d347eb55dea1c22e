"""The real server behind the endpoint: it takes writes, and answers what the mirror does not hold."""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from ssl import SSLContext

import httpx
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from mirror.errors import CommError
from mirror.remote import errors
from mirror.remote.errors import NoConnection, SlowAnswer
from mirror.serve.guard import raw_path
from mirror.serve.signing import SIGNATURE

log = logging.getLogger("mirror.serve")

PASSED = "x-wandb-mirror"
"""Marks a request that was passed on, so that a mirror whose server is a mirror does not ask itself for ever."""

CONNECT_SECONDS = 5.0
READ_SECONDS = 60.0
WHOLE_SECONDS = 120.0
"""How long an answer that is passed on as a whole may take to come."""

REST_SECONDS = 10.0
"""How long a server that could not be reached is left alone, so that offline work is not slow."""

_KEPT = ("content-type", "content-encoding", "accept", "accept-encoding", "range", "user-agent")
_TOLD = ("content-type", "content-encoding", "content-length", "content-range", "etag", "location", "retry-after")


@dataclass
class Upstream:
    """Passes requests on as they came, with the key that stands for the same. `address` tells the server's base URL."""

    address: Callable[[], str]
    key: Callable[[], str]
    _resting_until: float = 0.0

    async def graphql(self, request: Request, body: bytes) -> Response:
        """The server's answer, whole; addresses of files in it lead here. Raises CommError.

        Official clients send the key to the address in WANDB_BASE_URL alone, and files want it.
        """
        async with self._sent(request, body) as found:
            try:
                async with asyncio.timeout(WHOLE_SECONDS):
                    text = await found.aread()
            except httpx.HTTPError as error:
                raise errors.of_transport(self.address(), "a passed-on request", error) from error
            except TimeoutError as error:
                raise SlowAnswer(f"{self.address()} did not answer a passed-on request in time", error) from error
        theirs, ours = (f'"{base.rstrip("/")}/files/'.encode() for base in (self.address(), str(request.base_url)))
        told = {name: found.headers[name] for name in ("content-type", "retry-after") if name in found.headers}
        return Response(text.replace(theirs, ours), found.status_code, told)

    async def file(self, request: Request, body: bytes) -> Response:
        """The server's answer, passed through as it comes. Raises CommError where the server cannot be reached."""
        async with AsyncExitStack() as stack:
            found = await stack.enter_async_context(self._sent(request, body))
            told = {name: found.headers[name] for name in _TOLD if name in found.headers}
            closing = BackgroundTask(stack.pop_all().aclose)
            return StreamingResponse(found.aiter_raw(), found.status_code, told, background=closing)

    @asynccontextmanager
    async def _sent(self, request: Request, body: bytes) -> AsyncIterator[httpx.Response]:
        """The answer, of which nothing but the head was read yet."""
        base_url = self.address().rstrip("/")
        if PASSED in request.headers:
            raise CommError("this request was passed on by a mirror already")
        if time.monotonic() < self._resting_until:
            raise NoConnection(f"cannot reach {base_url}; it is asked again in a moment")
        headers = {name: request.headers[name] for name in _KEPT if name in request.headers}
        # The server knows nothing of addresses that were signed here.
        signed = SIGNATURE in request.query_params
        basic = base64.b64encode(f"api:{self.key()}".encode()).decode()
        headers |= {"authorization": f"Basic {basic}", PASSED: "1"}
        path = raw_path(request.scope)
        query = f"?{request.url.query}" if request.url.query and not signed else ""
        patience = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
        async with httpx.AsyncClient(verify=self._ssl, timeout=patience) as client:
            try:
                asked = client.build_request(
                    request.method, f"{base_url}{path}{query}", headers=headers, content=body or None
                )
                found = await client.send(asked, stream=True)
            except httpx.HTTPError as error:
                failure = errors.of_transport(base_url, "a passed-on request", error)
                if isinstance(failure, NoConnection):
                    self._resting_until = time.monotonic() + REST_SECONDS
                log.info("%s", failure)
                raise failure from error
            try:
                yield found
            finally:
                await found.aclose()

    @cached_property
    def _ssl(self) -> SSLContext:
        """Made once: reading the certificates takes longer than most requests."""
        return httpx.create_ssl_context()
