"""Copies the published file with some projects only, for readers that may see no others.

Whatever SQL such a reader sends, other projects are not in the file that it is sent to.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mirror.patterns import fitting
from mirror.settings.home import Home
from mirror.store import views
from mirror.store.database import Database, log_files, spill_folder
from mirror.store.names import identifier

_OF_RUNS = "rid IN (SELECT rid FROM chosen_runs)"
_BY_COLUMNS = (
    (("rid",), _OF_RUNS),
    (("aid",), "aid IN (SELECT aid FROM chosen_artifacts)"),
    (("entity", "project"), "(entity, project) IN (SELECT entity, project FROM chosen_projects)"),
    (("project_number",), "project_number IN (SELECT number FROM chosen_projects)"),
    (("segment_id",), "segment_id IN (SELECT segment_id FROM chosen_segments)"),
)
"""Which rows are copied of a table that has these columns; the first line that fits counts."""

_NONE = "false"
_BY_NAME = {
    "migrations": "true",
    "server_facts": "true",
    # What is not complete yet is for nobody.
    **dict.fromkeys(("history_staging", "staged", "staged_keys", "staged_segments"), _NONE),
    "artifact_clients": "artifact_id IN (SELECT artifact_id FROM chosen_artifacts)",
    "contents": "digest IN (SELECT digest FROM chosen_names)",
    "content_names": "(kind, owner, name) IN (SELECT (kind, owner, name) FROM chosen_names)",
    "converted_tables": "source IN (SELECT source FROM chosen_sources)",
    "meta": """key IN ('mirror', 'generation', 'readable_from', 'storage_version', 'place of tables') OR key IN (
        SELECT prefix || number FROM chosen_projects,
        (SELECT unnest(['store.wide_', 'name of store.wide_', 'comments of store.wide_', 'wide_fault_']) AS prefix)
    )""",
}
"""The same for tables that their columns do not decide."""

_CHANGED = {
    # Whom the mirror's own API key belongs to is not the reader's business.
    "server_facts": """* REPLACE (CASE
        WHEN json_exists(facts, '$.serverInfo')
        THEN CAST(json_object('serverInfo', json_extract(facts, '$.serverInfo')) AS VARCHAR) ELSE '{}'
    END AS facts)"""
}
"""What is selected of a table instead of all columns."""

# Tables in the memory of the process that copies.
_CHOSEN = """
CREATE TEMP TABLE chosen_projects AS SELECT p.entity, p.project, p.number
FROM attached.store.project_records AS p
WHERE p.entity || '/' || p.project IN (SELECT unnest(?::VARCHAR[]));
CREATE TEMP TABLE chosen_runs AS SELECT r.rid FROM attached.store.run_records AS r
WHERE (r.entity, r.project) IN (SELECT entity, project FROM chosen_projects);
CREATE TEMP TABLE chosen_artifacts AS SELECT a.aid, a.artifact_id FROM attached.store.artifact_records AS a
WHERE (a.entity, a.project) IN (SELECT entity, project FROM chosen_projects);
CREATE TEMP TABLE chosen_segments AS SELECT s.segment_id FROM attached.store.segments AS s
WHERE (s.entity, s.project) IN (SELECT entity, project FROM chosen_projects);
CREATE TEMP TABLE own_names AS SELECT n.kind, n.owner, n.name, n.digest FROM attached.store.content_names AS n
WHERE (n.kind = 'file' AND n.owner IN (SELECT rid FROM chosen_runs))
OR (n.kind = 'artifact' AND n.owner IN (SELECT aid FROM chosen_artifacts));
CREATE TEMP TABLE chosen_sources AS SELECT digest AS source FROM own_names WHERE digest IS NOT NULL
UNION SELECT kind || '/' || owner || '/' || name FROM own_names;
CREATE TEMP TABLE chosen_names AS FROM own_names
UNION ALL SELECT n.kind, n.owner, n.name, n.digest FROM attached.store.content_names AS n
WHERE n.kind = 'table' AND n.name IN (SELECT source FROM chosen_sources);
"""


def make(home: Home, patterns: Sequence[str]) -> None:
    """Write a copy of the home's published file to `home.published` of a scope: see `Home.scope`.

    It holds the projects that match the patterns, and replaces the former copy atomically. Raises StoreError,
    duckdb.Error or OSError.
    """
    target = home.published
    source = Home(home.data, home.config).published
    home.scopes.mkdir(mode=0o700, exist_ok=True)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}-{os.getpid()}")
    _remove(temporary)
    try:
        db = Database(temporary, "latest")
        try:
            with db.attached(source) as catalog:
                _copy(db, catalog, patterns, home.history)
            db.checkpoint()
        finally:
            db.close()
        temporary.replace(target)
    finally:
        _remove(temporary)


def condition(table: str, columns: Sequence[str]) -> str:
    """Which rows of a table of the store are copied. Raises LookupError for a table that nothing here decides about."""
    if table in _BY_NAME:
        return _BY_NAME[table]
    if table.startswith("wide_") and table.removeprefix("wide_").isdigit():
        return _OF_RUNS
    for needed, rows in _BY_COLUMNS:
        if set(needed) <= set(columns):
            return rows
    raise LookupError(f"mirror/snapshot/scoped.py does not say which rows of store.{table} belong to a project")


def _copy(db: Database, catalog: str, patterns: Sequence[str], history: Path) -> None:
    projects = [path for (path,) in db.run(f"SELECT entity || '/' || project FROM {catalog}.store.project_records")]
    chosen = {path for pattern in patterns for path in fitting(pattern, projects)}
    first, *others = [statement for statement in _CHOSEN.split(";") if statement.strip()]
    db.run(first, [sorted(chosen)])
    for statement in others:
        db.run(statement)
    db.run("CREATE SCHEMA store")
    numbers = {f"wide_{number}" for (number,) in db.run("SELECT number FROM chosen_projects")}
    for table, columns in _tables(db, catalog):
        if table.startswith("wide_") and table != "wide_columns" and table not in numbers:
            continue
        name = f"store.{identifier(table)}"
        selected = _CHANGED.get(table, "*")
        db.run(f"CREATE TABLE {name} AS SELECT {selected} FROM {catalog}.{name} WHERE {condition(table, columns)}")
    with db.transaction():
        views.recreate(db, history)
    _own_views(db, catalog)


def _tables(db: Database, catalog: str) -> list[tuple[str, list[str]]]:
    return [
        (table, columns)
        for table, columns in db.run(
            "SELECT table_name, list(column_name) FROM duckdb_columns() WHERE database_name = ? "
            "AND schema_name = 'store' AND table_name IN (SELECT table_name FROM duckdb_tables() "
            "WHERE database_name = ? AND schema_name = 'store') GROUP BY table_name ORDER BY table_name",
            [catalog, catalog],
        )
    ]


def _own_views(db: Database, catalog: str) -> None:
    """Create the relations of the chosen projects and of their tables, with their comments."""
    import duckdb

    own = db.run(
        "SELECT v.sql, v.view_name, v.comment FROM duckdb_views() AS v "
        "WHERE v.database_name = ? AND v.schema_name = 'main' AND v.view_name IN ("
        "SELECT value FROM store.meta WHERE starts_with(key, 'name of store.wide_') "
        "UNION ALL SELECT name FROM store.table_views)",
        [catalog],
    )
    for text, name, comment in own:
        # A relation whose file was lost is left out, as it is when it is made.
        with suppress(duckdb.IOException):
            db.run(text)
            commented = db.run(
                "SELECT column_name, comment FROM duckdb_columns() WHERE database_name = ? AND schema_name = 'main' "
                "AND table_name = ? AND comment IS NOT NULL",
                [catalog, name],
            )
            _comment(db, name, comment, commented)


def _comment(db: Database, name: str, comment: str | None, columns: Sequence[tuple[str, str]]) -> None:
    from mirror.store.names import literal

    view = f"main.{identifier(name)}"
    statements = [f"COMMENT ON VIEW {view} IS {literal(comment)}"] if comment else []
    statements += [f"COMMENT ON COLUMN {view}.{identifier(column)} IS {literal(text)}" for column, text in columns]
    if statements:
        with db.transaction():
            db.run(";".join(statements))


def _remove(file: Path) -> None:
    for one in [file, *log_files(file)]:
        one.unlink(missing_ok=True)
    spill = spill_folder(file)
    if spill.is_dir():
        import shutil

        shutil.rmtree(spill)


def main() -> None:
    """Make one copy in a process of its own: the arguments are the home, the folder of the copy, and the patterns."""
    data, scope, *patterns = sys.argv[1:]
    os.nice(5)
    home = Path(data)
    make(Home(home, home / "config.toml", Path(scope)), patterns)


if __name__ == "__main__":
    main()
