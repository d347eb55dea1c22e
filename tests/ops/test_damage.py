"""Every file of a home damaged in turn: `doctor` and `verify` tell, and what docs/operations.md says brings all back."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest

import mirror
from mirror.errors import StoreError
from mirror.sandbox import Sandbox, World
from mirror.store.store import Store
from tests.daemon.conftest import Bench
from tests.daemon.test_daemon import add
from tests.store.test_opening import HOLDER, python
from tests.store.test_recovery import DAMAGES, deep, flipped

pytestmark = pytest.mark.xdist_group("damage")

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
PLACE = re.compile(r"\d+")
CONTENT = {
    "runs": "select run_id, name, deleted_at is not null, history_rows from runs order by 1",
    "history": "select run_id, step, key, value from history order by all",
    "run_changes": "select * from run_changes order by all",
    "files": "select run_id, name, digest from files order by all",
}


@pytest.fixture(scope="module")
def made():
    """A mirror of a run that the server has, and of one that it has no more; where it is used, a copy, its content.

    Each test has it at the same place, since the views of a mirror name the segments by their paths.
    """
    root = Path(tempfile.mkdtemp(prefix="m"))
    try:
        with Sandbox(World()) as server:
            (root / "p").mkdir()
            bench = Bench(root / "p", server)
            add(bench, "one").add_file("notes.txt", "notes of a run")
            add(bench, "gone")
            bench.configure(text='projects = ["team/p"]\n[sync]\nfiles = "content"\n[store]\ntail_values = 1\n')
            assert bench.here("sync").exit_code == 0
            bench.world.delete_run("team", "p", "gone")
            assert bench.here("sync").exit_code == 0
            bench.home.chmod(0o700)
            before = content(bench)
            assert len(list((bench.home / "blobs").glob("??/*"))) == len(before["files"]) == 1
            assert [row[:3] for row in before["runs"]] == [("gone", "gone", True), ("one", "one", False)]
            bench.root.rename(root / "copy")
            yield bench, root / "copy", before
    finally:
        shutil.rmtree(root)


@pytest.fixture
def mirrored(made):
    """That mirror, which may be damaged."""
    bench, copy, before = made
    shutil.copytree(copy, bench.root)
    bench.before = before
    yield bench
    shutil.rmtree(bench.root)
    for run in bench.world.runs("team", "p"):
        if run.run_id != "one":
            bench.world.delete_run("team", "p", run.run_id)


def content(bench: Bench):
    return {name: bench.sql(query) for name, query in CONTENT.items()}


def failing(bench: Bench):
    """The checks of `doctor` that fail, and its exit code."""
    done = bench.here("doctor", "--json")
    return done.exit_code, [found["check"] for found in json.loads(done.stdout) if found["level"] == "fail"]


def files(bench: Bench):
    return {path: path.read_bytes() for path in bench.home.rglob("*") if path.is_file() and path.name != "mirror.sock"}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_reported_by_doctor_and_verify_and_the_next_sync_goes_on(mirrored, caplog, damage):
    DAMAGES[damage](mirrored.home / "state.duckdb")
    before = files(mirrored)
    assert failing(mirrored) == (1, ["state"])
    done = mirrored.here("verify", "--json")
    answer = json.loads(done.stdout)
    assert (done.exit_code, answer["equal"], answer["projects"][0]["equal"]) == (1, False, True)
    assert answer["files"].startswith(f"{mirrored.home}/state.duckdb ")
    # DuckDB reads with several threads: which damaged block is met first is chance.
    line = mirrored.here("verify").stdout
    assert PLACE.sub("", line) == PLACE.sub("", f"differs: {answer['files']}\n")
    assert files(mirrored) == before, "nothing is changed by looking"
    assert caplog.messages == []
    assert mirrored.here("sync").exit_code == 0
    (line,) = caplog.messages
    assert ": rebuilt from mirror.duckdb of 20" in line
    assert content(mirrored) == mirrored.before
    assert failing(mirrored) == (0, [])
    assert mirrored.here("verify").exit_code == 0


def test_verify_repairs_a_damaged_state(mirrored):
    deep(mirrored.home / "state.duckdb")
    done = mirrored.mirror("verify", "--repair")
    assert (done.returncode, done.stdout) == (0, "")
    assert ": rebuilt from mirror.duckdb of 20" in done.stderr.splitlines()[0]
    assert content(mirrored) == mirrored.before
    assert mirrored.here("verify").exit_code == 0


def test_a_daemon_is_asked_about_the_state_that_it_holds(mirrored):
    mirrored.configure(interval="1h")
    state = mirrored.home / "state.duckdb"
    with mirrored.daemon():
        mirrored.until(lambda: any(line.get("event") == "pass" for line in mirrored.log()))
        assert failing(mirrored) == (0, [])
        assert mirrored.here("verify").exit_code == 0
        deep_copy = mirrored.root / "copy"
        shutil.copy(state, deep_copy)
        deep(deep_copy)
        whole, broken = state.read_bytes(), deep_copy.read_bytes()
        flipped(state, [place for place in range(len(whole)) if whole[place] != broken[place]])
        assert failing(mirrored) == (1, ["state"])
        # By now it has gone on from the published file.
        assert failing(mirrored) == (0, [])
        assert mirrored.here("sync").exit_code == 0
        assert mirrored.here("verify").exit_code == 0
        assert content(mirrored) == mirrored.before


def test_a_state_that_another_process_holds_is_not_said_to_be_whole(mirrored):
    holder = python(HOLDER, mirrored.home, stdin=-1, stdout=-1)
    try:
        assert holder.stdout.readline() == "open\n"
        found = json.loads(mirrored.here("doctor", "--json").stdout)
        (state,) = [one for one in found if one["check"] == "state"]
        assert state["level"] == "warn"
        assert state["message"].startswith(
            f"not checked: {mirrored.home}/state.duckdb is held by process {holder.pid};"
        )
        assert mirrored.here("verify").stderr.startswith(
            "another process is syncing; the file that it published last is verified, its state is not checked\n"
        )
    finally:
        holder.communicate()


def test_a_mirror_that_cannot_be_written_is_verified_as_it_was_published(mirrored, monkeypatch):
    def read_only(*_, **__):
        raise StoreError("state.duckdb cannot be opened (Read-only file system); nothing was changed")

    monkeypatch.setattr(Store, "open", read_only)
    done = mirrored.here("verify")
    reported = (
        "state.duckdb cannot be opened (Read-only file system); nothing was changed; the file that was published last"
    )
    assert (done.exit_code, done.stdout, done.stderr.splitlines()[0]) == (0, "", f"{reported} is verified")
    done = mirrored.here("verify", "--repair")
    assert (done.exit_code, done.stdout) == (
        1,
        "differs: state.duckdb cannot be opened (Read-only file system); nothing was changed\n",
    )


@pytest.mark.parametrize("damage", ["headers", "deep", "cut", "empty"])
def test_a_damaged_published_file_is_reported_and_the_next_sync_publishes_it_again(mirrored, damage):
    published = mirrored.home / "mirror.duckdb"
    published.chmod(0o600)
    DAMAGES[damage](published)
    published.chmod(0o444)
    assert failing(mirrored) == (1, ["mirror"])
    assert mirrored.here("verify").exit_code == 1
    assert failing(mirrored) == (1, ["mirror"])
    assert mirrored.here("sync").exit_code == 0
    assert content(mirrored) == mirrored.before
    assert failing(mirrored) == (0, [])


SEGMENTS = {
    "missing": lambda path: path.unlink(),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "flipped": lambda path: flipped(path, [path.stat().st_size // 2]),
    "footer": lambda path: flipped(path, [path.stat().st_size - 6]),
}


@pytest.mark.parametrize("damage", SEGMENTS)
def test_a_damaged_segment_is_reported_and_repaired(mirrored, damage):
    path = min((mirrored.home / "history").rglob("*.parquet"))
    SEGMENTS[damage](path)
    assert failing(mirrored) == (1, ["segments"])
    assert mirrored.here("verify").exit_code == 1
    done = mirrored.here("verify", "--repair")
    assert done.exit_code == 0, done.stderr
    assert failing(mirrored) == (0, [])
    served = [row for row in mirrored.before["history"] if row[0] == "one"]
    assert [row for row in content(mirrored)["history"] if row[0] == "one"] == served
    found = json.loads(mirrored.here("doctor", "--json").stdout)
    unlisted = [one["message"] for one in found if one["check"] == "segments" and one["level"] == "warn"]
    assert len(unlisted) == (damage != "missing")


@pytest.mark.parametrize(
    "command",
    [
        ["query", "select count(*) from history"],
        ["history", "team/p/one"],
        ["show", "team/p/one"],
        ["forget", "team/p/one", "--yes"],
        ["export", "--lake", "lake"],
    ],
)
def test_who_reads_a_segment_that_is_gone_is_told_what_to_do(mirrored, command, monkeypatch):
    monkeypatch.chdir(mirrored.root)
    path = min((mirrored.home / "history").rglob("*.parquet"))
    path.unlink()
    done = mirrored.here(*command)
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("error: a segment of history is missing or damaged (")
    assert done.stderr.endswith("; run `mirror verify --repair`, which pulls what was in it again\n")
    assert str(path) in done.stderr


def test_a_query_over_a_home_that_was_moved_says_what_adapts_its_paths(mirrored):
    moved = mirrored.root / "moved"
    shutil.copytree(mirrored.home, moved)
    there = {"MIRROR_HOME": str(moved)}
    query = ["query", "select count(*) from history"]
    done = mirrored.here(*query, **there)
    assert done.exit_code == 1
    assert done.stderr.startswith("error: a segment of history is not in this home (")
    assert done.stderr.endswith("; if the mirror was moved or copied, `mirror sync` adapts its paths\n")
    assert mirrored.here("sync", **there).exit_code == 0
    shutil.rmtree(mirrored.home)
    assert mirrored.here(*query, **there).stdout == f"count_star()\n{len(mirrored.before['history'])}\n"


def test_a_script_that_reads_a_segment_that_is_gone_is_told_so_too(mirrored, monkeypatch):
    path = min((mirrored.home / "history").rglob("*.parquet"))
    path.unlink()
    monkeypatch.setenv("MIRROR_HOME", str(mirrored.home))
    run = mirror.Api().run("team/p/one")
    for read in (lambda: list(run.scan_history()), run.history):
        with pytest.raises(StoreError, match=r"^a segment of history is missing or damaged .*`mirror verify --repair`"):
            read()


def test_a_damaged_segment_is_not_exported_to_a_lake(mirrored):
    path = min((mirrored.home / "history").rglob("*.parquet"))
    flipped(path, [100])
    done = mirrored.here("export", "--lake", str(mirrored.root / "lake"))
    assert done.exit_code == 1
    assert done.stderr == f"error: {path} is damaged and is not exported; run `mirror verify --repair`\n"


def recipes():
    """The commands below each heading of "When something is damaged", by heading."""
    text = OPERATIONS.read_text().partition("## When something is damaged\n")[2]
    return {
        part.splitlines()[0]: re.findall(r"^\$ (.+)$", part, re.MULTILINE)
        for part in re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    }


def harmed(bench: Bench, what: str) -> None:
    """Bring about what a recipe is for."""
    home = bench.home
    if what == "`state.duckdb`":
        deep(home / "state.duckdb")
    elif what == "`state.duckdb.wal`":
        (home / "state.duckdb.wal").write_bytes(b"junk" * 1000)
    elif what == "`mirror.duckdb`":
        DAMAGES["headers"](home / "mirror.duckdb")
    elif what == "`history/`":
        path = min((home / "history").rglob("*.parquet"))
        flipped(path, [path.read_bytes().index(b"DuckDB")])
    elif what == "`blobs/`":
        (path,) = (home / "blobs").glob("??/*")
        path.chmod(0o600)
        flipped(path, [3])
    elif what == "Both databases":
        deep(home / "state.duckdb")
        deep(home / "mirror.duckdb", within=2000)
    elif what == "A restored backup, or a file of another mirror":
        shutil.copy(home / "state.duckdb", bench.root / "backup")
        add(bench, "two")
        assert bench.here("sync").exit_code == 0
        bench.before = content(bench)
        (bench.root / "backup").replace(home / "state.duckdb")
    elif what == "`config.toml`, `tokens.json`, `web.token`, `mirror.sock`, `mirror.log`":
        for name in ("tokens.json", "web.token", "mirror.sock", "mirror.log"):
            (home / name).unlink(missing_ok=True)
    else:
        raise AssertionError(f"no such damage is made: {what}")


@pytest.mark.parametrize("what", recipes())
def test_the_recipes_for_what_is_damaged_work_as_they_stand(mirrored, what):
    (mirrored.home / "mirror.duckdb").chmod(0o600)
    harmed(mirrored, what)
    for command in recipes()[what]:
        words = command.replace("$MIRROR_HOME", str(mirrored.home)).split()
        if words[0] == "mirror":
            done = mirrored.here(*words[1:])
            assert done.exit_code == 0, done.stderr
        else:
            assert words[0] == "mv"
            shutil.move(words[1], words[2])
    found = content(mirrored)
    if what == "Both databases":
        # What the server does not have is lost but for the segments.
        assert [row for row in found["runs"] if not row[2]] == [row for row in mirrored.before["runs"] if not row[2]]
        assert len(list((mirrored.home / "history").rglob("*.parquet"))) > 1
    else:
        assert found == mirrored.before
    assert mirrored.here("verify").exit_code == 0
