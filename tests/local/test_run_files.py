"""The folder `files/` of local runs: its list and its content are mirrored as those of runs of a server are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mirror.store.contents import Selection
from tests.content.rig import content_rig
from tests.local import kit
from tests.local.kit import ingest

EVERYTHING = Selection(("*",))
FILES = {
    "config.yaml": b"lr:\n  value: 1\n",
    "media/images/i_0.png": b"\x89PNG first",
    "media/images/same.png": b"\x89PNG first",
    "saved/model.bin": bytes(300),
}


def run_folder(root: Path, run_id: str = "r1", **fields):
    """A run's file, with an image in its history, and the files beside it."""
    file = kit.run_file(root, run_id, entity="team", **fields)
    image = '{"_type": "image-file", "path": "media/images/i_0.png", "width": 2, "height": 1}'
    file.log(0, loss=1, image=image).exit()
    for name, content in FILES.items():
        put(file, name, content)
    return file


def put(file, name: str, content: bytes) -> Path:
    path = file.path.parent / "files" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def held(sql):
    """The content of each listed file; None for one that is only listed."""
    found = sql("select name, size, local_path from files order by name")
    contents = {name: Path(path).read_bytes() if path else None for name, _, path in found}
    assert all(
        content is None or len(content) == size for content, (_, size, _) in zip(contents.values(), found, strict=True)
    )
    return contents


def test_files_and_media_of_a_local_run_are_mirrored(home, sql, tmp_path):
    """Equal content is stored once, and media open without a server."""
    run_folder(tmp_path)
    [result] = ingest(home, tmp_path, files=True, contents=EVERYTHING)
    assert result.outcome == "new"
    assert held(sql) == FILES
    assert len(list(home.blobs.glob("??/*"))) == 3
    [(path, width)] = sql("select local_path, width from media where key = 'image' and step = 0")
    assert (Path(path).read_bytes(), width) == (FILES["media/images/i_0.png"], 2)
    assert sql("select mimetype from files where name like '%i_0.png'") == [("image/png",)]
    assert list((home.blobs / ".parts").iterdir()) == []


@pytest.mark.parametrize(
    ("selection", "stored"),
    [
        (Selection(), set()),
        (Selection(("media/**",)), {"media/images/i_0.png", "media/images/same.png"}),
        (Selection(("*",), most_of_run=26), {"media/images/i_0.png", "media/images/same.png"}),
        (Selection(("*",), budget=200), {"config.yaml", "media/images/i_0.png", "media/images/same.png"}),
    ],
)
def test_the_settings_choose_among_them(home, sql, tmp_path, selection, stored):
    """The list is complete; a run's smallest files come first."""
    run_folder(tmp_path)
    ingest(home, tmp_path, files=True, contents=selection)
    contents = held(sql)
    assert contents.keys() == FILES.keys()
    assert {name for name, content in contents.items() if content is not None} == stored


def test_what_changes_is_mirrored_again_and_a_wider_setting_adds(home, sql, tmp_path):
    file = kit.run_file(tmp_path, entity="team", start=kit.now()).log(0, loss=1)
    put(file, "a.txt", b"first")
    put(file, "b.txt", b"stays")
    ingest(home, tmp_path)
    assert sql("select * from files") == []
    ingest(home, tmp_path, files=True)
    assert held(sql) == {"a.txt": None, "b.txt": None}
    ingest(home, tmp_path, files=True, contents=EVERYTHING)
    assert held(sql) == {"a.txt": b"first", "b.txt": b"stays"}
    os.utime(put(file, "a.txt", b"other"), ns=(1, 1))
    put(file, "c.txt", b"new")
    (file.path.parent / "files" / "b.txt").unlink()
    file.log(1, loss=2)
    ingest(home, tmp_path, files=True, contents=EVERYTHING)
    assert held(sql) == {"a.txt": b"other", "c.txt": b"new"}


def test_links_to_files_are_followed_and_other_things_left_out(home, sql, tmp_path):
    """The client links what a script saves. A link to a folder, to nothing, and a pipe that never ends are no files."""
    file = run_folder(tmp_path / "runs")
    folder = file.path.parent / "files"
    (tmp_path / "saved.txt").write_bytes(b"saved")
    (folder / "link.txt").symlink_to(tmp_path / "saved.txt")
    (folder / "folder").symlink_to(tmp_path)
    (folder / "nothing").symlink_to(tmp_path / "nothing")
    os.mkfifo(folder / "pipe")
    ingest(home, tmp_path / "runs", files=True, contents=EVERYTHING)
    assert held(sql) == FILES | {"link.txt": b"saved"}


def test_a_later_start_adds_its_files(home, sql, tmp_path):
    first = kit.run_file(tmp_path, stamp="20260101_000000", entity="team").lines(0, 2)
    second = kit.run_file(tmp_path, stamp="20260102_000000", entity="team", start=1_700_100_000, resumed=True)
    second.lines(0, 2).exit()
    put(first, "first.txt", b"1")
    put(first, "both.txt", b"old")
    put(second, "both.txt", b"new")
    ingest(home, tmp_path, files=True, contents=EVERYTHING)
    assert held(sql) == {"first.txt": b"1", "both.txt": b"new"}


def test_no_server_is_asked_for_them_until_it_has_the_run(home, sql, tmp_path):
    """A round of downloads leaves local runs alone. When the server has the run, equal content is not pulled again."""
    run_folder(tmp_path)
    ingest(home, tmp_path, files=True, contents=Selection(("*.yaml",)))
    with content_rig(home.data) as rig:
        assert rig.pull(listed=False).failed == {}
        assert held(sql)["saved/model.bin"] is None
        run = rig.world.add_run("team", "p", run_id="r1")
        run.log({"loss": 1})
        for name, content in FILES.items():
            run.add_file(name, content)
        run.finish()
        outcome = rig.pull()
        assert (outcome.failed, outcome.stored) == ({}, 3)
        assert held(sql) == FILES


def test_a_forgotten_run_lets_go_of_its_files(home, sql, tmp_path, cli):
    run_folder(tmp_path)
    ingest(home, tmp_path, files=True, contents=EVERYTHING)
    assert cli("forget", "team/p/r1", "--yes").exit_code == 0
    assert sql("select * from files") == []
    assert cli("gc", "--grace", "0s").exit_code == 0
    assert list(home.blobs.glob("??/*")) == []
