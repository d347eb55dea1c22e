"""How the findings of a comparison are printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from mirror.cli.messages import say
from mirror.errors import one_line

if TYPE_CHECKING:
    from mirror.verify.findings import Finding, Verdict

MOST_LINES = 20
"""How many lines of one run are shown; --json has all of them."""


def differences(verdict: Verdict) -> list[Finding]:
    """Return the findings that make the command exit with 1."""
    from mirror.verify.findings import Level

    return verdict.of(Level.DIFFERS)


def show_findings(verdict: Verdict) -> None:
    """Print one line per finding on stdout, at most MOST_LINES per run."""
    shown: dict[str | None, int] = {}
    for finding in verdict.findings:
        count = shown[finding.run_id] = shown.get(finding.run_id, 0) + 1
        if count <= MOST_LINES:
            typer.echo(one_line(finding.line(verdict.project)))
    for run_id, count in shown.items():
        if count > MOST_LINES:
            where = f"{verdict.project}/{run_id}" if run_id else f"{verdict.project}"
            say(f"{where}: {count - MOST_LINES:,} more lines; --json has all of them")


def compared_of(verdict: Verdict) -> str:
    """Return the counts of what was compared, as text."""
    parts = [
        some(verdict.runs, "run", "runs"),
        some(verdict.rows, "history row", "history rows"),
        some(verdict.keys, "key", "keys"),
        some(verdict.values, "value", "values"),
    ]
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def cost_of(verdict: Verdict) -> str:
    """Return the number of requests and the seconds of the comparison, as text."""
    return f"{some(verdict.requests, 'request', 'requests')}, {verdict.seconds:.1f} s"


def some(count: int, one: str, more: str) -> str:
    """Return a count with its noun, singular or plural."""
    return f"{count:,} {one if count == 1 else more}"
