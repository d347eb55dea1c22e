"""Requests to a mirror on another machine: connections that are kept, and one clear line for each failure.

The standard library's client, since it costs a quarter of httpx's CPU time for answers of megabytes.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from typing import IO, Any

from mirror.errors import AuthError, CommError, MirrorError, QueryError, StoreError, TimedOut, one_line
from mirror.peer.address import Peer
from mirror.version import VERSION

CONNECT_SECONDS = 10.0
READ_SECONDS = 300.0
"""How long the mirror may be silent; it ends statements itself before that."""

BUSY_SECONDS = 60.0
"""How long requests are repeated that were refused because there were too many."""

_KEPT = 8
_PIECE = 1 << 20
_STATEMENTS = "/api/statements"
_CONTENT = "/api/content"
_ARROW = "application/vnd.apache.arrow.stream"
_BYTES = "application/octet-stream"


_ADVICE = {
    10: "have it renewed on the mirror's machine ([http] cert)",
    62: "use a name that it is valid for",
    64: "use a name that it is valid for",
}
"""What to do about certificates, by OpenSSL's codes: one that has expired, or is for another name or address."""


class SnapshotGone(StoreError):
    """The mirror no longer keeps the snapshot that a connection reads."""


class NotThere(CommError):
    """The mirror does not have this content."""


class Flight:
    """A request under way, which another thread may cancel."""

    def __init__(self) -> None:
        self.cancelled = False
        self._connection: http.client.HTTPConnection | None = None

    def uses(self, connection: http.client.HTTPConnection | None) -> None:
        """Remember the connection that the request uses; None once it is done."""
        self._connection = connection
        if self.cancelled:
            self.cancel()

    def cancel(self) -> None:
        """Wake the thread that waits for the mirror: its read fails."""
        self.cancelled = True
        connection = self._connection
        if connection is not None and connection.sock is not None:
            try:
                connection.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                # It was closed meanwhile.
                return


