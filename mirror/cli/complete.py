"""Completion of projects, runs and keys in the shell. Reads the published file itself, as little of it as possible.

Every function returns nothing where it cannot answer: an error message in the middle of a command line helps nobody.
Values that a shell would have to quote are left out.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any

import typer

from mirror.metrics import STEP
from mirror.settings.home import Home

MOST = 200
"""How many values are offered."""

RECENT = 50
"""Of how many of the newest runs the history keys are offered."""

_PLAIN = re.compile(r"[\w./:@%+=,^-]+")
_FIELDS = (
    *("name", "id", "state", "tags", "group", "job_type", "sweep", "username", "created_at", "heartbeat_at"),
    *("updated_at", "duration", "host", "commit", "notes"),
)
_COLUMNS = (
    *("entity", "project", "run_id", "name", "state", "created_at", "heartbeat_at", "updated_at", "duration_s"),
    *("username", "group_name", "job_type", "sweep", "notes", "tags", "git_commit", "host", "history_rows", "url"),
)

Values = Callable[[typer.Context, str], list[str]]


def _quietly(find: Callable[[Any, str], Iterable[str]]) -> Values:
    """Keep the plain values that begin with what was typed; none if anything goes wrong."""

    @wraps(find)
    def found(ctx: typer.Context, incomplete: str) -> list[str]:
        try:
            values = [value for value in find(ctx, incomplete) if value.startswith(incomplete)]
        except Exception:  # noqa: BLE001 - there is no place for a message
            return []
        return [value for value in dict.fromkeys(values) if _PLAIN.fullmatch(value)][:MOST]

    # The type hints as objects, since Typer finds the arguments by them.
    found.__annotations__ = {"ctx": typer.Context, "incomplete": str}
    del found.__wrapped__
    return found


@_quietly
def projects(_ctx: Any, _incomplete: str) -> Iterable[str]:
    """Every mirrored project."""
    return [f"{entity}/{project}" for entity, project in _ask("SELECT entity, project FROM projects ORDER BY ALL")]


@_quietly
def runs(_ctx: Any, incomplete: str) -> Iterable[str]:
    """Names of runs, or ids where several have the name; with a slash also paths. The newest first."""
    found = []
    for entity, project, run_id, name, same in _ask(
        "SELECT entity, project, run_id, name, count(*) OVER (PARTITION BY name) FROM runs WHERE deleted_at IS NULL"
        " AND ("
        "starts_with(name, $word) OR starts_with(run_id, $word)"
        " OR starts_with(entity || '/' || project || '/' || run_id, $word)"
        " OR starts_with(entity || '/' || project || '/' || name, $word)"
        f") ORDER BY created_at DESC LIMIT {MOST}",
        {"word": incomplete},
    ):
        # Where several runs have the name, only the id finds one.
        words = [word for word in (name if same == 1 else None, run_id) if word]
        ways = [*words, *(f"{entity}/{project}/{word}" for word in words)]
        found += [way for way in ways if way.startswith(incomplete) and _PLAIN.fullmatch(way)][:1]
    return found


@_quietly
def terms(ctx: Any, _incomplete: str) -> Iterable[str]:
    """Keys of filters: fields, config and summary; the states for `state=`."""
    states = ("running", "finished", "crashed", "failed", "killed")
    return [*_FIELDS, *_documents(ctx), *(f"state={state}" for state in states)]


@_quietly
def columns(ctx: Any, incomplete: str) -> Iterable[str]:
    """A comma-separated list of columns of runs and keys."""
    return _listed(incomplete, [*_COLUMNS, *_documents(ctx)])


@_quietly
def order(ctx: Any, incomplete: str) -> Iterable[str]:
    """A comma-separated list of fields and keys, each with an optional sign."""
    sign = incomplete.rpartition(",")[2][:1]
    before = sign if sign in ("+", "-") else ""
    return _listed(incomplete, [before + name for name in ("created_at", "duration", "state", *_documents(ctx))])


@_quietly
def group_list(ctx: Any, incomplete: str) -> Iterable[str]:
    """A comma-separated list of what runs can be grouped by."""
    return _listed(incomplete, ["group", "state", "job_type", "sweep", "user", *_documents(ctx)])


@_quietly
def keys(ctx: Any, incomplete: str) -> Iterable[str]:
    """A comma-separated list of history keys of the named run or project, else of the newest runs."""
    return _listed(incomplete, _history(ctx))


@_quietly
def axis(ctx: Any, _incomplete: str) -> Iterable[str]:
    """One history key."""
    return [STEP, *_history(ctx)]


def _history(ctx: Any) -> list[str]:
    here, params = _scope(ctx)
    named = _named(ctx, "run", "runs")
    if named:
        last = named[-1].rpartition("/")[2]
        here, params = f"{here} AND (run_id = $last OR name = $last)", {**params, "last": last}
    return [
        key
        for (key,) in _ask(
            "SELECT k.key FROM history_keys AS k JOIN ("
            f"SELECT entity, project, run_id FROM runs WHERE {here} ORDER BY created_at DESC LIMIT {RECENT}"
            ") USING (entity, project, run_id) GROUP BY k.key ORDER BY count(*) DESC, k.key",
            params,
        )
    ]


def _documents(ctx: Any) -> list[str]:
    """The keys of config and summary, from the columns of the wide relations, which need no look at the runs."""
    patterns = _named(ctx, "path", "project")
    here = "table_name = $project" if patterns else "contains(table_name, '/')"
    return [
        name
        for (name,) in _ask(
            f"SELECT DISTINCT column_name FROM duckdb_columns() WHERE schema_name = 'main' AND {here}"
            " AND (starts_with(column_name, 'config.') OR starts_with(column_name, 'summary.')) ORDER BY 1",
            {"project": patterns[0]} if patterns else {},
        )
        if not name.partition(".")[2].startswith("_")
    ]


def _scope(ctx: Any) -> tuple[str, dict[str, str]]:
    patterns = _named(ctx, "path", "project")
    return ("entity || '/' || project = $project", {"project": patterns[0]}) if patterns else ("TRUE", {})


def _named(ctx: Any, *names: str) -> list[str]:
    """What was typed so far for the first of these parameters that was given.

    Not `ctx.params`: the parser gives up at the option whose value is being typed, and has read nothing by then.
    """
    options = {flag: param for param in ctx.command.params for flag in param.opts if flag.startswith("-")}
    arguments = [param for param in ctx.command.params if not any(flag.startswith("-") for flag in param.opts)]
    given: dict[str, list[str]] = {}
    words = iter(_before())
    for word in words:
        param = options.get(word)
        if param is not None and not getattr(param, "is_flag", False):
            given.setdefault(param.name, []).append(next(words, ""))
        elif not word.startswith("-") and arguments:
            first = arguments[0] if arguments[0].nargs == -1 or arguments[0].name not in given else arguments[-1]
            given.setdefault(first.name, []).append(word)
    return next((given[name] for name in names if given.get(name, [""])[0]), [])


def _before() -> list[str]:
    """The words after the name of the command, without the one that is being typed. From what the shells pass."""
    text = os.environ.get("COMP_WORDS")
    if text is not None:
        return shlex.split(text)[2 : int(os.environ["COMP_CWORD"])]
    text = os.environ.get("_TYPER_COMPLETE_ARGS", "")
    words = shlex.split(text)
    return words[2:] if text.endswith(" ") else words[2:-1]


def _listed(incomplete: str, values: Sequence[str]) -> list[str]:
    """The values after the last comma of what was typed."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{value}" for value in values if value.startswith(last)]


def _ask(sql: str, params: Any = None) -> list[tuple[Any, ...]]:
    try:
        # The compiled module alone: the package around it takes 0.1 s, mostly for types of expressions.
        from _duckdb import connect
    except ImportError:
        from duckdb import connect

    home = Home.find(os.environ)
    if not home.published.exists():
        return []
    connection = connect(str(home.published), read_only=True)
    try:
        rows: list[tuple[Any, ...]] = connection.execute(sql, params or None).fetchall()
        return rows
    finally:
        connection.close()
