"""Checks segments: their files are what was written, and hold the recorded numbers of values of each run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import duckdb

from mirror.errors import StoreError
from mirror.store import files, segment_files
from mirror.store.damage import Damage
from mirror.store.database import MEMORY_LIMIT, Database, reason
from mirror.store.names import literal, pattern
from mirror.store.records import ProjectKey


def segment_damage(db: Database, folder: Path, project: ProjectKey, *, others: bool = True) -> dict[str, Damage]:
    """The segments that are missing or differ from what was written, by path. Reads the project's segments completely.

    With `others`, size and footer of other projects' segments are checked too, because the history view fails for
    every project when one is missing. Their `lost` is empty: their values are lost to their own projects.
    """
    listed = db.run(
        "SELECT segment_id, path, entity, project, value_count, bytes FROM store.segments "
        "WHERE retired_at IS NULL AND (? OR (entity = ? AND project = ?)) ORDER BY segment_id",
        [others, project.entity, project.project],
    )
    digests = segment_files.digests(db.run)
    broken: dict[str, Damage] = {}
    for number, path, entity, name, values, size in listed:
        of_project = ProjectKey(entity, name) == project
        problem = files.problem(folder / path, size, digests.get(path) if of_project else None)
        if problem is None and of_project:
            noted = db.run("SELECT run_id, value_count FROM store.segment_runs WHERE segment_id = ?", [number])
            problem = content_problem(folder / path, values, dict(noted))
        elif problem is None:
            problem = footer_problem(folder / path)
        if problem:
            expected = f"a Parquet file of {values:,} values of {entity}/{name}, {size:,} bytes"
            lost = held(db, number) if of_project else ()
            broken[path] = Damage(None, "segment", problem, expected, f"history/{path} is lost or damaged", lost)
    return broken


def held(db: Database, segment: int) -> tuple[str, ...]:
    """The runs whose values are in a segment and are in use: shown by views, or staged for them."""
    found = db.run(
        """
        SELECT g.run_id FROM store.segment_runs AS g WHERE g.segment_id = ? AND (NOT g.replaced OR EXISTS (
            SELECT 1 FROM store.staged_segments AS t JOIN store.run_records AS r ON r.rid = t.rid
            WHERE t.segment_id = g.segment_id AND r.run_id = g.run_id
        )) ORDER BY g.run_id
        """,
        [segment],
    )
    return tuple(run_id for (run_id,) in found)


def unreadable(db: Database, folder: Path) -> bool:
    """Return True if the file of any segment in use is missing or is not a Parquet file."""
    listed = db.run("SELECT path, bytes FROM store.segments WHERE retired_at IS NULL")
    return any(files.problem(folder / path, size) or footer_problem(folder / path) for path, size in listed)


def footer_problem(path: Path) -> str | None:
    """Why a segment cannot be opened as a Parquet file, judged by its footer alone. None if it can."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        pq.read_metadata(path)
    except (OSError, pa.ArrowException) as error:
        return f"an unreadable file ({reason(error)})"
    return None


def content_problem(path: Path, values: int, noted: dict[str, int]) -> str | None:
    """Read every value of a segment, and compare the counts with those recorded when it was written.

    Returns what is wrong, or None.
    """
    try:
        # A separate connection: an error would end the transaction of a shared one.
        with duckdb.connect() as connection:
            connection.execute(f"SET memory_limit = {literal(MEMORY_LIMIT)}").fetchall()
            found = connection.execute(
                "SELECT run_id, count(*), bit_xor(hash(key, step, value, text)) "
                f"FROM read_parquet([{pattern(path)}], hive_partitioning = false) GROUP BY run_id"
            ).fetchall()
    except duckdb.Error as error:
        return f"an unreadable file ({reason(error)})"
    total = sum(count for _, count, _ in found)
    if total != values:
        return f"a file of {total:,} values"
    return None if noted == {run_id: count for run_id, count, _ in found} else "a file with the values of other runs"


def check(db: Database, folder: Path, paths: Iterable[str]) -> None:
    """Compare segments with their digests before their values are copied, since a copy of damage gets a valid digest.

    Raises StoreError for the first damaged segment.
    """
    noted = segment_files.digests(db.run)
    for path in paths:
        if path in noted and files.digest(folder / path) != noted[path]:
            raise StoreError(f"{folder / path} is damaged and is not copied; run `mirror verify --repair`")


def check_run(db: Database, folder: Path, project: ProjectKey, run_id: str) -> None:
    """Like `check`, for all segments that have values of a run."""
    found = db.run(
        "SELECT path FROM store.segments JOIN store.segment_runs AS g USING (segment_id) "
        "WHERE entity = ? AND project = ? AND g.run_id = ? AND NOT g.replaced AND retired_at IS NULL",
        [project.entity, project.project, run_id],
    )
    check(db, folder, [path for (path,) in found])
