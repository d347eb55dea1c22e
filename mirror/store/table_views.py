"""One relation per project and key of a W&B Table: the rows of the newest table of every run, with typed columns.

The columns of the tables follow those of the run. Files with equal columns are read together, so that opening the
relation reads one of them, however many runs there are.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence

import duckdb
from msgspec import Struct, field

from mirror.store import comments, meta
from mirror.store import projects as known_projects
from mirror.store.contents import TABLE
from mirror.store.database import Database, disk_full, must_reopen, reason
from mirror.store.names import folded, identifier, literal, pattern, unique_names
from mirror.store.records import ProjectKey
from mirror.store.table_types import common, stored

logger = logging.getLogger(__name__)

MOST_FILES = 20_000
"""The most files of one relation; of more, the runs that started last are shown."""

MOST_COLUMNS = 1000
"""The most columns of one relation; a key under which tables have more of them together has none."""

INCREMENTAL = "incremental-table-file"
"""The type of a table that is logged in pieces, each with the rows that are new."""

_PLACE = "place of tables"
"""Key in `store.meta`: the folder of content that the relations name."""

_RUN = ("entity", "project", "run_id", "step")
_PATH = "run_path"
_FILE = "_mirror_file"

_NEWEST = f"""
    WITH summarised AS (
        SELECT l.rid, substr(l.key, 1, length(l.key) - 6) AS key, l.text AS type
        FROM store.leaves AS l
        WHERE l.doc = 'summary' AND l.element IS NULL AND ends_with(l.key, '._type')
        AND l.text IN ('table-file', '{INCREMENTAL}', 'joined-table', 'partitioned-table')
    )
    SELECT s.key, s.rid, r.run_id, k.last_step, s.type, p.digest, c.names, c.types
    FROM summarised AS s
    JOIN store.run_records AS r ON r.rid = s.rid
    LEFT JOIN store.leaves AS l
        ON l.rid = s.rid AND l.doc = 'summary' AND l.element IS NULL AND l.key = s.key || '.path'
    LEFT JOIN store.leaves AS m
        ON m.rid = s.rid AND m.doc = 'summary' AND m.element IS NULL AND m.key = s.key || '.artifact_path'
    LEFT JOIN store.artifact_tables AS a ON a.address = m.text AND s.type <> '{INCREMENTAL}'
    LEFT JOIN store.content_names AS n ON n.kind = 'file' AND n.owner = s.rid AND n.name = l.text
    JOIN store.converted_tables AS c ON c.source = coalesce(
        a.source, CASE WHEN ends_with(s.type, '-table') THEN 'file/' || n.owner || '/' || n.name ELSE n.digest END
    )
    JOIN store.content_names AS p ON p.kind = '{TABLE}' AND p.name = c.source
    LEFT JOIN store.run_keys AS k ON k.rid = s.rid AND k.key = s.key
    WHERE r.entity = ? AND r.project = ?
    ORDER BY s.key, r.created_at DESC, s.rid
"""

_PIECES = f"""
    SELECT p.digest, c.names, c.types FROM store.content_names AS n
    JOIN store.converted_tables AS c ON c.source = n.digest
    JOIN store.content_names AS p ON p.kind = '{TABLE}' AND p.name = c.source
    WHERE n.kind = 'file' AND n.owner = ? AND n.name IN (SELECT unnest(?::VARCHAR[]))
