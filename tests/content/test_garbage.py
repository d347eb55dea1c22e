"""Content that nothing names any more is deleted after a grace; what a deleted run names stays."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest

from mirror.store import contents, forget
from mirror.store.garbage import Garbage
from mirror.store.records import ProjectKey
from tests.sync.test_passes import add

PROJECT = ProjectKey("team", "p")


@pytest.fixture
def run(rig):
    made = add(rig, "one")
    made.add_file("shared.txt", b"shared")
    made.add_file("own.txt", b"one's own")
    add(rig, "two").add_file("shared.txt", b"shared")
    rig.pull()
    return made


def test_nothing_is_deleted_that_a_run_names(rig, run):
    assert rig.collect() == Garbage()
    assert len(rig.blobs()) == 2


def test_a_replaced_file_leaves_its_former_content_for_the_grace(rig, run):
    run.add_file("own.txt", b"changed")
    run.edit(notes="later")
    rig.pull()
    assert sorted(rig.blobs()) == [b"changed", b"one's own", b"shared"]
    left = Garbage(deleted=1, deleted_bytes=9)
    assert rig.collect(dry_run=True) == left
    assert rig.collect(3600, dry_run=True) == rig.collect(3600) == Garbage(kept=1, kept_bytes=9)
    assert len(rig.blobs()) == 3
    assert rig.collect() == left
    assert sorted(rig.blobs()) == [b"changed", b"shared"]
    assert rig.files() == {"own.txt": b"changed", "shared.txt": b"shared"}


def test_a_file_that_comes_back_within_the_grace_is_not_downloaded_again(rig, run):
    run.add_file("own.txt", b"changed")
    run.edit(notes="later")
    rig.pull()
    rig.collect(3600)
    run.add_file("own.txt", b"one's own")
    run.edit(notes="and back")
    rig.sandbox.reset_counts()
    rig.pull()
    assert rig.sandbox.requests["file"] == 0
    assert rig.collect() == Garbage(deleted=1, deleted_bytes=len(b"changed"))
    assert rig.files()["own.txt"] == b"one's own"


def test_a_reader_keeps_the_file_that_it_has_open(rig, run):
    with rig.store() as store:
        digest = store.read(lambda db: db.value("SELECT digest FROM store.content_names WHERE name = 'own.txt'"))
        with store.blobs.path(digest).open("rb") as opened:
            with store.transaction() as tx:
                forget.runs(tx, PROJECT, ["one"])
            assert store.collect(timedelta(0)).deleted == 1
            assert not store.blobs.path(digest).exists()
            assert opened.read() == b"one's own"


def test_a_run_that_was_deleted_on_the_server_keeps_its_files_until_it_is_forgotten(rig, run):
    rig.world.delete_run("team", "p", "one")
    rig.sync(files=True, reconcile_interval=0.0)
    assert rig.sql("select count(*) from runs where deleted_at is not null") == [(1,)]
    assert rig.collect() == Garbage()
    assert rig.files() == {"own.txt": b"one's own", "shared.txt": b"shared"}
    with rig.store() as store, store.transaction() as tx:
        forget.runs(tx, PROJECT, ["one"])
    assert rig.collect() == Garbage(deleted=1, deleted_bytes=9)
    assert rig.files("two") == {"shared.txt": b"shared"}
    with rig.store() as store, store.transaction() as tx:
        forget.project(tx, PROJECT)
    assert rig.collect().deleted == 1
    assert rig.blobs() == []


def test_what_a_killed_process_left_is_deleted_too(rig, run):
    loose = rig.home.blobs / "ab" / ("c" * 62)
    loose.parent.mkdir(exist_ok=True)
    loose.write_bytes(b"loose")
    part = rig.home.blobs / ".parts" / "abc"
    part.write_bytes(b"part")
    assert rig.collect(3600) == Garbage()
    for path in (loose, part):
        os.utime(path, (0, 0))
    assert rig.collect(3600) == Garbage(deleted=1, deleted_bytes=5, unlisted=1, parts=1)
    assert not loose.exists()
    assert not part.exists()
    assert len(rig.blobs()) == 2


def test_content_that_is_lost_on_the_disk_is_downloaded_again(rig, run):
    for path in rig.home.blobs.glob("??/*"):
        path.unlink()
    with rig.store() as store, store.transaction() as tx:
        contents.drop(tx, [digest for digest, _ in contents.listed(tx.db)])
    assert rig.pull().failed == {}
    assert rig.files() == {"own.txt": b"one's own", "shared.txt": b"shared"}
