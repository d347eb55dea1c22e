"""The published relations: their columns, types and rows, as the contract has them."""

from __future__ import annotations

import math
from pathlib import Path

import duckdb
import pytest

from mirror.store import history, projects, runs
from mirror.store.records import ProjectKey
from tests.store.kit import EARLIER, NOW, PROJECT, curve, page, read, run, write

TEXT, WHOLE, REAL, TIME = "VARCHAR", "BIGINT", "DOUBLE", "TIMESTAMP"
PROJECT_ROW = {"entity": TEXT, "project": TEXT}
RUN = {**PROJECT_ROW, "run_id": TEXT}
OF_PROJECTS = ("projects", "sweeps", "reports", "saved_views", "artifact_files")
VALUE = {**RUN, "step": WHOLE, "key": TEXT, "value": REAL, "text": TEXT}
LEAF = {**RUN, "key": TEXT, "value": TEXT, "number": REAL, "kind": TEXT}
RUNS = {
    **RUN,
    "name": TEXT,
    "state": TEXT,
    "created_at": TIME,
    "heartbeat_at": TIME,
    "updated_at": TIME,
    "duration_s": REAL,
    "username": TEXT,
    "group_name": TEXT,
    "job_type": TEXT,
    "sweep": TEXT,
    "notes": TEXT,
    "tags": TEXT,
    "git_commit": TEXT,
    "host": TEXT,
    "config": TEXT,
    "summary": TEXT,
    "history_rows": WHOLE,
    "url": TEXT,
    "deleted_at": TIME,
    "synced_at": TIME,
}
CONTRACT = {
    "runs": RUNS,
    "run_tags": {**RUN, "tag": TEXT, "position": WHOLE},
    "config_values": LEAF,
    "summary_values": LEAF,
    "history": VALUE,
    "system_metrics": VALUE,
    "history_keys": {
        **RUN,
        "key": TEXT,
        "rows": WHOLE,
        "first_step": WHOLE,
        "last_step": WHOLE,
        "min": REAL,
        "max": REAL,
        "last": REAL,
    },
    "local_runs": {
        **RUN,
        "on_server": "BOOLEAN",
        "path": TEXT,
        "size": WHOLE,
        "read_to": WHOLE,
        "damaged": WHOLE,
        "read_at": TIME,
    },
    "projects": {
        "entity": TEXT,
        "project": TEXT,
        "runs": WHOLE,
        "running": WHOLE,
        "history_rows": WHOLE,
        "last_success_at": TIME,
        "last_error": TEXT,
        "lag_s": REAL,
    },
    "run_changes": {**RUN, "seen_at": TIME, "field": TEXT, "old": TEXT, "new": TEXT},
    "run_metadata": LEAF,
    "console": {**RUN, "line": WHOLE, "logged_at": TIME, "level": TEXT, "text": TEXT},
    "metric_definitions": {
        **RUN,
        "key": TEXT,
        "pattern": "BOOLEAN",
        "x_key": TEXT,
        "summary": TEXT,
        "goal": TEXT,
        "hidden": "BOOLEAN",
    },
    "history_x": {**RUN, "key": TEXT, "x_key": TEXT, "x": REAL, "step": WHOLE, "value": REAL},
    "files": {
        **RUN,
        "name": TEXT,
        "size": WHOLE,
        "mimetype": TEXT,
        "updated_at": TIME,
        "md5": TEXT,
        "digest": TEXT,
        "local_path": TEXT,
    },
    "media": {
        **RUN,
        "key": TEXT,
        "step": WHOLE,
        "item": WHOLE,
        "type": TEXT,
        "caption": TEXT,
        "width": WHOLE,
        "height": WHOLE,
        "path": TEXT,
        "digest": TEXT,
        "local_path": TEXT,
    },
    "tables": {
        **RUN,
        "key": TEXT,
        "step": WHOLE,
        "type": TEXT,
        "columns": TEXT,
        "rows": WHOLE,
        "logged_rows": WHOLE,
        "path": TEXT,
        "digest": TEXT,
        "local_path": TEXT,
        "parquet_path": TEXT,
        "error": TEXT,
    },
    "sweeps": {
        **PROJECT_ROW,
        **dict.fromkeys(("sweep_id", "name", "state", "method", "description", "config", "config_yaml"), TEXT),
        **dict.fromkeys(("metric", "goal", "best_run"), TEXT),
        "best_loss": REAL,
        **dict.fromkeys(("runs", "runs_expected"), WHOLE),
        "prior_runs": TEXT,
        **dict.fromkeys(("created_at", "updated_at"), TIME),
        "url": TEXT,
        "deleted_at": TIME,
    },
    "reports": {
        **PROJECT_ROW,
        **dict.fromkeys(("report_id", "name", "title", "description", "author"), TEXT),
        **dict.fromkeys(("created_at", "updated_at"), TIME),
        **dict.fromkeys(("spec", "url"), TEXT),
        "deleted_at": TIME,
    },
    "saved_views": {
        **PROJECT_ROW,
        **dict.fromkeys(("view_id", "view_type", "name", "title", "description", "author"), TEXT),
        **dict.fromkeys(("created_at", "updated_at"), TIME),
        "spec": TEXT,
        "deleted_at": TIME,
    },
    "histograms": {**RUN, "key": TEXT, "step": WHOLE, "bin": WHOLE, "low": REAL, "high": REAL, "count": REAL},
    "storage": {
        **RUN,
        **dict.fromkeys(("kind", "type", "artifact"), TEXT),
        **dict.fromkeys(("files", "server_bytes", "mirrored_bytes", "stored_bytes"), WHOLE),
    },
    "artifacts": {
        **dict.fromkeys(("entity", "project", "type", "collection", "version"), TEXT),
        "version_number": WHOLE,
        "aliases": TEXT,
        "digest": TEXT,
        "size": WHOLE,
        "file_count": WHOLE,
        "state": TEXT,
        "created_at": TIME,
        "updated_at": TIME,
        "run_id": TEXT,
        "description": TEXT,
        "metadata": TEXT,
        "ttl_s": WHOLE,
        "artifact_id": TEXT,
        "deleted_at": TIME,
    },
    "artifact_files": {
        **dict.fromkeys(("entity", "project", "collection", "version", "path"), TEXT),
        "size": WHOLE,
        **dict.fromkeys(("md5", "reference", "digest", "local_path"), TEXT),
    },
    "artifact_usage": {
        **RUN,
        **dict.fromkeys(("artifact_entity", "artifact_project", "collection", "version", "relation"), TEXT),
    },
}