class Link:
    """Connections to one mirror. Safe for use by several threads, which share idle connections."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._tls = ssl.create_default_context() if peer.scheme == "https" else None

    def ask(self, question: Mapping[str, Any], flight: Flight) -> Reply:
        """Send a statement and return the reply, whose body is still to be read. `flight` is to cancel it.

        Raises CommError if the mirror cannot be reached or answers nonsense, AuthError if it refuses the token,
        QueryError or an error of DuckDB for a wrong statement, SnapshotGone, TimedOut.
        """
        return self._asked("POST", _STATEMENTS, json.dumps(question).encode(), _ARROW, flight)

    def content(self, digest: str, target: IO[bytes]) -> bool:
        """Write the content with this SHA-256 to a file; return False if the mirror does not have it.

        Raises CommError, also if other bytes arrive, and AuthError.
        """
        try:
            reply = self._asked("GET", f"{_CONTENT}?sha256={digest}", None, _BYTES, Flight())
        except NotThere:
            return False
        hasher = hashlib.sha256()
        try:
            while piece := self._piece(reply):
                hasher.update(piece)
                target.write(piece)
        finally:
            reply.done()
        if hasher.hexdigest() != digest:
            raise CommError(f"the file from {self.peer} has other bytes than its SHA-256 {digest}; try again")
        return True

    def _piece(self, reply: Reply) -> bytes:
        try:
            piece = reply.body.read(_PIECE)
            if not piece and reply.body.length:
                raise http.client.IncompleteRead(b"", reply.body.length)
        except (OSError, http.client.HTTPException) as error:
            raise CommError(f"the file from {self.peer} ended half-way ({_reason(error)}); try again", error) from error
        return piece

    def _asked(self, method: str, path: str, body: bytes | None, media_type: str, flight: Flight) -> Reply:
        until = time.monotonic() + BUSY_SECONDS
        while True:
            connection, response = self._sent(method, path, body, flight)
            if response.status == http.HTTPStatus.OK and response.getheader("content-type") == media_type:
                return Reply(self, connection, response, flight)
            try:
                content = response.read()
            except (OSError, http.client.HTTPException):
                content = b""
            self.give_back(connection, response)
            wait = _seconds(response.getheader("retry-after"))
            if response.status != http.HTTPStatus.TOO_MANY_REQUESTS or time.monotonic() + wait > until:
                raise _failure(self.peer, path, response, content)
            time.sleep(wait)

    def give_back(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        """Keep a connection for the next request, if its response was read to the end."""
        with self._lock:
            if response.isclosed() and connection.sock is not None and len(self._idle) < _KEPT:
                self._idle.append(connection)
                return
        connection.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _sent(
        self, method: str, path: str, body: bytes | None, flight: Flight
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        headers = {
            "Authorization": f"Bearer {self.peer.token}",
            **({"Content-Type": "application/json"} if body else {}),
            "User-Agent": f"wandb-mirror/{VERSION}",
        }
        while True:
            connection = self._kept()
            kept = connection is not None
            connection = connection or self._opened()
            flight.uses(connection)
            try:
                connection.request(method, f"{self.peer.path}{path}", body, headers)
                return connection, connection.getresponse()
            except TimeoutError as error:
                connection.close()
                raise TimedOut(
                    f"{self.peer} did not answer for {READ_SECONDS:g} s; try again, or ask for less"
                ) from error
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if flight.cancelled:
                    raise
                # The mirror closes idle connections; that may cross with the request, which only reads.
                if not kept:
                    raise CommError(
                        f"{self.peer} closed the connection without an answer ({_reason(error)})", error
                    ) from error

    def _kept(self) -> http.client.HTTPConnection | None:
        while True:
            with self._lock:
                if self._process != os.getpid():
                    # A forked process must not use the connections of its parent.
                    self._idle, self._process = [], os.getpid()
                if not self._idle:
                    return None
                connection = self._idle.pop()
            # Readable while nothing was asked: the other side has closed it.
            if connection.sock is not None and not select.select([connection.sock], [], [], 0)[0]:
                return connection
            connection.close()

    def _opened(self) -> http.client.HTTPConnection:
        peer = self.peer
        connection: http.client.HTTPConnection
        if self._tls is not None:
            connection = http.client.HTTPSConnection(peer.host, peer.port, timeout=CONNECT_SECONDS, context=self._tls)
        else:
            connection = http.client.HTTPConnection(peer.host, peer.port, timeout=CONNECT_SECONDS)
        try:
            connection.connect()
        except ssl.SSLCertVerificationError as error:
            why = error.verify_message or error.reason
            advice = _ADVICE.get(error.verify_code, "set SSL_CERT_FILE to the file of the authority that signed it")
            raise CommError(f"the certificate of {peer} is not trusted ({why}): {advice}", error) from error
        except ssl.SSLError as error:
            advice = f"does {peer.host}:{peer.port} speak plain HTTP? then write http://"
            raise CommError(f"{peer} does not speak TLS ({error.reason or error}); {advice}", error) from error
        except (OSError, http.client.HTTPException) as error:
            advice = "is the daemon running, does [http] listen name an address that this machine reaches?"
            raise CommError(f"{peer} cannot be reached ({_reason(error)}); {advice}", error) from error
        connection.sock.settimeout(READ_SECONDS)
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


class Reply:
    """A reply that is being read."""

    def __init__(
        self, link: Link, connection: http.client.HTTPConnection, response: http.client.HTTPResponse, flight: Flight
    ) -> None:
        self.body = response
        self.snapshot = response.getheader("x-mirror-snapshot") or ""
        self._link = link
        self._connection: http.client.HTTPConnection | None = connection
        self._flight = flight

    def done(self) -> None:
        """Give the connection back; if the reply was not read to the end, close it, which cancels the statement."""
        connection, self._connection = self._connection, None
        self._flight.uses(None)
        if connection is not None:
            self._link.give_back(connection, self.body)


def _failure(peer: Peer, path: str, response: http.client.HTTPResponse, content: bytes) -> Exception:
    """Return the error for a response that is not an answer."""
    status = response.status
    try:
        answer = json.loads(content)
        text = str(answer.get("error") or answer["message"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return _not_a_mirror(peer, path, response)
    if (inner := answer.get("duckdb")) is not None:
        import duckdb

        kind = getattr(duckdb, str(inner.get("class")), duckdb.Error)
        return kind(str(inner.get("message"))) if issubclass(kind, duckdb.Error) else duckdb.Error(text)
    hint = str(answer.get("hint") or "")
    # What is advised to those who write requests by hand helps nobody here.
    message = one_line(f"{text}; {hint}" if hint and "/api/" not in hint else text)
    if status == 401:
        return AuthError(f"{peer}: {message}")
    if status == 404 and path.startswith(_CONTENT):
        return NotThere(f"{peer}: {message}")
    if status == 410:
        return SnapshotGone(f"{peer}: {message}")
    if status in (400, 403, 413):
        return QueryError(message)
    if status == 504:
        return TimedOut(f"{peer}: {message}")
    kind_of: type[MirrorError] = CommError
    return kind_of(f"{peer}: {message}")


def _not_a_mirror(peer: Peer, path: str, response: http.client.HTTPResponse) -> CommError:
    status = response.status
    if 300 <= status < 400:
        target = one_line(response.getheader("location") or "another address")
        return CommError(f"{peer} redirects to {target}: use the address of the mirror itself")
    if status in (502, 503, 504):
        return CommError(f"a proxy at {peer} answers {status}: the mirror behind it is not running, or too slow")
    advice = "is this the address of a mirror, and its wandb-mirror as new as the one here?"
    return CommError(f"{peer}{path} answers {status} {response.reason}; {advice}")


def _seconds(retry_after: str | None) -> float:
    try:
        return min(max(float(retry_after or 1), 0.05), BUSY_SECONDS)
    except ValueError:
        return 1.0


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_SECONDS:g} s"
    return one_line(getattr(error, "strerror", None) or str(error) or type(error).__name__)
