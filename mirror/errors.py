"""The exception hierarchy. Each message is one line: what happened, to what, and what to do next."""

from __future__ import annotations


class MirrorError(Exception):
    """A failure that a person can act on; the message is shown unchanged."""

    exit_code = 1


class UsageError(MirrorError):
    """An argument of the command is not valid."""

    exit_code = 2


class ConfigError(UsageError):
    """The config file, or a setting from the environment, is not valid."""


class FilterError(UsageError, ValueError):
    """A run filter or order is not valid; nothing was run."""


class QueryError(MirrorError):
    """A query over the mirror failed or was refused."""


class Forbidden(QueryError):
    """A statement does more than read the mirror, or reads what is outside of it."""


class Unknown(QueryError):
    """No mirrored project or run has this name."""


class StoreError(MirrorError):
    """A file of the mirror cannot be opened, read or written."""


class StoreBusy(StoreError):
    """Another process has locked the state file."""

    exit_code = 2


class StoreDamaged(StoreError):
    """A file of the mirror is damaged; `reason` is DuckDB's message."""

    def __init__(self, message: str, reason: str = "") -> None:
        """Store the one-line message and the reason in it."""
        super().__init__(message)
        self.reason = reason


class SyncError(MirrorError):
    """A pass, or a part of it, failed; what was committed stays."""


class CommError(MirrorError):
    """A request to the W&B server failed. `exc` is the original exception, as in the official client."""

    exit_code = 3

    def __init__(self, message: str, exc: BaseException | None = None) -> None:
        """Store the one-line message and its original exception."""
        super().__init__(message)
        self.message = message
        self.exc = exc


class AuthError(CommError):
    """No API key was found, or the server rejects it."""


class TimedOut(MirrorError):
    """A time limit has passed, or the mirror is older than allowed."""

    exit_code = 4


class ArgumentError(UsageError, CommError, ValueError):
    """An argument of a Python API function is not valid.

    A CommError, since that is what the official client raises.
    """


class KeysError(ArgumentError, CommError):
    """The keys of a scan are not a list of strings. A CommError, too, since that is what the official client raises."""

    def __init__(self, message: str, exc: BaseException | None = None) -> None:
        """Keep the one-line message and the exception it came from."""
        CommError.__init__(self, message, exc)


class NotMirrored(CommError, ValueError):
    """The requested project or run is not mirrored.

    It is a CommError because the official client raises that for one that the server does not have.
    """

    exit_code = 1


class MissingPackage(MirrorError, ImportError):
    """An optional package is not installed. Notebooks show its message alone, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


_OUTSIDE = "file system operations are disabled"
FORBIDDEN = "Permission denied"
OWNER_ADVICE = "check who owns it"
SEGMENT_ADVICE = "run `mirror verify --repair`, which pulls what was in it again"


def nothing_mirrored(path: object) -> StoreError:
    """Return the error for readers when nothing was published yet."""
    return StoreError(f"nothing mirrored yet ({path} does not exist): run `mirror sync`")


PUBLISH_AGAIN = "`mirror sync` publishes it again"
NEXT_PUBLISHES = "the next pass publishes it again"


def unreadable(path: object, error: BaseException, advice: str = PUBLISH_AGAIN) -> StoreError:
    """Return the error for readers when DuckDB cannot read the published file, or a segment that it lists."""
    reason = str(error).splitlines()[0]
    if names_segment(reason):
        return unreadable_segment(reason)
    return StoreError(f"cannot read {path} ({reason}); {OWNER_ADVICE if FORBIDDEN in reason else advice}")


def unreadable_segment(reason: str) -> StoreError:
    """Return the error for a segment of history that DuckDB cannot read."""
    if FORBIDDEN in reason:
        return StoreError(f"a segment of history cannot be read ({reason}); {OWNER_ADVICE}")
    if _OUTSIDE in reason:
        advice = "if the mirror was moved or copied, `mirror sync` adapts its paths"
        return StoreError(f"a segment of history is not in this home ({reason}); {advice}")
    return StoreError(f"a segment of history is missing or damaged ({reason}); {SEGMENT_ADVICE}")


def names_segment(reason: str) -> bool:
    """Return True if an error of DuckDB is about a segment of history."""
    return "/history/entity=" in reason and ".parquet" in reason


def named(subject: object, text: str) -> str:
    """Prefix the message with its subject, unless it names it already."""
    return text if str(subject) in text else f"{subject}: {text}"


def one_line(text: str) -> str:
    """Return the text without line breaks and control characters, so that one message cannot look like two."""
    flat = " ".join(text.split())
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in flat)
