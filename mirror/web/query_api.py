"""The query API: `POST /api/query` and `GET /api/schema`, described by `GET /api/openapi.json`.

The answer to a query is streamed, as JSON, JSON lines, CSV, Arrow or Parquet. Everything here is read-only, and runs in
worker processes: see docs/api.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import orjson
from msgspec import Struct, field
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from mirror.errors import MirrorError, one_line
from mirror.web import openapi
from mirror.web.access import Access, Caller, Reader, caller
from mirror.web.leaving import gone, turn_of
from mirror.web.refusal import Refused
from mirror.web.spool import Spool
from mirror.web.worker import Abandoned

log = logging.getLogger("mirror.web.audit")

SECONDS = 60.0
MOST_SECONDS = 600.0
"""How long a query may take if the request does not say, and at most."""

LIMIT = 10_000
MOST_ROWS = 100_000_000
"""How many rows are answered if the request does not say, and at most."""

MOST_BODY = 1_000_000
"""Bytes of a request's body."""

MEDIA = {
    "application/json": "json",
    "application/x-ndjson": "jsonl",
    "application/jsonl": "jsonl",
    "text/csv": "csv",
    "application/vnd.apache.arrow.stream": "arrow",
    "application/vnd.apache.parquet": "parquet",
}
"""The media types that Accept may name, and the format of each."""

_TYPES = {name: media for media, name in reversed(MEDIA.items())} | {"csv": "text/csv; charset=utf-8"}
_ANY = {"*/*": "json", "application/*": "json", "text/*": "csv"}
_SQL_SHOWN = 200
_EXAMPLE = 'send {"sql": "SELECT ..."}, or {"project": "entity/project", "filter": {...}}; see docs/api.md'
_MEMBERS = {
    "sql": (str,),
    "parameters": (list, dict),
    "project": (str,),
    "filter": (dict, str),
    "order": (str,),
    "select": (list,),
    "limit": (int,),
    "timeout": (int, float),
}
_OF_SQL = frozenset({"sql", "parameters", "limit", "timeout"})


class Question(Struct, frozen=True):
    """A checked request: what the worker is asked, and how long it may take."""

    arguments: Mapping[str, Any]
    seconds: float
    kind: str = "answer"

    @property
    def shown(self) -> str:
        """The question in one short line."""
        asked = self.arguments
        text = asked["sql"] if "sql" in asked else f"{asked['project']} {json.dumps(asked['filter'])}"
        line = one_line(text)
        return line if len(line) <= _SQL_SHOWN else f"{line[:_SQL_SHOWN]}..."


def routes(access: Access) -> list[BaseRoute]:
    """The routes of the query API."""
    api = _Api(access)
    return [
        Route("/api/query", api.query, methods=["POST"]),
        Route("/api/schema", api.schema, methods=["GET"]),
        Route("/api/openapi.json", api.openapi, methods=["GET"]),
    ]


class _Api:
    def __init__(self, access: Access) -> None:
        self._access = access

    async def query(self, request: Request) -> Response:
        """POST /api/query."""
        who = caller(request)
        format_name = _format(request.headers.get("accept", ""))
        question = _question(await body_of(request), format_name)
        if (project := question.arguments.get("project")) is not None:
            try:
                who.check(project)
            except Refused as refused:
                _Audit(who, _address(request), question.shown).write(None, 0, str(refused))
                raise
        reader = await self._access.reader(who)
        etag = _etag(reader.version(), question.arguments)
        if etag in _etags(request.headers.get("if-none-match", "")):
            return Response(status_code=304, headers={"etag": etag})
        return await answered(self._access, request, reader, question, {"etag": etag})

    async def schema(self, request: Request) -> Response:
        """GET /api/schema."""
        who = caller(request)
        reader = await self._access.reader(who)
        etag = _etag(reader.version(), "schema")
        if etag in _etags(request.headers.get("if-none-match", "")):
            return Response(status_code=304, headers={"etag": etag})
        async with self._access.turns.waiting(who.name, SECONDS, unlimited=who.owner):
            ask = partial(reader.statements.ask, "schema", {}, SECONDS)
            found = await asyncio.get_running_loop().run_in_executor(self._access.pool, ask)
        return Response(found.content, media_type="application/json", headers={"etag": etag})

    async def openapi(self, request: Request) -> Response:
        """GET /api/openapi.json."""
        del request
        return Response(orjson.dumps(openapi.document()), media_type="application/json")


async def answered(
    access: Access, request: Request, reader: Reader, question: Question, headers: Mapping[str, str]
) -> Response:
    """Start to answer a question, and return the response that streams the rest.

    Raises what the question raises before its first piece, and Refused if its caller asks too much.
    """
    who = caller(request)
    audit = _Audit(who, _address(request), question.shown)
    try:
        async with turn_of(access, request, question.seconds) as turn:
            spool = Spool(access.spool_folder)
            pieces = reader.statements.stream(question.kind, question.arguments, question.seconds, spool.abandoned)
            filling = asyncio.get_running_loop().run_in_executor(access.pool, spool.fill, pieces)
            # The next question begins when the worker is done with this one, not when the client is.
            turn.ends_with(filling)
        leaving = asyncio.ensure_future(_left(request.receive, spool))
        reading = spool.pieces()
        try:
            head = _head(await anext(reading))
        except BaseException:
            leaving.cancel()
            spool.abandon()
            raise
    except MirrorError as error:
        audit.write(None, 0, str(error))
        raise
    known = {
        "X-Mirror-As-Of": head.get("as_of"),
        "X-Mirror-Lag": head.get("lag_s"),
        "X-Mirror-Rows": head["rows"],
        "X-Mirror-Truncated": None if head.get("truncated") is None else json.dumps(head["truncated"]),
        "X-Mirror-Limit": question.arguments.get("limit"),
    }
    sent = {name: str(value) for name, value in known.items() if value is not None}
    return _Streamed(
        _Stream(spool, reading, leaving, audit, head["rows"]),
        headers={
            **headers,
            **sent,
            "content-type": _TYPES[question.arguments.get("format", "arrow")],
            "vary": "accept",
        },
    )


