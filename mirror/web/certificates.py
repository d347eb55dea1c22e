"""TLS on the port: the certificate, which is read again when its file changes, and which connections want it."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from mirror.errors import MirrorError

log = logging.getLogger("mirror.web")

_HANDSHAKE = b"\x16"
"""The first byte of a TLS connection; no HTTP request begins with it."""


@dataclass
class Certificate:
    """A certificate with its key. `key` is None if `cert` has both."""

    cert: Path
    key: Path | None = None
    _context: ssl.SSLContext | None = field(default=None, init=False)
    _version: object = field(default=None, init=False)

    def load(self) -> None:
        """Read the files. Raises MirrorError if they cannot be used."""
        version = self._files()
        # At most one line about each state of the files.
        self._version = version
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self.cert, self.key, password=_no_password)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise MirrorError(
                f"cannot use the certificate {self.cert}: {reason}; check http.cert and http.key, which are PEM files"
            ) from error
        self._context = context

    def context(self) -> ssl.SSLContext:
        """The current certificate. A new one that cannot be used is logged, and the former one is used."""
        if self._files() != self._version:
            try:
                self.load()
                log.info("read the new certificate %s", self.cert)
            except MirrorError as error:
                log.warning("%s; the former certificate stays in use", error)
        assert self._context is not None
        return self._context

    def _files(self) -> tuple[object, ...]:
        found: list[object] = []
        for path in (self.cert, self.key):
            try:
                status = path.stat() if path is not None else None
            except OSError:
                status = None
            found.append(status and (status.st_ino, status.st_mtime_ns, status.st_size))
        return tuple(found)


def _no_password() -> str:
    # Without this, OpenSSL would ask on the terminal.
    raise ValueError("its key has a password, which the daemon cannot know")


async def wants_tls(accepted: socket.socket, seconds: float) -> bool:
    """Return True if the client begins with TLS. Waits for its first byte, and raises TimeoutError."""
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()

    def came() -> None:
        if not readable.done():
            readable.set_result(None)

    loop.add_reader(accepted, came)
    try:
        async with asyncio.timeout(seconds):
            await readable
    finally:
        loop.remove_reader(accepted)
    return accepted.recv(1, socket.MSG_PEEK) == _HANDSHAKE