@pytest.mark.parametrize("sealed", [False, True])
def test_every_relation_has_the_columns_and_types_of_the_contract(store, sealed):
    write(store, run(config={"lr": 0.1}), history=[curve("a1", range(10))])
    if sealed:
        store.tail_values = 5
        assert store.seal()
    for relation, columns in CONTRACT.items():
        path = {} if relation in OF_PROJECTS else {"run_path": TEXT}
        described = read(store, f"describe select * from {relation}")
        assert [row[:2] for row in described] == [*columns.items(), *path.items()]
        if relation not in (*OF_PROJECTS, "history_x"):
            differs = "run_path is distinct from entity || '/' || project || '/' || run_id"
            assert read(store, f"select count(*) from {relation} where {differs}") == [(0,)] if path else True


def test_every_relation_and_column_has_a_comment(store):
    write(store, run(config={"lr": 0.1, 'it\'s "odd"': 1}, summary={"acc": 1.5}), history=[curve("a1", range(10))])
    store.tail_values = 5
    assert store.seal()
    views = "select view_name from duckdb_views() where schema_name = 'main' and not internal and comment is null"
    columns = "select table_name, column_name from duckdb_columns() where schema_name = 'main' and not internal and comment is null"
    assert (read(store, views), read(store, columns)) == ([], [])
    comment = "select comment from duckdb_columns() where table_name = 'team/vision' and column_name = ?"
    assert read(store, comment, "config.lr") == [("Config value at the key lr",)]
    write(store, run("b2", config={"new": True}))
    assert (read(store, views), read(store, columns)) == ([], [])


