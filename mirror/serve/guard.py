"""Access control of the endpoint: requests from this machine with the API key of the mirrored server."""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from mirror.errors import MirrorError
from mirror.serve.signing import Signer
from mirror.web.guard import foreign

log = logging.getLogger("mirror.serve")


class KeyGuard:
    """Accepts requests that have a loopback Host header, do not come from another origin, and carry the API key.

    The key is sent as official clients send it: HTTP Basic authentication, user `api`. `key` returns the right one, and
    raises MirrorError if there is none. To read a file, an address that was signed here replaces the key.
    """

    def __init__(self, app: ASGIApp, key: Callable[[], str], signer: Signer) -> None:
        self._app = app
        self._key = key
        self._signer = signer
        self._logged_reason = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it to the application."""
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        refused: ASGIApp | None = foreign(scope, headers)
        if refused is None and not self._is_signed(scope) and (reason := self._key_error(headers)):
            # At 401 a client reports what to do about the key, and does not retry.
            refused = JSONResponse({"errors": [{"message": reason}], "message": reason}, 401)
        await (refused or self._app)(scope, receive, send)

    def _is_signed(self, scope: Scope) -> bool:
        request = HTTPConnection(scope)
        return scope["method"] in ("GET", "HEAD") and self._signer.holds(raw_path(scope), request.query_params)

    def _key_error(self, headers: Headers) -> str:
        try:
            key = self._key()
        except MirrorError as error:
            # Anybody may send requests at any rate, so the reason is logged only when it changes.
            if str(error) != self._logged_reason:
                self._logged_reason = str(error)
                log.warning("%s", error)
            return f"the mirror has no API key to compare with: {error}"
        # A comparison in constant time does not reveal where they differ.
        if hmac.compare_digest(_credentials(headers.get("authorization", "")).encode(), f"api:{key}".encode()):
            return ""
        return "the API key is missing or wrong: use the key that the mirror itself uses"


def raw_path(scope: Scope) -> str:
    """Return the path as it was sent, percent-encoded, without the query."""
    path: bytes = scope["raw_path"]
    return path.decode("latin-1").partition("?")[0]


def _credentials(authorization: str) -> str:
    """Return user and password of Basic authentication; empty for any other."""
    kind, _, text = authorization.partition(" ")
    if kind.lower() != "basic":
        return ""
    try:
        return base64.b64decode(text, validate=True).decode("latin-1")
    except (binascii.Error, ValueError):
        return ""
