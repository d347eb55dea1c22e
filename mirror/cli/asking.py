"""Questions before something is done that cannot be undone at once."""

from __future__ import annotations

import sys

import typer

from mirror.cli.messages import ExitCode, leave, say
from mirror.errors import UsageError


def on_terminal() -> bool:
    """Return True if somebody can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm(question: str, *, otherwise: str) -> None:
    """Ask on the terminal, and end the command with 1 unless the answer is yes.

    Raises UsageError with `otherwise`, which says what to give instead of an answer, if nobody can be asked.
    """
    if not on_terminal():
        raise UsageError(otherwise)
    if not typer.confirm(question, err=True):
        say("nothing was changed")
        leave(ExitCode.FAILED)
