"""The options that choose runs by a filter: --filter with JSON, --where with terms."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from mirror.cli import complete
from mirror.errors import UsageError

Filter = Mapping[str, Any] | str | None
"""A filter as JSON text or as values; None matches every run."""

FilterOption = Annotated[
    str | None, typer.Option("--filter", metavar="JSON", help="A Mongo-style run filter, as in wandb.Api().runs().")
]

InsteadOfRunOption = Annotated[
    str | None,
    typer.Option("--filter", metavar="JSON", help="Instead of RUN: every run of --project that matches."),
]
"""--filter of commands that otherwise take runs by name."""

FilteredProjectOption = Annotated[
    str | None,
    typer.Option(
        "--project", metavar="E/P", help="The project of --filter and --where.", autocompletion=complete.projects
    ),
]

RunsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RUN...", help="entity/project/run_id, or a run's id or name alone.", autocompletion=complete.runs
    ),
]

WhereOption = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="TERM",
        help="KEY OP VALUE, as in state=finished or 'config.lr<0.01'. Repeatable: all must hold.",
        autocompletion=complete.terms,
    ),
]


TermArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[TERM]...",
        help="Only runs for which all of these hold: KEY OP VALUE, as in state=finished or 'config.lr<0.01'.",
        autocompletion=complete.terms,
    ),
]


def given_filter(filter_: str | None, terms: Sequence[str] | None) -> Filter:
    """Return the filter of --filter and of the terms together; None if neither is given. Raises UsageError."""
    if filter_ is None and not terms:
        return None
    from mirror.filters.terms import combined, has_term

    if filter_ is not None and not filter_.lstrip().startswith(("{", "[")) and has_term(filter_):
        raise UsageError(f"--filter takes JSON; give each term to --where, as in --where {shlex.quote(filter_)}")
    return combined(filter_, terms or ())
