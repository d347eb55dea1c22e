"""History beyond the tail: what is read stays the same, however often it moves."""

from __future__ import annotations

import random
from datetime import timedelta

import duckdb
import pyarrow.parquet as pq
import pytest

from mirror.store import bulk, history, refresh, runs, segments, staging
from mirror.store.records import ProjectKey
from tests.store.kit import NOW, PROJECT, curve, home_at, opened, page, read, run, settle, write


@pytest.fixture(autouse=True)
def _few_make_one(monkeypatch):
    monkeypatch.setattr(segments, "MERGE", 16)


LIVE = "select level, count(*) from store.segments where retired_at is null group by level order by level"


def test_a_mirror_below_the_threshold_is_one_file(store):
    write(store, run(), history=[curve("a1", range(100))])
    store.tail_values = 100
    assert not settle(store)
    assert list(store.home.history.iterdir()) == []
    assert read(store, "select count(*) from history") == [(100,)]


def test_a_segment_is_a_sorted_hive_partitioned_parquet_file(store):
    odd = ProjectKey("tëam", "50% =/[x]*?")
    write(store, run("b", odd), run("a", odd), history=[], project=odd)
    with store.transaction() as tx:
        history.append(tx, odd, [curve("b", range(3), keys=["x", "a/b"]), curve("a", range(2), keys=["x"])])
    store.tail_values = 7
    assert settle(store)
    (file,) = store.home.history.rglob("*.parquet")
    assert str(file.parent.relative_to(store.home.history)) == ("entity=tëam/project=50%25 %3D%2F%5Bx%5D%2A%3F")
    table = pq.ParquetFile(file).read()
    assert [(field.name, str(field.type)) for field in table.schema] == [
        ("run_id", "string"),
        ("key", "string"),
        ("step", "int64"),
        ("value", "double"),
        ("text", "string"),
    ]
    order = [(row["key"], row["run_id"], row["step"]) for row in table.to_pylist()]
    assert order == sorted(order)
    assert len(order) == 8
    assert read(store, "select distinct entity, project from history") == [("tëam", "50% =/[x]*?")]
    assert read(store, "select count(*) from store.history_tail") == [(0,)]


def test_small_projects_stay_in_the_tail(store):
    small = ProjectKey("team", "small")
    write(store, run("b2", small), history=[curve("b2", range(5))], project=small)
    write(store, run(), history=[curve("a1", range(100))])
    store.tail_values = 50
    assert settle(store)
    assert read(
        store, "select project, count(*) from store.history_tail join store.run_records using (rid) group by 1"
    ) == [("small", 5)]
    assert read(store, "select project, count(*) from history group by 1 order by 1") == [("small", 5), ("vision", 100)]


def test_a_project_whose_name_is_too_long_for_a_folder_stays_in_the_tail(store):
    long = ProjectKey("team", "ü" * 125)
    write(store, run("b2", long), history=[curve("b2", range(20))], project=long)
    store.tail_values = 10
    assert not settle(store)
    assert read(store, "select count(*) from history") == [(20,)]


def test_sixteen_segments_become_one_and_the_old_files_go_after_a_grace(store):
    store.tail_values = 0
    write(store, run())
    for number in range(16):
        write(store, history=[curve("a1", range(number * 10, number * 10 + 10))])
        assert settle(store)
    assert read(store, LIVE) == [(1, 1)]
    assert len(list(store.home.history.rglob("*.parquet"))) == 17
    assert read(store, "select count(*), count(distinct step) from history") == [(160, 160)]
    store.retired_grace = timedelta(0)
    write(store, run("b2"))
    store.publish()
    assert len(list(store.home.history.rglob("*.parquet"))) == 1
    assert read(store, "select count(*), count(distinct step) from history") == [(160, 160)]


def test_a_merge_takes_no_more_than_fit_into_one_segment(store, monkeypatch):
    monkeypatch.setattr(segments, "MOST_VALUES", 60)
    store.tail_values = 0
    write(store, run())
    for number in range(16):
        write(store, history=[curve("a1", range(number * 10, number * 10 + 10))])
        settle(store)
    assert read(store, LIVE) == [(0, 10), (1, 1)]
    assert read(store, "select count(*), count(distinct step) from history") == [(160, 160)]


