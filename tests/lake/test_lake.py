"""A lake: what `_snapshot.json` names is always one whole state of the mirror, and a call writes only what is new."""

from __future__ import annotations

import json
import re
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from mirror.errors import StoreError
from mirror.lake import content
from mirror.lake import export as lake
from mirror.lake.target import Folder
from mirror.query.export import OF_PROJECTS, RELATIONS
from mirror.settings.home import Home
from mirror.snapshot import parts
from mirror.snapshot.paths import Project
from mirror.store import artifacts, staging
from mirror.store.artifact_records import Collection, Use, Version
from mirror.store.records import ProjectKey
from tests.lake.reader import files, read, snapshot
from tests.query.conftest import publish
from tests.store.kit import NOW, PROJECT, curve, opened, run, write

VISION = Project("team", "vision")
NOTHING = timedelta(0)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the relations that change when runs do: each table of a lake takes its time."""
    names = ("projects", "runs", "config_values", "history", "history_keys", "run_changes")
    monkeypatch.setattr(lake, "RELATIONS", {name: RELATIONS[name] for name in names})


def put(store: Any, root: Path, **options: Any) -> lake.Export:
    store.publish()
    return lake.export(store.home, None, Folder(root), **options)


@pytest.fixture(scope="module", params=[10_000_000, 1], ids=["tail", "segments"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, Path]:
    """A mirror whose history is in the tail or in segments, and its lake."""
    root = tmp_path_factory.mktemp("exported")
    home = publish(root / "mirror", tail_values=request.param)
    lake.export(home, None, Folder(root / "lake"))
    return home, root / "lake"


def test_a_lake_holds_what_the_mirror_holds(exported: tuple[Home, Path]) -> None:
    """Every relation with its columns, types and rows."""
    home, root = exported
    assert list(snapshot(root)["tables"]) == list(RELATIONS)
    with duckdb.connect(str(home.published), read_only=True) as theirs:
        for relation in RELATIONS:
            of_projects = dict.fromkeys(OF_PROJECTS, "")
            here = {
                **of_projects,
                "projects": "lag_s",
                "files": "run_path, local_path",
                "artifact_files": "local_path",
            }.get(relation, "run_path")
            mine = f"from (select *{f' exclude ({here})' if here else ''} from {relation})"
            described = sorted(row[:2] for row in theirs.execute(f"describe {mine}").fetchall())
            assert sorted(row[:2] for row in read(root, f"describe from {relation}")) == described
            columns = ", ".join(f'"{name}"' for name, _ in described)
            expected = theirs.execute(f"select {columns} {mine}").fetchall()
            assert sorted(map(str, read(root, f"select {columns} from {relation}"))) == sorted(map(str, expected))
            assert snapshot(root)["tables"][relation]["rows"] == len(expected)


def test_the_page_names_the_tables() -> None:
    page = (Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
    listed = page.partition("in a folder of that name: ")[2].partition(". They are partitioned")[0]
    assert re.findall(r"`(\w+)`", listed) == list(RELATIONS)


def test_commits_say_whose_state_they_are(exported: tuple[Home, Path]) -> None:
    _, root = exported
    reported = snapshot(root)
    table = DeltaTable(str(root / "runs"))
    commit = table.history(1)[0]
    assert {name: commit[name] for name in ("mirror", "generation", "snapshot_at")} == {
        name: reported[name] for name in ("mirror", "generation", "snapshot_at")
    }
    assert (table.metadata().name, table.metadata().partition_columns) == ("runs", ["entity", "project"])
    assert table.metadata().configuration["delta.logRetentionDuration"] == "interval 168 hours"


def test_readers_can_skip_files_of_other_steps_and_keys(exported: tuple[Home, Path]) -> None:
    import pyarrow as pa

    _, root = exported
    actions = pa.table(DeltaTable(str(root / "history")).get_add_actions(flatten=True)).to_pylist()
    found = {
        (row["partition.project"], row["min.key"], row["max.key"], row["min.step"], row["max.step"]) for row in actions
    }
    assert found == {("nlp", "loss", "loss", 0, 1), ("vision", "Loss", "val/acc", 0, 9)}


@pytest.mark.usefixtures("few")
def test_a_second_export_writes_what_is_new(tmp_path: Path) -> None:
    """Old versions stay readable for the time that they are kept."""
    root = tmp_path / "lake"
    with opened(tmp_path / "home", tail_values=10) as store:
        write(store, run(), history=[curve("a1", range(100))])
        store.seal()
        first = put(store, root)
        before, reported = files(root), snapshot(root)
        again = put(store, root)
        assert (again.tables, again.written, again.kept, again.rows) == (0, 0, first.written, first.rows)
        assert snapshot(root)["tables"] == reported["tables"]
        write(store, history=[curve("a1", range(100, 103))])
        third = put(store, root)
        assert read(root, "select count(*), max(step) from history") == [(103, 102)]
        assert read(root, "select count(*), max(step) from history", reported) == [(100, 99)]
        new = {path.split("/")[0] for path in files(root).keys() - before.keys()}
        assert {"history"} <= new <= {"history", "history_keys", "runs", "projects"}
        assert (third.written, third.deleted) == (len(files(root)) - len(before), 0)
        assert {path: made for path, made in files(root).items() if path in before} == before
        last = put(store, root, keep=NOTHING)
        assert last.deleted == third.written - len(new & {"history"})
        assert read(root, "select count(*), max(step) from history") == [(103, 102)]
        assert len(files(root)) == last.kept


@pytest.mark.usefixtures("few")
def test_only_parts_with_changed_runs_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "RUNS", 2)
    root = tmp_path / "lake"
    with opened(tmp_path / "home") as store:
        write(
            store, *[run(f"r{n}", config={"n": n}) for n in range(7)], history=[curve(f"r{n}", [0]) for n in range(7)]
        )
        put(store, root)
        before = set(files(root))
        write(store, run("r5", config={"n": 50}))
        put(store, root)
        new = [path.split("/")[-1].rsplit("-", 2)[0] for path in sorted(set(files(root)) - before)]
        assert new == ["config_values-00002", "run_changes-00002", "runs-00002"]
        assert read(root, "select run_id, number from config_values order by 1") == [
            (f"r{n}", 50.0 if n == 5 else n) for n in range(7)
        ]


def test_artifacts_of_mirrored_and_other_runs_and_of_none_are_in_the_lake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("artifacts", "artifact_files", "artifact_usage")
    monkeypatch.setattr(lake, "RELATIONS", {name: RELATIONS[name] for name in names})
    root = tmp_path / "lake"
    collection = Collection("c", "model", "net", None, None, NOW, "")
    of = [("team", "p", "one"), ("team", "p", "elsewhere"), (None, None, None)]
    versions = [
        Version(n, f"a{n}", "d", 3, 1, "COMMITTED", NOW, None, run_of, None, None, None, (f"v{n}",))
        for n, run_of in enumerate(of)
    ]
    with opened(tmp_path / "home") as store:
        write(store, run("one"))
        for last in (2, 3):
            with store.transaction() as tx:
                artifacts.put(tx, PROJECT, [(collection, versions[:last])], NOW)
                entry = {
                    "path": ["w"],
                    "size": [3],
                    "md5": ["m"],
                    "reference": [None],
                    "birth_id": ["a"],
                    "extra": [None],
                }
                artifacts.put_entries(tx, {1: pa.table(entry)})
                artifacts.put_uses(tx, PROJECT, {"one": [Use("output", "team", "p", "model", "net", 0, "a0")]})
            put(store, root)
            assert read(root, "select version, run_id, aliases from artifacts order by 1") == [
                (f"v{n}", of[n][2], f"v{n}") for n in range(last)
            ]
    assert read(root, "select collection, version, path, size from artifact_files") == [("net", "v0", "w", 3)]
    assert read(root, "select run_id, relation, collection, version from artifact_usage") == [
        ("one", "output", "net", "v0")
    ]


@pytest.mark.usefixtures("few")
def test_values_of_a_run_that_was_replaced_are_left_out(tmp_path: Path) -> None:
    """Though they are still in a segment; the other segments are not copied again."""
    root = tmp_path / "lake"
    with opened(tmp_path / "home", tail_values=1) as store:
        write(store, run("a"), run("b"), history=[curve("a", range(50)), curve("b", range(50))])
        store.seal()
        write(store, history=[curve("b", range(50, 60))])
        store.seal()
        put(store, root)
        before = {path for path in files(root) if path.startswith("history/")}
        with store.transaction() as tx:
            staging.stage(tx, PROJECT, [curve("a", range(3), scale=7.0)])
            staging.swap(tx, PROJECT, {"a": (3, 2)})
        put(store, root)
        mine = read(root, "select run_id, count(*), max(value) from history group by 1 order by 1")
        assert mine == [("a", 3, 7.0), ("b", 60, 1.0)]
        assert len({path for path in files(root) if path.startswith("history/")} - before) == 2
        assert put(store, root).written == 0


@pytest.mark.usefixtures("few")
def test_projects_that_are_not_chosen_any_more_leave_the_lake(tmp_path: Path) -> None:
    home = publish(tmp_path / "mirror")
    root = tmp_path / "lake"
    lake.export(home, None, Folder(root))
    lake.export(home, [VISION], Folder(root))
    assert read(root, "select distinct project from history") == [("vision",)]
    assert read(root, "select project from projects") == [("vision",)]


@pytest.mark.usefixtures("few")
def test_a_failed_export_leaves_the_former_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one takes up what was written."""
    root = tmp_path / "lake"
    with opened(tmp_path / "home") as store:
        write(store, run(), history=[curve("a1", range(10))])
        put(store, root)
        write(store, run("b2"), history=[curve("b2", range(10))])
        put_file = Folder.put
        written: list[str] = []

        def fail(self: Folder, source: Path, path: str) -> None:
            if path.startswith("history_keys/"):
                raise StoreError("the disk is full")
            written.append(path)
            put_file(self, source, path)

        with monkeypatch.context() as patch:
            patch.setattr(Folder, "put", fail)
            with pytest.raises(StoreError, match="the disk is full"):
                put(store, root)
        assert "history" in {path.split("/")[0] for path in written}
        assert read(root, "select run_id, (select count(*) from history) from runs") == [("a1", 10)]
        with monkeypatch.context() as patch:
            patch.setattr(
                Folder, "put", lambda self, source, path: put_file(self, source, written.append(path) or path)
            )
            del written[:]
            put(store, root)
        assert {path.split("/")[0] for path in written} == {"history_keys"}
        assert read(root, "select run_id, (select count(*) from history) from runs order by 1") == [
            ("a1", 20),
            ("b2", 20),
        ]


