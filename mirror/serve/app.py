"""The endpoint itself: `POST /graphql` from the mirror, everything else from the real server.

Official clients read here what they would read there. What changes something is passed on to the real server, or
refused; so is what the mirror does not hold: the content of files, artifacts, sweeps, console logs, other projects.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from mirror.errors import CommError, MirrorError
from mirror.query.connection import refusal
from mirror.serve import documents
from mirror.serve.documents import Elsewhere, Malformed, Operation, Write
from mirror.serve.guard import KeyGuard
from mirror.serve.resolvers import RESOLVERS, Context
from mirror.serve.runs import Listings
from mirror.serve.upstream import PASSED, Upstream
from mirror.web.snapshots import Snapshots
from mirror.web.statements import unless_left

log = logging.getLogger("mirror.serve")

PATHS = ("/graphql", "/files/")
"""What belongs to the endpoint, beside the page on the same port."""

SECONDS = 60.0
MOST_BYTES = 256 << 20
"""Bytes of a request's body; a chunk of a run's log may be large."""

_TOO_LONG = f"a request holds at most {MOST_BYTES >> 20} MiB"
_THREADS = 4
_TRIES = 3
"""How often a request begins again because of what is published meanwhile."""

_SERVER_KNOWS_BETTER = frozenset({"viewer"})
"""What the mirror can only guess: asked of the server while it can be reached, and remembered."""

_REMEMBERED = 32
_FRESH_SECONDS = 600.0
"""How long the server is not asked the same again: who somebody is changes seldom, and each script asks twice."""


@dataclass(frozen=True)
class Policy:
    """The server that is mirrored, whether it is passed writes, and who asks: user, and entity where none is named."""

    base_url: str
    writes: bool = True
    entity: str | None = None
    username: str | None = None


class _Published(Exception):
    """A newer snapshot was published meanwhile."""


@dataclass
class Endpoint:
    """The handlers, and what they share."""

    snapshots: Snapshots
    upstream: Upstream
    policy: Callable[[], Policy]
    listings: Listings = field(default_factory=Listings)
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_THREADS, thread_name_prefix="serve"))
    remembered: OrderedDict[bytes, tuple[float, bytes]] = field(default_factory=OrderedDict)

    async def graphql(self, request: Request) -> Response:
        """POST /graphql"""  # noqa: D400, D415
        body = await _body(request)
        # A script asks who it is first, and for runs next.
        self.snapshots.statements.warm()
        try:
            asked, variables = _asked(body, request.headers.get("content-encoding", ""))
            if asked.roots & _SERVER_KNOWS_BETTER:
                return await self._better(request, body, asked, variables)
            return await self._mirrored(request, asked, variables)
        except Write:
            return await self._write(request, body)
        except Elsewhere as missing:
            return await self._passed(request, body, str(missing))
        except MirrorError as error:
            return _refused(str(error), 400)

    async def rest(self, request: Request) -> Response:
        """Files, and the streams that runs log to."""
        if request.method in ("GET", "HEAD"):
            return await self._passed(request, b"", "the content of files stays on the server")
        return await self._write(request, await _body(request))

    async def _mirrored(self, request: Request, asked: Operation, variables: Any) -> Response:
        cancelled = threading.Event()
        work = partial(self._executed, str(request.base_url).rstrip("/"), asked, variables, cancelled)
        return await unless_left(
            request.receive, asyncio.get_running_loop().run_in_executor(self.pool, work), cancelled
        )

    def _executed(self, base_url: str, asked: Operation, variables: Any, cancelled: threading.Event) -> Response:
        for _ in range(_TRIES):
            with suppress(_Published):
                return self._of_snapshot(base_url, asked, variables, cancelled, exactly=True)
        return self._of_snapshot(base_url, asked, variables, cancelled, exactly=False)

    def _of_snapshot(
        self, base_url: str, asked: Operation, variables: Any, cancelled: threading.Event, *, exactly: bool
    ) -> Response:
        """Raises _Published where a list was made from a newer snapshot than the rest, and is to be `exactly` of it."""
        import duckdb

        policy = self.policy()
        # Before the connection: what is remembered may then be newer than its version, never older.
        version = self.snapshots.version()

        def ask(question: str, arguments: Mapping[str, Any]) -> bytes:
            found = self.snapshots.statements.ask(question, arguments, SECONDS, cancelled)
            if exactly and found.version != version:
                raise _Published
            return found.content

        with self.snapshots.connection(SECONDS) as connection:
            context = Context(
                connection,
                version,
                self.listings,
                ask,
                policy.entity,
                policy.username,
                read_only=not policy.writes,
                base_url=base_url,
            )
            try:
                data, errors = documents.execute(asked, context, variables, RESOLVERS)
            except duckdb.Error as error:
                raise refusal(error) from error
        return _json({"errors": errors, "data": data} if errors else {"data": data})

    async def _better(self, request: Request, body: bytes, asked: Operation, variables: Any) -> Response:
        """The server's answer, or its last one, or what the mirror knows."""
        if PASSED in request.headers:
            return await self._mirrored(request, asked, variables)
        told_at, told = self.remembered.get(body, (-_FRESH_SECONDS, b""))
        if time.monotonic() - told_at < _FRESH_SECONDS:
            return Response(told, media_type="application/json")
        try:
            found = await self.upstream.graphql(request, body)
        except CommError:
            if told:
                return Response(told, media_type="application/json")
            return await self._mirrored(request, asked, variables)
        if found.status_code == 200 and b'"errors"' not in bytes(found.body):
            self.remembered[body] = (time.monotonic(), bytes(found.body))
            while len(self.remembered) > _REMEMBERED:
                self.remembered.popitem(last=False)
        return found

    async def _write(self, request: Request, body: bytes) -> Response:
        if not self.policy().writes:
            return _refused(
                'the mirror takes no changes ([http] writes = "refuse"); unset WANDB_BASE_URL to write', 403
            )
        try:
            return await self._upstream(request, body)
        except CommError as error:
            return _refused(f"changes go to the server: {error}", 400)

    async def _passed(self, request: Request, body: bytes, missing: str) -> Response:
        try:
            return await self._upstream(request, body)
        except CommError as error:
            return _refused(f"the mirror does not serve this ({missing}), and {error}", 400)

    async def _upstream(self, request: Request, body: bytes) -> Response:
        send = self.upstream.graphql if request.url.path == "/graphql" else self.upstream.file
        return await send(request, body)