def test_a_reader_of_an_old_snapshot_still_finds_its_segments(store):
    store.tail_values = 0
    write(store, run(), history=[curve("a1", range(10))])
    settle(store)
    store.publish()
    with duckdb.connect(str(store.home.published), read_only=True) as reader:
        for number in range(1, 16):
            write(store, history=[curve("a1", range(number * 10, number * 10 + 10))])
            settle(store)
            store.publish()
        assert reader.execute("select count(*) from history").fetchall() == [(10,)]
    assert read(store, LIVE) == [(1, 1)]
    assert read(store, "select count(*) from history") == [(160,)]


def test_a_segment_is_rewritten_when_a_quarter_of_it_is_replaced(store):
    store.tail_values = 0
    runs = [f"r{number}" for number in range(8)]
    write(store, *map(run, runs), history=[curve(run_id, range(10)) for run_id in runs])
    settle(store)
    (first,) = store.home.history.rglob("*.parquet")
    for run_id in runs[:3]:
        with store.transaction() as tx:
            staging.stage(tx, PROJECT, [curve(run_id, range(2))])
            staging.swap(tx, PROJECT, {run_id: (2, 1)})
        count = 80 - 8 * (runs.index(run_id) + 1)
        assert read(store, "select count(*) from history") == [(count,)]
        store.tail_values = 1000
        rewritten = settle(store)
        assert rewritten == (run_id == "r1")
        assert read(store, "select count(*) from history") == [(count,)]
    assert read(
        store, f"select count(*) from store.segments where path like '%{first.name}' and retired_at is null"
    ) == [(0,)]


def test_a_segment_of_which_everything_was_replaced_goes_away(store):
    store.tail_values = 0
    write(store, run(), history=[curve("a1", range(10))])
    settle(store)
    with store.transaction() as tx:
        staging.stage(tx, PROJECT, [])
        staging.swap(tx, PROJECT, {"a1": (0, None)})
    assert read(store, "select count(*) from history") == [(0,)]
    assert settle(store)
    assert read(store, LIVE) == []
    assert read(store, "select count(*) from history") == [(0,)]


def test_files_of_a_killed_process_are_deleted_and_others_are_not(tmp_path):
    with opened(tmp_path, tail_values=0) as store:
        write(store, run(), history=[curve("a1", range(10))])
        settle(store)
        store.publish()
        (segment,) = store.home.history.rglob("*.parquet")
    half = segment.with_name("0-00000009-dead.part")
    orphan = segment.with_name("0-00000009-dead.parquet")
    unknown = segment.with_name("0-00000010-dead.parquet")
    foreign = segment.with_name("notes.txt")
    for file in (half, orphan, unknown, foreign):
        file.write_bytes(b"x")
    # What was placed and not committed stands there; a file of which nothing is known may be another state's.
    (tmp_path / "history" / ".placed").write_text(f"{orphan.relative_to(tmp_path / 'history')}\n")
    with opened(tmp_path):
        assert sorted(segment.parent.iterdir()) == sorted([segment, unknown, foreign])
    assert sorted(file.name for file in (tmp_path / "history").iterdir()) == ["entity=team"]


def test_a_home_can_be_moved(tmp_path):
    with opened(tmp_path / "old [home]", tail_values=0) as store:
        write(store, run(), history=[curve("a1", range(10))])
        settle(store)
        assert read(store, "select count(*) from history") == [(10,)]
    (tmp_path / "old [home]").rename(tmp_path / "new 'home'")
    with opened(tmp_path / "new 'home'") as store:
        assert store.changed
        assert read(store, "select count(*) from history") == [(10,)]


