"""What a check found."""

from __future__ import annotations

from dataclasses import asdict, dataclass

OK, WARN, FAIL = "ok", "warn", "fail"


@dataclass(frozen=True)
class Finding:
    """One line: which check, how it went (`ok`, `warn` or `fail`), what was found, and what to do about it."""

    check: str
    level: str
    message: str
    advice: str = ""

    def as_json(self) -> dict[str, str]:
        """The documented JSON form."""
        return asdict(self)


def ok(check: str, message: str) -> Finding:
    """Nothing to do."""
    return Finding(check, OK, message)


def warn(check: str, message: str, advice: str) -> Finding:
    """It works, but not as well as it could."""
    return Finding(check, WARN, message, advice)


def fail(check: str, message: str, advice: str) -> Finding:
    """It does not work, or is not safe, until something is done."""
    return Finding(check, FAIL, message, advice)
