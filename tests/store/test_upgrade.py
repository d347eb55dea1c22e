"""A mirror of a program from before the tables of the store had names of their own."""

from __future__ import annotations

import shutil

import duckdb
import pytest

import mirror
from mirror.errors import StoreError
from mirror.snapshot.connection import connected, open_attached, open_plain, open_restricted, opened
from mirror.snapshot.pool import SnapshotPool
from mirror.store import backup, reader, sqlfiles
from tests.reading import rows
from tests.store import kit
from tests.store.test_forget import fill
from tests.store.test_relations import CONTRACT

pytestmark = pytest.mark.xdist_group("upgrade")

OLDER = "was published by an older wandb-mirror: restart the daemon, or run `mirror sync` if none is running; either upgrades it"


LATER = {
    "files",
    "media",
    "artifacts",
    "artifact_files",
    "artifact_usage",
    "tables",
    "storage",
    "sweeps",
    "reports",
    "saved_views",
}
"""Relations that have read the content of files since, or are new."""

SINCE = ", ".join(name for name in sorted(sqlfiles.read("migrations")) if name >= "0014")


def content(published, without=()):
    """Every row of every relation, and the columns that tools list for it."""
    found = {}
    for relation in {*CONTRACT, "team/vision"} - set(without):
        columns = "select column_name from information_schema.columns where table_schema = 'main' and table_name = ?"
        names = [name for (name,) in rows(published, columns, relation)]
        shown = ", ".join(f'"{name}"' for name in names if name != "lag_s")
        found[relation] = (names, sorted(map(repr, rows(published, f'select {shown} from "{relation}"'))))
    return found


@pytest.fixture(scope="module")
def former(tmp_path_factory):
    """The home of such a mirror, with a segment, and what is in it."""
    home = kit.home_at(tmp_path_factory.mktemp("former"))
    with kit.opened(home.data, tail_values=5) as store:
        fill(store)
        store.publish()
        expected = content(home.published)
    kit.downgrade(home.state)
    shutil.copy(home.state, home.published)
    return home, expected


@pytest.fixture
def home(former, tmp_path):
    """A copy of it."""
    shutil.copytree(former[0].data, tmp_path / "home")
    return kit.home_at(tmp_path / "home")


def test_a_mirror_of_before_is_upgraded_and_published_with_everything_in_it(former, home, caplog):
    before = {relation: found for relation, found in former[1].items() if relation not in LATER}
    assert content(former[0].published, without=LATER) == before
    assert "run_records" not in {name for (name,) in rows(home.published, "select table_name from duckdb_tables()")}
    with kit.opened(home.data, tail_values=5) as store:
        copy = home.data / "before-upgrade" / "state-before-0014_own_names.duckdb"
        assert [record.getMessage() for record in caplog.records] == [
            f"upgrading {home.data} ({SINCE}); the mirror before the upgrade is kept as {copy}"
        ]
        # The path of the segments in the view is the only thing that moved with the home.
        assert content(home.published) == former[1]
        assert not store.changed
        kit.write(store, kit.run("c"), history=[kit.curve("c", range(7))])
        assert kit.read(store, "select run_id, history_rows from runs order by 1") == [("a", 10), ("b", 10), ("c", 7)]


READERS = {
    "for SQL": lambda home: connected(home).__enter__(),
    "of our own": lambda home: opened(home.published).__enter__(),
    "attached": lambda home: open_attached(home.published, spill=""),
    "for a preview": reader.Reader,
    "of the page": lambda home: SnapshotPool(home).connection(9).__enter__(),
}


@pytest.mark.parametrize("way", READERS)
def test_until_then_a_reader_says_what_to_do(former, way):
    home, _ = former
    with pytest.raises(StoreError) as refused:
        READERS[way](home)
    assert str(refused.value) == f"{home.published} {OLDER}"


def test_the_relations_of_a_file_of_before_can_be_read_by_whoever_opens_it(former, monkeypatch):
    monkeypatch.setenv("MIRROR_HOME", str(former[0].data))
    with mirror.connect() as connection:
        assert connection.sql("select run_id from runs order by 1").fetchall() == [("a",), ("b",)]


def test_a_mirror_of_before_is_backed_up_and_restored(former, home, tmp_path):
    made = backup.make(home, tmp_path / "backup")
    assert (made.runs, made.history_rows) == (2, 20)
    target = kit.home_at(tmp_path / "other")
    restored = backup.restore(tmp_path / "backup", target, replace=False)
    with kit.opened(target.data, tail_values=5):
        backup.check_restored(target, restored)
        assert content(target.published) == former[1]


def test_a_killed_upgrade_is_finished_by_the_next_start(former, home):
    """Killed after the commit of the migration, which is in the log of the state, and before the views are made again."""
    with duckdb.connect() as db:
        db.execute(f"attach '{home.state}' as mirror").fetchall()
        db.execute("use mirror")
        db.execute("begin")
        db.execute(sqlfiles.read("migrations")["0014_own_names"])
        db.execute("insert into store.migrations values (14, '0014_own_names', now()::timestamp)")
        db.execute("commit")
        shutil.copytree(home.data, home.data.parent / "killed")
    killed = kit.home_at(home.data.parent / "killed")
    assert killed.state.with_name("state.duckdb.wal").stat().st_size > 0
    with kit.opened(killed.data, tail_values=5) as store:
        store.publish()
        assert content(killed.published) == former[1]


def test_a_file_of_a_newer_program_is_read_as_long_as_its_tables_have_these_names(tmp_path):
    home = kit.home_at(tmp_path)
    with kit.opened(tmp_path) as store:
        kit.write(store, kit.run())
        store.publish()
    with duckdb.connect(str(home.published)) as db:
        db.execute("insert into store.migrations values (9001, '9001_future', now()::timestamp)")
    with opened(home.published) as connection:
        assert connection.execute("select run_id from store.run_records").fetchall() == [("a1",)]
    with duckdb.connect(str(home.published)) as db:
        db.execute("update store.meta set value = '9001' where key = 'readable_from'")
    with pytest.raises(
        StoreError, match=r"has schema version 9001, newer than the \d+ that this program knows; update"
    ):
        open_attached(home.published, spill="")


@pytest.mark.parametrize(
    "open_file",
    [
        lambda home: open_plain(home.published),
        lambda home: open_attached(home.published, spill=""),
        lambda home: open_restricted(home.published, home.history),
        reader.Reader,
    ],
)
def test_an_error_that_is_kept_keeps_no_file_open_that_was_published_again(tmp_path, open_file):
    """As notebooks keep the last one: DuckDB returns the database that is open in this process by that path."""
    home = kit.home_at(tmp_path)
    with kit.opened(tmp_path) as store:
        kit.write(store, kit.run())
        store.publish()
        good = home.published.read_bytes()
        with duckdb.connect(str(home.published)) as db:
            db.execute("update store.meta set value = '9001' where key = 'readable_from'")
        with pytest.raises(StoreError, match="newer than") as kept:
            open_file(home)
        home.published.unlink()
        home.published.write_bytes(good)
        open_file(home).close()
    assert kept.tb is not None
