"""The result of a check."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import asdict

OK, WARN, FAIL = "ok", "warn", "fail"


class Finding(Struct, frozen=True):
    """One line: the check, its result (`ok`, `warn` or `fail`), what it found, and what to do about it."""

    check: str
    level: str
    message: str
    advice: str = ""

    def as_json(self) -> dict[str, str]:
        """The documented JSON form."""
        return asdict(self)


def ok(check: str, message: str) -> Finding:
    """Return a finding that needs no action."""
    return Finding(check, OK, message)


def warn(check: str, message: str, advice: str) -> Finding:
    """Return a finding of something that works, but not as well as it could."""
    return Finding(check, WARN, message, advice)


def fail(check: str, message: str, advice: str) -> Finding:
    """Return a finding of something that does not work, or is not safe, until it is fixed."""
    return Finding(check, FAIL, message, advice)
