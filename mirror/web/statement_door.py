"""What `mirror.connect(url)`, `mirror.Api(url=...)` and `mirror query --remote` ask.

`POST /api/statements`:

    {"sql", "parameters", "snapshot"}

The answer is an Arrow stream as `mirror.peer.carried` describes it, with the header X-Mirror-Snapshot. A client that
sends this back as `snapshot` reads the same snapshot again, for ten minutes after it last did so; then it gets 410.
DuckDB's own errors are {"error", "duckdb": {"class", "message"}}.

`GET /api/content?sha256=DIGEST`: the content of a file, by the SHA-256 that the answers to statements name in its path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route

from mirror.snapshot import files
from mirror.web.access import Access, Reader, caller
from mirror.web.query_api import Question, answered, body_of
from mirror.web.refusal import Refused

SECONDS = 120.0
"""How long a statement may take."""

MOST_BODY = 32_000_000
"""Bytes of a request: statements may name a hundred thousand runs."""

HARMLESS = {
    # Files may be pages with scripts, which must not act for the mirror's own page on this port.
    "content-disposition": "attachment",
    "content-security-policy": "sandbox",
}

_EXAMPLE = 'send {"sql": "SELECT ...", "parameters": [...]}'
_MEMBERS: dict[str, tuple[type, ...]] = {"sql": (str,), "parameters": (list, dict), "snapshot": (str,)}


def routes(access: Access) -> Sequence[BaseRoute]:
    """The route, behind the guard of the doors."""
    own = _Statements(access)
    return [
        Route("/api/statements", own.answer, methods=["POST"]),
        Route("/api/content", own.content, methods=["GET"]),
    ]


class _Statements:
    def __init__(self, access: Access) -> None:
        self._access = access

    async def answer(self, request: Request) -> Response:
        """POST /api/statements."""
        asked = _checked(await body_of(request, MOST_BODY))
        reader = await self._access.reader(caller(request))
        version, path = await asyncio.to_thread(_kept, reader, asked.get("snapshot"))
        arguments = {"sql": asked["sql"], "parameters": asked.get("parameters"), "file": str(path)}
        question = Question(arguments, SECONDS, kind="statement")
        return await answered(self._access, request, reader, question, {"x-mirror-snapshot": version})

    async def content(self, request: Request) -> Response:
        """GET /api/content."""
        who, digest = caller(request), request.query_params.get("sha256", "")
        reader = await self._access.reader(who)
        async with self._access.turns.waiting(who.name, SECONDS, unlimited=who.owner):
            path = await asyncio.to_thread(_stored, self._access, reader, digest)
        if path is None:
            raise Refused(404, "this content is not mirrored", "it may have been deleted since: api.refresh()")
        return FileResponse(path, headers=HARMLESS, media_type="application/octet-stream")


def _stored(access: Access, reader: Reader, digest: str) -> Path | None:
    """Where a content is that the reader's file names; None if there is none."""
    with reader.snapshots.connection(SECONDS) as connection:
        if not files.is_stored(connection, digest):
            return None
    path = access.blobs / digest[:2] / digest[2:]
    return path if path.is_file() else None


def _kept(reader: Reader, version: str | None) -> tuple[str, Path]:
    found = reader.snapshots.kept(version)
    if found is None:
        raise Refused(410, "this snapshot is no longer kept", "api.refresh() shows the newest one, or connect again")
    return found


def _checked(body: bytes) -> dict[str, Any]:
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"the body is not JSON: {error}", _EXAMPLE) from None
    if not isinstance(asked, dict) or "sql" not in asked:
        raise Refused(400, "the body must be a JSON object with sql", _EXAMPLE)
    for name, value in asked.items():
        if name not in _MEMBERS:
            raise Refused(400, f"{name} is not a member of a statement", f"members: {', '.join(_MEMBERS)}")
        if not isinstance(value, _MEMBERS[name]):
            raise Refused(400, f"{name} has the wrong type", _EXAMPLE)
    return asked
