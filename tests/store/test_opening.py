"""Opening the store: made, migrated, compacted, refused, and whole again after whatever happened to the writer."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import duckdb
import pytest

from mirror.errors import StoreBusy, StoreError
from mirror.store import compact, projects, runs, sqlfiles
from mirror.store.database import Database
from tests.reading import rows
from tests.store.kit import NOW, PROJECT, curve, opened, read, run, settle, write

WRITER = textwrap.dedent("""
    import sys
    from datetime import timedelta
    from pathlib import Path
    from mirror.store import history, projects, runs
    from mirror.store.records import ProjectCursor
    from tests.store.kit import NOW, PROJECT, curve, opened, run, settle

    with opened(Path(sys.argv[1]), tail_values=500) as store:
        done = int(sys.argv[2])
        while True:
            with store.transaction() as tx:
                runs.upsert(tx, [run(config={"n": done + 1}, tags=("t",))], now=NOW)
                history.append(tx, PROJECT, [curve("a1", range(done * 100, done * 100 + 100))])
                projects.set_cursor(tx, PROJECT, ProjectCursor(NOW + timedelta(seconds=done + 1)))
            done += 1
            print(done, flush=True)
            settle(store)
            if done % 3 == 0:
                store.publish()
""")

HOLDER = textwrap.dedent("""
    import sys
    from pathlib import Path
    from tests.store.kit import opened, settle

    with opened(Path(sys.argv[1])):
        print("open", flush=True)
        sys.stdin.read()
