"""Files of a run: what was uploaded, and the console output."""

from __future__ import annotations

import base64
import hashlib
import mimetypes
import re
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class StoredFile:
    """A file of a run as it was last uploaded."""

    name: str
    content: bytes
    updated_at: datetime

    @property
    def mimetype(self) -> str:
        """By the name, as object stores guess it."""
        return mimetypes.guess_type(self.name)[0] or "application/octet-stream"

    @property
    def md5(self) -> str:
        """Base64 of the MD5 digest."""
        return base64.b64encode(hashlib.md5(self.content, usedforsecurity=False).digest()).decode()


@dataclass(frozen=True)
class LogLine:
    """One line of console output."""

    number: int
    timestamp: str | None
    level: str
    label: str
    line: str


# The client sends `[ERROR ]<ISO time> [[label] ]text`.
_LINE = re.compile(r"(ERROR )?(\d{4}-\d\d-\d\dT[\d:.]+Z?) (?:\[([^\]]+)\] )?(.*)", re.DOTALL)


def log_line(number: int, text: str) -> LogLine:
    """A line of `output.log` as the file stream brought it; text of another form is taken whole."""
    match = _LINE.fullmatch(text)
    if not match:
        return LogLine(number, None, "", "", text)
    error, timestamp, label, line = match.groups()
    return LogLine(number, timestamp, "error" if error else "", label or "", line)


def like(pattern: str) -> re.Pattern[str]:
    """A MySQL LIKE pattern: `%` is any text, `_` one character, a backslash takes the next one as it is."""
    parts = re.findall(r"\\.|%|_|.", pattern, re.DOTALL)
    translated = {"%": ".*", "_": "."}
    return re.compile("".join(translated.get(part) or re.escape(part[-1]) for part in parts), re.DOTALL)
