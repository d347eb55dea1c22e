"""What a backfill brings goes straight into segments once the history outgrows the tail; readers see no difference."""

from __future__ import annotations

import errno

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from mirror.errors import StoreError
from mirror.metrics import arrange, summarise
from mirror.store import (
    bulk,
    checks,
    history,
    history_cursors,
    refresh,
    repair,
    segment_checks,
    segment_writer,
    staging,
)
from mirror.store.records import HistoryPage, ProjectKey
from tests.store.kit import NOW, PROJECT, curve, home_at, opened, page, read, run, write

HISTORY = "SELECT run_id, key, step, value, text FROM history ORDER BY ALL"
KEYS = "SELECT * FROM history_keys ORDER BY ALL"


@pytest.fixture(autouse=True)
def _few_are_enough(monkeypatch):
    monkeypatch.setattr(bulk, "FEWEST", 20)


def summarised(given: HistoryPage) -> HistoryPage:
    values = arrange(given.values)
    return HistoryPage(given.run_id, values, given.rows, given.last_step, summarise(values))


def mixed(run_id: str, first: int) -> HistoryPage:
    steps = range(first, first + 10)
    odd = [
        (first, "note", None, '"é"'),
        (first + 1, "big", 1e18, "1000000000000000001"),
        (first, "nan", float("nan"), None),
    ]
    return summarised(page(run_id, [(s, key, 1.0 / (s + 1), None) for s in steps for key in ("loss", "a.b")] + odd))


def tables(root, tail_values):
    with opened(root, tail_values=tail_values) as store:
        write(store, run("b"), run("a"))
        for first in (0, 10, 20):
            write(store, history=[mixed("b", first), mixed("a", first)])
        write(store, history=[curve("a", [30])])
        where = read(store, "SELECT (SELECT count(*) FROM store.history_tail), (SELECT count(*) FROM store.segments)")
        return read(store, HISTORY), read(store, KEYS), where


def test_a_history_is_the_same_whichever_way_it_went(tmp_path):
    straight, by_tail = tables(tmp_path / "one", 100), tables(tmp_path / "two", 10_000)
    assert repr(straight[:2]) == repr(by_tail[:2])
    assert (straight[2], by_tail[2]) == ([(93, 1)], [(139, 0)])


def test_what_is_still_to_come_counts_towards_outgrowing_the_tail(tmp_path):
    with opened(tmp_path, tail_values=100) as store:
        write(store, run())
        with store.transaction() as tx:
            history.append(tx, PROJECT, [mixed("a1", 0)], to_come=70)
        with store.transaction() as tx:
            history.append(tx, PROJECT, [mixed("a1", 10)], to_come=90)
        assert read(store, "SELECT count(*) FROM store.history_tail") == [(23,)]
        assert read(store, "SELECT value_count FROM store.segments") == [(23,)]


def test_a_segment_is_in_the_order_of_key_run_and_step(tmp_path, monkeypatch):
    monkeypatch.setattr(segment_writer, "ROW_GROUP", 16)
    with opened(tmp_path, tail_values=0) as store:
        write(store, run("b"), run("a"))
        write(store, history=[mixed("b", 0), mixed("a", 0), mixed("b", 10)])
        (file,) = store.home.history.rglob("*.parquet")
    parquet = pq.ParquetFile(file)
    rows = parquet.read().to_pylist()
    places = [(row["key"], row["run_id"], row["step"]) for row in rows]
    assert places == sorted(places)
    assert len(places) == 69
    assert all(parquet.metadata.row_group(n).num_rows <= 16 for n in range(parquet.metadata.num_row_groups))
    assert parquet.schema_arrow.names == ["run_id", "key", "step", "value", "text"]


