"""Signed file addresses, which work for a while without the key, as those of an object store do."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping

LIFETIME = 3600
"""Seconds that an address is valid, at most until the daemon ends, since each process has its own secret."""

_EXPIRES, SIGNATURE = "X-Mirror-Expires", "X-Mirror-Signature"


class Signer:
    """Makes and checks signatures of paths."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def sign(self, path: str) -> str:
        """Return the percent-encoded path with its expiry time and signature."""
        expires = str(int(time.time()) + LIFETIME)
        return f"{path}?{_EXPIRES}={expires}&{SIGNATURE}={self._signature(path, expires)}"

    def holds(self, path: str, query: Mapping[str, str]) -> bool:
        """Return True if the path was signed here and has not expired."""
        expires, signature = query.get(_EXPIRES, ""), query.get(SIGNATURE, "")
        matches = hmac.compare_digest(self._signature(path, expires).encode(), signature.encode())
        return matches and time.time() <= int(expires)

    def _signature(self, path: str, expires: str) -> str:
        return hmac.new(self._secret, f"GET\n{path}\n{expires}".encode(), hashlib.sha256).hexdigest()
