"""All that can go wrong. Each message is one line: what happened, to what, and what to do next."""

from __future__ import annotations


class MirrorError(Exception):
    """A failure that a person can act on; the message is shown as it is."""

    exit_code = 1


class UsageError(MirrorError):
    """The command was given something it cannot take."""

    exit_code = 2


class ConfigError(UsageError):
    """The config file, or a setting from the environment, is not valid."""


class FilterError(UsageError, ValueError):
    """A run filter or order does not mean anything; nothing was run."""


class QueryError(MirrorError):
    """A query over the mirror failed or was refused."""


class StoreError(MirrorError):
    """A file of the mirror cannot be opened, read or written."""


class StoreBusy(StoreError):
    """Another process holds the state file."""

    exit_code = 2


class StoreDamaged(StoreError):
    """A file of the mirror is damaged; `reason` is what DuckDB says of it."""

    def __init__(self, message: str, reason: str = "") -> None:
        """Keep the one-line message and the reason within it."""
        super().__init__(message)
        self.reason = reason


class SyncError(MirrorError):
    """A pass, or a part of it, did not succeed; what was committed stays."""


class CommError(MirrorError):
    """Talking to the W&B server failed. `exc` is the original exception, as in the official client."""

    exit_code = 3

    def __init__(self, message: str, exc: BaseException | None = None) -> None:
        """Keep the one-line message and the exception it came from."""
        super().__init__(message)
        self.message = message
        self.exc = exc


class AuthError(CommError):
    """No API key was found, or the server does not accept it."""


class TimedOut(MirrorError):
    """Something took longer than it was given, or is staler than allowed."""

    exit_code = 4


class ArgumentError(UsageError, CommError, ValueError):
    """A function of the Python API was given something it cannot take.

    A CommError, since that is what the official client raises for it.
    """


class KeysError(ArgumentError, CommError):
    """The keys of a scan are no list of texts. A CommError, too, since that is what the official client raises."""

    def __init__(self, message: str, exc: BaseException | None = None) -> None:
        """Keep the one-line message and the exception it came from."""
        CommError.__init__(self, message, exc)


class NotMirrored(CommError, ValueError):
    """The mirror does not hold the project or run that was asked for.

    A CommError, since that is what the official client raises for one that the server does not have.
    """

    exit_code = 1


class MissingPackage(MirrorError, ImportError):
    """An optional package is not installed."""


SEGMENT_ADVICE = "run `mirror verify --repair`, which pulls what was in it again"


def nothing_mirrored(path: object) -> StoreError:
    """The error of a reader where nothing was published yet."""
    return StoreError(f"nothing mirrored yet ({path} does not exist): run `mirror sync`")


PUBLISH_AGAIN = "`mirror sync` publishes it again"
NEXT_PUBLISHES = "the next pass publishes it again"


def unreadable(path: object, error: BaseException, advice: str = PUBLISH_AGAIN) -> StoreError:
    """The error of a reader where DuckDB cannot read the published file, or a segment of history that it lists."""
    reason = str(error).splitlines()[0]
    if names_segment(reason):
        return StoreError(f"a segment of history is missing or damaged ({reason}); {SEGMENT_ADVICE}")
    return StoreError(f"cannot read {path} ({reason}); {advice}")


def names_segment(reason: str) -> bool:
    """Whether an error of DuckDB is about a segment of history."""
    return "/history/entity=" in reason and ".parquet" in reason


def named(subject: object, text: str) -> str:
    """The message with what it is about before it, unless it names that already."""
    return text if str(subject) in text else f"{subject}: {text}"


def one_line(text: str) -> str:
    """The text without line breaks and control characters, so that no message can pass for two."""
    flat = " ".join(text.split())
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in flat)
