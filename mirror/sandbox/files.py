"""Files of a run: uploaded files, and the console output."""

from __future__ import annotations

import base64
import hashlib
import mimetypes
import re
from datetime import datetime
from functools import cached_property

from msgspec import Struct


class StoredFile(Struct, frozen=True, dict=True):
    """The last upload of a file of a run."""

    name: str
    content: bytes
    updated_at: datetime

    @property
    def mimetype(self) -> str:
        """The MIME type that object stores guess from the name."""
        return mimetypes.guess_type(self.name)[0] or "application/octet-stream"

    @cached_property
    def md5(self) -> str:
        """The MD5 digest in Base64."""
        return base64.b64encode(hashlib.md5(self.content, usedforsecurity=False).digest()).decode()


class LogLine(Struct, frozen=True):
    """One line of console output."""

    number: int
    timestamp: str | None
    level: str
    label: str
    line: str


# The client sends `[ERROR ]<ISO time> [[label] ]text`.
_LINE = re.compile(r"(ERROR )?(\d{4}-\d\d-\d\dT[\d:.]+Z?) (?:\[([^\]]+)\] )?(.*)", re.DOTALL)


def log_line(number: int, text: str) -> LogLine:
    """Parse a line of `output.log` from the file stream; text in another form is kept as it is."""
    match = _LINE.fullmatch(text)
    if not match:
        return LogLine(number, None, "", "", text)
    error, timestamp, label, line = match.groups()
    return LogLine(number, timestamp, "error" if error else "", label or "", line)


def like(pattern: str) -> re.Pattern[str]:
    """Translate a MySQL LIKE pattern: `%` is any text, `_` one character, a backslash escapes the next one."""
    parts = re.findall(r"\\.|%|_|.", pattern, re.DOTALL)
    translated = {"%": ".*", "_": "."}
    return re.compile("".join(translated.get(part) or re.escape(part[-1]) for part in parts), re.DOTALL)
