"""A backup is consistent beside a running daemon, has no key, and a mirror goes on from it in another home."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from mirror.settings.home import Home
from mirror.store import files, migrations
from mirror.store.backup import before_upgrade
from tests.daemon.conftest import bench as bench  # noqa: PLC0414 - the fixture
from tests.daemon.test_daemon import add
from tests.daemon.test_sync_command import failure
from tests.reading import rows

CONFIG = """projects = ["team/p"]
[sync]
interval = "1h"
[store]
tail_values = 1
[http]
listen = ""
"""
KNOWN = "select run_id, history_rows, (select count(*) from history h where h.run_id = r.run_id) from runs r order by 1"


def elsewhere(bench, name="other"):
    """An environment with another home."""
    return {"MIRROR_HOME": str(bench.root / name)}


def test_a_mirror_goes_on_from_a_backup_made_beside_its_daemon(bench):
    for name in ("one", "two"):
        add(bench, name)
    bench.configure(text=CONFIG)
    folder = bench.root / "backup"
    with bench.daemon():
        bench.until(lambda: bench.sql("select count(*) from runs") == [(2,)])
        first = bench.mirror("backup", str(folder))
        assert re.fullmatch(
            rf"{folder}: 2 runs, 6 history rows, [\d.]+ MB in 2 files; [\d.]+ MB were copied\n", first.stderr
        )
        segments = {path: path.stat().st_mtime_ns for path in (folder / "history").rglob("*.parquet")}
        add(bench, "three")
        bench.mirror("sync")
        bench.mirror("backup", str(folder))
    again = {path: path.stat().st_mtime_ns for path in (folder / "history").rglob("*.parquet")}
    assert again.items() > segments.items()
    assert len(list(folder.glob("*.duckdb"))) == 1
    manifest = json.loads((folder / "backup.json").read_text())
    assert (manifest["runs"], manifest["config"]) == (3, CONFIG)
    assert bench.server.key not in "".join(path.read_text("latin-1") for path in folder.rglob("*") if path.is_file())

    shutil.rmtree(bench.home)
    add(bench, "four")
    other = elsewhere(bench)
    done = bench.mirror("restore", str(folder), **other)
    assert done.stderr.endswith("; `mirror sync` or a daemon continues from there\n")
    published = bench.root / "other" / "mirror.duckdb"
    assert rows(published, KNOWN) == [("one", 3, 9), ("three", 3, 9), ("two", 3, 9)]
    done = bench.mirror("sync", **other)
    assert done.stderr.startswith("team/p: 1 run (1 new), 3 history rows (")
    assert rows(published, KNOWN) == [("four", 3, 9), ("one", 3, 9), ("three", 3, 9), ("two", 3, 9)]
    assert bench.mirror("verify", **other).returncode == 0


def test_what_is_in_the_way_of_a_backup_or_its_restore_is_said(bench):
    add(bench, "one")
    bench.configure(text=CONFIG)
    folder, home = bench.root / "backup", bench.home
    code, line = failure(bench.mirror("backup", str(folder), check=False))
    assert (code, line) == (1, f"error: nothing is mirrored in {home}, so there is nothing to back up")
    bench.mirror("sync")
    foreign = bench.root / "foreign"
    foreign.mkdir()
    (foreign / "mine.txt").write_text("x")
    bench.mirror("backup", str(folder))
    bench.mirror("sync", **elsewhere(bench), check=False)
    bench.mirror("sync", "team/p", **elsewhere(bench))
    for arguments, message, environ in (
        (
            ["backup", str(foreign)],
            f"{foreign} is not empty, and has no earlier backup; name an empty or a new folder",
            {},
        ),
        (
            ["backup", str(home / "history" / "b")],
            f"{home}/history/b is part of the mirror itself; name a folder out",
            {},
        ),
        (["backup", str(folder)], f"{folder} has a backup of another mirror; name another folder", elsewhere(bench)),
        (["restore", str(foreign)], f"{foreign} has no backup.json, so it is not a backup of `mirror backup`", {}),
        (["restore", str(folder)], f"{home} has a mirror already; --replace replaces it, and keeps its databases", {}),
    ):
        code, line = failure(bench.mirror(*arguments, check=False, **environ))
        assert (code, line.startswith(f"error: {message}")) == (2, True), line
    bench.mirror("restore", str(folder), "--replace", **elsewhere(bench))
    assert rows(bench.root / "other" / "mirror.duckdb", KNOWN) == [("one", 3, 9)]
    published = bench.root / "other" / "mirror.duckdb"
    whole = published.read_bytes()
    published.chmod(0o600)
    published.write_bytes(whole[:-100_000])
    code, line = failure(bench.mirror("backup", str(bench.root / "new"), check=False, **elsewhere(bench)))
    assert (code, line.startswith(f"error: {published} is damaged (")) == (1, True), line
    published.write_bytes(whole)

    segment = next((folder / "history").rglob("*.parquet"))
    spoiled = bench.root / "other" / "history" / segment.relative_to(folder / "history")
    spoiled.write_bytes(bytes(spoiled.stat().st_size))
    bench.mirror("restore", str(folder), "--replace", **elsewhere(bench))
    assert rows(bench.root / "other" / "mirror.duckdb", KNOWN) == [("one", 3, 9)]
    kept = [path.name for path in (bench.root / "other" / "aside").rglob("*.duckdb")]
    assert sorted(kept) == ["mirror.duckdb", "mirror.duckdb", "state.duckdb", "state.duckdb"]

    with segment.open("r+b") as file:
        file.seek(-30, 2)
        file.write(b"\0")
    code, line = failure(bench.mirror("restore", str(folder), check=False, **elsewhere(bench, "third")))
    assert (code, line) == (
        1,
        f"error: {segment} is damaged: it differs from its digest in backup.json; nothing was restored",
    )
    assert not (bench.root / "third" / "state.duckdb").exists()


def full_disk(monkeypatch, bench):
    """The database of the backup, which is copied last, does not fit on the disk."""
    copy = files.copy

    def no_space(source, target):
        if source.suffix == ".duckdb" and target.parent == bench.root / "other":
            target.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        return copy(source, target)

    monkeypatch.setattr(files, "copy", no_space)
    return f"error: {bench.root}/other was not restored: No space left on device; restore again"


def newer_program(monkeypatch, bench):
    newest = migrations.latest()
    monkeypatch.setattr(migrations, "_known", lambda: {1: "0001_initial.sql"})
    return (
        f"error: {bench.root}/backup has schema version {newest}, newer than the 1 that this program knows; "
        "update wandb-mirror"
    )


def bad_config(monkeypatch, bench):
    (bench.root / "other" / "config.toml").write_text("projects = 3")
    return f"error: {bench.root}/other/config.toml, line 1: projects: must be a list "


@pytest.mark.parametrize("obstacle", [full_disk, newer_program, bad_config])
def test_a_restore_that_fails_leaves_the_home_its_mirror(bench, monkeypatch, obstacle):
    other, folder = elsewhere(bench), bench.root / "backup"
    add(bench, "one")
    bench.configure(text=CONFIG)
    bench.mirror("sync")
    bench.mirror("backup", str(folder))
    add(bench, "two")
    bench.mirror("sync", "team/p", **other)
    with monkeypatch.context() as patch:
        message = obstacle(patch, bench)
        before = {path.name for path in (bench.root / "other").iterdir()}
        _, line = failure(bench.mirror("restore", str(folder), "--replace", check=False, **other))
    assert line.startswith(message)
    assert rows(bench.root / "other" / "mirror.duckdb", KNOWN) == [("one", 3, 9), ("two", 3, 9)]
    assert {path.name for path in (bench.root / "other").iterdir()} == before


def test_no_other_process_gets_between_a_restore_and_its_home(bench, monkeypatch):
    add(bench, "one")
    bench.configure(text=CONFIG)
    bench.mirror("sync")
    folder, copy, found = bench.root / "backup", files.copy, []
    bench.mirror("backup", str(folder))

    def opened_meanwhile(source, target):
        if source.suffix == ".duckdb":
            command = [
                sys.executable,
                "-c",
                "import sys, duckdb; duckdb.connect(sys.argv[1])",
                bench.home / "state.duckdb",
            ]
            found.append(subprocess.run(command, capture_output=True, text=True, check=False).stderr)
        return copy(source, target)

    monkeypatch.setattr(files, "copy", opened_meanwhile)
    bench.mirror("restore", str(folder), "--replace")
    assert [text.count("Could not set lock") for text in found] == [1]

    fresh = bench.root / "fresh"

    def created_meanwhile(source, target):
        if source.suffix == ".duckdb":
            (fresh / "state.duckdb").write_bytes(b"of a daemon")
        return copy(source, target)

    monkeypatch.setattr(files, "copy", created_meanwhile)
    reported = f"error: {fresh}/state.duckdb was created meanwhile, as by a daemon; stop it, and restore with --replace"
    assert failure(bench.mirror("restore", str(folder), check=False, **elsewhere(bench, "fresh"))) == (2, reported)
    assert [path.read_bytes() for path in fresh.glob("*state*")] == [b"of a daemon"]


def test_one_backup_at_a_time_uses_a_folder(bench):
    """Else the one that ends first deletes what the other has copied and lists."""
    add(bench, "one")
    bench.configure(text=CONFIG)
    bench.mirror("sync")
    folder = bench.root / "backup"
    folder.mkdir()
    other = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_EX)
        busy = (2, f"error: another backup or restore uses {folder}; wait until it has ended")
        assert failure(bench.mirror("backup", str(folder), check=False)) == busy
        fcntl.flock(other, fcntl.LOCK_UN)
        bench.mirror("backup", str(folder))
        fcntl.flock(other, fcntl.LOCK_EX)
        assert failure(bench.mirror("restore", str(folder), check=False, **elsewhere(bench))) == busy
    finally:
        os.close(other)
    code, line = failure(bench.mirror("backup", str(bench.home / "config.toml" / "b"), check=False))
    reported = f"was not written: Not a directory: {bench.home}/config.toml/b; an earlier backup in it stays"
    assert (code, line) == (1, f"error: {bench.home}/config.toml/b {reported}")


@pytest.mark.parametrize("links", [True, False])
def test_one_copy_from_before_an_upgrade_is_kept(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError("no links")))
    home = Home(data=tmp_path, config=tmp_path / "config.toml")
    for number in (1, 2):
        home.published.write_text(f"before {number}")
        copy = before_upgrade(home, [f"000{number}_name", "0009_more"])
        home.published.unlink()
        assert [(path.name, path.read_text()) for path in copy.parent.iterdir()] == [
            (f"state-before-000{number}_name.duckdb", f"before {number}")
        ]