"""


class _Part(Struct, frozen=True):
    """A file of the newest table of a run: its Parquet, and the names and types of its columns."""

    rid: int
    step: int | None
    digest: str
    names: tuple[str, ...]
    types: tuple[str, ...]


class _Table(Struct):
    """What the relation of a key shows."""

    key: str
    parts: list[_Part] = field(default_factory=list)


def refresh(db: Database, projects: Iterable[ProjectKey]) -> None:
    """Bring the relations of the keys of these projects up to date. Call it outside of a transaction.

    A relation that cannot be made, as when a file was lost, is left out until the next change.
    """
    if not db.value("SELECT (SELECT count(*) FROM store.converted_tables) + (SELECT count(*) FROM store.table_views)"):
        return
    for project in projects:
        number = known_projects.find(db, project)
        if number is not None:
            _refresh(db, project, number)
    place = str(db.path.with_name("blobs"))
    if meta.get(db, _PLACE) != place:
        with db.transaction():
            meta.put(db, _PLACE, place)


def outdated(db: Database) -> set[ProjectKey]:
    """The projects whose relations show a file that nothing names any more, and all of them after the mirror moved."""
    if meta.get(db, _PLACE) != str(db.path.with_name("blobs")):
        rows = db.run(
            "SELECT entity, project FROM store.project_records "
            "WHERE number IN (SELECT project_number FROM store.table_views)"
        )
        return {ProjectKey(*row) for row in rows}
    rows = db.run(
        "SELECT DISTINCT p.entity, p.project FROM store.newest_tables AS t "
        "JOIN store.project_records AS p ON p.number = t.project_number WHERE NOT EXISTS ("
        f"SELECT 1 FROM store.content_names AS n WHERE n.kind = '{TABLE}' AND n.digest = t.digest)"
    )
    return {ProjectKey(*row) for row in rows}


def forget(db: Database, number: int) -> None:
    """Drop the relations of a project."""
    for (name,) in db.run("SELECT name FROM store.table_views WHERE project_number = ?", [number]):
        db.run(f"DROP VIEW IF EXISTS main.{identifier(name)}")
    for table in ("table_views", "newest_tables"):
        db.run(f"DELETE FROM store.{table} WHERE project_number = ?", [number])


def _refresh(db: Database, project: ProjectKey, number: int) -> None:
    tables = _tables(db, project)
    made = {
        key: (name, made_of)
        for key, name, made_of in db.run(
            "SELECT key, name, made_of FROM store.table_views WHERE project_number = ?", [number]
        )
    }
    with db.transaction():
        _save_newest(db, number, tables)
        for key in made.keys() - {table.key for table in tables}:
            _drop(db, number, key, made[key][0])
    taken = {name for (name,) in db.run("SELECT name FROM store.table_views")}
    for table in tables:
        name, before = made.get(table.key, (None, None))
        text = _text(db, number, table)
        if text is None or _digest(text) == before:
            continue
        if name is None:
            name = _free_name(f"{project}/tables/{table.key}", taken)
            taken.add(name)
        try:
            with db.transaction():
                _make(db, project, number, table, name, text)
        except duckdb.Error as error:
            if disk_full(error) or must_reopen(error):
                raise
            logger.warning("the relation %s is left out: %s", identifier(name), reason(error))
            with db.transaction():
                _drop(db, number, table.key, name)


def _tables(db: Database, project: ProjectKey) -> list[_Table]:
    """The keys of a project under which runs have tables in their summary, with the files of these."""
    tables: dict[str, _Table] = {}
    here = [project.entity, project.project]
    for key, rid, run_id, step, kind, *found in db.run(_NEWEST, here):
        if "\0" in key:
            # DuckDB ends a name at its first NUL character.
            continue
        pieces = [found]
        if kind == INCREMENTAL:
            pieces = db.run(_PIECES, [rid, _increments(db, [*here, run_id, key])])
        tables.setdefault(key, _Table(key)).parts += [
            _Part(rid, step, digest, tuple(json.loads(names)), tuple(json.loads(types)))
            for digest, names, types in pieces
        ]
    for table in tables.values():
        del table.parts[MOST_FILES:]
    # Of keys that differ only in case, the one that most runs have gets the plain name.
    return sorted(tables.values(), key=lambda table: -len(table.parts))


def _increments(db: Database, of_key: Sequence[str]) -> list[str]:
    """The files of the incremental table that a run logged last under a key: one per time that it was logged."""
    texts = db.run(
        "SELECT text FROM main.history WHERE entity = ? AND project = ? AND run_id = ? AND key = ? "
        "AND text IS NOT NULL ORDER BY step DESC",
        of_key,
    )
    paths = []
    for (text,) in texts:
        value = json.loads(text)
        if not isinstance(value, dict) or value.get("_type") != INCREMENTAL:
            break
        paths.append(str(value.get("path")))
        if not value.get("increment_num"):
            break
    return paths


def _save_newest(db: Database, number: int, tables: Sequence[_Table]) -> None:
    from mirror.store import columns

    shape = {"project_number": "BIGINT", "key": "VARCHAR", "rid": "BIGINT", "step": "BIGINT", "digest": "VARCHAR"}
    rows = {(number, table.key, part.rid, part.step, part.digest) for table in tables for part in table.parts}
    before = db.run(f"SELECT {', '.join(shape)} FROM store.newest_tables WHERE project_number = ?", [number])
    if rows == set(before):
        return
    db.run("DELETE FROM store.newest_tables WHERE project_number = ?", [number])
    with db.table("newest", columns.table(shape, sorted(rows, key=str))):
        db.run("INSERT INTO store.newest_tables BY NAME SELECT * FROM newest")


def _text(db: Database, number: int, table: _Table) -> str | None:
    """The statement that makes the relation of a key; None if it would have too many columns."""
    groups: dict[tuple[tuple[str, ...], tuple[str, ...]], dict[str, None]] = {}
    kinds: dict[str, list[str]] = {}
    for part in table.parts:
        groups.setdefault((part.names, part.types), {})[part.digest] = None
    for names, types in groups:
        for name, kind in zip(names, types, strict=True):
            kinds.setdefault(name, []).append(kind)
    if len(kinds) > MOST_COLUMNS:
        logger.warning("the tables %s have more than %d different columns: no relation", table.key, MOST_COLUMNS)
        return None
    wide = {name: stored(common(found)) for name, found in kinds.items()}
    unique = unique_names([*_RUN, _PATH, *wide])[len(_RUN) + 1 :]
    outer = dict(zip(wide, unique, strict=True))
    blobs = db.path.with_name("blobs")
    reads = []
    for (names, _), digests in groups.items():
        cells = [
            f"{f'p.{identifier(name)}' if name in names else 'NULL'}::{kind} AS {identifier(outer[name])}"
            for name, kind in wide.items()
        ]
        paths = ", ".join(pattern(blobs / digest[:2] / digest[2:]) for digest in digests)
        reads.append(
            f"SELECT p.{_FILE}, {', '.join(cells)} FROM read_parquet([{paths}], filename = '{_FILE}', "
            "hive_partitioning = false) AS p"
        )
    shown = ", ".join(f"f.{identifier(name)}" for name in unique)
    return (
        f"SELECT r.entity, r.project, r.run_id, t.step, {shown}, "
        f"r.entity || '/' || r.project || '/' || r.run_id AS {_PATH} FROM ({' UNION ALL '.join(reads)}) AS f "
        f"JOIN store.newest_tables AS t ON {literal(f'{blobs}/')} || substr(t.digest, 1, 2) || '/' || "
        f"substr(t.digest, 3) = f.{_FILE} AND t.project_number = {number} AND t.key = {literal(table.key)} "
        "JOIN store.run_records AS r ON r.rid = t.rid"
    )


def _make(db: Database, project: ProjectKey, number: int, table: _Table, name: str, text: str) -> None:
    db.run(f"CREATE OR REPLACE VIEW main.{identifier(name)} AS {text}")
    db.run("DELETE FROM store.table_views WHERE project_number = ? AND key = ?", [number, table.key])
    db.run("INSERT INTO store.table_views VALUES (?, ?, ?, ?)", [number, table.key, name, _digest(text)])
    cut = f" of the {MOST_FILES:,} runs that started last" if len(table.parts) == MOST_FILES else " of each run"
    comments.key_table(db, name, f"Rows of the newest W&B Table {table.key}{cut} of {project}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _drop(db: Database, number: int, key: str, name: str) -> None:
    db.run(f"DROP VIEW IF EXISTS main.{identifier(name)}")
    db.run("DELETE FROM store.table_views WHERE project_number = ? AND key = ?", [number, key])


def _free_name(name: str, taken: Iterable[str]) -> str:
    """The name, or one with a number if another relation has it in another case."""
    used = {folded(one) for one in taken}
    free, number = name, 2
    while folded(free) in used:
        free, number = f"{name}_{number}", number + 1
    return free
