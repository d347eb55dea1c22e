"""The names of folders change nothing of what is read: neither those around the home, nor those of a project."""

from __future__ import annotations

import shutil

import duckdb
import pytest

from mirror.snapshot.connection import connected
from mirror.store import segment_checks, staging
from mirror.store.database import Database
from mirror.store.records import ProjectKey
from tests.store.kit import PROJECT, curve, home_at, opened, page, read, run, settle, write

HISTORY = "select entity, project, run_id, step, key, value, text from history order by all"
VALUES = [(0, "x", 0.5, None), (1, "x", None, '"t"'), (2, "y", 2.5, None)]


def filled(root, project=PROJECT):
    """A home with a segment that is read whole, and one of which a run was replaced; what it should show."""
    with opened(root, tail_values=0) as store:
        runs = [run(name, project) for name in ("a1", "b2")]
        write(store, *runs, history=[page("a1", VALUES), curve("b2", range(3))], project=project)
        assert settle(store)
        write(store, run("c3", project), history=[page("c3", VALUES)], project=project)
        assert settle(store)
        with store.transaction() as tx:
            staging.stage(tx, project, [page("b2", VALUES)])
            staging.swap(tx, project, {"b2": (3, 2)})
        store.publish()
    here = (project.entity, project.project)
    return [(*here, name, step, *rest) for name in ("a1", "b2", "c3") for step, *rest in VALUES]


@pytest.mark.parametrize(
    "folder", ["step=7", "value=7/text=x", "project=other", "entity=e/run_id=r", "a*b", "a[1]b", "[!a]", "it's {1}"]
)
def test_a_folder_around_the_home_changes_no_value(tmp_path, folder):
    root = tmp_path / folder / "home"
    # What the folder's name would match as a pattern.
    for decoy in ("a-b", "a1b", "1"):
        if root.parent.parent == tmp_path:
            filled(tmp_path / decoy / "home", ProjectKey("other", decoy))
    expected = filled(root)
    with duckdb.connect(str(root / "mirror.duckdb"), read_only=True) as reader:
        assert reader.execute(HISTORY).fetchall() == expected
        assert reader.execute("select count(*) from history where project = 'vision'").fetchall() == [(9,)]
    with connected(home_at(root)) as reader:
        assert reader.execute(HISTORY).fetchall() == expected
    db = Database(root / "state.duckdb", "v1.4.0")
    try:
        assert segment_checks.segment_damage(db, root / "history", PROJECT) == {}
    finally:
        db.close()


@pytest.mark.parametrize("name", ["__HIVE_DEFAULT_PARTITION__", "null", "NULL", "a=b", "step=1", "50%", "x*y?[z]"])
def test_a_project_of_any_name_is_read_under_its_name(tmp_path, name):
    project = ProjectKey("null", name)
    expected = filled(tmp_path, project)
    with duckdb.connect(str(tmp_path / "mirror.duckdb"), read_only=True) as reader:
        assert reader.execute(HISTORY).fetchall() == expected


def test_folders_that_older_versions_named_like_null_are_read_under_their_projects_name(tmp_path):
    expected = filled(tmp_path, ProjectKey("team", "null"))
    history = tmp_path / "history"
    (history / "entity=team" / "project=%6Eull").rename(history / "entity=team" / "project=null")
    db = Database(tmp_path / "state.duckdb", "v1.4.0")
    db.run("UPDATE store.segments SET path = replace(path, '%6Eull', 'null')")
    db.close()
    with opened(tmp_path) as store:
        assert read(store, HISTORY) == expected
        text = read(store, "select sql from duckdb_views() where view_name = 'history'")[0][0]
        assert "project=null" in text
        assert "'null' AS project" in text


def test_a_home_that_was_moved_is_read_where_it_is(tmp_path):
    expected = filled(tmp_path / "before")
    shutil.move(tmp_path / "before", tmp_path / "project=after")
    with opened(tmp_path / "project=after") as store:
        assert read(store, HISTORY) == expected
