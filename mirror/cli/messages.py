"""The only module that writes to stderr, and the only one that defines exit codes."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from enum import IntEnum
from typing import NoReturn

from mirror.errors import OWNER_ADVICE, MirrorError, names_segment, one_line, unreadable_segment

_RED, _YELLOW, _PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[0m"


class ExitCode(IntEnum):
    """The exit codes of the command."""

    DONE = 0
    """Everything succeeded."""

    FAILED = 1
    """The query, sync or verification failed, completely or in part."""

    USAGE = 2
    """The command line or the config is invalid."""

    SERVER = 3
    """The network or the server failed, or the server refused the API key."""

    LATE = 4
    """It took too long, or the mirror is older than allowed."""

    INTERRUPTED = 130
    """The user pressed Ctrl-C."""


class _Verbosity:
    """How much to print: -1 only warnings and errors, 0 the usual, 1 details and tracebacks."""

    level = 0


def configure(*, quiet: bool = False, verbose: bool = False) -> None:
    """Set how much is printed from now on."""
    _Verbosity.level = 1 if verbose else -1 if quiet else 0


def verbosity() -> int:
    """Return how much is printed: -1 only warnings and errors, 0 the usual, 1 details and tracebacks."""
    return _Verbosity.level


def say(text: str) -> None:
    """Print what happened; silent with -q."""
    if _Verbosity.level >= 0:
        _write(text)


def detail(text: str) -> None:
    """Print a detail, only with -v."""
    if _Verbosity.level > 0:
        _write(text)


def warn(text: str) -> None:
    """Print a one-line warning; the command continues."""
    _write(f"{_coloured('warning:', _YELLOW)} {one_line(text)}")


class _Warnings(logging.Handler):
    """Prints logged warnings and errors as `warn` does."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        warn(record.getMessage())


def show_logged_warnings() -> None:
    """Print logged warnings and errors from now on; the daemon replaces this by its log."""
    root = logging.getLogger()
    if not any(isinstance(handler, _Warnings) for handler in root.handlers):
        root.addHandler(_Warnings(logging.WARNING))


def fail(error: BaseException) -> ExitCode:
    """Print an error on one line and return its exit code. With -v the traceback comes first."""
    if _is_interrupt(error):
        _write("interrupted")
        return ExitCode.INTERRUPTED
    if _Verbosity.level > 0:
        import traceback

        _write("".join(traceback.format_exception(error)).rstrip())
    if names_segment(str(error)) and not isinstance(error, MirrorError):
        error = unreadable_segment(str(error))
    if isinstance(error, MirrorError):
        text, code = str(error), ExitCode(error.exit_code)
    else:
        hint = "" if _Verbosity.level > 0 else " (`mirror -v` shows where)"
        text, code = f"{_unexpected(error)}{hint}", ExitCode.FAILED
    _write(f"{_coloured('error:', _RED)} {one_line(text)}")
    return code


def _unexpected(error: BaseException) -> str:
    """Name an error of the program; one of the file system names the file."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        advice = f"; {OWNER_ADVICE}" if isinstance(error, PermissionError) else ""
        return f"{os.fsdecode(error.filename)}: {error.strerror}{advice}"
    return f"unexpected {type(error).__name__}: {error}" if str(error) else f"unexpected {type(error).__name__}"


def _is_interrupt(error: BaseException | None) -> bool:
    """Return True for Ctrl-C, also where a library that was being imported turned it into an error of its own.

    DuckDB 2.0 raises a plain RuntimeError if Ctrl-C arrives within a statement.
    """
    while error is not None:
        if isinstance(error, KeyboardInterrupt) or (type(error) is RuntimeError and str(error) == "Query interrupted"):
            return True
        error = error.__cause__ or error.__context__
    return False


def usage_error(text: str) -> ExitCode:
    """Print on one line what is wrong with the command line."""
    _write(f"{_coloured('error:', _RED)} {one_line(text)}")
    return ExitCode.USAGE


def leave(code: ExitCode) -> NoReturn:
    """End the command with this exit code, without a further message."""
    import typer

    raise typer.Exit(int(code))


def progress_wanted() -> bool:
    """Return whether progress may be drawn: stderr is a terminal, and -q was not given."""
    return _Verbosity.level >= 0 and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _coloured(text: str, colour: str) -> str:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stderr.isatty()
    return text if plain else f"{colour}{text}{_PLAIN}"


def _write(text: str) -> None:
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    shown = text.encode(encoding, "backslashreplace").decode(encoding)
    # OSError and ValueError: stderr is closed.
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{shown}\n")
        sys.stderr.flush()