def test_a_draft_of_exactly_the_new_values_becomes_the_segment(tmp_path):
    """It is written before the transaction; what is mirrored already, or fails meanwhile, makes it useless."""
    one, other = tmp_path / "one", tmp_path / "other"
    pages = [mixed("a", 10), mixed("b", 0)]
    for root, with_draft in ((one, True), (other, False)):
        with opened(root, tail_values=0) as store:
            write(store, run("a"), run("b"))
            write(store, history=[mixed("a", 0)])
            drafted = bulk.draft(store.home.history, PROJECT, pages) if with_draft else None
            with store.transaction() as tx:
                assert history.append(tx, PROJECT, pages, drafted=drafted)
            if drafted is not None:
                written = drafted.path
                assert not written.exists()
                drafted.discard()
            # Half of it is mirrored by now.
            again = [mixed("a", 10), mixed("b", 10)]
            drafted = bulk.draft(store.home.history, PROJECT, again) if with_draft else None
            with store.transaction() as tx:
                assert history.append(tx, PROJECT, again, drafted=drafted)
            if drafted is not None:
                assert drafted.path.exists()
                drafted.discard()
            assert list(store.home.history.rglob("*.part")) == []
            assert not segment_checks.unreadable(store._db, store.home.history)
    assert repr(all_of(one)) == repr(all_of(other))


def all_of(root):
    with opened(root) as store:
        counted = read(store, "SELECT segment_id, value_count, digest FROM store.segments ORDER BY 1")
        return read(store, HISTORY), read(store, KEYS), counted


def test_what_cannot_be_drafted_is_written_by_the_transaction(tmp_path, monkeypatch):
    with opened(tmp_path, tail_values=0) as store:
        write(store, run("a"))
        folder = store.home.history
        assert bulk.draft(folder, PROJECT, [curve("a", range(50))]) is None, "it has to be sorted first"
        assert bulk.draft(folder, ProjectKey("team", "ü" * 200), [mixed("a", 0)]) is None
        for error in (OSError(errno.ENOSPC, "No space left on device"), pa.ArrowTypeError("odd"), MemoryError()):
            with monkeypatch.context() as patch:
                patch.setattr(bulk.files, "sync_file", raising(error))
                assert bulk.draft(folder, PROJECT, [mixed("a", 0)]) is None
        assert list(folder.rglob("*.part")) == []
        (folder / "entity=other").write_text("no folder")
        assert bulk.draft(folder, ProjectKey("other", "p"), [mixed("a", 0)]) is None
        monkeypatch.setattr(bulk, "FEWEST", 1000)
        assert bulk.draft(folder, PROJECT, [mixed("a", 0)]) is None, "too few"


def raising(error):
    def failing(path):
        raise error

    return failing


def test_a_transaction_that_fails_leaves_no_segment(tmp_path):
    with opened(tmp_path, tail_values=0) as store:
        write(store, run())
        # Of a run that was never written, which is found out after the segment.
        with pytest.raises(StoreError), store.transaction() as tx:  # noqa: PT012
            history.append(tx, PROJECT, [mixed("a1", 0)])
            history.append(tx, PROJECT, [mixed("unknown", 0)])
        assert read(store, "SELECT count(*) FROM history") == [(0,)]
        write(store, history=[mixed("a1", 0)])
        assert read(store, "SELECT count(*) FROM history") == [(23,)]
        assert len(list(store.home.history.rglob("*.parquet"))) == 1
    with opened(tmp_path) as store:
        assert len(list(store.home.history.rglob("*.parquet"))) == 1
        assert read(store, "SELECT count(*) FROM history") == [(23,)]


def test_a_project_whose_name_is_no_folder_stays_in_the_tail(tmp_path):
    long = ProjectKey("team", "ü" * 125)
    with opened(tmp_path, tail_values=0) as store:
        write(store, run(project=long), history=[mixed("a1", 0)], project=long)
        assert read(store, "SELECT count(*) FROM store.history_tail") == [(23,)]


def test_old_readers_open_a_segment_that_bypassed_the_tail(tmp_path):
    with opened(tmp_path, tail_values=0) as store:
        write(store, run(), history=[mixed("a1", 0)])
        store.publish()
    with duckdb.connect(str(home_at(tmp_path).published), read_only=True) as connection:
        assert connection.execute("SELECT text FROM history WHERE key = 'big'").fetchall() == [("1000000000000000001",)]


