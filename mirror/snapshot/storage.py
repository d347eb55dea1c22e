"""What takes space on the server and in the mirror, and what equal content saves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mirror.snapshot.paths import Project, scope
from mirror.store.names import identifier

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

GROUPS = {
    "project": "entity || '/' || project",
    "run": "run_path",
    "kind": "kind",
    "type": "type",
    "artifact": "artifact",
}
"""What `mirror storage` can group by, and the SQL of each."""

_SIZES = ("files", "server_bytes", "mirrored_bytes", "stored_bytes")

Runs = Sequence[tuple[Project, str]]


def _among(alias: str, chosen: Sequence[Project], runs: Runs) -> tuple[str, list[str]]:
    """A condition for the rows of these projects and of these runs, else for all rows; and its parameters."""
    if not (chosen and runs):
        return scope(chosen, alias, runs)
    (of_projects, names), (of_runs, more) = scope(chosen, alias), scope((), alias, runs)
    return f"({of_projects} OR {of_runs})", names + more


def by(groups: Sequence[str], chosen: Sequence[Project], runs: Runs) -> tuple[str, list[str]]:
    """A query for sizes by these groups of these projects and runs, the largest first; and its parameters."""
    condition, params = _among("s", chosen, runs)
    columns = [f"{GROUPS[group]} AS {identifier(group)}" for group in groups]
    sums = [f"sum({size})::BIGINT AS {size}" for size in _SIZES]
    order = ", ".join(str(number + 1) for number in range(len(groups)))
    sql = (
        f"SELECT {', '.join([*columns, *sums])} FROM main.storage AS s WHERE {condition} GROUP BY ALL "
        f"ORDER BY greatest(coalesce(sum(s.server_bytes), 0), sum(s.mirrored_bytes)) DESC, {order}"
    )
    return sql, params


def twice(chosen: Sequence[Project], runs: Runs) -> tuple[str, list[str]]:
    """A query for content that several files have, what saves most first; and its parameters."""
    condition, params = _among("f", chosen, runs)
    of_files = (
        "SELECT entity, project, run_id, digest, size, run_path || ': ' || name AS file FROM main.files "
        "UNION ALL SELECT entity, project, NULL, digest, size, "
        "entity || '/' || project || '/' || collection || ':' || version || ': ' || path FROM main.artifact_files"
    )
    sql = (
        "SELECT digest, any_value(size) AS bytes, count(*) AS files, any_value(size) * (count(*) - 1) AS saved_bytes, "
        f"min(file) AS first_file FROM ({of_files}) AS f WHERE digest IS NOT NULL AND {condition} "
        "GROUP BY digest HAVING count(*) > 1 ORDER BY saved_bytes DESC, first_file"
    )
    return sql, params


class Totals(NamedTuple):
    """The content of the whole mirror: how many there are, their bytes, those that nothing names, and what is saved."""

    contents: int
    bytes: int
    unnamed_bytes: int
    saved_bytes: int


def totals(connection: DuckDBPyConnection) -> Totals:
    """The content of the whole mirror."""
    row: tuple[Any, ...] = connection.execute(
        "SELECT count(*), coalesce(sum(size), 0)::BIGINT, "
        "coalesce(sum(size) FILTER (unnamed_at IS NOT NULL), 0)::BIGINT, "
        "(SELECT coalesce(sum(mirrored_bytes - stored_bytes), 0)::BIGINT FROM main.storage) FROM store.contents"
    ).fetchall()[0]
    return Totals(*row)
