"""The token that gives access to the local HTTP port, and tickets that replace it once, for a short time."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import time
from pathlib import Path

from mirror.errors import MirrorError

TICKET_SECONDS = 120
"""How long a ticket is valid."""


def load(path: Path) -> str:
    """The token of this home, 40 hexadecimal digits. If there is none, it is created and stored with mode 0600.

    It has the format of a W&B API key, so that clients can send it in place of one. Raises MirrorError.
    """
    try:
        if path.exists() and re.fullmatch(r"[0-9a-f]{40}", text := path.read_text().strip()):
            path.chmod(0o600)
            return text
        text = secrets.token_hex(20)
        temporary = path.with_name(f"{path.name}-{os.getpid()}")
        temporary.unlink(missing_ok=True)
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123
            file.write(f"{text}\n")
        temporary.replace(path)
    except (OSError, UnicodeDecodeError) as error:
        raise MirrorError(f"cannot read or store the token of the page in {path}: {error}") from error
    return text


def matches(given: str, token: str) -> bool:
    """Compare in constant time, so that the time does not reveal where they differ."""
    return hmac.compare_digest(given.encode(), token.encode())


def ticket(token: str) -> str:
    """Create a ticket, which opens the page once within TICKET_SECONDS; other users may see it in a command line."""
    head = f"{int(time.time()) + TICKET_SECONDS}.{secrets.token_hex(8)}"
    return f"{head}.{_signed(head, token)}"


class Tickets:
    """Accepts each ticket once."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._used: dict[str, int] = {}

    def take(self, text: str) -> bool:
        """Return True if this is a valid ticket, neither used nor expired, and mark it as used."""
        head, _, signature = text.rpartition(".")
        if not matches(signature, _signed(head, self._token)):
            return False
        until = int(head.partition(".")[0])
        now = time.time()
        self._used = {used: end for used, end in self._used.items() if end > now}
        if until < now or head in self._used:
            return False
        self._used[head] = until
        return True


def _signed(head: str, token: str) -> str:
    return hmac.new(token.encode(), head.encode(), hashlib.sha256).hexdigest()[:40]
