"""How the findings of a comparison are printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from mirror.cli.messages import say
from mirror.cli.sizes import size_text
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


def show_complete(verdict: Verdict) -> None:
    """Print for each run that it is safe to delete on W&B, or a line for each thing that is missing."""
    if not verdict.complete:
        return
    for run in verdict.complete:
        path = f"{verdict.project}/{run.run_id}"
        for missing in run.missing:
            typer.echo(one_line(f"missing: {path} {missing}"))
        if not run.missing:
            parts = [some(run.rows, "history row", "history rows"), some(run.files, "file", "files")]
            parts += [some(run.artifacts, "artifact", "artifacts")] if run.artifacts else []
            weak = f"; {some(run.by_size, 'file', 'files')} without a digest, compared by size" if run.by_size else ""
            typer.echo(one_line(f"safe to delete on W&B: {path} ({', '.join(parts)}, {size_text(run.size)}{weak})"))
    safe = sum(not run.missing for run in verdict.complete)
    say(f"{verdict.project}: {safe:,} of {some(len(verdict.complete), 'run', 'runs')} safe to delete on W&B")


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
