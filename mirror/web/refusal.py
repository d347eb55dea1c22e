"""What the query API answers when it refuses: a status, and one line of JSON with `error` and `hint`."""

from __future__ import annotations

import math
from collections.abc import Mapping

import orjson
from starlette.requests import Request
from starlette.responses import Response

from mirror.errors import Forbidden, MirrorError, StoreError, TimedOut, Unknown
from mirror.web.worker import Abandoned

_STATUSES: Mapping[type[MirrorError], tuple[int, str]] = {
    Abandoned: (499, "the client left"),
    TimedOut: (504, "ask for less at once, or give a longer `timeout`"),
    StoreError: (503, "`mirror doctor` on the mirror's machine says what is wrong"),
    Forbidden: (403, "send one statement that reads the relations of GET /api/schema"),
    Unknown: (404, "`SELECT entity, project FROM projects` lists them"),
}
_OTHERWISE = (400, "GET /api/schema lists the relations and their columns; docs/api.md shows requests")


class Refused(MirrorError):
    """A request is refused with this status; `retry_after` is in seconds, `more` are further members of the answer."""

    def __init__(
        self,
        status: int,
        message: str,
        hint: str,
        retry_after: float | None = None,
        more: Mapping[str, object] | None = None,
    ) -> None:
        """Store what the response says."""
        super().__init__(message)
        self.status = status
        self.hint = hint
        self.retry_after = retry_after
        self.more = more or {}


def response(error: MirrorError) -> Response:
    """The response to a request that failed with this error."""
    headers: dict[str, str] = {}
    more: Mapping[str, object] = {}
    if isinstance(error, Refused):
        status, message, hint = error.status, str(error), error.hint
        more = error.more
        if error.retry_after is not None:
            headers["retry-after"] = str(max(math.ceil(error.retry_after), 1))
    else:
        status, otherwise = next((found for kind, found in _STATUSES.items() if isinstance(error, kind)), _OTHERWISE)
        message, _, hint = str(error).partition("; ")
        hint = hint or otherwise
    if status == 401:
        headers["www-authenticate"] = 'Bearer realm="wandb-mirror"'
    body = orjson.dumps({"error": message, "hint": hint, **more}) + b"\n"
    return Response(body, status, headers, media_type="application/json")


async def handler(request: Request, error: Exception) -> Response:
    """The exception handler of applications whose errors look like this."""
    del request
    assert isinstance(error, MirrorError)
    return response(error)