""")

FULL = textwrap.dedent("""
    import resource, sys
    from pathlib import Path
    from mirror.errors import StoreError
    from mirror.store import projects, runs
    from tests.store.kit import curve, opened, read, run, settle, write

    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    with opened(Path(sys.argv[1])) as store:
        write(store, run())
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), unlimited[1]))
        steps = 0
        try:
            while True:
                write(store, history=[curve("a1", range(steps, steps + 5000), keys=["x", "y"])])
                steps += 5000
                store.publish()
        except StoreError as error:
            print(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        there = store.read(lambda db: runs.known(db, projects.everything(db)[0]))["a1"].rows
        # A commit whose checkpoint found no room may be reported as failed, and be there.
        assert there in (steps, steps + 5000), (there, steps)
        steps = there
        write(store, history=[curve("a1", range(steps, steps + 5), keys=["x", "y"])])
        print(read(store, "select count(*), count(distinct step) from history") == [(2 * steps + 10, steps + 5)])
        print(sorted(file.name for file in Path(sys.argv[1]).iterdir() if file.suffix != ".wal"))
""")


def python(script, *arguments, **options):
    return subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)], text=True, **options)


def test_migrations_are_applied_once_and_in_order_and_the_file_before_is_kept(tmp_path, monkeypatch, caplog):
    with opened(tmp_path) as store:
        write(store, run())
        names = list(sqlfiles.read("migrations"))
        assert read(store, "select name from store.migrations order by number") == [(name,) for name in names]
    real = sqlfiles.read
    more = {
        "8001_one": "create table store.one (i int); insert into store.one values (1)",
        "8002_two": "create table store.two as from store.one",
    }
    monkeypatch.setattr(sqlfiles, "read", lambda folder: {**real(folder), **(more if folder == "migrations" else {})})
    for _ in range(2):
        with opened(tmp_path) as store:
            assert read(store, "select number from store.migrations where number > 8000 order by 1") == [
                (8001,),
                (8002,),
            ]
            assert read(store, "select run_id, i from runs, store.two") == [("a1", 1)]
    copy = tmp_path / "before-upgrade" / "state-before-8001_one.duckdb"
    assert [record.getMessage() for record in caplog.records] == [
        f"upgrading {tmp_path} (8001_one, 8002_two); the mirror before the upgrade is kept as {copy}"
    ]
    assert rows(copy, "select run_id, (select max(number) from store.migrations) from runs") == [
        ("a1", int(names[-1].split("_")[0]))
    ]
    # It takes the place of the published file if one goes back to the program that wrote it.
    monkeypatch.undo()
    for name in ("state.duckdb", "mirror.duckdb"):
        (tmp_path / name).unlink()
    shutil.copy(copy, tmp_path / "mirror.duckdb")
    with opened(tmp_path) as store:
        assert list(store.read(lambda db: runs.known(db, PROJECT))) == ["a1"]


def test_a_migration_that_fails_leaves_the_store_as_it_was(tmp_path, monkeypatch):
    with opened(tmp_path) as store:
        write(store, run())
    real = sqlfiles.read
    broken = {"8001_broken": "create table store.half (i int); select * from no_such_table"}
    monkeypatch.setattr(sqlfiles, "read", lambda folder: {**real(folder), **(broken if folder == "migrations" else {})})
    with pytest.raises(StoreError, match="no_such_table"), opened(tmp_path):
        pass
    monkeypatch.undo()
    with opened(tmp_path) as store:
        assert read(store, "select count(*) from duckdb_tables() where table_name = 'half'") == [(0,)]
        assert list(store.read(lambda db: runs.known(db, PROJECT))) == ["a1"]


def test_a_view_that_fails_while_a_store_is_made_leaves_its_error_and_the_threads_as_they_were(tmp_path, monkeypatch):
    """Many small statements run on one thread, in a transaction that takes no other statement after the error."""
    real = sqlfiles.read
    broken = {"broken": "CREATE OR REPLACE VIEW main.broken AS SELECT * FROM no_such_table"}
    monkeypatch.setattr(sqlfiles, "read", lambda folder: {**real(folder), **(broken if folder == "views" else {})})
    with pytest.raises(StoreError, match="no_such_table"), opened(tmp_path):
        pass
    db = Database(tmp_path / "state.duckdb", "v1.4.0")
    threads = "SELECT current_setting('threads')"
    db.run("SET threads = 3")
    found = []

    def fail():
        with db.transaction(), db.on_one_thread():
            found.append(db.value(threads))
            db.run("SELECT * FROM no_such_table")

    with pytest.raises(duckdb.Error, match="no_such_table"):
        fail()
    assert [*found, db.value(threads)] == [1, 3]
    db.close()


def test_a_store_from_a_newer_program_is_refused_and_not_changed(tmp_path):
    with opened(tmp_path) as store:
        write(store, run())
    db = Database(tmp_path / "state.duckdb", "v1.4.0")
    db.run("INSERT INTO store.migrations VALUES (9001, '9001_future', now()::TIMESTAMP)")
    db.close()
    before = (tmp_path / "state.duckdb").read_bytes()
    with pytest.raises(StoreError) as refused, opened(tmp_path):
        pass
    newest = max(int(name.split("_")[0]) for name in sqlfiles.read("migrations"))
    assert str(refused.value) == (
        f"{tmp_path}/state.duckdb has schema version 9001, newer than the {newest} that this program knows; "
        "update wandb-mirror"
    )
    assert (tmp_path / "state.duckdb").read_bytes() == before


def test_a_file_of_a_newer_duckdb_is_refused(tmp_path):
    tmp_path.joinpath("state.duckdb").write_bytes(b"")
    with opened(tmp_path / "good"):
        pass
    content = bytearray((tmp_path / "good" / "state.duckdb").read_bytes())
    place = content.index(b"DUCK") + 4
    content[place : place + 8] = (999).to_bytes(8, "little")
    (tmp_path / "state.duckdb").write_bytes(content)
    with pytest.raises(StoreError, match=r"^[^\n]*state.duckdb [^\n]*$"), opened(tmp_path):
        pass


def test_a_second_process_is_refused_and_told_who_has_it(tmp_path):
    holder = python(HOLDER, tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(StoreBusy) as refused, opened(tmp_path):
            pass
        assert str(refused.value) == (
            f"{tmp_path}/state.duckdb is held by process {holder.pid}; stop it, or let the daemon do the work"
        )
    finally:
        holder.communicate()


def test_a_second_store_in_one_process_is_refused_and_the_first_stays_locked(tmp_path):
    with opened(tmp_path) as store:
        with pytest.raises(StoreBusy, match="held by this process already"), opened(tmp_path):
            pass
        outside = python(HOLDER, tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert f"held by process {os.getpid()};" in outside.communicate()[1]
        write(store, run())
        assert read(store, "select run_id from runs") == [("a1",)]


def test_a_home_that_cannot_be_a_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"^[^\n]+/file cannot be [^\n]+$"), opened(tmp_path / "file"):
        pass


def test_free_space_is_given_back_at_the_next_start(tmp_path, monkeypatch):
    monkeypatch.setattr(compact, "SMALLEST", 1 << 20)
    with opened(tmp_path) as store:
        write(store, run(config={"a": 1}), history=[curve("a1", range(300_000), keys=["x", "y"])])
        store.publish()
        store.tail_values = 1000
        assert settle(store)
        store.publish()
        expected = read(store, "select count(*), sum(step), bit_xor(hash(step, key, value)) from history")
        before = store.home.state.stat().st_size
    with opened(tmp_path) as store:
        assert store.changed
        assert read(store, "select count(*), sum(step), bit_xor(hash(step, key, value)) from history") == expected
        assert store.home.state.stat().st_size < before / 2
        assert store.home.state.stat().st_mode & 0o777 == 0o600
        write(store, run("b2"))
        assert read(store, "select run_id from runs order by 1") == [("a1",), ("b2",)]
    with opened(tmp_path) as store:
        assert read(store, 'select run_id, "config.a" from "team/vision" order by 1') == [("a1", 1.0), ("b2", None)]


@pytest.mark.parametrize("seed", range(2))
def test_a_killed_writer_loses_nothing_that_was_committed(tmp_path, seed):
    dice = random.Random(seed)
    done = 0
    for _ in range(4):
        writer = python(WRITER, tmp_path, done, stdout=subprocess.PIPE)
        acknowledged = [int(writer.stdout.readline())]
        time.sleep(dice.uniform(0, 1))
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged += [int(line) for line in writer.communicate()[0].splitlines()]
        with opened(tmp_path, tail_values=500) as store:
            done = store.read(lambda db: runs.known(db, PROJECT))["a1"].rows // 100
            # One more may have been committed than could still be reported.
            assert done - acknowledged[-1] in (0, 1)
            assert read(store, "select count(*), count(distinct step) from history") == [(done * 100, done * 100)]
            assert read(store, 'select "config.n" from "team/vision"') == [(done,)]
            assert read(store, "select rows, last_step from history_keys") == [(done * 100, done * 100 - 1)]
            assert (store.read(lambda db: projects.cursor(db, PROJECT)).covered_to - NOW).total_seconds() == done
            listed = {path for (path,) in read(store, "select path from store.segments")}
            files = {str(file.relative_to(store.home.history)) for file in store.home.history.rglob("*.*")}
            assert files == listed
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


def test_a_full_disk_loses_nothing_and_the_store_goes_on_when_there_is_room(tmp_path):
    done = python(FULL, tmp_path, 3 << 20, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, errors = done.communicate(timeout=120)
    assert errors == ""
    message, whole, files = out.splitlines()
    assert message.startswith(f"no space left on the disk of {tmp_path}/state.duckdb; ")
    assert whole == "True"
    assert files == "['history', 'mirror.duckdb', 'state.duckdb']"


def test_a_closed_store_can_be_closed_again(tmp_path):
    with opened(tmp_path) as store:
        store.close()
