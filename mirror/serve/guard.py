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

from mirror.errors import AuthError, MirrorError
from mirror.serve.readers import Readers
from mirror.serve.signing import Signer
from mirror.web.guard import foreign, is_elsewhere
from mirror.web.refusal import Refused

log = logging.getLogger("mirror.serve")


class KeyGuard:
    """Accepts requests that carry the API key of the mirrored server, or a token of the mirror.

    The key is sent as official clients send it: HTTP Basic authentication, user `api`. `key` returns the right one, and
    raises MirrorError if there is none. Requests with it come from this machine: they have a loopback Host header, and
    are not from another origin. To read a file, an address that was signed here replaces the key.

    Requests with a token go to `readers`, from any machine, as do requests for files that those have signed.
    """

    def __init__(self, app: ASGIApp, key: Callable[[], str], signer: Signer, readers: Readers | None = None) -> None:
        self._app = app
        self._key = key
        self._signer = signer
        self._readers = readers
        self._logged_reason = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it to the application."""
        if scope["type"] != "http":
            return
        try:
            app = await self._chosen(scope, Headers(scope=scope))
        except MirrorError as error:
            # At 401 a client reports what to do about the key, and does not retry.
            app = JSONResponse({"errors": [{"message": str(error)}], "message": str(error)}, 401)
        await app(scope, receive, send)

    async def _chosen(self, scope: Scope, headers: Headers) -> ASGIApp:
        """What answers the request. Raises MirrorError if it carries neither the key nor a token."""
        request = HTTPConnection(scope)
        reads = scope["method"] in ("GET", "HEAD")
        path = raw_path(scope)
        if self._readers is not None and reads and (reader := self._readers.signed(path, request.query_params)):
            return reader
        if reads and self._signer.holds(path, request.query_params):
            return foreign(scope, headers) or self._app
        credentials = _credentials(headers.get("authorization", ""))
        key, reason = self._right_key()
        # A comparison in constant time does not reveal where they differ.
        if key and hmac.compare_digest(credentials.encode(), f"api:{key}".encode()):
            return foreign(scope, headers) or self._app
        secret = credentials.partition(":")[2]
        if secret and self._readers is not None and not is_elsewhere(headers):
            try:
                return await self._readers.of(secret, scope)
            except Refused as refused:
                if refused.status != 401 or "wrong" not in str(refused):
                    raise
        if refusal := foreign(scope, headers):
            return refusal
        raise AuthError(
            reason or "the API key is missing or wrong: use the key that the mirror itself uses, or a token"
        )

    def _right_key(self) -> tuple[str, str]:
        """The API key; "" and the reason if there is none to compare with."""
        try:
            return self._key(), ""
        except MirrorError as error:
            # Anybody may send requests at any rate, so the reason is logged only when it changes.
            if str(error) != self._logged_reason:
                self._logged_reason = str(error)
                log.warning("%s", error)
            return "", f"the mirror has no API key to compare with: {error}"


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
