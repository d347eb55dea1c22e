"""Records and pages for the tests of the store, and a way to read what it publishes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow as pa
from msgspec.structs import replace

from mirror.settings.home import Home
from mirror.store import history as stored_history
from mirror.store import projects, sqlfiles
from mirror.store import runs as stored_runs
from mirror.store.records import HistoryPage, ProjectKey, RunRecord
from mirror.store.store import Store
from tests.reading import rows

PROJECT = ProjectKey("team", "vision")
NOW = datetime(2026, 11, 23, 12, 30)
EARLIER = datetime(2026, 11, 22, 8, 0, 0, 250_000)

_RUN = RunRecord(
    entity="team",
    project="vision",
    run_id="a1",
    storage_id="UnVuOmEx",
    name="brave-sun-1",
    state="finished",
    created_at=EARLIER,
    heartbeat_at=EARLIER,
    updated_at=None,
    duration_s=12.5,
    username="ann",
    group_name=None,
    job_type=None,
    sweep=None,
    notes=None,
    description=None,
    tags=(),
    git_commit=None,
    host="box",
    url="https://wandb.ai/team/vision/runs/a1",
)


def run(run_id: str = "a1", project: ProjectKey = PROJECT, **fields) -> RunRecord:
    """A run's record."""
    here = {"entity": project.entity, "project": project.project, "run_id": run_id}
    return replace(_RUN, **here, url=f"https://wandb.ai/{project}/runs/{run_id}", **fields)


Point = tuple[int, str, float | None, str | None]


def page(run_id: str, points: Iterable[Point], *, rows: int | None = None, last_step: int | None = None) -> HistoryPage:
    """A page of (step, key, value, text)."""
    points = list(points)
    steps, keys, values, texts = zip(*points, strict=True) if points else ((), (), (), ())
    table = pa.table(
        {
            "step": pa.array(steps, pa.int64()),
            "key": pa.array(keys, pa.string()),
            "value": pa.array(values, pa.float64()),
            "text": pa.array(texts, pa.string()),
        }
    )
    return HistoryPage(
        run_id=run_id,
        values=table,
        rows=len(set(steps)) if rows is None else rows,
        last_step=max(steps, default=None) if last_step is None else last_step,
    )


def curve(run_id: str, steps: Iterable[int], *, keys: Iterable[str] = ("loss",), scale: float = 1.0) -> HistoryPage:
    """A page with one number a step and key."""
    steps = list(steps)
    return page(run_id, [(step, key, scale / (step + 1), None) for key in keys for step in steps])


def home_at(root: Path) -> Home:
    return Home(data=root, config=root / "config.toml")


@contextmanager
def opened(root: Path, **settings):
    """A store in a folder, closed at the end."""
    store = Store.open(home_at(root), **settings)
    try:
        yield store
    finally:
        store.close()


def write(store: Store, *runs: RunRecord, history: Iterable[HistoryPage] = (), project: ProjectKey = PROJECT) -> None:
    """One transaction with these runs, then this history."""
    with store.transaction() as tx:
        projects.add(tx, project)
        stored_runs.upsert(tx, runs, now=NOW)
        stored_history.append(tx, project, list(history))


def settle(store: Store) -> bool:
    """What the end of a pass does; whether anything was moved, merged or sorted."""
    sealed = store.seal()
    return store.tend() or sealed


def read(store: Store, sql: str, *params):
    """Rows of what a reader sees after a publish."""
    store.publish()
    return rows(store.home.published, sql, *params)


_RENAMED = {
    new: old
    for old, new in re.findall(
        r"ALTER TABLE store\.(\w+) RENAME TO (\w+);", sqlfiles.read("migrations")["0014_own_names"]
    )
}


_ARTIFACTS = re.findall(r"CREATE TABLE store\.(\w+)", sqlfiles.read("migrations")["0016_artifacts"])


def downgrade(state):
    """Make a file as the program wrote it before tables had names of their own: the same by their former names."""
    state.chmod(0o600)
    with duckdb.connect(str(state)) as db:
        views = db.execute(
            "select schema_name || '.\"' || view_name || '\"', sql from duckdb_views() "
            "where schema_name in ('main', 'store') and not internal"
        ).fetchall()
        for name, _ in views:
            db.execute(f"drop view {name}")
        for later in (
            "contents",
            "content_names",
            *_ARTIFACTS,
            "converted_tables",
            "newest_tables",
            "table_views",
            "artifact_clients",
            "sweep_records",
            "view_records",
            "listings",
        ):
            db.execute(f"drop table store.{later}")
        db.execute("alter table store.run_extras drop column artifacts_at")
        db.execute("alter table store.run_history drop column doubted")
        db.execute("update store.leaf_rows set text = cast(number as varchar) where text is null and kind = 'number'")
        db.execute("alter table store.leaf_rows rename to leaves")
        for new, old in _RENAMED.items():
            db.execute(f"alter table store.{new} rename to {old}")
        later = re.compile(r"store\.(content_names|artifact_|sweep_records|view_records|listings)")
        views = [view for view in views if not later.search(view[1]) and view[0] != 'store."leaves"']
        while views:
            _, text = view = views.pop(0)
            try:
                db.execute(re.sub(r"\bstore\.(\w+)", lambda found: f"store.{_RENAMED.get(found[1], found[1])}", text))
            except duckdb.CatalogException:
                views.append(view)
        db.execute("delete from store.migrations where number >= 14")
        db.execute("delete from store.meta where key in ('readable_from', 'views')")
