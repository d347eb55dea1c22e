"""Where a mirror on another machine is, and the token that opens it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from mirror.errors import ArgumentError, AuthError

TOKEN = "MIRROR_TOKEN"  # noqa: S105 - the name of a variable
"""The environment variable with the token, or TOKEN_FILE with the path of a file that contains it."""

TOKEN_FILE = "MIRROR_TOKEN_FILE"  # noqa: S105
_PORTS = {"http": 80, "https": 443}
_MAKES_ONE = "`mirror token add NAME` on the mirror's machine prints one"


@dataclass(frozen=True)
class Peer:
    """The address of a mirror's port. Its text never contains the token."""

    scheme: str
    host: str
    port: int
    path: str
    token: str = field(repr=False)

    @classmethod
    def of(
        cls, url: str, token: str | None = None, environ: Mapping[str, str] | None = None, file: Path | None = None
    ) -> Peer:
        """Parse the address; the token is `token`, else that in `file`, else that of the environment.

        Raises ArgumentError for an address that is not one, AuthError without a token.
        """
        parts = _split(url)
        found = token or _from_file(file) or _from_environ(os.environ if environ is None else environ)
        if not found:
            raise AuthError(f"no token for {parts.hostname}: set {TOKEN}; {_MAKES_ONE}")
        found = found.strip()
        if not found.isascii() or not found.isprintable() or " " in found:
            raise AuthError(f"the token for {parts.hostname} has characters that no token has; {_MAKES_ONE}")
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        return cls(parts.scheme, host, port, parts.path.rstrip("/"), found)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url.strip())
        good = parts.scheme in _PORTS and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except (ValueError, AttributeError):
        good = False
    if not good or parts.query or parts.fragment:
        raise ArgumentError(f"{url!r} is not the address of a mirror; write http://host:8642 or https://host")
    if parts.username or parts.password:
        raise ArgumentError(f"leave the token out of the address of {parts.hostname}: set {TOKEN} instead")
    return parts


def _from_environ(environ: Mapping[str, str]) -> str | None:
    return environ.get(TOKEN) or _from_file(Path(environ[TOKEN_FILE]) if environ.get(TOKEN_FILE) else None)


def _from_file(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        text = path.expanduser().read_text(encoding="utf-8").strip()
    except OSError as error:
        raise AuthError(f"the token file {path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError:
        text = ""
    if not text or "\n" in text:
        raise AuthError(f"the token file {path} must contain one token and nothing else; {_MAKES_ONE}")
    return text
