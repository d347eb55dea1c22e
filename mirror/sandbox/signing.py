"""Signed addresses like those of an object store: they need no key, and expire."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from urllib.parse import quote


class Signer:
    """Creates and checks signatures of paths, each valid until its expiry time."""

    def __init__(self, lifetime: float) -> None:
        """`lifetime` in seconds."""
        self.lifetime = lifetime
        self._secret = secrets.token_bytes(32)

    def sign(self, verb: str, path: str) -> str:
        """Return the path with its expiry time and signature."""
        expires = f"{time.time() + self.lifetime:.3f}"
        return f"{quote(path)}?X-Expires={expires}&X-Signature={self._signature(verb, path, expires)}"

    def check(self, verb: str, path: str, expires: str, signature: str) -> str | None:
        """Return why the address is not valid, or None."""
        if not hmac.compare_digest(self._signature(verb, path, expires), signature):
            return "SignatureDoesNotMatch"
        return "Request has expired" if time.time() > float(expires) else None

    def _signature(self, verb: str, path: str, expires: str) -> str:
        return hmac.new(self._secret, f"{verb}\n{path}\n{expires}".encode(), hashlib.sha256).hexdigest()
