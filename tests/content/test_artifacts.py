"""The content of artifacts: downloaded by digest, checked, kept, and let go."""

from __future__ import annotations

import os
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from mirror.sandbox import app
from mirror.settings.home import Home
from mirror.settings.values import artifacts
from mirror.store import backup, contents, forget
from mirror.store.blobs import Blobs
from mirror.store.contents import Selection
from mirror.store.garbage import Garbage
from mirror.store.reader import opened
from mirror.store.records import ProjectKey
from mirror.store.store import Store
from mirror.sync.context import Scope
from tests.content.rig import sha256
from tests.reading import rows
from tests.sync.test_passes import add

PROJECT = ProjectKey("team", "p")
BIG = os.urandom(600_000)


def chosen(*patterns, **limits):
    """The selection of `sync.artifacts = [...]`."""
    return Selection(artifacts=artifacts(list(patterns) or "content").patterns, **limits)


@pytest.fixture
def rig(rig):
    """A project with a model of three versions and a data set of one."""
    rig.lists = Scope(artifacts=True, reconcile_interval=0.0)
    rig.run = add(rig, "one")
    for number in range(3):
        files = {"weights.bin": b"weights %d" % number, "deep/config.json": b"{}"}
        rig.world.add_artifact(
            "team", "p", "model", "resnet", files, aliases=["best"] if number == 1 else [], by=rig.run
        )
    references = {"far": "s3://bucket/far"}
    rig.world.add_artifact("team", "p", "dataset", "digits", {"d.csv": b"1,2", "../../x": b"{}"}, references=references)
    return rig


def held(rig):
    """The files of artifacts whose content is here, and nothing about those that are not."""
    found = {}
    of_held = "where local_path is not null order by collection, version, path"
    for collection, version, path, size, digest, local in rig.sql(
        f"select collection, version, path, size, digest, local_path from artifact_files {of_held}"
    ):
        content = Path(local).read_bytes()
        assert (sha256(content), len(content)) == (digest, size)
        found[f"{collection}:{version}/{path}"] = content
    return found


ALL = {
    "digits:v0/../../x": b"{}",
    "digits:v0/d.csv": b"1,2",
    **{f"resnet:v{number}/deep/config.json": b"{}" for number in range(3)},
    **{f"resnet:v{number}/weights.bin": b"weights %d" % number for number in range(3)},
}


def test_the_content_of_everything_is_stored_once_by_digest_and_never_by_name(rig):
    outcome = rig.pull(chosen())
    assert (outcome.stored, outcome.failed, outcome.error) == (8, {}, None)
    assert (rig.progress.expected, rig.progress.done) == (8, 8)
    assert held(rig) == ALL
    assert rig.blobs() == sorted([b"{}", b"1,2", *(b"weights %d" % number for number in range(3))])
    assert rig.sandbox.requests["artifact"] == 5
    assert not (rig.home.data.parent.parent / "x").exists()
    rig.sandbox.reset_counts()
    assert rig.pull(chosen()).stored == 0
    assert rig.sandbox.requests["artifact"] == rig.sandbox.requests["MirrorArtifactContents"] == 0


PATTERNS = {
    ("model:latest",): {"resnet:v2/deep/config.json", "resnet:v2/weights.bin"},
    ("model:best", "data*:v0"): {
        *("digits:v0/../../x", "digits:v0/d.csv"),
        *("resnet:v1/deep/config.json", "resnet:v1/weights.bin"),
    },
    ("model/res*:v[01]",): {f"resnet:v{number}/{name}" for number in (0, 1) for name in ("deep/config.json", "weights.bin")},
    ("*/digits:*",): {"digits:v0/../../x", "digits:v0/d.csv"},
    ("model/other:*", "mode:*", "model:v"): set(),
}  # fmt: skip


def test_patterns_choose_by_type_name_and_alias_or_version(rig):
    """One mirror for all: each round adds what its patterns choose, and another one lets nothing go."""
    rig.pull(Selection())
    expected: set[str] = set()
    for patterns, more in PATTERNS.items():
        rig.pull(chosen(*patterns), listed=False)
        expected |= more
        assert set(held(rig)) == expected


