"""The application behind the local HTTP port: the page, its data, and further routes that are mounted with it.

    GET  /api/state                              projects, and the state of the daemon
    GET  /api/keys?project                       the columns that its runs may have
    GET  /api/runs?project&filter&order&column&offset&limit
    GET  /api/run?run                            one run with config, summary and metadata
    GET  /api/run/files?run&start                the list of its files
    GET  /api/run/console?run&before             the last lines of its console, or those before a line
    GET  /api/run/system?run                     its system metrics as curves
    GET  /api/history/keys?run                   the keys that these runs logged, and the names of the runs
    GET  /api/history?run&key&x&points&mean      their curves
    GET  /api/groups?project&filter&order&run&group&key&x    mean curves of groups of runs
    POST /api/sql {"sql", "limit"}               one read-only statement

Responses are JSON. Those to GET have an ETag that changes whenever the mirror is published. Errors are {"message"}.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import threading
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from mirror.errors import MirrorError, StoreError, TimedOut, UsageError
from mirror.query.questions import MOST_ROWS
from mirror.snapshot.connection import refusal
from mirror.web import assets, data
from mirror.web.guard import Guard
from mirror.web.snapshots import Snapshots
from mirror.web.statements import unless_left
from mirror.web.worker import Abandoned

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

log = logging.getLogger("mirror.web")

SECONDS = 20.0
"""How long a query may take."""

MOST_SQL = 100_000
"""Bytes of a request's body."""

_COMPRESS_FROM = 4000
_QUERY_THREADS = 4
_LIST_THREADS = 2
_STATEMENT_THREADS = 2
"""Fewer than there are workers, so that long statements leave one for lists of runs."""

_STATUSES = {TimedOut: 504, StoreError: 503, Abandoned: 499}

Read = Callable[["DuckDBPyConnection"], Any]
Handler = Callable[[Request], Awaitable[Response]]


def application(
    snapshots: Snapshots,
    token: str,
    describe: Callable[[], Mapping[str, Any]],
    routes: Sequence[BaseRoute] = (),
    *,
    seconds: float = SECONDS,
) -> Starlette:
    """Build the application for these snapshots, with additional `routes` behind the same guard.

    `describe` returns what the page shows about the daemon: JSON-serialisable values, which should change only if there
    is something new. `seconds` is how long a query may take.
    """
    page = _Page(snapshots, describe, seconds)

    def get(path: str, handler: Handler) -> Route:
        return Route(path, handler, methods=["GET"])

    return Starlette(
        routes=[
            get("/", page.asset),
            get("/api/state", page.state),
            get("/api/keys", page.keys),
            get("/api/runs", page.runs),
            get("/api/run", page.run),
            get("/api/run/files", page.run_files),
            get("/api/run/console", page.run_console),
            get("/api/run/system", page.run_system),
            get("/api/history/keys", page.history_keys),
            get("/api/history", page.history),
            get("/api/groups", page.groups),
            Route("/api/sql", page.sql, methods=["POST"]),
            *routes,
            get("/{name}", page.asset),
        ],
        middleware=[Middleware(Guard, token=token)],
        exception_handlers={MirrorError: _failed, Exception: _unexpected},
    )


