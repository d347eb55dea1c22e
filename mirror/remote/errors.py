"""The exceptions of requests to a server. Each failure is sorted once, where the answer arrives.

CommError
├── AuthError         the key is missing or not accepted (401)
├── Refused           this request is not accepted (4xx, GraphQL errors)
│   ├── Denied          the key may not do this (403)
│   ├── NotFound        it does not exist, or the key may not see it (404)
│   │   └── NoProject     the whole project
│   ├── AddressRefused  the address of a file is not accepted, as one that has expired
│   └── FeatureMissing  the query is refused: an older server
├── Unreachable       no request would be answered now
│   ├── NoConnection    DNS, TCP, TLS, a proxy
│   ├── RateLimited     429
│   └── Malformed       the response is not from the W&B API: HTML, a redirect
└── Unanswered        this request got no complete answer; a smaller one may
    ├── SlowAnswer      not in time, or too slow to ever end (408, 504)
    └── TooMuch         too large, broken off, or too much for the server (5xx)
"""

from __future__ import annotations

import os
import re
import socket
import ssl
from collections.abc import Iterable, Iterator
from html import unescape
from urllib.parse import urlsplit
from urllib.request import getproxies

import httpx

from mirror.errors import AuthError, CommError, one_line
from mirror.patterns import nearest_project

__all__ = [
    "AddressRefused",
    "AuthError",
    "CommError",
    "Denied",
    "FeatureMissing",
    "Malformed",
    "NoConnection",
    "NotFound",
    "RateLimited",
    "Refused",
    "SlowAnswer",
    "TooMuch",
    "Unanswered",
    "Unreachable",
]


class Refused(CommError):
    """The server does not accept this request.

    `names` has the names of fields, arguments and types in its GraphQL errors, in lower case; `fields` the pairs of
    type and field that it names as refused.
    """

    names: frozenset[str] = frozenset()
    fields: frozenset[tuple[str, str]] = frozenset()

    def lacks(self, name: str) -> bool:
        """Return True if the server's errors name this field, argument or type."""
        return name.lower() in self.names


class Denied(Refused):
    """This key may not do what was requested (403)."""


class NotFound(Refused):
    """The server does not have it, or the key may not see it; the server does not report which."""

    exit_code = 1


class NoProject(NotFound):
    """The server does not have a project, or the key may not see it."""

    def __init__(self, project: str, base_url: str, known: Iterable[str] = ()) -> None:
        """Name the project of `known` that was probably meant."""
        self.project = project
        self.base_url = base_url
        near = nearest_project(project, known)
        hint = f"did you mean {near}?" if near else "check the spelling"
        super().__init__(f"{project} is not on {base_url}, or the key may not read it; {hint}")

    def among(self, known: Iterable[str]) -> NoProject:
        """Return the same error, which names the nearest of these projects."""
        return NoProject(self.project, self.base_url, known)


class AddressRefused(Refused):
    """The storage does not accept the address of a file; one that has expired can be asked for again."""


class FeatureMissing(Refused):
    """The server refuses the query itself: it is older than the requested field, or expects other arguments."""


class Unreachable(CommError):
    """The server cannot be reached, or accepts no requests for now; a different request would not help."""


class NoConnection(Unreachable):
    """No connection could be made, because of the network, the host name, the certificate or a proxy."""


class RateLimited(Unreachable):
    """The server wants fewer requests (429)."""


class Malformed(Unreachable):
    """The response is not from the W&B API, such as the login page of a network."""


class Unanswered(CommError):
    """A request got no complete answer; a smaller one may."""


class SlowAnswer(Unanswered):
    """The answer did not arrive in time."""


class TooMuch(Unanswered):
    """The answer was too large or broken off, or the server failed to produce it."""


def of_transport(where: str, what: str, error: httpx.HTTPError) -> CommError:
    """Return the exception for a failure below HTTP. `where` is the server, `what` the operation or file."""
    if isinstance(error, httpx.ConnectTimeout):
        reason = f"no connection{_by_proxy(where)} in time"
        return NoConnection(f"cannot reach {where} ({reason}); check the network and WANDB_BASE_URL", error)
    if isinstance(error, httpx.TimeoutException):
        return SlowAnswer(f"{where} did not answer {what} in time", error)
    if isinstance(error, httpx.ProxyError):
        return NoConnection(f"cannot reach {where}{_by_proxy(where)}: the proxy refuses ({_reason(error)})", error)
    if isinstance(error, httpx.ConnectError):
        return _no_connection(where, error)
    if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        return Unreachable(f"cannot send to {where} ({_reason(error)}); check WANDB_BASE_URL and the key", error)
    if isinstance(error, httpx.TooManyRedirects):
        return CommError(f"{where} redirects in a loop", error)
    return TooMuch(f"{where} broke off its answer to {what} ({_reason(error)})", error)