def again(store, *, stop_before_swap=False):
    """Both runs are pulled again in two transactions, each value doubled; readers look on."""
    seen = read(store, HISTORY)
    with store.transaction() as tx:
        refresh.request(tx, PROJECT, ["a", "b"])
    for first in (0, 10):
        pages = [mixed("b", first), mixed("a", first)]
        with store.transaction() as tx:
            staging.stage(tx, PROJECT, [doubled(one) for one in pages])
        store.seal()
        store.tend()
        assert repr(read(store, HISTORY)) == repr(seen), "what is gathered is not seen"
    if stop_before_swap:
        return
    for run_id in ("a", "b"):
        with store.transaction() as tx:
            assert staging.staged(tx.db, PROJECT, [run_id]) == {run_id: (20, 19)}
            staging.swap(tx, PROJECT, {run_id: (20, 19)})
        left = read(store, "SELECT run_id, max(step), max(value) FILTER (WHERE key = 'loss') FROM history GROUP BY 1")
        assert (run_id, 19, 2.0) in left


def doubled(given: HistoryPage) -> HistoryPage:
    values = given.values.set_column(2, "value", pc.multiply(given.values["value"], 2.0))
    return HistoryPage(given.run_id, values, given.rows, given.last_step, summarise(values))


def replaced(root, tail_values):
    with opened(root, tail_values=tail_values) as store:
        write(store, run("b"), run("a"))
        for first in (0, 10, 20):
            write(store, history=[mixed("b", first), mixed("a", first)])
        again(store)
        where = read(
            store,
            "SELECT (SELECT count(*) FROM store.history_tail), (SELECT count(*) FROM store.segments), "
            + ", ".join(f"(SELECT count(*) FROM store.{table})" for table in staging.TABLES),
        )
        assert store.tend() == bool(where[0][1])
        rows, keys = read(store, HISTORY), read(store, KEYS)
        assert not mirror_damage(store)
    return rows, keys, where


def mirror_damage(store):
    db = store._db
    return [
        *segment_checks.segment_damage(db, store.home.history, PROJECT).values(),
        *checks.owners(db),
        *checks.cursors(db, PROJECT),
    ]


def test_a_replaced_history_is_the_same_whichever_way_it_went(tmp_path):
    straight, by_tail = replaced(tmp_path / "one", 0), replaced(tmp_path / "two", 10_000)
    assert repr(straight[:2]) == repr(by_tail[:2])
    assert (straight[2], by_tail[2]) == ([(0, 5, 0, 0, 0, 0)], [(92, 0, 0, 0, 0, 0)])


NAMES = [f"r{number:02}" for number in range(60)]
KEPT = NAMES[::7]


def swapped(root, tail_values, sizes):
    """Of 60 runs in each of two projects, pull those of one again: some longer, some empty; swap in groups."""
    other, again = ProjectKey("team", "other"), [name for name in NAMES if name not in KEPT]
    with opened(root, tail_values=tail_values) as store:
        for project in (PROJECT, other):
            write(store, *(run(name, project=project) for name in NAMES), project=project)
            for first in (0, 2):
                write(store, history=[curve(name, [first, first + 1]) for name in NAMES], project=project)
        with store.transaction() as tx:
            history_cursors.record_failures(tx, PROJECT, dict.fromkeys(again[::9], ("a gap", NOW)))
            refresh.request(tx, PROJECT, again)
        for first in (0, 3):
            with store.transaction() as tx:
                pages = [curve(name, range(first, first + 3), scale=5) for name in again if name[-1] != "3"]
                staging.stage(tx, PROJECT, [one for one in pages if first == 0 or one.run_id[-1] != "4"])
        elsewhere = "SELECT * FROM history WHERE project = 'other' ORDER BY ALL"
        before, left = read(store, elsewhere), list(again)
        for size in sizes:
            group, left = left[:size], left[size:]
            with store.transaction() as tx:
                staging.swap(tx, PROJECT, staging.staged(tx.db, PROJECT, group))
        assert not left
        assert repr(read(store, elsewhere)) == repr(before)
        assert not mirror_damage(store)
        cursors = (
            "SELECT r.run_id, h.* EXCLUDE (rid) FROM store.run_history AS h JOIN store.run_records AS r USING (rid) "
            "WHERE r.project = 'vision' ORDER BY ALL"
        )
        counts = ", ".join(f"(SELECT count(*) FROM store.{table})" for table in staging.TABLES)
        assert read(store, f"SELECT {counts}") == [(0,) * len(staging.TABLES)]
        own = HISTORY.replace("ORDER", "WHERE project = 'vision' ORDER")
        return [read(store, query) for query in (own, KEYS, cursors)]


