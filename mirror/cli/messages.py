"""The only module that writes to stderr, and the only one that knows exit codes."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from enum import IntEnum
from typing import NoReturn

from mirror.errors import MirrorError, one_line

_RED, _YELLOW, _PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[0m"


class ExitCode(IntEnum):
    """What the command tells its caller."""

    DONE = 0
    """Everything that was asked for happened."""

    FAILED = 1
    """The query, sync or verification failed, or part of it did."""

    USAGE = 2
    """The command or the config says something that cannot be."""

    SERVER = 3
    """The network, the server or the API key refused."""

    LATE = 4
    """It took too long, or what is there is staler than was allowed."""

    INTERRUPTED = 130
    """The person pressed Ctrl-C."""


class _Verbosity:
    """How much to say: -1 only warnings and errors, 0 the usual, 1 details and tracebacks."""

    level = 0


def configure(*, quiet: bool = False, verbose: bool = False) -> None:
    """Set how much is said from here on."""
    _Verbosity.level = 1 if verbose else -1 if quiet else 0


def verbosity() -> int:
    """How much is said: -1 only warnings and errors, 0 the usual, 1 details and tracebacks."""
    return _Verbosity.level


def say(text: str) -> None:
    """Tell what happened; silent with -q."""
    if _Verbosity.level >= 0:
        _write(text)


def detail(text: str) -> None:
    """Tell what only -v asks for."""
    if _Verbosity.level > 0:
        _write(text)


def warn(text: str) -> None:
    """Tell on one line what may not be as expected, while the command goes on."""
    _write(f"{_coloured('warning:', _YELLOW)} {one_line(text)}")


class _Warnings(logging.Handler):
    """What is logged as a warning or worse, as such lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        warn(record.getMessage())


def tell_log() -> None:
    """From here on, write what is logged as a warning; the daemon replaces this by its log."""
    root = logging.getLogger()
    if not any(isinstance(handler, _Warnings) for handler in root.handlers):
        root.addHandler(_Warnings(logging.WARNING))


def fail(error: BaseException) -> ExitCode:
    """Tell on one line what went wrong, and return the exit code for it. With -v the traceback comes first."""
    if isinstance(error, KeyboardInterrupt):
        _write("interrupted")
        return ExitCode.INTERRUPTED
    if _Verbosity.level > 0:
        import traceback

        _write("".join(traceback.format_exception(error)).rstrip())
    if isinstance(error, MirrorError):
        text, code = str(error), ExitCode(error.exit_code)
    else:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        hint = "" if _Verbosity.level > 0 else " (`mirror -v` shows where)"
        text, code = f"unexpected {reason}{hint}", ExitCode.FAILED
    _write(f"{_coloured('error:', _RED)} {one_line(text)}")
    return code


def usage_error(text: str) -> ExitCode:
    """Tell on one line that the command line cannot be understood."""
    _write(f"{_coloured('error:', _RED)} {one_line(text)}")
    return ExitCode.USAGE


def leave(code: ExitCode) -> NoReturn:
    """End the command with an exit code after everything has been said."""
    import typer

    raise typer.Exit(int(code))


def progress_wanted() -> bool:
    """Whether progress may be drawn: stderr is a terminal and nobody asked for quiet."""
    return _Verbosity.level >= 0 and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _coloured(text: str, colour: str) -> str:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stderr.isatty()
    return text if plain else f"{colour}{text}{_PLAIN}"


def _write(text: str) -> None:
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    shown = text.encode(encoding, "backslashreplace").decode(encoding)
    # OSError and ValueError: nobody listens any more.
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{shown}\n")
        sys.stderr.flush()
