"""Whether the daemon works, for load balancers, container runtimes and other probes that have no token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mirror.daemon.problems import GRAVE, Problem
from mirror.web.guard import HEALTH

if TYPE_CHECKING:
    from starlette.routing import Route


def route(problems: Callable[[], Sequence[Problem]]) -> Route:
    """Return the route `GET /healthz`: 200 while data arrives, else 503 with the kinds of the problems.

    It names no project and shows no message, since anybody who can reach the port may ask.
    """
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    async def healthz(request: Request) -> Response:
        del request
        kinds = sorted({problem.kind for problem in problems() if problem.level == GRAVE})
        return JSONResponse({"ok": not kinds, "problems": kinds}, 503 if kinds else 200)

    return Route(HEALTH, healthz, methods=["GET"])