def test_views_of_another_version_are_all_recreated(tmp_path):
    """A digest as it was kept before the view of the history had one of its own, and a view that it does not fit."""
    with opened(tmp_path) as store:
        write(store, run(tags=("base",)))
    with duckdb.connect(str(tmp_path / "state.duckdb")) as state:
        state.execute("create or replace view run_tags as select 1 as old")
        state.execute("update store.meta set value = repeat('0', 64) where key = 'views'")
    with opened(tmp_path) as store:
        assert read(store, "select run_id, tag from run_tags") == [("a1", "base")]


class Model:
    """What the mirror should hold, in a dict."""

    def __init__(self, projects):
        self.values = {}
        self.ends = {(project, run_id): -1 for project in projects for run_id in ("a", "b", "c", "d")}

    def page(self, dice, project, run_id, *, afresh=False):
        if afresh:
            self.values = {at: value for at, value in self.values.items() if at[:2] != (project, run_id)}
            self.ends[project, run_id] = -1
        end = self.ends[project, run_id]
        points = {}
        for _ in range(dice.randrange(1, 120)):
            step, key = end + dice.randrange(1, 60), dice.choice(["loss", "acc", "üx/y", "_runtime"])
            text = dice.choice([None, None, None, '"t"'])
            points[step, key] = (None if text else dice.random(), text)
        self.values.update({(project, run_id, *at): value for at, value in points.items()})
        self.ends[project, run_id] = max(step for step, _ in points)
        # Some of what is mirrored already comes again.
        known = [at[2:] for at in self.values if at[:2] == (project, run_id) and at[2] <= end]
        again = [(step, key, -1.0, None) for step, key in dice.sample(known, min(len(known), dice.randrange(4)))]
        return page(run_id, again + [(step, key, *value) for (step, key), value in points.items()])


@pytest.mark.parametrize("straight", [False, True], ids=["by tail", "straight"])
@pytest.mark.parametrize(
    ("seed", "openings"), [(0, 4), (1, 4), *(pytest.param(seed, 12, marks=pytest.mark.soak) for seed in range(2, 6))]
)
def test_history_equals_what_was_logged_whatever_happens_to_the_files(tmp_path, seed, openings, straight, monkeypatch):
    if straight:
        monkeypatch.setattr(bulk, "FEWEST", 60)
    dice = random.Random(seed)
    projects = [PROJECT, ProjectKey("team", "words")]
    model = Model(projects)
    store_at = tmp_path / "mirror"
    sealed = 0
    with opened(store_at, tail_values=1000) as store:
        for project in projects:
            write(store, *(run(run_id, project) for run_id in ("a", "b", "c", "d")), project=project)
    for _ in range(openings):
        with opened(store_at, tail_values=1000) as store:
            store.retired_grace = timedelta(seconds=dice.choice([0, 3600]))
            for _ in range(25):
                project, run_id = dice.choice(list(model.ends))
                if dice.random() < 0.2:
                    with store.transaction() as tx:
                        refresh.request(tx, project, [run_id])
                    new = [model.page(dice, project, run_id, afresh=True), model.page(dice, project, run_id)]
                    for one in new:
                        with store.transaction() as tx:
                            staging.stage(tx, project, [one])
                        settle(store)
                    with store.transaction() as tx:
                        staging.swap(tx, project, staging.staged(tx.db, project, [run_id]))
                else:
                    with store.transaction() as tx:
                        history.append(tx, project, [model.page(dice, project, run_id) for _ in range(2)])
                if dice.random() < 0.05:
                    with store.transaction() as tx:
                        runs.mark_deleted(tx, project, [run_id], at=NOW)
                sealed += settle(store)
            rows = read(store, "select entity, project, run_id, step, key, value, text from history")
            assert len(rows) == len(model.values)
            assert {(ProjectKey(e, p), r, s, k): (v, t) for e, p, r, s, k, v, t in rows} == model.values
            recomputed = """
                select entity, project, run_id, key, count(*), min(step), max(step), min(value), max(value),
                       arg_max(value, step)
                from history group by all order by all
            """
            assert read(store, "select * exclude (run_path) from history_keys order by all") == read(store, recomputed)
    assert sealed > 10
    assert list(home_at(store_at).history.rglob("*.part")) == []