def _no_connection(where: str, error: httpx.ConnectError) -> NoConnection:
    causes = list(_causes(error))
    host = urlsplit(where).hostname or where
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        hint = "if your network uses its own certificate authority, set SSL_CERT_FILE to its certificate"
        return NoConnection(f"the certificate of {where} is not valid ({_reason(error)}); {hint}", error)
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return NoConnection(f"no TLS connection to {where} ({_reason(error)}); check the address and proxies", error)
    if any(isinstance(cause, socket.gaierror) for cause in causes) and not _by_proxy(where):
        return NoConnection(f"cannot find the host {host}; check the network and WANDB_BASE_URL", error)
    hint = "check the network and WANDB_BASE_URL"
    return NoConnection(f"cannot reach {where}{_by_proxy(where)} ({_reason(error)}); {hint}", error)


def passes(failure: CommError) -> bool:
    """Return True if the same request may succeed later: not if a certificate or an address is wrong."""
    if isinstance(failure, NoConnection) and failure.exc is not None:
        return not any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(failure.exc))
    return isinstance(failure, NoConnection | RateLimited | Malformed | Unanswered)


def of_page(where: str, what: str, answer: httpx.Response, content: bytes) -> CommError | None:
    """Return the exception for a redirect or for HTML in place of an answer; None for any other answer."""
    failure = httpx.HTTPStatusError(f"status {answer.status_code}", request=answer.request, response=answer)
    if answer.is_redirect:
        to = httpx.URL(where).join(answer.headers["location"])
        # Without its query, which may hold a token.
        shown = one_line(str(to.copy_with(query=None, fragment=None, userinfo=b"")))
        hint = "sign in there, or check WANDB_BASE_URL and proxies"
        return Malformed(f"{where} redirects {what} ({answer.status_code}) to {shown}; {hint}", failure)
    if answer.status_code == httpx.codes.PROXY_AUTHENTICATION_REQUIRED:
        return NoConnection(f"cannot reach {where}{_by_proxy(where)}: the proxy wants a password (407)", failure)
    if (
        answer.status_code in (httpx.codes.OK, httpx.codes.NOT_FOUND)
        and (title := page_title(answer, content)) is not None
    ):
        hint = "check WANDB_BASE_URL, and whether the network wants a login"
        return Malformed(f"{where} answers {what} with HTML, not as the W&B API: {title}; {hint}", failure)
    return None


def page_title(answer: httpx.Response, content: bytes) -> str | None:
    """Return the title of an HTML page, or its first words; None for anything but HTML."""
    if content.lstrip()[:1] != b"<" and "text/html" not in answer.headers.get("content-type", ""):
        return None
    text = content[:20_000].decode("utf-8", "replace")
    found = re.search(r"<title[^>]*>(.*?)</title", text, re.DOTALL | re.IGNORECASE)
    named = found[1] if found else ""
    shown = named if named.strip() else re.sub(r"<(script|style)\b.*?</\1|<[^>]*>", " ", text, flags=re.DOTALL)
    words = one_line(unescape(shown)).split()
    return repr(" ".join(words[:12])[:120]) if words else "an empty page"


def _reason(error: BaseException) -> str:
    """Return the system's error text if there is one: httpx only reports that all attempts failed."""
    numbers = [cause.errno for cause in _causes(error) if isinstance(cause, OSError) and cause.errno]
    if numbers and numbers[-1] > 0 and not isinstance(error.__cause__, ssl.SSLError):
        return os.strerror(numbers[-1])
    return one_line(str(error)) or type(error).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and its causes, innermost last."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _by_proxy(where: str) -> str:
    """Return which setting selects a proxy, if one does; never its address, which may hold a password."""
    parts = urlsplit(where)
    proxies = getproxies()
    name = parts.scheme if parts.scheme in proxies else "all" if "all" in proxies else None
    skipped = [entry.strip().lstrip(".") for entry in proxies.get("no", "").split(",") if entry.strip()]
    host = parts.hostname or ""
    if name is None or any(entry in ("*", host) or host.endswith(f".{entry}") for entry in skipped):
        return ""
    return f" through {name.upper()}_PROXY"
