"""What the official client logs and uploads is mirrored: files, media, histograms; and opens without the server."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

import mirror
from mirror.errors import ArgumentError, StoreError
from mirror.sandbox import Sandbox, World
from mirror.settings.values import artifacts
from mirror.store.contents import Selection
from mirror.sync.context import Scope
from tests.content.rig import ContentRig
from tests.sandbox.official import environment, run

pytestmark = pytest.mark.xdist_group("trained")

TRAIN = """
import io, json, pathlib, numpy as np, wandb
pathlib.Path("a.wav").write_bytes(b"RIFF....WAVE")
pathlib.Path("a.mp4").write_bytes(b"....ftypmp42")
pathlib.Path("note.bin").write_bytes(bytes(range(256)))
run = wandb.init(entity="team", project="p", id="train001")
def image(value, **more):
    return wandb.Image(np.full((4, 6, 3), value, np.uint8), **more)
run.log({"one": image(10, caption="a caption"), "loss": 0.5})
run.log({"many": [image(20, caption="first"), image(30)], "plain": [image(40)]})
run.log({"table": wandb.Table(columns=["x", "y"], data=[[1, "a"], [2, "b"]])})
run.log({"page": wandb.Html("<b>bold</b>"), "pages": [wandb.Html("one"), wandb.Html("two")]})
run.log({"clip": wandb.Video("a.mp4", format="mp4", caption="moving"), "sound": wandb.Audio("a.wav", caption="loud")})
run.log({"clips": [wandb.Video("a.mp4", format="mp4"), wandb.Video("a.mp4", format="mp4")]})
run.log({"cloud": wandb.Object3D(np.zeros((5, 3)))})
run.log({"nested": {"inner": image(50)}})
run.log({"hist": wandb.Histogram(np_histogram=([1, 2, 0], [0.0, 0.5, 1.5, 2.5]))})
grows = wandb.Table(columns=["n"], log_mode="INCREMENTAL")
for n in range(2):
    grows.add_data(n)
    run.log({"grows": grows})
run.log({"pictures": wandb.Table(columns=["n", "image"], data=[[1, image(60)], [2, None]])})
scores = wandb.Table(columns=["id", "p"], data=[[1, 0.5], [2, 0.75], [3, 0.25]])
labels = wandb.Table(columns=["id", "label", "p"], data=[[2, "b", 20], [1, "a", 10], [4, "d", 40]])
whole = wandb.Artifact("whole", type="dataset")
for n, part in ((10, "b"), (2, "c"), (0, "a")):
    whole.add(wandb.Table(columns=["n", "part"], data=[[n, part]]), f"parts/{n}")
