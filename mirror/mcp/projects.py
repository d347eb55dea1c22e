"""The tools `list_projects` and `describe_project`."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from mirror.errors import QueryError
from mirror.mcp import freshness
from mirror.mcp.answers import number, page, plural, table
from mirror.mcp.ask import Ask
from mirror.query import key_table, status
from mirror.snapshot.paths import Project, find_projects

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FEW = 6
"""Up to this many different values of a key are listed."""

_HERE = "entity = ? AND project = ?"
_KEPT = "run_id IN (SELECT run_id FROM runs WHERE entity = ? AND project = ? AND deleted_at IS NULL)"


def list_projects(ask: Ask) -> str:
    """The mirrored projects, each with its size and how it is."""
    pattern = ask["match"]
    names = {str(key) for key in find_projects(ask.connection, [pattern], ask.entity)} if pattern else None
    found = [one for one in status.projects(ask.connection) if names is None or one["project"] in names]
    if not found:
        raise QueryError("nothing is mirrored yet: run `mirror sync entity/project`")
    rows = [
        (
            *(one["project"], one["runs"], one["running"], one["history_rows"]),
            "never" if one["last_success_at"] is None else freshness.age(one["lag_s"]),
            freshness.problem(one) or None,
        )
        for one in found[ask["offset"] :]
    ]
    made = table(["project", "runs", "running", "history_rows", "last_success", "problem"], rows, ask["max_chars"])
    text = page(made, len(found), ask["offset"], "projects", 'match="entity/*"')
    shown = found[ask["offset"] : ask["offset"] + made.shown]
    return ask.answer(text, {Project(*one["project"].split("/", 1)) for one in shown})


def describe_project(ask: Ask) -> str:
    """The runs of a project by state, and its keys with types, ranges and counts."""
    project = ask.project()
    rows, total = _keys(ask.connection, project, ask["keys"])
    overview = [] if ask["keys"] or ask["offset"] else _overview(ask.connection, project)
    left = max(ask["max_chars"] - sum(map(len, overview)), 500)
    made = table(["key", "type", "runs", "values"], rows[ask["offset"] :], left)
    text = page(made, total, ask["offset"], "keys", 'keys=["config.*"]')
    return ask.answer("\n".join([*overview, text]), {project})


def _overview(connection: DuckDBPyConnection, project: Project) -> list[str]:
    states, created, changed, history = connection.execute(
        f"""SELECT (SELECT string_agg(state || ' ' || n, ', ' ORDER BY n DESC, state) FROM (
            SELECT state, count(*) AS n FROM runs WHERE {_HERE} AND deleted_at IS NULL GROUP BY state)),
            min(created_at), max(created_at), sum(history_rows)::BIGINT
        FROM runs WHERE {_HERE} AND deleted_at IS NULL""",
        [*project, *project],
    ).fetchall()[0]
    if created is None:
        return [f"{project}: no runs"]
    span = f"created {created:%Y-%m-%d} to {changed:%Y-%m-%d}"
    lines = [f"{project}: runs by state: {states}; {span}; {plural(history or 0, 'history row')}"]
    for name, column in (("group", "group_name"), ("job_type", "job_type"), ("user", "username"), ("sweep", "sweep")):
        if counted := _counted(connection, f"SELECT {column} AS value FROM runs WHERE {_HERE}", project):
            lines.append(f"{name}: {counted}")
    if counted := _counted(connection, f"SELECT tag AS value FROM run_tags WHERE {_HERE}", project):
        lines.append(f"tags: {counted}")
    return [*lines, *_goals(connection, project)]


def _counted(connection: DuckDBPyConnection, sql: str, project: Project) -> str:
    """The most common values of a column with their numbers of runs."""
    rows = connection.execute(
        f"SELECT value, count(*) AS n FROM ({sql} AND {_KEPT}) WHERE value IS NOT NULL"
        " GROUP BY value ORDER BY n DESC, value",
        [*project, *project],
    ).fetchall()
    shown = ", ".join(f"{value} {count}" for value, count in rows[:FEW])
    return f"{shown} and {len(rows) - FEW} more" if len(rows) > FEW else shown


def _goals(connection: DuckDBPyConnection, project: Project) -> list[str]:
    """What define_metric and sweeps say about keys: the x axis, the statistic in the summary, the goal."""
    lines = []
    rows = connection.execute(
        f"""SELECT key, x_key, summary, goal, count(*) AS n FROM metric_definitions
        WHERE {_HERE} AND {_KEPT} AND (x_key IS NOT NULL OR summary IS NOT NULL OR goal IS NOT NULL)
        GROUP BY ALL ORDER BY n DESC, key LIMIT 10""",
        [*project, *project],
    ).fetchall()
    for key, x_key, summary, goal, runs in rows:
        facts = [f"x axis {x_key}" if x_key else "", f"summary {summary}" if summary else "", goal or ""]
        lines.append(f"define_metric {key}: {', '.join(filter(None, facts))} ({plural(runs, 'run')})")
    goals = connection.execute(
        f"SELECT DISTINCT goal || ' ' || metric FROM sweeps WHERE {_HERE} AND metric IS NOT NULL AND goal IS NOT NULL"
        " AND deleted_at IS NULL ORDER BY 1 LIMIT 5",
        list(project),
    ).fetchall()
    return [*lines, *(f"sweep goal: {goal}" for (goal,) in goals)]


def _keys(connection: DuckDBPyConnection, project: Project, globs: list[str]) -> tuple[list[tuple[Any, ...]], int]:
    """A row for each key: those of config, then summary, then history. Parts of media and tables are one row."""
    found = key_table.table(connection, [project], (), globs).rows
    if not globs:
        media = [str(row[0]).removesuffix("_type") for row in found if str(row[0]).endswith("._type")]
        parts = tuple(media)
        found = [row for row in found if not str(row[0]).startswith(parts) or str(row[0]).endswith("._type")]
        found = [row for row in found if not fnmatchcase(str(row[0]), "summary._*")]
    values = {}
    for doc in ("config", "summary"):
        few = [str(row[0]).partition(".")[2] for row in found if str(row[0]).startswith(f"{doc}.") and _is_few(row)]
        values.update(_values(connection, project, doc, few))
    rows = []
    for key, kind, runs, low, high, distinct, _ in found:
        name = str(key)
        if name.endswith("._type") and not globs:
            rows.append((name.removesuffix("._type"), "media", runs, values.get(name)))
        else:
            rows.append((name, kind, runs, _range(low, high, distinct, values.get(name))))
    return rows, len(rows)


def _is_few(row: Any) -> bool:
    return row[5] is not None and 0 < row[5] <= FEW


def _values(connection: DuckDBPyConnection, project: Project, doc: str, keys: list[str]) -> dict[str, str]:
    """All values of these keys, the most common first."""
    rows = connection.execute(
        f"""SELECT '{doc}.' || key, string_agg(CASE
            WHEN number <> floor(number) AND isfinite(number) THEN format('{{:.6g}}', number)
            WHEN length(value) > 40 THEN value[:40] || '…' ELSE value END
            || CASE WHEN values > 1 THEN ' (' || n || ')' ELSE '' END, ', ' ORDER BY n DESC, value)
        FROM (
            SELECT key, value, any_value(number) AS number, count(*) AS n, count(*) OVER (PARTITION BY key) AS values
            FROM {doc}_values
            WHERE {_HERE} AND {_KEPT} AND key IN (SELECT unnest(?::VARCHAR[])) AND value IS NOT NULL
            GROUP BY key, value
        ) GROUP BY key""",
        [*project, *project, keys],
    ).fetchall()
    return dict(rows)


def _range(low: Any, high: Any, distinct: Any, values: str | None) -> str:
    if values is not None:
        return values
    span = "" if low is None else number(low) if low == high else f"{number(low)} to {number(high)}"
    count = f"{distinct:,} different" if distinct else ""
    return "; ".join(part for part in (span, count) if part)
