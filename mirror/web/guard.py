"""Restricts the local HTTP port to the owner of the home, with the page or a client on this machine."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mirror.web.peers import is_this_machine
from mirror.web.token import Tickets, matches

SAFE_HEADERS: Mapping[str, str] = {
    # The hash is of the empty text: the chart library creates an empty style element, and fills it by script.
    "content-security-policy": "default-src 'none'; script-src 'self'; "
    "style-src 'self' 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}

_LOCKED = """<!doctype html><html lang="en"><meta charset="utf-8"><title>wandb-mirror</title>
<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/locked.css">
<main><h1>This page is locked</h1><p>Open it with <code>mirror open</code>, or with the link that
<code>mirror open --print</code> prints on the machine where the daemon runs.</p></main></html>
"""


class Guard:
    """Passes a request to the application if it has a loopback Host header and the token.

    The token is accepted as the page's cookie, as `Authorization: Bearer TOKEN`, as the password of Basic
    authentication, and, only for the page itself, in its link: `/?token=...` or `/?ticket=...`, which set the cookie.
    Refuses other Host names (a foreign name that resolves to this machine could be used to read the mirror), requests
    from other origins, and requests that may change something without an Origin header or an API key.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token
        self._tickets = Tickets(token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request or pass it to the application; the response gets SAFE_HEADERS in either case."""
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        cookie: str | None = None
        refused = None if scope["path"] == HEALTH else foreign(scope, headers)
        if refused is None and scope["path"] not in _OPEN:
            from_link = self._from_link(scope)
            if from_link:
                cookie = f"{_cookie_name(headers)}={self._token}; Path=/; Max-Age=31536000; HttpOnly; SameSite=Strict"
            elif not self._known(headers):
                refused = _locked(headers)
            elif scope["method"] not in ("GET", "HEAD") and not _says_its_origin(headers):
                refused = _message("a request that is not a GET must come from the page, or carry an API key", 403)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                out = MutableHeaders(scope=message)
                for name, value in SAFE_HEADERS.items():
                    out[name] = value
                out.setdefault("cache-control", "no-store")
                if cookie:
                    out.append("set-cookie", cookie)
            await send(message)

        await (refused or self._app)(scope, receive, guarded)

    def _from_link(self, scope: Scope) -> bool:
        """Return True if this is a request for the page with the token or a valid ticket in its address."""
        if scope["path"] != "/" or scope["method"] != "GET":
            return False
        asked = parse_qs(scope["query_string"].decode("latin-1"))
        token, ticket = asked.get("token", [""])[0], asked.get("ticket", [""])[0]
        return matches(token, self._token) or bool(ticket and self._tickets.take(ticket))

    def _known(self, headers: Headers) -> bool:
        if sent := headers.get("authorization"):
            return matches(password(sent), self._token)
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return False
        morsel = cookies.get(_cookie_name(headers))
        return morsel is not None and matches(morsel.value, self._token)


HEALTH = "/healthz"
"""Answers whoever can reach the port, by any name of the machine: it says no more than whether all is well."""

_OPEN = frozenset({"/locked.css", HEALTH})
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(?::(\d{1,5}))?")


def foreign(scope: Scope, headers: Headers) -> Response | None:
    """The response that refuses a request without a loopback Host header or from another origin; None to allow it."""
    client = scope.get("client")
    if not is_local(headers) or (client and not is_this_machine(client[0])):
        return _message("this port only answers to localhost, 127.0.0.1 and [::1]", 421)
    if is_elsewhere(headers):
        return _message("requests from other origins are refused", 403)
    # To a browser other ports of this machine are the same site, so their pages' requests have the cookie, too.
    elsewhere = headers.get("sec-fetch-site") in ("cross-site", "same-site")
    a_link = scope["method"] == "GET" and scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate"
    if elsewhere and not (a_link and headers.get("sec-fetch-dest") == "document"):
        return _message("requests from other origins are refused", 403)
    return None


def is_local(headers: Headers) -> bool:
    """Return True for a loopback Host header."""
    hosts = headers.getlist("host")
    return len(hosts) == 1 and _is_loopback(hosts[0])


def is_elsewhere(headers: Headers) -> bool:
    """Return True for a request that a page of another origin has sent."""
    origin, host = headers.get("origin"), headers.get("host", "")
    return origin is not None and origin not in (f"http://{host}", f"https://{host}")


def _is_loopback(host: str) -> bool:
    name = _HOST.fullmatch(host)
    if not name:
        return False
    text = name[1].strip("[]").lower()
    return text == "localhost" or is_this_machine(text)


def _says_its_origin(headers: Headers) -> bool:
    """Return True if the origin is known: browsers send it, and no page can send the token in a header."""
    return "origin" in headers or "authorization" in headers


def password(authorization: str) -> str:
    """The token in an Authorization header, sent as Bearer or as the password of Basic; "" if there is none."""
    kind, _, text = authorization.partition(" ")
    if kind.lower() == "basic":
        try:
            return base64.b64decode(text, validate=True).decode("latin-1").partition(":")[2]
        except (binascii.Error, ValueError):
            return ""
    return text.strip() if kind.lower() == "bearer" else ""


def _cookie_name(headers: Headers) -> str:
    """A different name for each port, because all ports of a host share its cookies."""
    host = _HOST.fullmatch(headers["host"])
    return f"mirror-{(host and host[2]) or 80}"


def _locked(headers: Headers) -> Response:
    if "text/html" in headers.get("accept", ""):
        return HTMLResponse(_LOCKED, 401)
    return _message("the token is missing or wrong: open the page with `mirror open`", 401)


def _message(text: str, status: int) -> Response:
    return JSONResponse({"message": text}, status)