class _Page:
    """The handlers of the page, and their threads."""

    def __init__(self, snapshots: Snapshots, describe: Callable[[], Mapping[str, Any]], seconds: float) -> None:
        self._snapshots = snapshots
        self._describe = describe
        self._seconds = seconds
        self._pool = ThreadPoolExecutor(_QUERY_THREADS, thread_name_prefix="web")
        # Separate pools: a request that waits for a worker blocks no other kind of request.
        self._lists = ThreadPoolExecutor(_LIST_THREADS, thread_name_prefix="web-lists")
        self._statements = ThreadPoolExecutor(_STATEMENT_THREADS, thread_name_prefix="web-statements")

    def _in_pool(self, work: Callable[[], Response]) -> Awaitable[Response]:
        return asyncio.get_running_loop().run_in_executor(self._pool, partial(_guarded, work))

    def _in_worker(
        self, request: Request, threads: ThreadPoolExecutor, question: str, arguments: Mapping[str, Any]
    ) -> Awaitable[Response]:
        cancelled = threading.Event()

        def work() -> Response:
            found = self._snapshots.statements.ask(question, arguments, self._seconds, cancelled)
            return _sent(request, found.content, f'"{found.version}"' if request.method == "GET" else "")

        return unless_left(request.receive, asyncio.get_running_loop().run_in_executor(threads, work), cancelled)

    def _answer(self, request: Request, read: Read, etag: str = "") -> Awaitable[Response]:
        def work() -> Response:
            with self._snapshots.connection(self._seconds) as connection:
                return _json(request, read(connection), etag)

        return self._in_pool(work)

    async def _of_snapshot(self, request: Request, read: Read) -> Response:
        etag = f'"{self._snapshots.version()}"'
        return _unchanged(request, etag) or await self._answer(request, read, etag)

    async def state(self, request: Request) -> Response:
        """GET /api/state."""
        daemon = dict(self._describe())
        version = self._snapshots.version()
        etag = f'"{version}-{zlib.crc32(json.dumps(daemon, default=str).encode()):x}"'
        if unchanged := _unchanged(request, etag):
            return unchanged
        state = {"snapshot": version, "daemon": daemon, "projects": []}
        if not version:
            return _json(request, state, etag)
        return await self._answer(request, lambda connection: state | {"projects": data.projects(connection)}, etag)

    async def keys(self, request: Request) -> Response:
        """GET /api/keys."""
        project = _needed(request, "project")
        return await self._of_snapshot(request, lambda connection: data.keys(connection, project))

    async def runs(self, request: Request) -> Response:
        """GET /api/runs."""
        asked = request.query_params
        question = {
            "project": _needed(request, "project"),
            "conditions": asked.get("filter", ""),
            "order": asked.get("order", ""),
            "columns": asked.getlist("column"),
            "offset": _number(request, "offset", 0),
            "limit": _number(request, "limit", 100),
        }
        etag = f'"{self._snapshots.version()}"'
        return _unchanged(request, etag) or await self._in_worker(request, self._lists, "runs", question)

    async def run(self, request: Request) -> Response:
        """GET /api/run."""
        path = _needed(request, "run")
        return await self._of_snapshot(request, lambda connection: data.run(connection, path))

    async def run_files(self, request: Request) -> Response:
        """GET /api/run/files."""
        path, start = _needed(request, "run"), _number(request, "start", 0)
        return await self._of_snapshot(request, lambda connection: data.run_files(connection, path, start))

    async def run_console(self, request: Request) -> Response:
        """GET /api/run/console."""
        path = _needed(request, "run")
        before = _number(request, "before", 0) if "before" in request.query_params else None
        return await self._of_snapshot(request, lambda connection: data.run_console(connection, path, before))

    async def run_system(self, request: Request) -> Response:
        """GET /api/run/system."""
        path = _needed(request, "run")
        return await self._of_snapshot(request, lambda connection: data.run_system(connection, path))

    async def history_keys(self, request: Request) -> Response:
        """GET /api/history/keys."""
        paths = request.query_params.getlist("run")
        return await self._of_snapshot(request, lambda connection: data.history_keys(connection, paths))

    async def history(self, request: Request) -> Response:
        """GET /api/history."""
        asked = request.query_params
        read = partial(
            data.history,
            paths=asked.getlist("run"),
            keys=asked.getlist("key"),
            x=asked.get("x") or None,
            points=_number(request, "points", 500),
            mean=asked.get("mean") == "true",
        )
        return await self._of_snapshot(request, read)

    async def groups(self, request: Request) -> Response:
        """GET /api/groups."""
        asked = request.query_params
        question = {
            "project": _needed(request, "project"),
            "conditions": asked.get("filter", ""),
            "order": asked.get("order", ""),
            "runs": data.paths(asked.getlist("run")),
            "group": _needed(request, "group"),
            "keys": asked.getlist("key"),
            "x": asked.get("x", ""),
        }
        etag = f'"{self._snapshots.version()}"'
        return _unchanged(request, etag) or await self._in_worker(request, self._lists, "groups", question)

    async def sql(self, request: Request) -> Response:
        """POST /api/sql."""
        try:
            body = json.loads(await _body(request))
            text, limit = body["sql"], body.get("limit", MOST_ROWS)
        except (ValueError, KeyError, TypeError, AttributeError):
            text, limit = None, None
        if not isinstance(text, str) or type(limit) is not int:
            raise UsageError('send JSON such as {"sql": "select 1", "limit": 100}')
        return await self._in_worker(request, self._statements, "sql", {"text": text, "limit": limit})

    async def asset(self, request: Request) -> Response:
        """GET / and the files of the page."""
        name = request.path_params.get("name", "index.html")
        # The page requests runs next, which needs a worker.
        self._snapshots.statements.warm()
        return await self._in_pool(lambda: _asset(request, name))


async def _body(request: Request) -> bytes:
    body = b""
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > MOST_SQL:
                raise UsageError(f"a request may have at most {MOST_SQL:,} bytes")
    except ClientDisconnect:
        return b""
    return body


def _guarded(work: Callable[[], Response]) -> Response:
    """Raise DuckDB's errors as a one-line QueryError."""
    import duckdb

    try:
        return work()
    except duckdb.Error as error:
        raise refusal(error) from error


async def _failed(request: Request, error: Exception) -> Response:
    del request
    status = next((status for kind, status in _STATUSES.items() if isinstance(error, kind)), 400)
    return JSONResponse({"message": str(error)}, status)


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return JSONResponse({"message": f"unexpected {type(error).__name__}; see the daemon's log"}, 500)


def _needed(request: Request, name: str) -> str:
    value = request.query_params.get(name, "")
    if not value:
        raise UsageError(f"{name} is missing in the address")
    return value


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise UsageError(f"{name} must be a whole number, not {text}")
    return int(text)


def _unchanged(request: Request, etag: str) -> Response | None:
    """The response 304 if the client already has this version, else None."""
    if request.headers.get("if-none-match") != etag:
        return None
    return Response(status_code=304, headers={"etag": etag})


def _json(request: Request, content: Any, etag: str = "") -> Response:
    return _sent(request, orjson.dumps(content, default=str), etag)


def _sent(request: Request, body: bytes, etag: str = "") -> Response:
    headers = {"etag": etag} if etag else {}
    if len(body) >= _COMPRESS_FROM and _accepts_gzip(request):
        body = gzip.compress(body, 1)
        headers["content-encoding"] = "gzip"
    return Response(body, media_type="application/json", headers=headers)


def _asset(request: Request, name: str) -> Response:
    found = assets.load(name)
    if found is None:
        return JSONResponse({"message": f"there is no /{name}"}, 404)
    headers = {"etag": found.etag, "cache-control": "no-cache", "vary": "accept-encoding"}
    if request.headers.get("if-none-match") == found.etag:
        return Response(status_code=304, headers=headers)
    if not _accepts_gzip(request):
        return Response(found.plain, media_type=found.media_type, headers=headers)
    return Response(found.compressed, media_type=found.media_type, headers={**headers, "content-encoding": "gzip"})


def _accepts_gzip(request: Request) -> bool:
    return "gzip" in request.headers.get("accept-encoding", "")
