"""A state that is damaged or missing is rebuilt from the published file; nothing that only the mirror has is lost."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import subprocess
import sys
import textwrap

import duckdb
import pytest

from mirror.errors import StoreDamaged, StoreError
from mirror.store import local, projects, runs
from mirror.store.database import Database
from mirror.store.records import ProjectCursor, ProjectKey
from tests.store.kit import NOW, PROJECT, curve, downgrade, home_at, opened, read, run, settle, write

OTHER = ProjectKey("team", "not synced now")
CONTENT = ("runs", "history", "history_keys", "config_values", "run_changes", "local_runs", "projects")

# A writer that is killed after a commit that was not published, so that it stands in the log alone.
KILLED = textwrap.dedent("""
    import os, sys
    from pathlib import Path
    from tests.store.kit import curve, opened, run, write
    with opened(Path(sys.argv[1]), storage_version=sys.argv[2]) as store:
        write(store, run("published"))
        store.publish()
        for name in ("late1", "late2", "late3"):
            write(store, run(name), history=[curve(name, range(3000))])
        os._exit(0)
""")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where each test has its home: the same folder, since the views of a mirror name the segments by their paths."""
    return tmp_path_factory.mktemp("place") / "tmp"


@pytest.fixture
def tmp_path(place):
    place.mkdir()
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def _templates(tmp_path_factory):
    """The homes that tests begin with, by how they were made; each is made once."""
    made = {}

    def begin(name, root, make):
        if name not in made:
            root.mkdir(exist_ok=True)
            answer = make(root)
            made[name] = tmp_path_factory.mktemp("template") / "home", answer
            shutil.copytree(root, made[name][0])
        else:
            shutil.copytree(made[name][0], root, dirs_exist_ok=True)
        return made[name][1]

    return begin


@pytest.fixture
def filled(_templates):
    """Fill a home, and tell what is in it."""
    return lambda root: _templates(root, root, fill)


def fill(root):
    """Runs that no server has any more, a change, a second project and segments."""
    with opened(root, tail_values=1000) as store:
        write(store, run("a1"), run("gone"), history=[curve("a1", range(2000)), curve("gone", range(2000))])
        assert settle(store)
        write(store, run("a1", name="renamed"), run("tail"), history=[curve("tail", range(100))])
        write(store, run("b1", OTHER), history=[curve("b1", range(50))], project=OTHER)
        with store.transaction() as tx:
            runs.mark_deleted(tx, PROJECT, ["gone"], at=NOW)
            projects.set_cursor(tx, PROJECT, ProjectCursor(NOW))
        store.publish()
    return content(root)


def content(root):
    with duckdb.connect(str(root / "mirror.duckdb"), read_only=True) as reader:
        return {
            name: reader.execute(f"from {name} order by all").fetchall()
            if name != "projects"
            else reader.execute("select * exclude (lag_s) from projects order by all").fetchall()
            for name in CONTENT
        }


def flipped(path, places):
    """Change bytes of a file."""
    mode = path.stat().st_mode
    path.chmod(0o600)
    with path.open("r+b") as file:
        for place in places:
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 0xFF]))
    path.chmod(mode)


_PLACES: dict[tuple[bytes, int], int] = {}
"""Where `deep` damaged a file, by what the file held: finding the place takes many readings."""