def test_an_alias_that_moves_brings_the_version_that_has_it_now(rig):
    rig.pull(chosen("model:best"))
    rig.world.artifacts.name(rig.world.artifact("team", "p", "resnet:v0"), ["best"])
    rig.pull(chosen("model:best"))
    assert {name.partition("/")[0] for name in held(rig)} == {"resnet:v0", "resnet:v1"}


def test_files_of_a_run_and_of_an_artifact_share_their_content(rig):
    rig.lists = Scope(artifacts=True, files=True)
    rig.run.add_file("weights.bin", b"weights 0")
    selection = Selection(("*",), artifacts=artifacts(["model:v0"]).patterns)
    rig.pull(selection)
    assert rig.sandbox.requests["artifact"] + rig.sandbox.requests["file"] == 2
    assert (rig.files(), set(held(rig))) == (
        {"weights.bin": b"weights 0"},
        {"resnet:v0/deep/config.json", "resnet:v0/weights.bin"},
    )


def test_the_budget_bounds_all_content(rig):
    outcome = rig.pull(chosen(budget=12))
    assert outcome.beyond_budget > 0
    assert sum(map(len, rig.blobs())) <= 12


def place_of(rig, artifact, path):
    from mirror.sandbox.artifacts import address

    return address(artifact, artifact.entries[path])


def test_content_that_does_not_fit_the_manifest_is_named_and_tried_again(rig, cli, monkeypatch):
    spoilt = rig.world.artifact("team", "p", "resnet:v0")
    place = place_of(rig, spoilt, "weights.bin")
    lost = place_of(rig, rig.world.artifact("team", "p", "digits"), "d.csv")
    content, rig.world.artifacts.contents[place] = rig.world.artifacts.contents[place], b"WEIGHTS 0"
    missing = rig.world.artifacts.contents.pop(lost)
    outcome = rig.pull(chosen())
    assert sorted(outcome.failed) == ["team/p/digits:v0: d.csv", "team/p/resnet:v0: weights.bin"]
    assert "has another MD5 digest than the server lists" in outcome.failed["team/p/resnet:v0: weights.bin"]
    assert set(held(rig)) == ALL.keys() - {"digits:v0/d.csv", "resnet:v0/weights.bin"}
    monkeypatch.setenv("MIRROR_HOME", str(rig.home.data))
    assert "team/p/resnet:v0: weights.bin" in cli("status").stdout
    rig.world.artifacts.contents |= {place: content, lost: missing}
    assert rig.pull(chosen(), retry=True).failed == {}
    assert held(rig) == ALL


def test_an_interrupted_download_goes_on_where_it_ended(rig, monkeypatch):
    ranges = []
    answer = app.file_answer

    def record(body, media_type, wanted):
        ranges.append(wanted)
        return answer(body, media_type, wanted)

    from mirror.sandbox import artifact_storage

    monkeypatch.setattr(artifact_storage, "file_answer", record)
    rig.world.add_artifact("team", "p", "big", "big", {"big.bin": BIG})
    rig.sandbox.faults.add("reset", 1, "artifact")
    rig.sandbox.faults.add("expired", 1, "artifact")
    assert rig.pull(chosen("big:*")).failed == {}
    assert held(rig) == {"big:v0/big.bin": BIG}
    assert [wanted for wanted in ranges if wanted is not None] != []


def test_an_entry_without_a_size_gets_that_of_the_server(rig):
    made = rig.world.artifact("team", "p", "digits")
    made.manifest = made.manifest.replace(b'"size":3,', b"").replace(b',"size":3', b"")
    rig.sync(artifacts=True)
    assert rig.sql("select size from artifact_files where path = 'd.csv'") == [(None,)]
    rig.pull(chosen("dataset:*"))
    assert held(rig)["digits:v0/d.csv"] == b"1,2"