def application(snapshots: Snapshots, key: Callable[[], str], policy: Callable[[], Policy]) -> Starlette:
    """The endpoint over these snapshots, for whoever holds the key; key and policy are asked for at each request."""
    endpoint = Endpoint(snapshots, Upstream(lambda: policy().base_url), policy)
    return Starlette(
        routes=[
            Route("/graphql", endpoint.graphql, methods=["POST"]),
            Route("/files/{path:path}", endpoint.rest, methods=["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"]),
        ],
        middleware=[Middleware(KeyGuard, key=key)],
        exception_handlers={MirrorError: _told, Exception: _unexpected},
    )


def _asked(body: bytes, encoding: str) -> tuple[Operation, Any]:
    """The operation that a request means, and its variables."""
    try:
        sent = orjson.loads(_unpacked(body) if encoding == "gzip" else body)
        query, name, given = sent["query"], sent.get("operationName"), sent.get("variables") or {}
    except (ValueError, TypeError, KeyError, AttributeError, OSError):
        query, name, given = None, None, None
    if not isinstance(query, str) or not isinstance(given, dict) or not isinstance(name, str | None):
        raise Malformed('send JSON such as {"query": "{ viewer { entity } }", "variables": {}}')
    asked = documents.operation(query, name)
    return asked, asked.variables(given)


def _unpacked(body: bytes) -> bytes:
    """A gzipped body. Raises MirrorError for one that grows beyond all measure, OSError for what is not gzip."""
    with gzip.GzipFile(fileobj=io.BytesIO(body)) as packed:
        found = packed.read(MOST_BYTES + 1)
    if len(found) > MOST_BYTES:
        raise MirrorError(_TOO_LONG)
    return found


async def _body(request: Request) -> bytes:
    parts: list[bytes] = []
    length = 0
    try:
        async for piece in request.stream():
            parts.append(piece)
            length += len(piece)
            if length > MOST_BYTES:
                raise MirrorError(_TOO_LONG)
    except ClientDisconnect as error:
        # Half of a write must not reach the server.
        raise MirrorError("the client left before its request was whole") from error
    return b"".join(parts)


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")


def _refused(message: str, status: int) -> Response:
    """An error as GraphQL tells it; never a status that clients take for passing, or they try again for minutes."""
    return _json({"errors": [{"message": message}], "data": None}, status)


async def _told(request: Request, error: Exception) -> Response:
    del request
    return _refused(str(error), 400)


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _refused(f"unexpected {type(error).__name__}; the daemon's log tells more", 500)