@pytest.mark.usefixtures("few")
def test_what_an_export_left_that_was_cut_off_is_deleted_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "lake"
    with opened(tmp_path / "home") as store:
        write(store, run(), history=[curve("a1", range(10))])
        put(store, root)
        left = root / "history/entity=team/project=vision/tail-00000-0123456789abcdef01234567.parquet"
        others = [root / "notes.txt", left.with_name("mine.parquet")]
        for path in [left, *others]:
            path.write_text("cut off", encoding="utf-8")
        put(store, root, keep=NOTHING)
        assert left.exists()
        monkeypatch.setattr(lake, "GRACE", NOTHING)
        assert put(store, root, keep=NOTHING).deleted == 1
        assert [path.exists() for path in [left, *others]] == [False, True, True]


@pytest.mark.usefixtures("few")
def test_a_reader_sees_whole_states_while_exports_go_on(tmp_path: Path) -> None:
    """The number of runs in `runs`, in config_values and in history is the same at every reading."""
    root = tmp_path / "lake"
    seen: list[tuple[Any, ...]] = []
    done = threading.Event()

    def follow() -> None:
        question = (
            "select (select count(*) from runs), (select count(*) from config_values), (select count(*) from history)"
        )
        while not done.is_set():
            seen.extend(read(root, question))

    with opened(tmp_path / "home", tail_values=20) as store:
        reader = threading.Thread(target=follow)
        for number in range(4):
            write(store, run(f"r{number}", config={"lr": 0.1}), history=[curve(f"r{number}", range(5))])
            store.seal()
            put(store, root)
            if number == 0:
                reader.start()
        done.set()
        reader.join()
    assert {(leaves == runs, values == runs * 5) for runs, leaves, values in seen} == {(True, True)}


