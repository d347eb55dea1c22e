"""Addresses of files that are good for a while without the key, as an object store gives them out."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping

LIFETIME = 3600
"""Seconds that an address is good for; also until the daemon ends, since the secret is of one process."""

_EXPIRES, SIGNATURE = "X-Mirror-Expires", "X-Mirror-Signature"


class Signer:
    """Makes and checks signatures of paths."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def sign(self, path: str) -> str:
        """The path, percent-encoded as it is, with its time and signature."""
        expires = str(int(time.time()) + LIFETIME)
        return f"{path}?{_EXPIRES}={expires}&{SIGNATURE}={self._signature(path, expires)}"

    def holds(self, path: str, query: Mapping[str, str]) -> bool:
        """Whether the path was signed here, not too long ago."""
        expires, signature = query.get(_EXPIRES, ""), query.get(SIGNATURE, "")
        right = hmac.compare_digest(self._signature(path, expires).encode(), signature.encode())
        return right and time.time() <= int(expires)

    def _signature(self, path: str, expires: str) -> str:
        return hmac.new(self._secret, f"GET\n{path}\n{expires}".encode(), hashlib.sha256).hexdigest()
