"""A lake: what its manifest lists is always one whole state of the mirror, and a call writes only what is new."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from mirror.errors import StoreError
from mirror.query import lake
from mirror.query.export import RELATIONS
from mirror.query.lake_target import Folder
from mirror.settings.home import Home
from mirror.snapshot.paths import Project
from mirror.store import staging
from mirror.store.names import literal
from mirror.store.records import ProjectKey
from tests.store.kit import NOW, PROJECT, curve, opened, run, write

VISION = Project("team", "vision")


def read(root: Path, sql: str) -> list[tuple[Any, ...]]:
    """Rows of a query over the lake, as a reader sees it who follows the manifest."""
    manifest = json.loads((root / lake.MANIFEST).read_text(encoding="utf-8"))
    with duckdb.connect() as connection:
        for relation, told in manifest["relations"].items():
            paths = ", ".join(literal(root / file["path"]) for file in told["files"])
            columns = ", ".join(f'"{name}"' for name in told["columns"])
            source = f"read_parquet([{paths}], hive_partitioning = true, hive_types_autocast = false)"
            connection.execute(f"create view {relation} as select {columns} from {source}")
        return connection.sql(sql).fetchall()


def put(store: Any, root: Path, **options: Any) -> lake.Export:
    store.publish()
    return lake.export(store.home, [VISION], Folder(root), **options)


@pytest.mark.parametrize("source", ["published", "segmented"])
def test_a_lake_holds_what_the_mirror_holds(
    mirror: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str
) -> None:
    """Every relation with its columns, types and rows, whether history lies in the tail or in segments."""
    home: Home = request.getfixturevalue(source)
    monkeypatch.setenv("MIRROR_HOME", str(home.data))
    outcome = mirror("export", "--lake", str(tmp_path / "lake"))
    assert (outcome.exit_code, outcome.stdout) == (0, "")
    manifest = json.loads((tmp_path / "lake" / "manifest.json").read_text(encoding="utf-8"))
    assert list(manifest["relations"]) == list(RELATIONS)
    with duckdb.connect(str(home.published), read_only=True) as theirs:
        for relation in RELATIONS:
            here = {"projects": "lag_s", "files": "run_path, local_path"}.get(relation, "run_path")
            left_out = f" exclude ({here})"
            expected = theirs.execute(f"select *{left_out} from {relation}").fetchall()
            assert sorted(map(str, read(tmp_path / "lake", f"from {relation}"))) == sorted(map(str, expected))
            assert manifest["relations"][relation]["rows"] == len(expected)
            described = theirs.execute(f"describe (select *{left_out} from {relation})").fetchall()
            assert manifest["relations"][relation]["columns"] == {name: kind for name, kind, *_ in described}
    for told in manifest["relations"].values():
        for file in told["files"]:
            assert (tmp_path / "lake" / file["path"]).stat().st_size == file["bytes"]


def test_a_second_export_writes_what_is_new(tmp_path: Path) -> None:
    """And what an older manifest lists stays for the time of grace."""
    root = tmp_path / "lake"
    with opened(tmp_path / "home", tail_values=10) as store:
        write(store, run(), history=[curve("a1", range(100))])
        store.seal()
        first = put(store, root)
        assert put(store, root) == lake.Export(written=0, bytes=0, kept=first.written, deleted=0, rows=first.rows)
        before = {path: (root / path).stat().st_mtime_ns for path in Folder(root).listing()}
        write(store, history=[curve("a1", range(100, 103))])
        again = put(store, root)
        assert read(root, "select count(*), max(step) from history") == [(103, 102)]
        changed = {"history", "history_keys", "runs"}
        new = {path.split("/")[0] for path in Folder(root).listing() if path not in before} - {"manifest.json"}
        assert new <= changed | {"projects"}
        assert "history" in new
        assert again.deleted == 0
        assert all((root / path).stat().st_mtime_ns == made for path, made in before.items() if path != "manifest.json")
        third = put(store, root, grace=timedelta(0))
        assert third.deleted == again.written
        listed = json.loads((root / lake.MANIFEST).read_text(encoding="utf-8"))
        there = {file["path"] for told in listed["relations"].values() for file in told["files"]}
        assert set(Folder(root).listing()) == there | {"manifest.json"}


def test_values_of_a_run_that_was_replaced_are_left_out(tmp_path: Path) -> None:
    """Though they still lie in a segment."""
    root = tmp_path / "lake"
    with opened(tmp_path / "home", tail_values=1) as store:
        write(store, run("a"), run("b"), history=[curve("a", range(50)), curve("b", range(50))])
        store.seal()
        assert put(store, root).rows == sum(_rows(root).values())
        with store.transaction() as tx:
            staging.stage(tx, PROJECT, [curve("a", range(3), scale=7.0)])
            staging.swap(tx, PROJECT, "a", rows=3, last_step=2)
        put(store, root)
        mine = read(root, "select run_id, count(*), max(value) from history group by 1 order by 1")
        assert mine == [("a", 3, 7.0), ("b", 50, 1.0)]
        assert put(store, root).written == 0


def _rows(root: Path) -> dict[str, int]:
    return {relation: read(root, f"select count(*) from {relation}")[0][0] for relation in RELATIONS}


def test_a_failed_export_leaves_the_former_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one takes up what was written, and clears away what no manifest ever listed."""
    root = tmp_path / "lake"
    with opened(tmp_path / "home") as store:
        write(store, run(), history=[curve("a1", range(10))])
        put(store, root)
        write(store, run("b2"), history=[curve("b2", range(10))])
        put_file = Folder.put
        written: list[str] = []

        def fail(self: Folder, source: Path, path: str) -> None:
            if path.startswith("history/"):
                raise StoreError("the disk is full")
            written.append(path)
            put_file(self, source, path)

        with monkeypatch.context() as patch:
            patch.setattr(Folder, "put", fail)
            with pytest.raises(StoreError, match="the disk is full"):
                put(store, root)
        assert written
        assert read(root, "select run_id from runs") == [("a1",)]
        write(store, run("c3"))
        put(store, root, grace=timedelta(0))
        assert read(root, "select run_id from runs order by 1") == [("a1",), ("b2",), ("c3",)]
        assert len(list((root / "runs" / "entity=team" / "project=vision").iterdir())) == 1


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
        for number in range(12):
            write(store, run(f"r{number}", config={"lr": 0.1}), history=[curve(f"r{number}", range(5))])
            store.seal()
            put(store, root)
            if number == 0:
                reader.start()
        done.set()
        reader.join()
    assert len(set(seen)) > 1
    assert {(leaves == runs, values == runs * 5) for runs, leaves, values in seen} == {(True, True)}


