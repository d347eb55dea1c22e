"""The last line of an answer: how old the mirrored data is, and what of it is missing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from mirror.errors import one_line
from mirror.mcp.answers import plural
from mirror.query import status
from mirror.snapshot import facts
from mirror.snapshot import projects as projects_of
from mirror.snapshot.paths import Project

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Limits = Mapping[Project, tuple[str, str]]

ALL_RUNS, ALL_KEYS = "{}", '["*"]'
"""The run filter and the key globs of a config that leaves nothing out."""

_LONGEST_ERROR = 200
_MOST_TEXTS = 6


def line(connection: DuckDBPyConnection, projects: Collection[Project] | None = None) -> str:
    """How fresh and how complete these projects are, or all of them, in one line.

    Such as `[mirror: as of 2026-11-28 23:12:11 UTC, 40 s ago; complete]`. With several projects the oldest one counts.
    """
    names = None if projects is None else {str(project) for project in projects}
    found = [one for one in status.projects(connection) if names is None or one["project"] in names]
    if not found:
        return "[mirror: empty]"
    never = [one["project"] for one in found if one["last_success_at"] is None]
    passed = [one for one in found if one["last_success_at"] is not None]
    parts = []
    if passed:
        oldest = min(passed, key=lambda one: one["last_success_at"])
        of = f", the oldest of {len(passed)} projects" if len(passed) > 1 else ""
        parts.append(f"as of {oldest['last_success_at']:%Y-%m-%d %H:%M:%S} UTC, {age(oldest['lag_s'])}{of}")
    limits = projects_of.limits(connection)
    several = len(found) > 1
    limited = [text for one in found for text in _limited(one["project"], limits, named=several)]
    problems = [text for one in found for text in _problems(connection, one, limits, named=several)]
    if never:
        problems.append(f"not yet mirrored completely: {_listed(never)}")
    whole = f"{'otherwise ' if limited else ''}complete"
    return f"[mirror: {'; '.join([*parts, *_listed_texts(limited), *(_listed_texts(problems) or [whole])])}]"


def problem(project: dict[str, Any]) -> str:
    """What is wrong with a project, of `status.projects`: empty if nothing is."""
    found = []
    if project["last_error"]:
        found.append(f"last pass failed: {one_line(project['last_error'])[:_LONGEST_ERROR]}")
    if project["set_aside"]:
        found.append(f"{plural(project['set_aside'], 'run')} could not be pulled, will be retried")
    return "; ".join(found)


def age(seconds: float | None) -> str:
    """Such as `40 s ago`, `3 h ago`."""
    if seconds is None:
        return "age unknown, a clock was set back"
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _limited(name: str, limits: Limits, *, named: bool) -> list[str]:
    """What the config leaves out of a project."""
    filters, history = limits.get(_key(name), (ALL_RUNS, ALL_KEYS))
    found = [] if filters == ALL_RUNS else [f"the config mirrors only runs that match {filters}"]
    if history != ALL_KEYS:
        found.append(f"the config mirrors only history keys {history}")
    return [f"{name}: {text}" if named else text for text in found]


def _problems(connection: DuckDBPyConnection, project: dict[str, Any], limits: Limits, *, named: bool) -> list[str]:
    name = project["project"]
    found = [problem(project)]
    whole = limits.get(_key(name), (ALL_RUNS, ALL_KEYS))[1] == ALL_KEYS
    if whole and (lacking := len(facts.without_history(connection, _key(name)))):
        found.append(f"{plural(lacking, 'run')} with less history here than on the server")
    return [f"{name}: {text}" if named else text for text in found if text]


def _key(name: str) -> Project:
    return Project(*name.split("/", 1))


def _listed_texts(texts: list[str]) -> list[str]:
    return (
        texts if len(texts) <= _MOST_TEXTS else [*texts[:_MOST_TEXTS], f"and {len(texts) - _MOST_TEXTS} more remarks"]
    )


def _listed(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
