"""Content in backups, after damage, for other users, and in exports."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import pytest

from mirror.doctor import contents as doctor
from mirror.settings.home import Home
from mirror.store import backup, contents
from mirror.store.blobs import Blobs
from mirror.store.reader import opened
from mirror.store.records import ProjectKey
from mirror.store.sharing import Sharing
from mirror.store.store import Store
from tests.content.rig import sha256
from tests.reading import rows
from tests.sync.test_passes import add

PROJECT = ProjectKey("team", "p")
CONTENT = {"a.txt": b"first", "b.txt": b"second"}


@pytest.fixture
def mirrored(rig):
    run = add(rig, "one")
    for name, content in CONTENT.items():
        run.add_file(name, content)
    rig.pull()
    return rig


def test_a_backup_has_the_content_once_and_a_restore_elsewhere_names_its_new_place(mirrored, tmp_path):
    folder, home = tmp_path / "backup", Home(tmp_path / "elsewhere", tmp_path / "elsewhere" / "config.toml")
    first = backup.make(mirrored.home, folder)
    assert (first.contents, first.runs) == (2, 1)
    size = sum(map(len, CONTENT.values()))
    again = backup.make(mirrored.home, folder)
    assert first.copied_bytes - again.copied_bytes >= size
    shutil.rmtree(mirrored.home.data)
    assert backup.restore(folder, home, replace=False).contents == 2
    Store.open(home).close()
    found = rows(home.published, "select name, local_path from files order by name")
    assert {name: Path(path).read_bytes() for name, path in found} == CONTENT
    assert all(Path(path).is_relative_to(home.blobs) for _, path in found)


def test_a_backup_drops_what_is_no_longer_named_and_refuses_damage(mirrored, tmp_path):
    folder = tmp_path / "backup"
    backup.make(mirrored.home, folder)
    mirrored.world.find("team", "p", "one").add_file("b.txt", b"third")
    mirrored.world.find("team", "p", "one").edit(notes="later")
    mirrored.pull()
    assert backup.make(mirrored.home, folder).contents == 2
    held = {path.read_bytes() for path in (folder / "blobs").glob("??/*")}
    assert held == {b"first", b"third"}
    digest = sha256(b"third")
    path = folder / "blobs" / digest[:2] / digest[2:]
    path.chmod(0o600)
    path.write_bytes(b"thorn")
    other = Home(tmp_path / "elsewhere", tmp_path / "config.toml")
    with pytest.raises(Exception, match="is damaged: it differs from its name; nothing was restored"):
        backup.restore(folder, other, replace=False)
    assert not other.data.exists()


def spoil(home, content, *, missing=False):
    path = Blobs(home.blobs).path(sha256(content))
    path.chmod(0o600)
    path.unlink() if missing else path.write_bytes(b"x" * len(content))


@pytest.mark.parametrize(
    ("missing", "problem"), [(True, "no file"), (False, "a file that was changed since it was written")]
)
def test_damaged_content_is_found_and_downloaded_again(mirrored, missing, problem):
    spoil(mirrored.home, b"first", missing=missing)
    with opened(mirrored.home) as reader:
        blobs = Blobs(mirrored.home.blobs)
        (one,) = contents.damage(reader, blobs, PROJECT, deep=True).values()
        assert (one.found, one.expected) == (problem, "the 5 bytes of team/p/one: a.txt")
        assert len(contents.damage(reader, blobs, PROJECT, deep=False)) == missing
    assert [(finding.level, finding.message) for finding in doctor.check(mirrored.home)] == [
        ("fail", f"{blobs.path(sha256(b'first'))} is missing or damaged")
    ]
    with mirrored.store() as store, store.transaction() as tx:
        assert contents.mend(tx, store.blobs, PROJECT) == [
            f"forgot the 5 bytes of team/p/one: a.txt, of which there was {problem}"
        ]
    kept = [path.read_bytes() for path in (mirrored.home.data / "aside").rglob("*") if path.is_file()]
    assert kept == [] if missing else [b"xxxxx"]
    assert mirrored.pull().stored == 1
    assert mirrored.files() == CONTENT
    assert [finding.level for finding in doctor.check(mirrored.home)] == ["ok"]


def test_content_has_the_mode_that_publish_mode_says(mirrored):
    def modes():
        found = [mirrored.home.blobs, *mirrored.home.blobs.glob("??"), *mirrored.home.blobs.glob("??/*")]
        return {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in found}

    assert modes() == {(True, 0o700), (False, 0o400)}
    sharing = Sharing(0o644)
    Store.open(mirrored.home, sharing=sharing).close()
    assert modes() == {(True, 0o755), (False, 0o444)}
    with mirrored.store() as store:
        store.share(sharing)
        part = store.blobs.part("new")
        part.write_bytes(b"new")
        store.blobs.place(part, sha256(b"new"), 3)
    assert modes() == {(True, 0o755), (False, 0o444)}
    assert stat.S_IMODE((mirrored.home.blobs / ".parts").stat().st_mode) == 0o700


def test_media_and_files_are_exported_by_name(mirrored, cli, monkeypatch, tmp_path):
    monkeypatch.setenv("MIRROR_HOME", str(mirrored.home.data))
    for relation, columns in (
        ("files", {"digest", "local_path"}),
        ("media", {"path", "local_path"}),
        ("histograms", {"bin"}),
    ):
        done = cli("export", "-o", str(tmp_path / f"{relation}.csv"))
        assert done.exit_code == 0, done.stderr
        assert columns < set((tmp_path / f"{relation}.csv").read_text().splitlines()[0].split(","))


def test_status_names_what_failed_and_gc_what_is_left(mirrored, cli, monkeypatch):
    monkeypatch.setenv("MIRROR_HOME", str(mirrored.home.data))
    run = mirrored.world.find("team", "p", "one")
    run.add_file("b.txt", b"third")
    run.add_file("c.txt", b"c")
    run.edit(notes="later")
    mirrored.sandbox.faults.add("403", None, "file", about="c.txt")
    mirrored.pull()
    text = cli("status").stdout
    assert "files    3 stored (16 B)" in text
    assert "team/p/one: c.txt" in text
    found = json.loads(cli("status", "--json").stdout)["files"]
    assert (found["files"], found["last"]["failed"], found["failed"][0]["file"]) == (3, 1, "c.txt")
    assert json.loads(cli("gc", "--dry-run", "--json").stdout) == [
        {"what": "to delete", "files": 0, "bytes": 0},
        {"what": "kept for now", "files": 1, "bytes": 6},
    ]
    kept = cli("gc")
    assert (kept.exit_code, kept.stdout) == (0, "")
    assert kept.stderr == "nothing to delete; 1 file (0.0 MB) named by nothing since less than 24h\n"
    stored = json.loads(cli("status", "--json").stdout)["files"]["files"]
    assert cli("gc", "--grace", "0s").stderr == "deleted 1 file (0.0 MB)\n"
    assert json.loads(cli("status", "--json").stdout)["files"]["files"] == stored - 1
    assert cli("gc").stderr == "nothing to delete\n"
    assert cli("gc", "--grace", "soon").exit_code == 2
    assert {path.read_bytes() for path in mirrored.home.blobs.glob("??/*")} == {b"first", b"third"}
    assert list((mirrored.home.blobs / ".parts").iterdir()) == []


def test_verify_finds_lost_content_and_its_repair_has_it_downloaded_again(mirrored, cli, monkeypatch):
    monkeypatch.setenv("MIRROR_HOME", str(mirrored.home.data))
    monkeypatch.setenv("WANDB_BASE_URL", mirrored.sandbox.url)
    monkeypatch.setenv("WANDB_API_KEY", mirrored.sandbox.key)
    mirrored.home.config.write_text('projects = ["team/p"]\n[sync]\nfiles = ["*.txt"]\n')
    assert cli("verify").exit_code == 0
    spoil(mirrored.home, b"first", missing=True)
    path = Blobs(mirrored.home.blobs).path(sha256(b"first"))
    found = cli("verify")
    expected = "differs: team/p file: mirror has no file, should be the 5 bytes of team/p/one: a.txt "
    assert (found.exit_code, found.stdout) == (1, f"{expected}({path} is lost or damaged)\n")
    repaired = cli("verify", "--repair")
    assert repaired.exit_code == 0, repaired.stderr
    done = cli("sync")
    assert (done.exit_code, done.stderr.splitlines()[0]) == (0, "files: 1 file (0.0 MB downloaded)")
    assert mirrored.files() == CONTENT
    assert cli("verify", "--deep").exit_code == 0


def test_a_sync_whose_downloads_fail_says_so_and_ends_with_1(mirrored, cli, monkeypatch):
    monkeypatch.setenv("MIRROR_HOME", str(mirrored.home.data))
    monkeypatch.setenv("WANDB_BASE_URL", mirrored.sandbox.url)
    monkeypatch.setenv("WANDB_API_KEY", mirrored.sandbox.key)
    mirrored.home.config.write_text('projects = ["team/p"]\n[sync]\nfiles = "content"\nfiles_max = "1MB"\n')
    run = mirrored.world.find("team", "p", "one")
    run.add_file("bad.bin", b"bad")
    run.add_file("huge.bin", bytes(2_000_000))
    run.edit(notes="later")
    mirrored.sandbox.faults.add("403", None, "file", about="bad.bin")
    done = cli("sync")
    assert done.exit_code == 1
    assert "files: 1 file left out by sync.files_max\n" in done.stderr
    assert "team/p/one: bad.bin failed, will be retried: " in done.stderr
    assert mirrored.files() == {**CONTENT, "bad.bin": None, "huge.bin": None}