def _head(piece: bytes) -> dict[str, Any]:
    """The head of an answer. Raises Refused if it has DuckDB's error instead."""
    head: dict[str, Any] = orjson.loads(piece)
    if "refused" in head:
        raise Refused(400, "DuckDB refused the statement", "", more={"duckdb": head["refused"]})
    return head


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


async def _left(receive: Receive, spool: Spool) -> None:
    await gone(receive)
    spool.abandon()


class _Audit(Struct):
    """One line of the log per query: who asked what, and what came of it."""

    who: Caller
    address: str
    asked: str
    started: float = field(default_factory=time.monotonic)

    def write(self, rows: int | None, size: int, error: str = "") -> None:
        """Write the line."""
        outcome = f"failed: {error}" if error else f"{'many' if rows is None else rows} rows, {size} bytes"
        log.info(
            "query by %s from %s: %s, %.0f ms: %s",
            self.who.name,
            self.address or "?",
            outcome,
            1000 * (time.monotonic() - self.started),
            self.asked,
        )


class _Stream(Struct):
    spool: Spool
    reading: Any
    leaving: asyncio.Future[None]
    audit: _Audit
    rows: int | None


class _Streamed(Response):
    """A response whose connection is cut if the answer fails half-way, so that no client takes it for complete."""

    def __init__(self, stream: _Stream, headers: Mapping[str, str]) -> None:
        self._stream = stream
        self.status_code = 200
        self.background = None
        # Not by init_headers, which would add a length.
        self.raw_headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the pieces as fast as the client reads them."""
        del receive
        stream = self._stream
        size, error = 0, ""
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for piece in stream.reading:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                size += len(piece)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except Abandoned:
            error = "the client left"
        except Exception as failure:
            error = str(failure)
            cut = scope.get("mirror.cut")
            if cut is None:
                raise
            cut()
            await asyncio.sleep(0)
        finally:
            stream.leaving.cancel()
            stream.spool.abandon()
            stream.audit.write(stream.rows, size, error)


async def body_of(request: Request, most: int = MOST_BODY) -> bytes:
    """The body of a request. Raises Refused if it is longer than `most` bytes."""
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > most:
                raise Refused(413, f"a request may have at most {most:,} bytes", "send a shorter statement")
    except ClientDisconnect:
        raise Abandoned("the client left") from None
    return bytes(body)


def _question(body: bytes, format_name: str) -> Question:
    """Check the members of a request. Raises Refused for those that are missing, unknown or of the wrong type."""
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"the body is not JSON: {error}", _EXAMPLE) from None
    if not isinstance(asked, dict) or ("sql" in asked) == ("project" in asked):
        raise Refused(400, "the body must be a JSON object with either sql or project", _EXAMPLE)
    for name, value in asked.items():
        if name not in _MEMBERS:
            raise Refused(400, f"{name} is not a member of a query", f"members: {', '.join(_MEMBERS)}")
        if not isinstance(value, _MEMBERS[name]) or isinstance(value, bool):
            kinds = " or ".join(openapi.KINDS[kind] for kind in _MEMBERS[name])
            raise Refused(400, f"{name} must be {kinds}", _EXAMPLE)
        if ("sql" in asked) and name not in _OF_SQL:
            raise Refused(400, f"{name} does not go with sql", "put it into the SQL")
    if "parameters" in asked and "sql" not in asked:
        raise Refused(400, "parameters go with sql", _EXAMPLE)
    if not all(isinstance(name, str) for name in asked.get("select", [])):
        raise Refused(400, "select must be a list of columns", 'such as ["name", "config.lr"]')
    limit = asked.get("limit", LIMIT)
    if not 0 <= limit <= MOST_ROWS:
        raise Refused(400, f"limit must be from 0 to {MOST_ROWS:,}", "ask for the rows in parts")
    seconds = float(asked.get("timeout", SECONDS))
    if not 0 < seconds <= MOST_SECONDS:
        raise Refused(400, f"timeout must be more than 0 and at most {MOST_SECONDS:g} seconds", "ask for less at once")
    arguments: dict[str, Any] = {"format": format_name, "limit": limit}
    if "sql" in asked:
        arguments |= {"sql": asked["sql"], "parameters": asked.get("parameters", [])}
    else:
        arguments |= {
            "project": asked["project"],
            "filter": asked.get("filter"),
            "order": asked.get("order"),
            "select": asked.get("select", []),
        }
    return Question(arguments, seconds)


def _format(accept: str) -> str:
    """The first format of the highest quality that the header names; JSON without a header. Raises Refused."""
    chosen, best = "", 0.0
    for part in (accept or "*/*").split(","):
        media, *parameters = (text.strip().lower() for text in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        found = MEDIA.get(media) or _ANY.get(media, "")
        if found and quality > best:
            chosen, best = found, quality
    if not chosen:
        raise Refused(406, f"there is no answer as {accept}", f"Accept: {', '.join(MEDIA)}")
    return chosen


def _etag(version: str, asked: object) -> str:
    text = orjson.dumps([version, asked], option=orjson.OPT_SORT_KEYS)
    return f'"{hashlib.sha256(text).hexdigest()[:32]}"'


def _etags(header: str) -> list[str]:
    return [text.strip().removeprefix("W/") for text in header.split(",")]