def test_a_version_that_was_deleted_on_the_server_keeps_its_content_until_its_project_is_forgotten(rig):
    rig.pull(chosen())
    rig.world.delete_artifact(rig.world.artifact("team", "p", "resnet:v0"))
    rig.sync(artifacts=True, reconcile_interval=0.0)
    assert rig.sql("select version from artifacts where deleted_at is not null") == [("v0",)]
    assert rig.collect() == Garbage()
    assert held(rig) == ALL
    with rig.store() as store:
        with store.transaction() as tx:
            forget.runs(tx, PROJECT, ["one"])
        assert store.collect(timedelta(0)) == Garbage()
        with store.transaction() as tx:
            forget.project(tx, PROJECT)
        assert store.collect(timedelta(0)).deleted == 5
    assert rig.blobs() == []


def test_content_that_a_new_manifest_does_not_name_goes_after_the_grace(rig):
    rig.pull(chosen())
    made = rig.world.artifact("team", "p", "digits")
    del made.entries["d.csv"]
    from mirror.sandbox import manifests

    made.digest, made.manifest = manifests.digest(made.entries), manifests.write(made.entries, "V2")
    rig.sync(artifacts=True, reconcile_interval=0.0)
    assert rig.collect(dry_run=True) == rig.collect() == Garbage(deleted=1, deleted_bytes=3)
    assert held(rig) == {name: content for name, content in ALL.items() if name != "digits:v0/d.csv"}


def test_damaged_content_is_found_forgotten_and_downloaded_again_and_a_backup_has_it(rig, tmp_path):
    rig.pull(chosen())
    path = Blobs(rig.home.blobs).path(sha256(b"weights 1"))
    path.chmod(0o600)
    path.write_bytes(b"WEIGHTS 1")
    with opened(rig.home) as reader:
        (one,) = contents.damage(reader, Blobs(rig.home.blobs), PROJECT, deep=True).values()
    assert one.expected == "the 9 bytes of team/p/resnet:v1: weights.bin"
    with rig.store() as store, store.transaction() as tx:
        assert len(contents.mend(tx, store.blobs, PROJECT)) == 1
    assert rig.pull(chosen()).stored == 1
    assert held(rig) == ALL
    folder, home = tmp_path / "backup", Home(tmp_path / "elsewhere", tmp_path / "elsewhere" / "config.toml")
    assert backup.make(rig.home, folder).contents == 5
    shutil.rmtree(rig.home.data)
    assert backup.restore(folder, home, replace=False).contents == 5
    Store.open(home).close()
    found = rows(home.published, "select path, local_path from artifact_files where collection = 'digits' order by 1")
    assert [(name, local and Path(local).is_relative_to(home.blobs)) for name, local in found] == [
        ("../../x", True),
        ("d.csv", True),
        ("far", None),
    ]


def test_the_command_pulls_what_the_config_names_and_exports_the_relations(rig, cli, monkeypatch, tmp_path):
    monkeypatch.setenv("MIRROR_HOME", str(rig.home.data))
    monkeypatch.setenv("WANDB_API_KEY", rig.sandbox.key)
    rig.home.config.write_text(
        f'projects = ["team/p"]\n[server]\nbase_url = "{rig.sandbox.url}"\n[sync]\nartifacts = ["model:best", "models/res*:*"]\n'
    )
    done = cli("sync")
    assert (done.exit_code, "files: 2 files" in done.stderr) == (0, True), done.stderr
    assert set(held(rig)) == {"resnet:v1/deep/config.json", "resnet:v1/weights.bin"}
    assert 'problem  sync.artifacts: no artifact matches "models/res*:*"' in cli("status").stdout
    for relation, count in (("artifacts", 4), ("artifact_files", 9), ("artifact_usage", 3)):
        target = tmp_path / f"{relation}.csv"
        assert cli("export", "-o", str(target)).exit_code == 0
        assert len(target.read_text().splitlines()) == 1 + count
    assert cli("verify", "--deep").exit_code == 0
