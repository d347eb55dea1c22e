"""The doors: applications beside the page that take tokens, from any machine. The first is the query API.

A further one is a `Door`: a function that returns its routes. A route finds out who asks with `access.caller(request)`,
and reads through `Access.reader`. Its errors are MirrorError, answered as {"error", "hint"}.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from mirror.errors import MirrorError
from mirror.web import query_api, statement_door
from mirror.web.access import Access, TokenGuard
from mirror.web.refusal import Refused, handler, response

log = logging.getLogger("mirror.web")

Door = Callable[[Access], Sequence[BaseRoute]]


def application(access: Access, further: Sequence[Door] = ()) -> Starlette:
    """The doors as one application behind a TokenGuard."""
    return Starlette(
        routes=[
            *query_api.routes(access),
            *statement_door.routes(access),
            *(route for door in further for route in door(access)),
        ],
        middleware=[Middleware(TokenGuard, access=access)],
        exception_handlers={MirrorError: handler, 404: _absent, 405: _absent, Exception: _unexpected},
    )


def beside(page: ASGIApp, access: Access, further: Sequence[Door] = ()) -> ASGIApp:
    """The doors, and another application for all other paths."""
    doors = application(access, further)
    paths = tuple(route.path for route in doors.routes if isinstance(route, Route | Mount))

    async def either(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        is_door = scope["type"] == "http" and any(path == own or path.startswith(f"{own}/") for own in paths)
        await (doors if is_door else page)(scope, receive, send)

    return either


async def _absent(request: Request, error: Exception) -> Response:
    del error
    return response(
        Refused(404, f"there is no {request.method} {request.url.path}", "GET /api/openapi.json lists what there is")
    )


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return response(Refused(500, f"unexpected {type(error).__name__}", "see the daemon's log"))
