"""Answers in JSON, and those to errors of all kinds."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from mirror.errors import MirrorError

log = logging.getLogger("mirror.serve")


def json_answer(content: Any, status: int = 200) -> Response:
    """Return an answer with this content."""
    return Response(orjson.dumps(content), status, media_type="application/json")


def error_answer(message: str, status: int) -> Response:
    """Return a GraphQL error; never with a status that clients consider temporary, or they retry for minutes."""
    return json_answer({"errors": [{"message": message}], "data": None}, status)


async def _mirror_error(request: Request, error: Exception) -> Response:
    del request
    return error_answer(str(error), 400)


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return error_answer(f"unexpected {type(error).__name__}; see the daemon's log", 500)


HANDLERS: Mapping[Any, Any] = {MirrorError: _mirror_error, Exception: _unexpected}
