"""What opens the local HTTP port: a token of this home, and tickets that stand for it once and for a short time."""

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
"""How long a ticket is good for."""


def load(path: Path) -> str:
    """The token of this home, drawn and stored with mode 0600 when there is none: 40 hexadecimal digits.

    It has the form of a W&B API key, so that clients which send one can send it. Raises MirrorError.
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
        raise MirrorError(f"cannot keep the token of the page in {path}: {error}") from error
    return text


def matches(given: str, token: str) -> bool:
    """Whether these are the same, found out in the same time wherever they differ."""
    return hmac.compare_digest(given.encode(), token.encode())


def ticket(token: str) -> str:
    """Something that a command line may show to others: it opens the page once, soon."""
    head = f"{int(time.time()) + TICKET_SECONDS}.{secrets.token_hex(8)}"
    return f"{head}.{_signed(head, token)}"


class Tickets:
    """Takes each ticket once."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._used: dict[str, int] = {}

    def take(self, text: str) -> bool:
        """Whether this is a ticket that is neither used nor too old; it is used from here on."""
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