def test_schema_main_holds_the_contract_and_one_relation_a_project(store):
    write(store, run())
    names = read(store, "select table_name from information_schema.tables where table_schema = 'main' order by 1")
    assert [name for (name,) in names] == sorted([*CONTRACT, "team/vision"])


def test_no_table_of_the_store_has_the_name_of_a_relation(store):
    """Tools that ask for the columns of a name, without its schema, get those of the relation alone."""
    write(store, run(config={"lr": 0.1}), history=[curve("a1", range(10))])
    tables = "select table_name from information_schema.tables where table_schema = '{}'"
    inner, shown = ({name for (name,) in read(store, tables.format(schema))} for schema in ("store", "main"))
    assert len(inner) > 20
    assert {name.lower() for name in inner} & {name.lower() for name in shown} == set()
    for relation, columns in CONTRACT.items():
        path = [] if relation in OF_PROJECTS else ["run_path"]
        named = "select column_name from information_schema.columns where table_name = ? order by ordinal_position"
        assert [name for (name,) in read(store, named, relation)] == [*columns, *path]


def test_a_run_is_a_row(store):
    write(
        store,
        run(
            "b2",
            state="running",
            updated_at=NOW,
            group_name="g",
            job_type="train",
            sweep="s1",
            notes='it\'s "quoted"\n',
            description="not shown",
            tags=("best", "näive,odd"),
            git_commit="abc",
            config={"lr": 0.1, "model": {"layers": [1, 2]}, "bad": math.nan},
            config_meta={"python": "3.11"},
            summary={"acc": math.inf, "n": 2**60},
            server_rows=3,
        ),
        history=[curve("b2", [0, 1, 5])],
    )
    assert read(store, "from runs") == [
        (
            *("team", "vision", "b2", "brave-sun-1", "running", EARLIER, EARLIER, NOW, 12.5, "ann", "g", "train", "s1"),
            *('it\'s "quoted"\n', "best,näive,odd", "abc", "box"),
            '{"lr":0.1,"model":{"layers":[1,2]},"bad":NaN}',
            '{"acc":Infinity,"n":1152921504606846976}',
            *(3, "https://wandb.ai/team/vision/runs/b2", None, NOW, "team/vision/b2"),
        )
    ]
    assert read(store, "select * exclude (run_path) from run_tags order by tag") == [
        ("team", "vision", "b2", "best", 0),
        ("team", "vision", "b2", "näive,odd", 1),
    ]


def test_leaves_are_scalars_lists_and_empty_objects(store):
    config = {"lr": 0.1, "deep": {"on": True, "none": None, "list": [1, "x"], "empty": {}}, "a.b": "dotted", "n": 3}
    write(store, run(config=config, summary={"acc": math.nan}))
    here = ("team", "vision", "a1")
    assert read(store, "select * exclude (run_path) from config_values order by key") == [
        (*here, "a.b", "dotted", None, "string"),
        (*here, "deep.empty", "{}", None, "object"),
        (*here, "deep.list", '[1,"x"]', None, "list"),
        (*here, "deep.none", None, None, "null"),
        (*here, "deep.on", "true", None, "bool"),
        (*here, "lr", "0.1", 0.1, "number"),
        (*here, "n", "3", 3.0, "number"),
    ]
    ((*rest, number, kind),) = read(store, "select * exclude (run_path) from summary_values")
    assert (rest, kind) == ([*here, "acc", "NaN"], "number")
    assert math.isnan(number)


