"""What is removed from the mirror is nowhere in the store any more, and nothing else is missing."""

from __future__ import annotations

from datetime import timedelta

import duckdb

from mirror.store import console, forget, local, projects, staging
from mirror.store import history as history_store
from mirror.store.records import ConsolePage, LocalFile, LocalRun, ProjectKey
from tests.store.kit import NOW, PROJECT, curve, page, read, run, settle, write

OTHER = ProjectKey("team", "other")


def fill(store, project=PROJECT, names=("a", "b")):
    """Runs with something in every table that names a run or a project."""
    for value in (1, 2):
        write(
            store,
            *(run(name, project, config={"lr": value}, info={"gpu": "H100"}, tags=("x",)) for name in names),
            history=[curve(name, range(5 * value)) for name in names],
            project=project,
        )
    settle(store)
    with store.transaction() as tx:
        for name in names:
            history_store.replace_system_metrics(tx, project, page(name, [(0, "system.cpu", 1.0, None)]))
            staging.stage(tx, project, [curve(name, range(3))])
            console.put_console(tx, project, [ConsolePage(name, 0, [(0, None, None, "line")], last=True)])
            local.save(tx, [(LocalRun(project, name, True, True, False, 3, "finished"), "{}")])
            local.save_files(tx, [LocalFile(f"/{project}/{name}.wandb", *str(project).split("/"), name, None)])
    store.publish()


def tables(reader):
    """The columns of each table of the store, but those of the wide relations."""
    found: dict[str, set[str]] = {}
    for table, column in reader.execute(
        "SELECT table_name, column_name FROM duckdb_columns() WHERE schema_name = 'store' AND table_name NOT LIKE "
        "'wide_%' AND table_name IN (SELECT table_name FROM duckdb_tables())"
    ).fetchall():
        found.setdefault(table, set()).add(column)
    return found


def held(store, project):
    """How many rows of each table of the store belong to the runs of a project, by run and table."""
    store.publish()
    found = {}
    with duckdb.connect(str(store.home.published), read_only=True) as reader:
        for table, names in tables(reader).items():
            if "rid" in names and "entity" not in names:
                rows = f"SELECT r.run_id FROM store.{table} JOIN store.run_records AS r USING (rid) WHERE "
            elif {"run_id", "entity"} <= names:
                rows = f"SELECT r.run_id FROM store.{table} AS r WHERE "
            elif "entity" in names and "retired_at" not in names:
                rows = f"SELECT 'project' FROM store.{table} AS r WHERE "
            else:
                continue
            counts = f"SELECT run_id, count(*) FROM ({rows} r.entity = ? AND r.project = ?) AS t(run_id) GROUP BY ALL"
            for name, count in reader.execute(counts, [project.entity, project.project]).fetchall():
                found[name, table] = count
    return found


def orphans(store):
    """Tables with rows of no run."""
    store.publish()
    missing = "WHERE rid NOT IN (SELECT rid FROM store.run_records)"
    with duckdb.connect(str(store.home.published), read_only=True) as reader:
        return [
            table
            for table, names in tables(reader).items()
            if "rid" in names and reader.execute(f"SELECT count(*) FROM store.{table} {missing}").fetchall() != [(0,)]
        ]


def test_a_removed_run_is_in_no_table(store):
    fill(store)
    store.tail_values = 1
    before = held(store, PROJECT)
    assert {name for name, _ in before} == {"project", "a", "b"}
    with store.transaction() as tx:
        forget.runs(tx, PROJECT, ["a", "unknown"])
    assert held(store, PROJECT) == {key: count for key, count in before.items() if key[0] != "a"}
    assert orphans(store) == []
    assert read(store, 'SELECT run_id, "config.lr" FROM "team/vision"') == [("b", 2.0)]
    assert read(store, "SELECT run_id, count(*) FROM history GROUP BY ALL") == [("b", 10)]


def test_a_removed_project_is_in_no_table_and_its_segments_are_deleted_later(store):
    store.tail_values = 1
    fill(store)
    fill(store, OTHER)
    files = {file for file in store.home.history.rglob("*.parquet") if "project=vision" in str(file)}
    kept = held(store, OTHER)
    assert files
    with store.transaction() as tx:
        forget.project(tx, PROJECT)
        forget.project(tx, PROJECT)
    assert held(store, PROJECT) == {}
    assert held(store, OTHER) == kept
    assert orphans(store) == []
    assert read(store, "SELECT DISTINCT project FROM history") == [("other",)]
    relations = "SELECT view_name FROM duckdb_views() WHERE schema_name = 'main' AND view_name LIKE 'team/%'"
    assert read(store, relations) == [("team/other",)]
    assert all(file.exists() for file in files)
    store.retired_grace = timedelta(0)
    with store.transaction() as tx:
        projects.record_attempt(tx, OTHER, NOW)
    store.publish()
    assert not any(file.exists() for file in files)


def test_a_project_that_is_mirrored_again_starts_from_nothing(store):
    fill(store)
    with store.transaction() as tx:
        forget.project(tx, PROJECT)
    write(store, run("c", config={"depth": "deep"}), history=[curve("c", range(2))])
    assert read(store, 'SELECT run_id, "config.depth", history_rows FROM "team/vision"') == [("c", "deep", 2)]
    assert read(store, "SELECT run_id, count(*) FROM history GROUP BY ALL") == [("c", 2)]
    assert store.read(lambda db: projects.cursor(db, PROJECT)).covered_to is None


def test_the_plain_name_of_a_relation_goes_to_the_project_that_is_left(store):
    twin = ProjectKey("team", "Vision")
    write(store, run("a"))
    write(store, run("b", twin), project=twin)
    assert read(store, 'SELECT run_id FROM "team/Vision_2"') == [("b",)]
    with store.transaction() as tx:
        forget.project(tx, PROJECT)
    relations = "SELECT view_name FROM duckdb_views() WHERE schema_name = 'main' AND view_name LIKE '%/%'"
    assert read(store, relations) == [("team/Vision",)]
    assert read(store, 'SELECT run_id FROM "team/Vision"') == [("b",)]