partitioned = wandb.data_types.PartitionedTable("parts")
joined = wandb.JoinedTable(scores, labels, "id")
whole.add(partitioned, "partitioned")
whole.add(joined, "joined")
run.log_artifact(whole).wait()
run.log({"joined": joined, "partitioned": partitioned})
linked = wandb.Artifact("linked", type="dataset")
used = run.use_artifact("whole:latest")
over = wandb.JoinedTable(used.get("parts/0"), used.get("partitioned"), ["n", "n"])
linked.add(over, "over")
run.log_artifact(linked).wait()
run.log({"over": over})
pathlib.Path("read.json").write_text(json.dumps([row for _, row in used.get("partitioned").iterrows()]))
run.save("note.bin")
made = wandb.Artifact("net", type="model", metadata={"acc": 0.5}, description="a net")
made.add_file("note.bin", name="deep/note.bin")
made.add_reference("far://bucket/far.bin", name="far.bin")
run.log_artifact(made, aliases=["best"]).wait()
run.use_artifact("net:best")
run.finish()
"""

LEADS_OUT = ("../x", "/etc/x", "a/../../x", ".", "a\0b")
TOO_LONG = "n" * 300
POSSIBLE = ("m" * 255, "Case.txt", "case.txt", "sp ace/ünï.txt")

LOGGED = """
select step, key, item, type, caption, width, height, split_part(path, '/', 2), digest is not null, local_path is not null
from media where step is not null order by step, key, item
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of the official client, mirrored with all of its files; its server is gone."""
    folder = tmp_path_factory.mktemp("trained")
    with Sandbox(World(entity="team")) as server:
        done = run(server, folder, TRAIN)
        assert done.returncode == 0, done.stderr
        hostile = server.world.add_run("team", "p", run_id="hostile")
        for name in (*LEADS_OUT, TOO_LONG, *POSSIBLE):
            hostile.add_file(name, f"content of {name!r}")
        hostile.finish()
        rig = ContentRig(folder / "mirror", server)
        rig.lists = Scope(files=True, artifacts=True)
        outcome = rig.pull(Selection(("*",), artifacts=artifacts(["model:best", "run_table:*", "dataset:*"]).patterns))
        assert (outcome.failed, outcome.error) == ({}, None)
        rig.there = dict(server.world.run("team", "p", "train001").files)
        rig.read_by_client = (folder / "read.json").read_text()
        rig.environment = environment(server, folder) | {"MIRROR_HOME": str(folder / "mirror")}
    return rig


@pytest.fixture
def api(trained, monkeypatch):
    """The Python API, without a server."""
    for name, value in trained.environment.items():
        monkeypatch.setenv(name, value)
    return mirror.Api()


def test_every_file_of_the_run_is_here(trained):
    assert trained.files("train001") == {name: file.content for name, file in trained.there.items()}
    assert {"note.bin", "config.yaml", "wandb-metadata.json"} < trained.there.keys()


def test_artifacts_that_the_client_logged_and_used_are_rows_with_their_content(trained):
    columns = "type, collection, version, list_sort(string_split(aliases, ',')), state, run_id, description, metadata"
    assert trained.sql(f"select {columns} from artifacts where type = 'model'") == [
        ("model", "net", "v0", ["best", "latest"], "COMMITTED", "train001", "a net", '{"acc":0.5}')
    ]
    files = trained.sql(
        "select path, size, reference, local_path from artifact_files where collection = 'net' order by 1"
    )
    assert [file[:3] for file in files] == [
        ("deep/note.bin", 256, None),
        ("far.bin", 0, "far://bucket/far.bin"),
    ]
    assert Path(files[0][3]).read_bytes() == bytes(range(256))
    assert trained.sql("select relation from artifact_usage where collection = 'net' order by 1") == [
        ("input",),
        ("output",),
    ]
    (table,) = trained.sql(
        "select local_path from artifact_files where collection = 'run-train001-table' and path = 'table.table.json'"
    )
    assert json.loads(Path(table[0]).read_bytes())["data"] == [[1, "a"], [2, "b"]]


def test_media_of_the_history_are_rows(trained):
    assert trained.sql(LOGGED) == [
        (0, "one", 0, "image-file", "a caption", 6, 4, "images", True, True),
        (1, "many", 0, "image-file", "first", 6, 4, "images", True, True),
        (1, "many", 1, "image-file", None, 6, 4, "images", True, True),
        (1, "plain", 0, "image-file", None, 6, 4, "images", True, True),
        (2, "table", 0, "table-file", None, None, None, "table", True, True),
        (3, "page", 0, "html-file", None, None, None, "html", True, True),
        (3, "pages", 0, "html-file", None, None, None, "html", True, True),
        (3, "pages", 1, "html-file", None, None, None, "html", True, True),
        (4, "clip", 0, "video-file", "moving", None, None, "videos", True, True),
        (4, "sound", 0, "audio-file", "loud", None, None, "audio", True, True),
        (5, "clips", 0, "video-file", None, None, None, "videos", True, True),
        (5, "clips", 1, "video-file", None, None, None, "videos", True, True),
        (6, "cloud", 0, "object3D-file", None, None, None, "object3D", True, True),
        (7, "nested.inner", 0, "image-file", None, 6, 4, "images", True, True),
        (9, "grows", 0, "incremental-table-file", None, None, None, "table", True, True),
        (10, "grows", 0, "incremental-table-file", None, None, None, "table", True, True),
        (11, "pictures", 0, "table-file", None, None, None, "table", True, True),
        (12, "joined", 0, "joined-table", None, None, None, "", False, False),
        (12, "partitioned", 0, "partitioned-table", None, None, None, "", False, False),
        (13, "over", 0, "joined-table", None, None, None, "", False, False),
    ]


def test_media_of_the_summary_are_the_same_without_a_step(trained):
    columns = "key, item, type, caption, width, height, path, digest, local_path"
    logged = trained.sql(f"select {columns} from media where step is not null and step <> 9 order by key, item")
    assert trained.sql(f"select {columns} from media where step is null order by key, item") == logged


def test_the_content_behind_a_medium_is_what_was_logged(trained):
    ((path, local, digest),) = trained.sql(
        "select path, local_path, digest from media where key = 'table' and step = 2"
    )
    assert json.loads(Path(local).read_bytes())["data"] == [[1, "a"], [2, "b"]]
    assert hashlib.sha256(trained.there[path].content).hexdigest() == digest


def test_tables_are_relations(trained):
    """An incremental one is all of its pieces."""
    assert trained.sql('select run_id, step, x, y from "team/p/tables/table" order by x') == [
        ("train001", 2, 1, "a"),
        ("train001", 2, 2, "b"),
    ]
    assert trained.sql('select step, n from "team/p/tables/grows" order by n') == [(10, 0), (10, 1)]
    assert trained.sql(
        "select key, step, columns, rows, logged_rows from tables where step is not null order by 2, 1"
    ) == [
        ("table", 2, '["x", "y"]', 2, 2),
        ("grows", 9, '["n"]', 1, 1),
        ("grows", 10, '["n"]', 1, 2),
        ("pictures", 11, '["n", "image"]', 2, 2),
        ("joined", 12, '["id", "p", "label", "p"]', 4, None),
        ("partitioned", 12, '["n", "part"]', 3, None),
        ("over", 13, '["n", "part", "part"]', 3, None),
    ]


def test_a_table_is_read_from_its_artifact_where_that_is_here(trained):
    """There its media are objects, and have paths; in the file of the run they are names of classes."""
    ((digest, path),) = trained.sql("select digest, path from tables where key = 'pictures' and step = 11")
    ((of_artifact,),) = trained.sql("select digest from artifact_files where path = 'pictures.table.json'")
    ((of_run,),) = trained.sql("select digest from files where name = ?", path)
    assert digest == of_artifact != of_run
    first, second = trained.sql('select n, image from "team/p/tables/pictures" order by n')
    assert Path(first[1]).read_bytes().startswith(b"\x89PNG")
    assert (first[0], second) == (1, (2, None))


def test_a_partitioned_table_has_the_rows_that_the_client_reads(trained, api):
    """Its parts come in the order of their names, as in the manifest."""
    rows = [list(row.values()) for row in api.run("team/p/train001").table("partitioned", format="dicts")]
    assert rows == json.loads(trained.read_by_client) == [[0, "a"], [10, "b"], [2, "c"]]
    assert trained.sql('select n, part from "team/p/tables/partitioned" order by n') == [(0, "a"), (2, "c"), (10, "b")]


def test_a_joined_table_is_the_outer_join_of_both(trained):
    """Of columns with one name in both, the key is one column, and others are two."""
    assert trained.sql('select id, p, label, p_2 from "team/p/tables/joined" order by id') == [
        (1, 0.5, "a", 10),
        (2, 0.75, "b", 20),
        (3, 0.25, None, None),
        (4, None, "d", 40),
    ]
    described = "type, columns, rows, local_path is not null, parquet_path is not null, error"
    assert trained.sql(f"select {described} from tables where key = 'joined' and step = 12") == [
        ("joined-table", '["id", "p", "label", "p"]', 4, True, True, None)
    ]


def test_pieces_are_found_in_the_artifact_that_a_reference_names(trained):
    assert trained.sql('select n, part, part_2 from "team/p/tables/over" order by n') == [
        (0, "a", "a"),
        (2, None, "c"),
        (10, None, "b"),
    ]


def test_a_histogram_is_a_row_per_bin(trained):
    assert trained.sql("select key, step, bin, low, high, count from histograms order by bin") == [
        ("hist", 8, 0, 0.0, 0.5, 1.0),
        ("hist", 8, 1, 0.5, 1.5, 2.0),
        ("hist", 8, 2, 1.5, 2.5, 0.0),
    ]


def test_files_are_listed_and_downloaded_without_the_server(trained, api, tmp_path):
    found = api.run("team/p/train001")
    assert {file.name for file in found.files()} == trained.there.keys()
    with found.file("note.bin").download(root=str(tmp_path)) as opened:
        assert Path(opened.name).read_bytes() == bytes(range(256))
    assert os.access(tmp_path / "note.bin", os.W_OK), "a copy that may be changed"
    assert found.file("note.bin").read() == bytes(range(256))
    assert found.file("note.bin").local_path.read_bytes() == bytes(range(256))
    with pytest.raises(ArgumentError, match="exists; use replace=True"):
        found.file("note.bin").download(root=str(tmp_path))
    (row,) = found.scan_history(keys=["one"])
    with found.file(row["one"]["path"]).download(root=str(tmp_path)) as opened:
        assert Path(opened.name).read_bytes().startswith(b"\x89PNG")


def test_no_name_leads_out_of_the_folder_of_a_download(trained, api, tmp_path):
    run = api.run("team/p/hostile")
    for name in LEADS_OUT:
        with pytest.raises(ArgumentError, match="it was not downloaded"):
            run.file(name).download(root=str(tmp_path))
    with pytest.raises(StoreError, match="File name too long"):
        run.file(TOO_LONG).download(root=str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    for name in POSSIBLE:
        with run.file(name).download(root=str(tmp_path)) as opened:
            assert opened.read() == f"content of {name!r}"
    assert run.file("../x").read() == b"content of '../x'"