@pytest.mark.usefixtures("few")
def test_an_export_that_is_overtaken_writes_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second one, of a newer state, runs whole while the first one copies its files."""
    root = tmp_path / "lake"
    with opened(tmp_path / "home") as store:
        write(store, run("a1", config={"n": 1}), history=[curve("a1", range(10))])
        store.publish()
        put_file = Folder.put

        def overtake(self: Folder, source: Path, path: str) -> None:
            put_file(self, source, path)
            if path.startswith("history/") and not (root / "_snapshot.json").exists():
                write(store, run("b2", config={"n": 2}), history=[curve("b2", range(10)), curve("a1", range(10, 12))])
                with monkeypatch.context() as again:
                    again.setattr(Folder, "put", put_file)
                    put(store, root)

        with monkeypatch.context() as patch:
            patch.setattr(Folder, "put", overtake)
            first = lake.export(store.home, None, Folder(root))
        assert first.superseded
        newest = {name: {"version": DeltaTable(str(root / name)).version()} for name in lake.RELATIONS}
        for reported in (None, {"tables": newest}):
            assert read(root, "select run_id, count(*) from history group by 1 order by 1", reported) == [
                ("a1", 12),
                ("b2", 10),
            ]
            assert read(root, "select run_id from runs order by 1", reported) == [("a1",), ("b2",)]
        assert put(store, root).written == 0


@pytest.mark.usefixtures("few")
def test_two_exports_at_once_leave_one_whole_state(tmp_path: Path) -> None:
    home = publish(tmp_path / "mirror", tail_values=1)
    root = tmp_path / "lake"
    start = threading.Barrier(2)
    failed: list[Exception] = []

    def work() -> None:
        start.wait()
        try:
            lake.export(home, None, Folder(root))
        except Exception as error:  # noqa: BLE001 - whatever it is
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert read(root, "select count(*) from history") == [(29,)]
    assert read(root, "select count(*) from runs") == [(6,)]
    assert lake.export(home, None, Folder(root)).written == 0


@pytest.mark.usefixtures("few")
def test_two_exports_do_not_overwrite_files_of_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rows are other bytes here, as DuckDB may write them, and the first export comes last."""
    home = publish(tmp_path / "mirror", tail_values=1)
    root = tmp_path / "lake"
    put_one = Folder.put

    def overtaken(self: Folder, source: Path, path: str) -> None:
        monkeypatch.setattr(Folder, "put", put_one)
        with monkeypatch.context() as patch:
            patch.setattr(content, "_OPTIONS", "(FORMAT parquet, COMPRESSION uncompressed)")
            lake.export(home, None, Folder(root))
        put_one(self, source, path)

    monkeypatch.setattr(Folder, "put", overtaken)
    lake.export(home, None, Folder(root))
    for relation in lake.RELATIONS:
        read(root, f"select * from {relation}")
    assert read(root, "select count(*) from runs") == [(6,)]


