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
from tests.content.rig import ContentRig
from tests.sandbox.official import environment, run

TRAIN = """
import io, pathlib, numpy as np, wandb
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
run.save("note.bin")
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
        outcome = rig.pull()
        assert (outcome.failed, outcome.error) == ({}, None)
        rig.there = dict(server.world.run("team", "p", "train001").files)
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
    ]


def test_media_of_the_summary_are_the_same_without_a_step(trained):
    columns = "key, item, type, caption, width, height, path, digest, local_path"
    logged = trained.sql(f"select {columns} from media where step is not null order by key, item")
    assert trained.sql(f"select {columns} from media where step is null order by key, item") == logged


def test_the_content_behind_a_medium_is_what_was_logged(trained):
    ((path, local, digest),) = trained.sql(
        "select path, local_path, digest from media where key = 'table' and step = 2"
    )
    assert json.loads(Path(local).read_bytes())["data"] == [[1, "a"], [2, "b"]]
    assert hashlib.sha256(trained.there[path].content).hexdigest() == digest


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
