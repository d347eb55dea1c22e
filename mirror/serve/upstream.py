"""The real server behind the endpoint: it takes writes, and answers what the mirror does not hold."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import cached_property
from ssl import SSLContext

import httpx
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from mirror.errors import CommError

log = logging.getLogger("mirror.serve")

PASSED = "x-wandb-mirror"
"""Marks a request that was passed on, so that a mirror whose server is a mirror does not ask itself for ever."""

CONNECT_SECONDS = 5.0
READ_SECONDS = 60.0
REST_SECONDS = 10.0
"""How long a server that could not be reached is left alone, so that offline work is not slow."""

_KEPT = ("content-type", "content-encoding", "accept", "accept-encoding", "range", "user-agent")
_TOLD = ("content-type", "content-encoding", "content-length", "content-range", "etag", "location", "retry-after")
_METHODS_THAT_READ = ("GET", "HEAD")


@dataclass
class Upstream:
    """Passes requests on as they came, with the same key."""

    base_url: str
    _resting_until: float = 0.0

    async def answer(self, request: Request, body: bytes) -> Response:
        """The server's own answer, as it comes. Raises CommError where the server cannot be reached."""
        if PASSED in request.headers:
            raise CommError("this request was passed on by a mirror already")
        reading = request.method in _METHODS_THAT_READ
        if time.monotonic() < self._resting_until:
            raise CommError(f"{self.base_url} cannot be reached")
        headers = {name: request.headers[name] for name in _KEPT if name in request.headers}
        headers |= {"authorization": request.headers["authorization"], PASSED: "1"}
        query = f"?{request.url.query}" if request.url.query else ""
        client = httpx.AsyncClient(verify=self._ssl, timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS))
        try:
            asked = client.build_request(
                request.method,
                f"{self.base_url}{request.scope['raw_path'].decode('latin-1').partition('?')[0]}{query}",
                headers=headers,
                content=None if reading else body,
            )
            found = await client.send(asked, stream=True)
        except httpx.HTTPError as error:
            await client.aclose()
            if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                self._resting_until = time.monotonic() + REST_SECONDS
            log.info("%s cannot be reached: %s", self.base_url, error or type(error).__name__)
            raise CommError(f"{self.base_url} cannot be reached", error) from error

        async def close() -> None:
            await found.aclose()
            await client.aclose()

        told = {name: found.headers[name] for name in _TOLD if name in found.headers}
        return StreamingResponse(found.aiter_raw(), found.status_code, told, background=BackgroundTask(close))

    @cached_property
    def _ssl(self) -> SSLContext:
        """Made once: reading the certificates takes longer than most requests."""
        return httpx.create_ssl_context()