@pytest.mark.usefixtures("few")
def test_what_others_made_of_a_table_is_replaced(tmp_path: Path) -> None:
    """Here by deleting rows from it; they come back."""
    home = publish(tmp_path / "mirror", tail_values=1)
    root = tmp_path / "lake"
    lake.export(home, [VISION], Folder(root))
    table = DeltaTable(str(root / "runs"))
    table.delete("run_id = 'alpha'")
    assert table.version() == 2
    done = lake.export(home, [VISION], Folder(root))
    assert (done.tables, done.written) == (1, 1)
    assert read(root, "select count(*) from runs") == [(5,)]
    assert snapshot(root)["tables"]["runs"]["version"] == 3


@pytest.mark.usefixtures("few")
def test_a_lake_of_another_mirror_is_refused(tmp_path: Path) -> None:
    """Also if its first export was cut off before `_snapshot.json`."""
    root = tmp_path / "lake"
    for name in ("one", "other"):
        publish(tmp_path / name)
    one, other = (Home(tmp_path / name, tmp_path / name / "config.toml") for name in ("one", "other"))
    lake.export(one, None, Folder(root))
    before = files(root)
    for message in ("it was written by the mirror", "its table projects was written by another program or mirror"):
        with pytest.raises(StoreError, match=f"is not a lake of this mirror: {message}.*; use another folder"):
            lake.export(other, None, Folder(root))
        assert files(root) == before
        (root / "_snapshot.json").unlink(missing_ok=True)


@pytest.mark.usefixtures("few")
def test_a_restored_backup_does_not_replace_a_newer_state(tmp_path: Path) -> None:
    root = tmp_path / "lake"
    with opened(tmp_path / "home") as store:
        write(store, run())
        put(store, root)
        reported = snapshot(root)
        reported["generation"] += 5
        (root / "_snapshot.json").write_text(json.dumps(reported), encoding="utf-8")
        with pytest.raises(StoreError, match="holds a newer state of this mirror"):
            lake.export(store.home, None, Folder(root))


@pytest.mark.usefixtures("few")
def test_a_column_that_a_newer_version_has_is_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = publish(tmp_path / "mirror")
    root = tmp_path / "lake"
    with monkeypatch.context() as patch:
        patch.setattr("mirror.lake.content._LEFT_OUT", ("lag_s", "run_path", "local_path", "notes"))
        lake.export(home, None, Folder(root))
    assert "notes" not in [row[0] for row in read(root, "describe from runs")]
    lake.export(home, None, Folder(root))
    assert read(root, "select notes from runs where run_id = 'alpha'") == [('said "hi"\nand left',)]
    assert read(root, "select count(*) from runs") == [(6,)]


