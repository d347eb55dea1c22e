"""The history of one run as a wide table: a row a step, a column a key."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from mirror.errors import QueryError, UsageError
from mirror.query.paths import Project, nearest_of
from mirror.query.result import Result

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# Text is JSON text; a text that is a JSON string is shown as what it says.
_AS_TEXT = "CASE WHEN text LIKE '\"%' AND json_valid(text) THEN text::JSON ->> '$' ELSE text END"


def table(
    connection: DuckDBPyConnection,
    project: Project,
    run_id: str,
    keys: Sequence[str] = (),
    *,
    samples: int | None = None,
    x: str | None = None,
) -> Result:
    """The steps at which any of the keys was logged, in order, with what was logged there.

    `keys` are names or globs, in the order of the columns; none means all. A key that was always a number is a
    number; one that was not is text. `samples` takes that many rows, evenly spaced, the first and the last among
    them. `x` puts another key first and leaves out the rows without it. Raises QueryError for a key that the run
    never logged.
    """
    if samples is not None and samples < 1:
        raise UsageError(f"--samples must be at least 1, not {samples}")
    logged = _logged(connection, project, run_id)
    chosen = _chosen(keys, list(logged), f"{project}/{run_id}")
    x_key = _chosen([x], list(logged), f"{project}/{run_id}")[0] if x and x not in ("step", "_step") else None
    columns = [key for key in chosen if key != x_key]
    wanted = [x_key, *columns] if x_key else columns
    run = [project.entity, project.project, run_id]
    here = "entity = ? AND project = ? AND run_id = ?"
    if not wanted:
        return Result(connection, f"SELECT step FROM history WHERE {here} AND FALSE", run)
    marks = ", ".join("?" * len(wanted))
    values = ", ".join(
        f"any_value({'value' if logged[key] else f'coalesce({_AS_TEXT}, CAST(value AS VARCHAR))'})"
        f" FILTER (WHERE key = ?) AS c{index}"
        for index, key in enumerate(wanted)
    )
    # The sampling reads steps alone, so that only the values of chosen steps are gathered.
    only = " AND key = ?" if x_key else ""
    steps = f"SELECT DISTINCT step FROM history WHERE {here} AND key IN ({marks}){only}"
    params: list[Any] = [*wanted, *run, *wanted, *run, *wanted, *([x_key] if x_key else [])]
    if samples is not None:
        steps = f"""SELECT step FROM (
            SELECT step, row_number() OVER (ORDER BY step) - 1 AS i, count(*) OVER () AS n FROM ({steps})
        ) WHERE n <= ? OR i = 0 OR i * (? - 1) // (n - 1) > (i - 1) * (? - 1) // (n - 1)"""
        params += [samples] * 3
    # Keys are labels, not names of columns: DuckDB takes `Loss` and `loss` for the same column.
    columns_sql = [f"t.c{index}" for index in range(len(wanted))]
    columns_sql.insert(1 if x_key else 0, "t.at")
    sql = f"""SELECT {", ".join(columns_sql)} FROM (
        SELECT step AS at, {values} FROM history WHERE {here} AND key IN ({marks}) AND step IN ({steps}) GROUP BY step
    ) AS t ORDER BY {"t.c0, t.at" if x_key else "t.at"}"""
    # Whoever logs a key `step` gets W&B's own name for the step beside it.
    step = "_step" if "step" in wanted else "step"
    labels = [*wanted[:1], step, *wanted[1:]] if x_key else [step, *wanted]
    return Result(connection, sql, params, labels=labels)


def _logged(connection: DuckDBPyConnection, project: Project, run_id: str) -> dict[str, bool]:
    """The keys of a run, and whether each was always a number."""
    run = [project.entity, project.project, run_id]
    here = "entity = ? AND project = ? AND run_id = ?"
    keys = connection.execute(f"SELECT key FROM history_keys WHERE {here} ORDER BY key", run).fetchall()
    texts = connection.execute(f"SELECT DISTINCT key FROM history WHERE {here} AND text IS NOT NULL", run).fetchall()
    odd = {key for (key,) in texts}
    return {key: key not in odd for (key,) in keys}


def _chosen(keys: Sequence[str], logged: Sequence[str], run: str) -> list[str]:
    """The logged keys that are named, in the order of their naming; a name comes before a glob."""
    if not keys:
        return list(logged)
    found: dict[str, None] = {}
    for key in keys:
        fitting = [key] if key in logged else [name for name in logged if fnmatchcase(name, key)]
        if not fitting:
            raise QueryError(f"{run} has no key {key}; {nearest_of(key, logged)}")
        found.update(dict.fromkeys(fitting))
    return list(found)
