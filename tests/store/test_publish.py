"""The snapshot for readers: whole at every moment, and never in the writer's way."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time

import duckdb
import pytest

from mirror.errors import StoreError
from mirror.store import files, segments
from mirror.store.store import Store
from tests.store.kit import curve, home_at, opened, read, run, settle, write

READER = textwrap.dedent("""
    import sys, duckdb
    path, until = sys.argv[1:]
    reads = last = 0
    print("reading", flush=True)
    while last < int(until):
        with duckdb.connect(path, read_only=True) as reader:
            rows, distinct, counted = reader.execute(
                "select (select count(*) from history), (select count(distinct step) from history), "
                "(select sum(history_rows) from runs)").fetchone()
            wide = reader.execute('select sum("config.n") from "team/vision"').fetchone()[0]
        assert rows == distinct == counted, (rows, distinct, counted)
        assert wide * 100 == rows, (wide, rows)
        assert rows >= last, (rows, last)
        last = rows
        reads += 1
    print(reads)
""")

HOLDER = "import sys, duckdb; duckdb.connect(sys.argv[1]).execute('select 1')"


def test_readers_in_other_processes_see_whole_snapshots_while_the_store_is_written(store, monkeypatch):
    monkeypatch.setattr(segments, "MERGE", 16)
    rounds = 20
    write(store, run(config={"n": 1}), history=[curve("a1", range(100))])
    store.publish()
    store.tail_values = 99
    command = [sys.executable, "-c", READER, str(store.home.published), str(rounds * 100)]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for reader in readers:
        assert reader.stdout.readline() == "reading\n"
    for number in range(2, rounds + 1):
        write(store, run(config={"n": number}), history=[curve("a1", range(number * 100 - 100, number * 100))])
        settle(store)
        store.publish()
    for reader in readers:
        out, errors = reader.communicate(timeout=60)
        assert (reader.returncode, errors) == (0, "")
        assert int(out) > 1
    assert read(store, "select count(*) from store.segments where retired_at is not null")[0][0] > 0


def test_the_state_file_is_still_locked_after_a_publish(store):
    write(store, run())
    store.publish()
    command = [sys.executable, "-c", HOLDER, str(store.home.state)]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Could not set lock" in refused.stderr
    write(store, run("b2"))
    assert read(store, "select count(*) from runs") == [(2,)]


def test_nothing_is_published_twice(tmp_path, first_opening):
    with opened(tmp_path) as store:
        assert not store.changed
        assert store.publish() is None
        write(store, run())
        assert store.changed
        published = store.publish()
        assert published.path == store.home.published
        assert published.bytes == store.home.published.stat().st_size
        assert published.seconds > 0
        assert not store.changed
    with opened(tmp_path) as store:
        assert not store.changed
        assert store.publish() is None
        store.home.published.unlink()
        assert store.publish() is not None


def test_what_was_committed_but_not_published_is_seen_after_the_next_start(tmp_path):
    with opened(tmp_path) as store:
        write(store, run())
    with opened(tmp_path) as store:
        assert store.changed
        assert read(store, "select run_id from runs") == [("a1",)]


def test_a_log_that_a_careless_client_left_is_no_part_of_the_next_snapshot(store):
    write(store, run())
    store.publish()
    stray = store.home.published.with_name("mirror.duckdb.wal")
    stray.write_bytes(b"left by someone")
    write(store, run("b2"))
    store.publish()
    assert not stray.exists()
    assert read(store, "select count(*) from runs") == [(2,)]


def test_a_failed_publish_leaves_the_former_file_and_no_other(store, monkeypatch):
    write(store, run())
    store.publish()
    write(store, run("b2"))
    before = sorted(store.home.data.iterdir())

    def full(descriptor, target, **options):
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "copy_from", full)
    with pytest.raises(StoreError, match=r"^no space left on the disk of .*state\.duckdb"):
        store.publish()
    after = {file for file in store.home.data.iterdir() if file.suffix != ".wal"}
    assert after == {file for file in before if file.suffix != ".wal"}
    with duckdb.connect(str(store.home.published), read_only=True) as reader:
        assert reader.execute("select run_id from runs").fetchall() == [("a1",)]
    monkeypatch.undo()
    assert store.changed
    assert read(store, "select count(*) from runs") == [(2,)]


def test_a_copy_that_differs_from_the_store_is_not_shown(store, monkeypatch):
    write(store, run())
    store.publish()
    write(store, run("b2"))
    copy = files.copy_from

    def stale(descriptor, target, **options):
        with store.home.published.open("rb") as former:
            return copy(former.fileno(), target, **options)

    monkeypatch.setattr(files, "copy_from", stale)
    with pytest.raises(StoreError, match=r"differs from .*state\.duckdb; readers keep the previous one, try again"):
        store.publish()
    monkeypatch.undo()
    assert read(store, "select count(*) from runs") == [(2,)]


def test_copies_that_a_killed_process_left_are_deleted_at_the_next_start(tmp_path):
    with opened(tmp_path) as store:
        write(store, run())
    left = tmp_path / ".mirror.duckdb-123-abcdef00.part"
    left.write_bytes(b"half")
    with opened(tmp_path):
        assert not left.exists()


def test_what_a_killed_reader_spilled_is_deleted_a_day_later(tmp_path):
    with opened(tmp_path) as store:
        write(store, run())
    fresh, old = (tmp_path / f"mirror.duckdb.tmp-{number}" for number in (7, "8-1"))
    for folder in (fresh, old):
        folder.mkdir()
        (folder / "duckdb_temp_storage-0.tmp").write_bytes(b"spilled")
    os.utime(old, (time.time() - 90_000,) * 2)
    with opened(tmp_path):
        assert [path.name for path in tmp_path.glob("*.tmp-*")] == [fresh.name]


def test_files_are_private_but_for_the_snapshot(tmp_path):
    with opened(tmp_path / "mirror") as store:
        write(store, run())
        modes = {file.name: oct(file.stat().st_mode & 0o777) for file in [store.home.data, *store.home.data.iterdir()]}
        assert modes == {
            "mirror": "0o700",
            "history": "0o700",
            "state.duckdb": "0o600",
            "state.duckdb.wal": "0o600",
            "mirror.duckdb": "0o444",
        }


def test_a_new_home_has_an_empty_snapshot_at_once(tmp_path, first_opening):
    home = home_at(tmp_path / "a" / "b")
    Store.open(home).close()
    with duckdb.connect(str(home.published), read_only=True) as reader:
        assert reader.execute("from runs").fetchall() == []
        assert reader.execute("from history").fetchall() == []
    assert home.state.read_bytes() == home.published.read_bytes()