@pytest.mark.usefixtures("few")
def test_names_with_signs_of_paths_and_patterns_come_back(tmp_path: Path) -> None:
    """In a folder whose own name has some, too."""
    root = tmp_path / "lake[1]"
    odd = [ProjectKey("te am", "a=b%20[x]é*"), ProjectKey("nüll", "007"), ProjectKey("null", "a:b")]
    with opened(tmp_path / "home", tail_values=1) as store:
        for project in odd:
            write(store, run(project=project), history=[curve("a1", range(5))], project=project)
        store.seal()
        put(store, root)
    expected = sorted((key.entity, key.project) for key in odd)
    assert sorted(read(root, "select distinct entity, project from history")) == expected
    assert sorted(read(root, "select entity, project, synced_at from runs")) == [(*key, NOW) for key in expected]
    import polars as pl

    frame = pl.scan_delta(str(root / "history")).select("entity", "project").unique().collect()
    assert sorted(frame.rows()) == expected


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--lake", "ftp://bucket/x"], 2, "a lake must be a folder, s3://, gs:// or az://, not ftp://"),
        (["--lake", "s3://id:secret@bucket"], 2, "a lake must have no key in the address: it is read from the environment"),
        (["--lake", "a%20b"], 2, "a lake must have no % in its path, which readers of Delta tables decode: a%20b"),
        (["--lake", "s3:///x"], 2, 'a lake must be s3://bucket/prefix, not "s3:///x"'),
        (["--lake", "az://box"], 2, 'a lake must be az://bucket/prefix, not "az://box"'),
        (["--lake", "s3://b/x?key=secret"], 2, "a lake must have no ? and # in the address s3://b/x: settings"),
        (["--lake", ""], 2, "a lake must be a folder, s3://, gs:// or az://, not empty"),
        (["--lake", "x", "team/nlp/twin"], 2, "a lake holds whole projects: name entity/project, not a run"),
        (["--lake", "/dev/null/x"], 1, "the lake /dev/null/x cannot be read or written: Not a directory"),
        (["--lake", "az://box/x"], 1, "az://box/x cannot be read or written: no credentials were found; set AZURE_STORAGE_"),
        (["--lake", "x", "--keep", "7"], 2, '--keep must be a duration such as "30s"'),
        (["--lake", "x", "--keep", "5m"], 2, '--keep must be at least "1h"'),
        (["-o", "x", "--keep", "7d"], 2, "--keep goes with --lake"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_lake_is_one_line(mirror: Any, arguments: list[str], code: int, message: str) -> None:
    outcome = mirror("export", *arguments)
    assert (outcome.exit_code, outcome.stdout) == (code, "")
    assert message in outcome.stderr
    assert "secret" not in outcome.stderr
    assert outcome.stderr.count("\n") == 1


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"format": 1}', '{"format": 9}'])
def test_a_snapshot_of_something_else_is_refused(mirror: Any, tmp_path: Path, text: str) -> None:
    root = tmp_path / "lake"
    root.mkdir()
    (root / "_snapshot.json").write_text(text, encoding="utf-8")
    outcome = mirror("export", "--lake", str(root))
    assert (outcome.exit_code, outcome.stderr.count("\n")) == (1, 1)
    assert "use another folder" in outcome.stderr
    assert [path.name for path in root.iterdir()] == ["_snapshot.json"]


def test_without_the_package_the_command_says_what_to_install(
    mirror: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirror.lake.tables.find_spec", lambda name: None)
    outcome = mirror("export", "--lake", str(tmp_path / "lake"))
    assert (outcome.exit_code, outcome.stderr) == (
        1,
        "error: a lake needs deltalake: `pip install 'wandb-mirror[lake]'`\n",
    )
    assert not (tmp_path / "lake").exists()


def test_the_command_says_what_it_wrote(mirror: Any, tmp_path: Path) -> None:
    root = tmp_path / "lake"
    outcome = mirror("export", "--lake", str(root))
    assert (outcome.exit_code, outcome.stdout) == (0, "")
    assert outcome.stderr == f"{root}: 79 rows, 14 files written (0.0 MB), 0 unchanged, 0 deleted\n"
