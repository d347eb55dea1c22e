"""Rescues what can still be read of a damaged segment, for runs that only the mirror has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from mirror.store.database import MEMORY_LIMIT, Database
from mirror.store.names import literal, pattern

if TYPE_CHECKING:
    import pyarrow as pa

_KEPT = """
    INSERT INTO store.history_tail
    SELECT DISTINCT ON (k.rid, s.step, s.key) k.rid, s.step, s.key, s.value, s.text
    FROM salvaged AS s JOIN store.run_keys AS k ON k.key = s.key
    WHERE k.rid = ? AND s.step BETWEEN k.first_step AND k.last_step
    AND (s.value IS NULL OR NOT isfinite(s.value) OR s.value BETWEEN k.min AND k.max)
"""


def keep(db: Database, path: Path, segment: int, runs: Mapping[str, int]) -> list[str]:
    """Move the readable values of these runs (id to rid) to the tail. Returns one line per run.

    Values that contradict the counts of their key in `history_keys` are left out.
    """
    done = []
    shown = dict(
        db.run("SELECT run_id, value_count FROM store.segment_runs WHERE segment_id = ? AND NOT replaced", [segment])
    )
    for run_id, rid in runs.items():
        if run_id not in shown:
            continue
        found = _readable(path, run_id)
        if found is not None:
            with db.table("salvaged", found):
                count = db.value(_KEPT, [rid])
        else:
            count = 0
        done.append(f"kept {count:,} of {shown[run_id]:,} values of {run_id} in it, which only the mirror has")
    return done


def _readable(path: Path, run_id: str) -> pa.Table | None:
    """The values of a run; if the file cannot be read completely, those of its readable row groups."""
    if not path.exists():
        return None
    try:
        with duckdb.connect() as connection:
            connection.execute(f"SET memory_limit = {literal(MEMORY_LIMIT)}").fetchall()
            table: pa.Table = connection.sql(
                "SELECT step, key, value, text "
                f"FROM read_parquet([{pattern(path)}], hive_partitioning = false) WHERE run_id = ?",
                params=[run_id],
            ).to_arrow_table()
            return table
    except duckdb.Error:
        return _groups(path, run_id)


def _groups(path: Path, run_id: str) -> pa.Table | None:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    found: list[pa.Table] = []
    try:
        with pq.ParquetFile(path) as file:
            for number in range(file.num_row_groups):
                try:
                    group = file.read_row_group(number, use_threads=False)
                    found.append(group.filter(pc.field("run_id") == run_id).select(["step", "key", "value", "text"]))
                except (OSError, pa.ArrowException):
                    # This row group is unreadable; the next one may be readable.
                    continue
    except (OSError, pa.ArrowException):
        return None
    return pa.concat_tables(found) if found else None
