"""Who may ask the endpoint: whoever holds the API key of the mirrored server, from this machine."""

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
    """Lets a request through that names this machine, is not caused by another origin, and carries the API key.

    The key comes as official clients send it: HTTP Basic authentication, user `api`. `key` tells the right one, and
    raises MirrorError where there is none. To read a file, an address that was signed here does in place of the key.
    """

    def __init__(self, app: ASGIApp, key: Callable[[], str], signer: Signer) -> None:
        self._app = app
        self._key = key
        self._signer = signer
        self._told = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or have the application do so."""
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        refused: ASGIApp | None = foreign(scope, headers)
        if refused is None and not self._signed(scope) and (reason := self._unknown(headers)):
            # A client that is told 401 says what to do about the key, and does not try again.
            refused = JSONResponse({"errors": [{"message": reason}], "message": reason}, 401)
        await (refused or self._app)(scope, receive, send)

    def _signed(self, scope: Scope) -> bool:
        request = HTTPConnection(scope)
        return scope["method"] in ("GET", "HEAD") and self._signer.holds(raw_path(scope), request.query_params)

    def _unknown(self, headers: Headers) -> str:
        try:
            key = self._key()
        except MirrorError as error:
            # Anybody may ask, as often as they like; the log is told when the reason is another one.
            if str(error) != self._told:
                self._told = str(error)
                log.warning("%s", error)
            return f"the mirror has no API key to compare with: {error}"
        # Compared in the same time wherever they differ.
        if hmac.compare_digest(_sent(headers.get("authorization", "")).encode(), f"api:{key}".encode()):
            return ""
        return "the API key is missing or wrong: the mirror wants the one that it mirrors with"


def raw_path(scope: Scope) -> str:
    """The path as it was sent, percent-encoded, without the query."""
    path: bytes = scope["raw_path"]
    return path.decode("latin-1").partition("?")[0]


def _sent(authorization: str) -> str:
    """User and password of Basic authentication; empty for anything else."""
    kind, _, text = authorization.partition(" ")
    if kind.lower() != "basic":
        return ""
    try:
        return base64.b64decode(text, validate=True).decode("latin-1")
    except (binascii.Error, ValueError):
        return ""
