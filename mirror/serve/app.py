"""The endpoint itself: `POST /graphql` from the mirror, everything else from the real server.

Official clients read here what they would read there. What changes something is passed on to the real server, or
refused; so is what the mirror does not hold: the content of files, artifacts, sweeps, console logs, other projects.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import logging
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import orjson
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from mirror.errors import CommError, MirrorError
from mirror.serve import documents
from mirror.serve.context import Context, RunPath
from mirror.serve.documents import Better, Elsewhere, Malformed, Operation, Write
from mirror.serve.files import METADATA, metadata, runs_of
from mirror.serve.guard import KeyGuard
from mirror.serve.pages import goes_on
from mirror.serve.resolvers import ALWAYS, RESOLVERS, Exports
from mirror.serve.runs import Listings
from mirror.serve.signing import Signer
from mirror.serve.touched import Touched, changed
from mirror.serve.upstream import PASSED, Upstream
from mirror.snapshot.connection import refusal
from mirror.wandb_json import UNREADABLE, loads
from mirror.web.snapshots import Snapshots
from mirror.web.statements import unless_left

log = logging.getLogger("mirror.serve")

SECONDS = 60.0
MOST_BYTES = 256 << 20
"""Bytes of a request's body; a chunk of a run's log may be large."""

_TOO_LONG = f"a request holds at most {MOST_BYTES >> 20} MiB"
_THREADS = 4
_CLIENTS = ("W&B Public Client", "wandb-core")
_SCANS = frozenset({"RunParquetHistory", "HistoryPage"})
T = TypeVar("T")

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


@dataclass(frozen=True)
class _How:
    """How a request is to be answered: under which address, until when, and what of the context it sets."""

    base_url: str
    cancelled: threading.Event
    alone: bool
    scans: bool


@dataclass
class Endpoint:
    """The handlers, and what they share."""

    snapshots: Snapshots
    upstream: Upstream
    policy: Callable[[], Policy]
    signer: Signer
    look_again: Callable[[RunPath], None] = lambda _: None
    touched: Touched = field(default_factory=Touched)
    listings: Listings = field(default_factory=Listings)
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_THREADS, thread_name_prefix="serve"))
    remembered: OrderedDict[tuple[str, str, bytes], tuple[float, bytes]] = field(default_factory=OrderedDict)

    async def graphql(self, request: Request) -> Response:
        """POST /graphql"""  # noqa: D400, D415
        body = await _body(request)
        # A script asks who it is first, and for runs next.
        self.snapshots.statements.warm()
        text = body
        try:
            text = _plain(body, request.headers.get("content-encoding", ""))
            asked, variables = _asked(text)
            if asked.roots & _SERVER_KNOWS_BETTER:
                return await self._better(request, body, asked, variables)
            if asked.schema_question is not None:
                return await self._of_schema(request, body, asked, variables)
            return await self._answered(request, body, asked, variables, begun=goes_on(text))
        except Write:
            return await self._write(request, body, text)
        except Elsewhere as missing:
            if goes_on(text):
                return _refused(f"{missing}; ask for the first page of the list again", 400)
            return await self._passed(request, body, str(missing))
        except MirrorError as error:
            return _refused(str(error), 400)

    async def rest(self, request: Request) -> Response:
        """Files, and the streams that runs log to."""
        if request.method in ("GET", "HEAD"):
            content = await self._in_pool(partial(self._file, request.path_params["path"]))
            if content is not None:
                return Response(content, media_type="application/json")
            return await self._passed(request, b"", "the content of files stays on the server")
        return await self._write(request, await _body(request), b"")

    async def _answered(
        self, request: Request, body: bytes, asked: Operation, variables: Any, *, begun: bool
    ) -> Response:
        """The mirror's answer, after the server was asked for what has to be known before, or which is better.

        `begun`: it goes on with a list of the mirror's, with which the server could not go on.
        """
        try:
            return await self._mirrored(request, asked, variables, alone=begun)
        except Exports as unknown:
            learned = await self._exported(request, body)
            last = None if learned is None else min(learned, unknown.last_step)
            self.listings.exported.keep(ALWAYS, unknown.rid, (last, time.monotonic()))
            return await self._mirrored(request, asked, variables, alone=True)
        except Better:
            try:
                return await self._upstream(request, body)
            except CommError:
                return await self._mirrored(request, asked, variables, alone=True)

    async def _mirrored(self, request: Request, asked: Operation, variables: Any, *, alone: bool = False) -> Response:
        cancelled = threading.Event()
        # Only their newer programs name the operation, and read exported files beside pages of a history.
        scans = asked.named in _SCANS and request.headers.get("user-agent", "").startswith(_CLIENTS)
        how = _How(str(request.base_url).rstrip("/"), cancelled, alone=alone, scans=scans)
        return await unless_left(
            request.receive, self._in_pool(partial(self._executed, asked, variables, how)), cancelled
        )

    def _in_pool(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self.pool, work)

    def _executed(self, asked: Operation, variables: Any, how: _How) -> Response:
        for _ in range(_TRIES):
            with suppress(_Published):
                return self._of_snapshot(asked, variables, how, exactly=True)
        return self._of_snapshot(asked, variables, how, exactly=False)

    def _of_snapshot(self, asked: Operation, variables: Any, how: _How, *, exactly: bool) -> Response:
        """Raises _Published where a list was made from a newer snapshot than the rest, and is to be `exactly` of it."""
        import duckdb

        policy = self.policy()
        # Before the connection: what is remembered may then be newer than its version, never older.
        version = self.snapshots.version()

        def ask(question: str, arguments: Mapping[str, Any]) -> bytes:
            found = self.snapshots.statements.ask(question, arguments, SECONDS, how.cancelled)
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
                base_url=how.base_url,
                server_url=policy.base_url,
                alone=how.alone,
                scans=how.scans,
                sign=self.signer.sign,
                touched=self.touched.when,
                look_again=self.look_again,
            )
            try:
                data, errors = documents.execute(asked, context, variables, RESOLVERS)
            except duckdb.Error as error:
                raise refusal(error) from error
        return _json({"errors": errors, "data": data} if errors else {"data": data})

    def _file(self, path: str) -> bytes | None:
        """The content of a file that the mirror holds."""
        entity, _, rest = path.partition("/")
        project, _, rest = rest.partition("/")
        run_id, _, name = rest.partition("/")
        if name != METADATA:
            return None
        with self.snapshots.connection(SECONDS) as connection:
            return metadata(connection, entity, project, run_id)

    async def _exported(self, request: Request, body: bytes) -> int | None:
        """Up to which step the server says it has exported a history; None where it has not, or does not answer."""
        try:
            told = orjson.loads(bytes((await self._upstream(request, body)).body))
            found = told["data"]["project"]["run"]["parquetHistory"]
            steps = [int((loads(row) if isinstance(row, str) else row)["_step"]) for row in found["liveData"]]
        except (CommError, *UNREADABLE):
            return None
        if not found["parquetUrls"]:
            return None
        return min(steps) - 1 if steps else sys.maxsize

    async def _better(self, request: Request, body: bytes, asked: Operation, variables: Any) -> Response:
        """The server's answer, or its last one, or what the mirror knows."""
        if PASSED in request.headers:
            return await self._mirrored(request, asked, variables, alone=True)
        # Nothing else is remembered with who somebody is: that may change at any time.
        policy = self.policy()
        known = None if asked.roots - _SERVER_KNOWS_BETTER else (policy.base_url, self.upstream.key(), body)
        told_at, told = self.remembered.get(known, (-_FRESH_SECONDS, b"")) if known else (-_FRESH_SECONDS, b"")
        if time.monotonic() - told_at < _FRESH_SECONDS:
            return Response(told, media_type="application/json")
        try:
            found = await self.upstream.graphql(request, body)
        except CommError:
            if told:
                return Response(told, media_type="application/json")
            return await self._mirrored(request, asked, variables, alone=True)
        if known and found.status_code == 200 and b'"errors"' not in bytes(found.body):
            self.remembered[known] = (time.monotonic(), bytes(found.body))
            while len(self.remembered) > _REMEMBERED:
                self.remembered.popitem(last=False)
        return found

    async def _of_schema(self, request: Request, body: bytes, asked: Operation, variables: Any) -> Response:
        """Which fields there are: the server's answer, since what the mirror lacks is asked there, or the mirror's."""
        if PASSED not in request.headers:
            with suppress(CommError):
                found = await self.upstream.graphql(request, body)
                if found.status_code == 200 and b'"errors"' not in bytes(found.body):
                    return found
        return await self._mirrored(request, asked, variables)

    async def _write(self, request: Request, body: bytes, text: bytes) -> Response:
        """The server's answer to a change. `text` is the body of a GraphQL request, unpacked."""
        if not self.policy().writes:
            return _refused(
                'the mirror takes no changes ([http] writes = "refuse"); unset WANDB_BASE_URL to write', 403
            )
        try:
            found = await self._upstream(request, body)
        except CommError as error:
            return _refused(f"changes go to the server: {error}", 400)
        if request.url.path == "/graphql":
            await self._in_pool(partial(self._note_files, text))
        return found

    def _note_files(self, body: bytes) -> None:
        """Have the lists of files that a change concerns pulled anew."""
        runs, files = changed(body, self.policy().entity)
        if files:
            with self.snapshots.connection(SECONDS) as connection:
                runs += runs_of(connection, files)
        for run in runs:
            self.touched.note(run)
            self.look_again(run)

    async def _passed(self, request: Request, body: bytes, missing: str) -> Response:
        try:
            return await self._upstream(request, body)
        except CommError as error:
            return _refused(f"the mirror does not serve this ({missing}), and {error}", 400)

    async def _upstream(self, request: Request, body: bytes) -> Response:
        send = self.upstream.graphql if request.url.path == "/graphql" else self.upstream.file
        return await send(request, body)


