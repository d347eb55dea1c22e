"""What the published file says is mirrored, for those who must not open the store: a daemon may hold it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mirror.errors import StoreError
from mirror.store import projects, runs
from mirror.store.records import KnownRun, ProjectCursor, ProjectKey

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_SIZES = """
    SELECT avg(length(config) + length(summary)),
           (SELECT sum(k.rows) FROM store.history_keys AS k JOIN store.runs AS r ON r.rid = k.rid
            WHERE r.entity = $entity AND r.project = $project)
           / nullif((SELECT sum(h.rows) FROM store.run_history AS h JOIN store.runs AS r ON r.rid = h.rid
            WHERE r.entity = $entity AND r.project = $project), 0)
    FROM store.runs WHERE entity = $entity AND project = $project
"""

_KEY_ROWS = """
    SELECT r.run_id, k.key, k.rows FROM store.history_keys AS k JOIN store.runs AS r ON r.rid = k.rid
    WHERE r.entity = ? AND r.project = ? AND r.run_id IN (SELECT unnest(?::VARCHAR[]))
"""


@dataclass(frozen=True)
class Mirrored:
    """A project as it was published last. `document_bytes` and `row_values` are means of its runs and history lines."""

    known: Mapping[str, KnownRun] = field(default_factory=dict)
    cursor: ProjectCursor = field(default_factory=ProjectCursor)
    document_bytes: float | None = None
    row_values: float | None = None


def mirrored(path: Path, project: ProjectKey) -> Mirrored:
    """What is mirrored of a project; nothing where nothing was published yet. Raises StoreError."""
    if not path.exists():
        return Mirrored()
    here = [project.entity, project.project]
    with _opened(path) as connection:
        known = connection.execute(runs.KNOWN, here).fetchall()
        cursor = connection.execute(projects.CURSOR, here).fetchall()
        sizes = connection.execute(_SIZES, {"entity": project.entity, "project": project.project}).fetchall()[0]
    return Mirrored(
        {row[1]: KnownRun(*row) for row in known},
        ProjectCursor(*cursor[0]) if cursor else ProjectCursor(),
        *(None if size is None else float(size) for size in sizes),
    )


def key_rows(path: Path, project: ProjectKey, run_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """How many values are mirrored of each history key, by run."""
    found: dict[str, dict[str, int]] = {}
    with _opened(path) as connection:
        rows = connection.execute(_KEY_ROWS, [project.entity, project.project, list(run_ids)]).fetchall()
    for run_id, key, count in rows:
        found.setdefault(run_id, {})[key] = count
    return found


@contextmanager
def _opened(path: Path) -> Iterator[DuckDBPyConnection]:
    import duckdb

    try:
        with duckdb.connect(str(path), read_only=True) as connection:
            yield connection
    except duckdb.Error as error:
        reason = str(error).splitlines()[0]
        raise StoreError(f"{path} cannot be read ({reason}); `mirror sync` publishes it anew") from error