@pytest.mark.parametrize("tail_values", [0, 300, 1_000, 10_000])
def test_histories_are_the_same_swapped_in_together_or_one_by_one(tmp_path, tail_values):
    one_by_one = swapped(tmp_path / "one", tail_values, [1] * 51)
    together = swapped(tmp_path / "two", tail_values, [51])
    assert repr(swapped(tmp_path / "three", tail_values, [20, 31])) == repr(together) == repr(one_by_one)
    steps = {name: 4 if name in KEPT else {"3": 0, "4": 3}.get(name[-1], 6) for name in NAMES}
    assert one_by_one[0] == [
        (name, "loss", step, (1 if name in KEPT else 5) / (step + 1), None)
        for name in NAMES
        for step in range(steps[name])
    ]
    assert [row[:4] for row in one_by_one[2]] == [(name, n, n - 1 if n else None, False) for name, n in steps.items()]


def test_what_is_gathered_lasts_until_it_is_dropped_or_swapped_in(tmp_path):
    with opened(tmp_path, tail_values=0) as store:
        write(store, run("b"), run("a"))
        write(store, history=[mixed("b", 0), mixed("a", 0)])
        again(store, stop_before_swap=True)
        gathered = {file.name for file in store.home.history.rglob("*.parquet")}
    with opened(tmp_path, tail_values=0) as store:
        assert {file.name for file in store.home.history.rglob("*.parquet")} == gathered
        with store.transaction() as tx:
            assert staging.staged(tx.db, PROJECT, ["a"]) == {"a": (20, 19)}
            refresh.request(tx, PROJECT, ["a"])
            staging.swap(tx, PROJECT, {"b": (20, 19)})
        assert read(store, "SELECT run_id, count(*) FROM history GROUP BY 1 ORDER BY 1") == [("a", 23), ("b", 46)]
        assert store.tend(), "half of each segment is of no use"
        assert read(store, "SELECT run_id, count(*) FROM history GROUP BY 1 ORDER BY 1") == [("a", 23), ("b", 46)]
        assert not mirror_damage(store)


def test_a_gathered_history_whose_segment_is_lost_is_gathered_again(tmp_path):
    with opened(tmp_path, tail_values=0) as store:
        write(store, run("b"), run("a"))
        write(store, history=[mixed("b", 0), mixed("a", 0)])
        before = set(store.home.history.rglob("*.parquet"))
        again(store, stop_before_swap=True)
        for file in set(store.home.history.rglob("*.parquet")) - before:
            file.unlink()
        with store.transaction() as tx:
            reported = repair.mend(tx, PROJECT)
            assert [line.split(" (")[1] for line in reported] == ["no file)", "no file)"]
            assert staging.staged(tx.db, PROJECT, ["a", "b"]) == {"a": (0, None), "b": (0, None)}
        assert read(store, "SELECT count(*) FROM history") == [(46,)]


def test_a_long_history_that_is_cut_goes_into_a_segment(tmp_path):
    with opened(tmp_path, tail_values=0) as store:
        write(store, run("a"))
        write(store, history=[mixed("a", 0), mixed("a", 10)])
        with store.transaction() as tx:
            staging.cut(tx, PROJECT, "a", last_step=11)
        assert read(store, "SELECT max(step), count(*) FROM history") == [(11, 30)]
        assert read(store, "SELECT count(*) FROM store.history_tail") == [(0,)]
        assert read(store, "SELECT history_rows FROM runs") == [(12,)]
        assert not mirror_damage(store)