def deep(path, within=1000):
    """Damage a block that only reading a table finds: the first one that opening does not need."""
    whole = path.read_bytes()
    known = hashlib.sha256(whole).digest(), within
    if known in _PLACES:
        flipped(path, [_PLACES[known]])
        return
    for block in range((len(whole) - 12288) // 262144):
        place = 12288 + block * 262144 + within
        flipped(path, [place])
        try:
            with duckdb.connect(str(path), read_only=True) as reader:
                reader.execute("select count(*) from store.meta").fetchall()
                try:
                    reader.execute("select bit_xor(hash(columns(*))) from store.run_records").fetchall()
                except duckdb.Error:
                    _PLACES[known] = place
                    return
        except duckdb.Error:
            pass
        flipped(path, [place])
    raise AssertionError("no block holds the runs alone")


def deep_while_open(state):
    """The same, where a store of this process holds the file."""
    copy = state.with_name("copy")
    shutil.copy(state, copy)
    before = copy.read_bytes()
    deep(copy)
    after = copy.read_bytes()
    copy.unlink()
    flipped(state, [place for place in range(len(before)) if before[place] != after[place]])


DAMAGES = {
    "missing": lambda state: state.unlink(),
    "empty": lambda state: state.write_bytes(b""),
    "junk": lambda state: state.write_bytes(b"junk" * 5000),
    "cut": lambda state: os.truncate(state, state.stat().st_size // 3),
    "cut in the headers": lambda state: os.truncate(state, 5000),
    "zeros": lambda state: state.write_bytes(bytes(state.stat().st_size)),
    "first header": lambda state: flipped(state, [100]),
    "headers": lambda state: flipped(state, [4100, 8200]),
    "deep": deep,
    "another database": lambda state: (state.unlink(), duckdb.connect(str(state)).close(), state.chmod(0o600)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_state_that_is_damaged_is_rebuilt_from_the_published_file(tmp_path, filled, caplog, damage):
    before = filled(tmp_path)
    segments = sorted((tmp_path / "history").rglob("*.parquet"))
    state, published = tmp_path / "state.duckdb", tmp_path / "mirror.duckdb"
    DAMAGES[damage](state)
    damaged = state.read_bytes() if state.exists() else None
    with opened(tmp_path, tail_values=1000) as store:
        (line,) = [record.message for record in caplog.records]
        assert line.startswith(f"{state} ")
        assert f": rebuilt from {published.name} of 20" in line
        assert "\n" not in line
        assert store.read(lambda db: projects.cursor(db, PROJECT)) == ProjectCursor(NOW)
        assert state.stat().st_mode & 0o777 == 0o600
        write(store, run("new"))
        assert read(store, "select run_id from runs where project = 'vision' order by 1") == [
            ("a1",), ("gone",), ("new",), ("tail",),
        ]  # fmt: skip
        with store.transaction() as tx:
            local.forget(tx, PROJECT, "new")
        store.publish()
    assert content(tmp_path) == before
    assert sorted((tmp_path / "history").rglob("*.parquet")) == segments
    kept = [path.read_bytes() for path in (tmp_path / "aside").rglob("state.duckdb")] if damaged is not None else []
    assert kept == ([] if damaged is None else [damaged])
    caplog.clear()
    with opened(tmp_path):
        assert caplog.records == []


def test_damage_of_the_state_that_is_open_is_never_published(tmp_path, filled, caplog):
    before = filled(tmp_path)
    with opened(tmp_path, tail_values=1000) as store:
        deep_while_open(tmp_path / "state.duckdb")
        with store.transaction() as tx:
            projects.set_cursor(tx, PROJECT, ProjectCursor(NOW))
        with pytest.raises(StoreDamaged) as reported:
            store.publish()
        assert re.fullmatch(
            r".*/state\.duckdb was damaged \(.+\) and was rebuilt from the published file; the next pass continues .*",
            str(reported.value),
        )
        assert content(tmp_path) == before
        write(store, run("new"))
        assert read(store, "select count(*) from runs") == [(5,)]
    assert len(list((tmp_path / "aside").rglob("state.duckdb"))) == 1
    assert len(caplog.records) == 1


@pytest.mark.parametrize("damage", ["missing", "junk", "deep"])
def test_damage_of_both_files_is_reported_and_nothing_is_touched(tmp_path, filled, damage):
    filled(tmp_path)
    state, published = tmp_path / "state.duckdb", tmp_path / "mirror.duckdb"
    DAMAGES[damage](state)
    deep(published, within=2000)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(StoreError) as refused, opened(tmp_path):
        pass
    assert re.fullmatch(
        rf"{state} is (missing|damaged \(.+\)), and {published} cannot replace it, since it is damaged, too \(.+\): "
        "restore one of them from a backup, or move both away and run `mirror sync`, which pulls what the server has",
        str(refused.value),
    )
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_damaged_state_without_a_published_file_is_reported_and_not_changed(tmp_path, filled):
    filled(tmp_path)
    state = tmp_path / "state.duckdb"
    (tmp_path / "mirror.duckdb").unlink()
    state.write_bytes(b"junk" * 5000)
    with pytest.raises(StoreError) as refused, opened(tmp_path):
        pass
    assert re.fullmatch(
        rf"{state} is damaged \(.+\), and there is no mirror\.duckdb to rebuild it from: restore one of them from a "
        "backup, or move state\\.duckdb away and run `mirror sync`, which pulls what the server has",
        str(refused.value),
    )
    assert state.read_bytes() == b"junk" * 5000


def test_segments_outlive_the_loss_of_both_databases(tmp_path, filled):
    filled(tmp_path)
    segments = sorted((tmp_path / "history").rglob("*.parquet"))
    (tmp_path / "mirror.duckdb").unlink()
    (tmp_path / "state.duckdb").unlink()
    with opened(tmp_path) as store:
        assert read(store, "select count(*) from runs") == [(0,)]
    with opened(tmp_path):
        assert sorted((tmp_path / "history").rglob("*.parquet")) == segments


def test_a_damaged_published_file_is_kept_and_published_again(tmp_path, filled, caplog):
    before = filled(tmp_path)
    published = tmp_path / "mirror.duckdb"
    flipped(published, [100])
    damaged = published.read_bytes()
    with opened(tmp_path) as store:
        assert store.publish() is not None
    assert content(tmp_path) == before
    assert [path.read_bytes() for path in (tmp_path / "aside").rglob("mirror.duckdb")] == [damaged]
    assert len(caplog.records) == 1
    deep(published)
    with opened(tmp_path) as store:
        assert store.publish() is not None
    assert content(tmp_path) == before


def test_a_published_file_that_is_changed_while_the_store_is_open_is_published_again(tmp_path, filled):
    before = filled(tmp_path)
    published = tmp_path / "mirror.duckdb"
    with opened(tmp_path) as store:
        assert store.publish() is None
        deep(published)
        assert store.publish() is not None
        assert content(tmp_path) == before
        published.unlink()
        assert store.publish() is not None
        assert content(tmp_path) == before


def runs_of(root):
    with opened(root) as store:
        return [name for (name,) in read(store, "select run_id from runs order by 1")]


@pytest.fixture
def logged(tmp_path, _templates):
    """A home whose log holds three commits that were not published."""

    def make(version):
        subprocess.run([sys.executable, "-c", KILLED, tmp_path, version], check=True)

    def made(version):
        _templates(version, tmp_path, lambda _: make(version))
        assert (tmp_path / "state.duckdb.wal").stat().st_size > 100_000
        return tmp_path

    return made


ALL = ["late1", "late2", "late3", "published"]


@pytest.mark.parametrize(
    ("version", "damage", "left"),
    [
        ("v1.4.0", "missing", ["published"]),
        ("v1.4.0", "empty", ["published"]),
        ("v1.4.0", "junk", ["published"]),
        ("v1.4.0", "start", ["published"]),
        ("v1.4.0", "end", ["late1", "late2", "published"]),
        ("v1.2.0", "end", ["late1", "late2", "published"]),
        ("v1.4.0", "another", ["published"]),
    ],
)
def test_a_damaged_log_costs_no_more_than_what_it_held_behind_the_damage(logged, caplog, version, damage, left):
    root = logged(version)
    log = root / "state.duckdb.wal"
    size = log.stat().st_size
    whole = log.read_bytes()
    if damage == "missing":
        log.unlink()
    elif damage == "empty":
        log.write_bytes(b"")
    elif damage == "junk":
        log.write_bytes(b"junk" * 5000)
    elif damage == "another":
        runs_of(root)  # what is in the log is in the file by now
        left = ALL
        log.write_bytes(whole)
    else:
        flipped(log, [size // 50 if damage == "start" else size - 1000])
    assert runs_of(root) == left
    kept = list((root / "aside").rglob("state.duckdb.wal"))
    assert len(kept) == (damage in ("start", "end", "another"))
    assert len(caplog.records) == len(kept)


@pytest.mark.parametrize(
    ("version", "damage", "left"),
    [
        ("v1.4.0", "missing", ALL),
        ("v1.4.0", "deep", ALL),
        ("v1.4.0", "flipped log", ["published"]),
        # Nothing tells here whether the log goes on from the published file.
        ("v1.2.0", "missing", ["published"]),
    ],
)
def test_the_log_of_a_lost_state_is_read_where_it_goes_on_from_the_published_file(logged, version, damage, left):
    root = logged(version)
    log = root / "state.duckdb.wal"
    if damage == "flipped log":
        flipped(log, [log.stat().st_size // 50])
        (root / "state.duckdb").unlink()
    else:
        DAMAGES[damage](root / "state.duckdb")
    assert runs_of(root) == left
    assert len(list((root / "aside").rglob("state.duckdb.wal"))) == 1
    assert not [path for path in root.iterdir() if path.name.startswith(".")]


def test_what_is_no_damage_replaces_nothing(tmp_path, filled):
    filled(tmp_path)
    state = tmp_path / "state.duckdb"
    db = Database(state, "v1.4.0")
    db.run("INSERT INTO store.migrations VALUES (9001, '9001_future', now()::TIMESTAMP)")
    db.close()
    newer = state.read_bytes()
    with pytest.raises(StoreError, match="has schema version 9001, newer than"), opened(tmp_path):
        pass
    assert state.read_bytes() == newer
    shutil.copy(state, tmp_path / "newer")
    state.unlink()
    (tmp_path / "mirror.duckdb").unlink()
    (tmp_path / "newer").rename(tmp_path / "mirror.duckdb")
    with pytest.raises(StoreError) as refused, opened(tmp_path):
        pass
    assert str(refused.value).startswith(
        f"{state} is missing, and {tmp_path}/mirror.duckdb has schema version 9001, newer than the "
    )
    assert not state.exists()
    assert not (tmp_path / "aside").exists()


def moved_in(source, target, *names):
    for name in names:
        (target / name).unlink(missing_ok=True)
        shutil.copy(source / name, target / name)


def test_a_state_of_another_mirror_takes_the_place_of_nothing(tmp_path, filled):
    ours = filled(tmp_path / "ours")
    with opened(tmp_path / "other") as store:
        write(store, run("stranger"))
        store.publish()
    segments = sorted((tmp_path / "ours").rglob("*.parquet"))
    moved_in(tmp_path / "other", tmp_path / "ours", "state.duckdb")
    state, published = tmp_path / "ours" / "state.duckdb", tmp_path / "ours" / "mirror.duckdb"
    with pytest.raises(StoreError) as refused, opened(tmp_path / "ours"):
        pass
    assert str(refused.value) == (
        f"{published} was not published from {state}, but from another mirror: to continue from mirror.duckdb, move "
        "state.duckdb away; to continue from state.duckdb, move mirror.duckdb away; nothing was changed"
    )
    assert content(tmp_path / "ours") == ours
    assert sorted((tmp_path / "ours").rglob("*.parquet")) == segments
    state.rename(tmp_path / "kept")
    assert runs_of(tmp_path / "ours") == ["a1", "b1", "gone", "tail"]
    assert {**content(tmp_path / "ours")} == ours
    (tmp_path / "kept").rename(state)
    published.unlink()
    assert runs_of(tmp_path / "ours") == ["stranger"]
    assert sorted((tmp_path / "ours").rglob("*.parquet")) == segments


def test_a_file_that_takes_the_published_ones_place_while_the_store_is_open_stays(tmp_path, filled):
    filled(tmp_path / "ours")
    with opened(tmp_path / "other") as store:
        write(store, run("stranger"))
        store.publish()
    with opened(tmp_path / "ours") as store:
        moved_in(tmp_path / "other", tmp_path / "ours", "mirror.duckdb")
        write(store, run("new"))
        with pytest.raises(StoreError, match="was not published from"):
            store.publish()
        with duckdb.connect(str(tmp_path / "ours" / "mirror.duckdb"), read_only=True) as reader:
            assert reader.execute("select run_id from runs").fetchall() == [("stranger",)]
        (tmp_path / "ours" / "mirror.duckdb").unlink()
        assert store.publish() is not None


def test_a_restored_state_does_not_take_the_place_of_what_is_newer(tmp_path, filled):
    filled(tmp_path)
    shutil.copy(tmp_path / "state.duckdb", tmp_path / "backup")
    with opened(tmp_path, tail_values=10) as store:
        write(store, run("since"), history=[curve("since", range(100))])
        assert settle(store)
        store.publish()
    newer = content(tmp_path)
    segments = sorted(tmp_path.rglob("*.parquet"))
    (tmp_path / "backup").replace(tmp_path / "state.duckdb")
    with pytest.raises(StoreError) as refused, opened(tmp_path):
        pass
    assert re.fullmatch(
        rf"{tmp_path}/state\.duckdb is older than {tmp_path}/mirror\.duckdb \(published (\d+) and (\d+) times\), as a "
        r"restored backup is: to continue from mirror\.duckdb, move state\.duckdb away; .*; nothing was changed",
        str(refused.value),
    )
    assert content(tmp_path) == newer
    assert sorted(tmp_path.rglob("*.parquet")) == segments
    (tmp_path / "state.duckdb").rename(tmp_path / "old")
    (tmp_path / "mirror.duckdb").rename(tmp_path / "new")
    (tmp_path / "old").rename(tmp_path / "state.duckdb")
    assert "since" not in runs_of(tmp_path)
    assert sorted(tmp_path.rglob("*.parquet")) == segments
    # The newer one can still be had back.
    (tmp_path / "state.duckdb").unlink()
    (tmp_path / "mirror.duckdb").unlink()
    (tmp_path / "new").rename(tmp_path / "mirror.duckdb")
    assert "since" in runs_of(tmp_path)
    assert content(tmp_path) == newer


def as_of_before(path):
    """Make a file what it was before mirrors had an identity."""
    downgrade(path)
    with duckdb.connect(str(path)) as db:
        db.execute("DELETE FROM store.meta WHERE key IN ('mirror', 'generation')")
        db.execute("ALTER TABLE store.segments DROP COLUMN digest")
        db.execute("DELETE FROM store.migrations WHERE number = 6")


@pytest.mark.parametrize("lost", [None, "state.duckdb", "mirror.duckdb"])
def test_a_mirror_of_before_there_were_identities_is_known_as_its_own(tmp_path, filled, lost):
    before = filled(tmp_path)
    as_of_before(tmp_path / "state.duckdb")
    (tmp_path / "mirror.duckdb").unlink()
    shutil.copy(tmp_path / "state.duckdb", tmp_path / "mirror.duckdb")
    if lost:
        (tmp_path / lost).unlink()
    with opened(tmp_path) as store:
        store.publish()
    assert content(tmp_path) == before
    with opened(tmp_path) as store:
        assert read(store, "select value from store.meta where key = 'generation'") == [("1",)]


def test_a_backup_of_before_there_were_identities_is_known_as_older(tmp_path, filled):
    filled(tmp_path)
    as_of_before(tmp_path / "state.duckdb")
    shutil.copy(tmp_path / "state.duckdb", tmp_path / "backup")
    (tmp_path / "mirror.duckdb").unlink()
    with opened(tmp_path):
        pass
    (tmp_path / "backup").replace(tmp_path / "state.duckdb")
    with pytest.raises(StoreError, match="is older than"), opened(tmp_path):
        pass
    # A copy of it elsewhere is the same mirror, too.
    (tmp_path / "mirror.duckdb").rename(tmp_path / "new")
    with opened(tmp_path):
        pass
    (tmp_path / "mirror.duckdb").unlink()
    (tmp_path / "new").rename(tmp_path / "mirror.duckdb")
    with opened(tmp_path) as store:
        store.publish()


def test_nobody_else_may_read_what_a_recovery_made(tmp_path, filled):
    filled(tmp_path)
    (tmp_path / "state.duckdb").write_bytes(b"x")
    with opened(tmp_path):
        modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / "aside").rglob("*")}
        assert set(modes.values()) <= {"0o700", "0o600"}
        assert oct(home_at(tmp_path).state.stat().st_mode & 0o777) == "0o600"


def test_a_lost_state_is_rebuilt_on_a_file_system_without_hard_links(tmp_path, filled, monkeypatch):
    before = filled(tmp_path)

    def no_links(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", no_links)
    (tmp_path / "state.duckdb").unlink()
    with opened(tmp_path) as store:
        assert read(store, "select count(*) from runs") == [(4,)]
    assert content(tmp_path) == before
    assert not list(tmp_path.glob(".state*"))