def test_names_with_signs_of_paths_and_patterns_come_back(tmp_path: Path) -> None:
    odd = Project("te am", "a=b%20[x]é*")
    with opened(tmp_path / "home", tail_values=1) as store:
        write(store, run(project=ProjectKey(*odd)), history=[curve("a1", range(5))], project=ProjectKey(*odd))
        store.seal()
        store.publish()
        lake.export(store.home, [odd], Folder(tmp_path / "lake"))
    assert read(tmp_path / "lake", "select distinct entity, project from history") == [tuple(odd)]
    assert read(tmp_path / "lake", "select entity, project, synced_at from runs") == [(*odd, NOW)]


def test_files_of_others_stay(mirror: Any, tmp_path: Path) -> None:
    """Whatever their names; only what an export wrote is ever deleted."""
    others = ["notes.txt", "history/entity=team/project=vision/mine.parquet", "runs/x.parquet"]
    for path in others:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("mine", encoding="utf-8")
    assert mirror("export", "--lake", str(tmp_path)).exit_code == 0
    manifest = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["retired"] == []
    assert [(tmp_path / path).read_text(encoding="utf-8") for path in others] == ["mine"] * 3


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--lake", "gs://bucket/x"], 2, "a lake must be a folder or s3://bucket/prefix, not gs://"),
        (["--lake", "s3://id:secret@bucket"], 2, "leave the key out of the address"),
        (["--lake", "s3:///x"], 2, "s3:///x names no bucket: use s3://bucket/prefix"),
        (["--lake", "x", "team/nlp/twin"], 2, "a lake holds whole projects: name entity/project, not a run"),
        (["--lake", "/dev/null/x"], 1, "the lake /dev/null/x cannot be read or written: Not a directory"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_lake_is_one_line(mirror: Any, arguments: list[str], code: int, message: str) -> None:
    outcome = mirror("export", *arguments)
    assert (outcome.exit_code, outcome.stdout) == (code, "")
    assert message in outcome.stderr
    assert "secret" not in outcome.stderr
    assert outcome.stderr.count("\n") == 1


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"format": 1, "retired": [{}]}', '{"format": 9}'])
def test_a_manifest_of_something_else_is_refused(mirror: Any, tmp_path: Path, text: str) -> None:
    root = tmp_path / "lake"
    root.mkdir()
    (root / "manifest.json").write_text(text, encoding="utf-8")
    outcome = mirror("export", "--lake", str(root))
    assert (outcome.exit_code, outcome.stderr.count("\n")) == (1, 1)
    assert "use another folder" in outcome.stderr
    assert [path.name for path in root.iterdir()] == ["manifest.json"]