def application(
    snapshots: Snapshots,
    key: Callable[[], str],
    policy: Callable[[], Policy],
    look_again: Callable[[RunPath], None],
) -> Starlette:
    """The endpoint over these snapshots, for whoever holds the key; key and policy are asked for at each request.

    `look_again` is told of runs whose list of files is to be pulled with the next pass, from any thread.
    """
    signer = Signer()
    endpoint = Endpoint(snapshots, Upstream(lambda: policy().base_url, key), policy, signer, look_again)
    return Starlette(
        routes=[
            Route("/graphql", endpoint.graphql, methods=["POST"]),
            Route("/files/{path:path}", endpoint.rest, methods=["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"]),
        ],
        middleware=[Middleware(KeyGuard, key=key, signer=signer)],
        exception_handlers={MirrorError: _told, Exception: _unexpected},
    )


def _plain(body: bytes, encoding: str) -> bytes:
    """The body as text; one that cannot be unpacked as it is."""
    try:
        return _unpacked(body) if encoding == "gzip" else body
    except (OSError, EOFError):
        return body


def _asked(body: bytes) -> tuple[Operation, Any]:
    """The operation that a request means, and its variables."""
    try:
        sent = orjson.loads(body)
        query, name, given = sent["query"], sent.get("operationName"), sent.get("variables") or {}
    except (ValueError, TypeError, KeyError, AttributeError):
        query, name, given = None, None, None
    if not isinstance(query, str) or not isinstance(given, dict) or not isinstance(name, str | None):
        raise Malformed('send JSON such as {"query": "{ viewer { entity } }", "variables": {}}')
    asked = replace(documents.operation(query, name), named=name or "")
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