def test_history_keeps_what_is_no_finite_number(store):
    points = [
        (0, "loss", math.inf, None),
        (1, "loss", -math.inf, None),
        (2, "loss", 0.5, None),
        (2, "big", float(2**60), str(2**60)),
        (3, "note", None, '"first"'),
        (4, "loss", math.nan, None),
    ]
    write(store, run(), history=[page("a1", points)])
    here = ("team", "vision", "a1")
    rows = read(store, "select * exclude (run_path) from history order by step, key")
    assert [row for row in rows if row[3] < 4] == [
        (*here, 0, "loss", math.inf, None),
        (*here, 1, "loss", -math.inf, None),
        (*here, 2, "big", float(2**60), "1152921504606846976"),
        (*here, 2, "loss", 0.5, None),
        (*here, 3, "note", None, '"first"'),
    ]
    assert math.isnan(rows[-1][5])
    keys = read(store, "select * exclude (run_path) from history_keys order by key")
    assert keys[0] == (*here, "big", 1, 2, 2, float(2**60), float(2**60), float(2**60))
    assert keys[1][:-1] == (*here, "loss", 4, 0, 4, 0.5, 0.5)
    assert math.isnan(keys[1][-1])
    assert keys[2] == (*here, "note", 1, 3, 3, None, None, None)


def test_system_metrics_of_a_run_are_replaced_as_a_whole(store):
    write(store, run(), run("b2"))
    for scale in (1.0, 2.0):
        with store.transaction() as tx:
            history.replace_system_metrics(
                tx, PROJECT, page("a1", [(0, "gpu", scale, None), (0, "gpu", scale + 1, None)])
            )
            history.replace_system_metrics(tx, PROJECT, page("b2", [(7, "cpu", 1.0, None)]))
    assert read(store, "select * exclude (run_path) from system_metrics order by run_id") == [
        ("team", "vision", "a1", 0, "gpu", 3.0, None),
        ("team", "vision", "b2", 7, "cpu", 1.0, None),
    ]
    with store.transaction() as tx:
        history.replace_system_metrics(tx, PROJECT, page("a1", []))
    assert read(store, "select run_id from system_metrics") == [("b2",)]


def test_a_project_shows_its_counts_and_how_fresh_it_is(store):
    other = ProjectKey("team", "empty")
    write(store, run(state="running"), run("b2"), run("c3"), history=[curve("a1", range(4)), curve("c3", range(9))])
    with store.transaction() as tx:
        projects.add(tx, other)
        runs.mark_deleted(tx, PROJECT, ["c3"], at=NOW)
        projects.record_success(tx, PROJECT, EARLIER)
        projects.record_failure(tx, PROJECT, "the server said no", NOW)
    rows = read(store, "from projects order by project")
    assert rows[0] == ("team", "empty", 0, 0, 0, None, None, None)
    *seen, lag = rows[1]
    assert seen == ["team", "vision", 2, 1, 4, EARLIER, "the server said no"]
    age = read(store, "select epoch_us(now()) / 1e6 - epoch_us(last_success_at) / 1e6 from projects where runs > 0")
    assert 0 <= age[0][0] - lag < 60
    with store.transaction() as tx:
        projects.record_success(tx, PROJECT, NOW)
    assert read(store, "select last_success_at, last_error from projects where runs > 0") == [(NOW, None)]


def test_names_that_look_like_sql_are_only_names(store):
    odd = ProjectKey("o'neil", 'a"; drop table store.run_records; --')
    write(store, run(project=odd, config={'"; drop': 1}), history=[curve("a1", [0])], project=odd)
    store.tail_values = 0
    assert store.seal()
    assert read(store, "select entity, project, step from history") == [("o'neil", odd.project, 0)]
    assert read(store, """select "config.""; drop" from "o'neil/a""; drop table store.run_records; --" """) == [(1.0,)]


def test_the_published_file_cannot_be_written(store):
    write(store, run())
    store.publish()
    assert store.home.published.stat().st_mode & 0o777 == 0o444
    with (
        duckdb.connect(str(store.home.published), read_only=True) as reader,
        pytest.raises(duckdb.InvalidInputException),
    ):
        reader.execute("delete from store.run_records").fetchall()


def test_the_page_of_relations_tells_of_every_relation_and_column():
    text = (Path(__file__).parents[2] / "docs" / "relations.md").read_text()
    for relation, columns in CONTRACT.items():
        assert relation in text
        if relation != "local_runs":  # docs/offline.md has those
            assert [name for name in columns if f"`{name}`" not in text] == []
