"""Artifacts of the Python API: from the mirror, the same as the official client has them; the rest from the server."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import mirror
from mirror.sandbox import Artifact, Sandbox, World
from mirror.settings.values import ArtifactPattern
from mirror.store.contents import Selection
from tests.content.rig import ContentRig
from tests.sandbox.official import environment

pytestmark = pytest.mark.xdist_group("artifacts")

WANTED = Selection(artifacts=(ArtifactPattern("dataset", "*", "*"),))
"""The content of models is not mirrored."""


@dataclass(frozen=True)
class Site:
    """A mirrored project with artifacts, our Api, and the official client's."""

    server: Sandbox
    rig: ContentRig
    ours: Any
    theirs: Any

    def asked(self, work: Any) -> list[str]:
        """What the server is asked while this runs."""
        before = dict(self.server.requests)
        work()
        return sorted(name for name, count in self.server.requests.items() if count > before.get(name, 0))


def world() -> World:
    world = World(entity="team")
    maker = world.add_run("team", "p", run_id="maker", config={"lr": 1})
    user = world.add_run("team", "p", run_id="user", config={})
    first = world.add_artifact(
        "team", "p", "dataset", "data", {"a.txt": b"one", "sub/b.txt": b"two"}, by=maker, aliases=["small"],
        metadata={"rows": 2, "nested": {"x": [1]}}, description="two files", tags=["gold"], ttl_seconds=86400,
    )  # fmt: skip
    world.add_artifact(
        "team", "p", "dataset", "data", {"a.txt": b"one", "c.json": b"{}"}, by=maker,
        references={"far.bin": ("s3://bucket/far.bin", 40), "again.txt": first.reference("sub/b.txt")},
    )  # fmt: skip
    world.add_artifact("team", "p", "dataset", "old layout", {"x": b"x" * 50}, layout="V1")
    net = world.add_artifact("team", "p", "model", "net", {"weights": b"w" * 1000}, by=user)
    world.link_artifact(net, "team", "p", "best models")
    world.add_artifact("team", "p", "odd", "hollow")
    world.add_artifact("team", "p", "odd", "names", {"good": b"g", "../out": b"o", "Good": b"G", "z" * 300: b"z"})
    damaged = world.add_artifact("team", "p", "odd", "damaged", {"fine": b"f", "torn": b"torn", "lost": b"lost"})
    world.add_artifact("team", "p", "odd", "bare", {"x": b"x"}).manifest = None
    world.artifacts.replace(damaged, "torn", b"other")
    world.artifacts.replace(damaged, "lost", None)
    user.use_artifact(first)
    world.link_artifact(first, "team", "p", "shelf", ["prod"])
    return world


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    import wandb

    folder = Path(tempfile.mkdtemp(prefix="m"))
    before = dict(os.environ)
    try:
        with Sandbox(world()) as server:
            rig = ContentRig(folder / "home", server)
            pull(rig)
            os.environ.clear()
            os.environ.update(environment(server, folder))
            os.environ["MIRROR_HOME"] = str(folder / "home")
            yield Site(server, rig, mirror.Api(), wandb.Api())
    finally:
        wandb.teardown()
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(folder)


def pull(rig: ContentRig) -> None:
    results = rig.sync("team/p", artifacts=True)
    assert not results["team/p"].error
    outcome = rig.pull(WANTED, listed=False)
    assert not outcome.failed


FACTS = (
    *("id", "entity", "project", "name", "qualified_name", "version", "type", "is_link", "state", "digest", "size"),
    *("file_count", "created_at", "updated_at", "commit_hash", "history_step", "description", "metadata", "aliases"),
    *("tags", "ttl", "source_entity", "source_project", "source_name", "source_version", "source_qualified_name"),
    *("linked_at", "distributed_id", "incremental", "use_as", "digest_algorithm"),
)


def facts(artifact: Any) -> dict[str, Any]:
    return {name: getattr(artifact, name) for name in FACTS}


@pytest.mark.parametrize(
    "name",
    ["data:v0", "data:v1", "data:small", "data:latest", "old layout:v0", "net:latest", "shelf:prod", "best models:v0"],
)
def test_a_version_has_the_same_facts_as_in_the_official_client(site: Site, name: str) -> None:
    path = f"team/p/{name}"
    assert facts(site.ours.artifact(path)) == facts(site.theirs.artifact(path))
    assert site.ours.artifact(path).url.removeprefix(site.server.url) == (
        site.theirs.artifact(path).url.removeprefix(site.server.url)
    )
    wanted = [] if name not in ("shelf:prod", "best models:v0") else ["ArtifactMembershipByName"]
    assert site.asked(lambda: facts(site.ours.artifact(path))) == wanted


def test_a_link_is_a_version_of_its_own_with_the_files_of_its_source(site: Site, tmp_path: Path) -> None:
    link = site.ours.artifact("team/p/shelf:latest")
    assert (link.is_link, link.version, link.aliases, link.source_artifact.name) == (
        True, "v0", ["prod", "latest"], "data:v0",
    )  # fmt: skip
    assert site.asked(lambda: link.download(tmp_path)) == []
    assert contents(tmp_path) == {"a.txt": b"one", "sub/b.txt": b"two"}
    assert not site.ours.artifact_collection("dataset", "team/p/shelf").is_sequence()
    assert [one.qualified_name for one in site.ours.artifact("team/p/data:v0").linked_artifacts] == ["team/p/shelf:v0"]


def test_objects_and_files_by_their_names(site: Site, tmp_path: Path) -> None:
    """As the official client finds them; a version without files has no only file."""
    theirs, ours = (api.artifact("team/p/data:v0") for api in (site.theirs, site.ours))
    assert theirs["a.txt"] is ours["a.txt"] is None
    assert [file.name for file in ours.files(names="a.txt")] == ["a.txt"]
    assert ours.files()[0].run is None
    for api in (site.theirs, site.ours):
        with pytest.raises(IndexError):
            api.artifact("team/p/hollow:v0").file(str(tmp_path))


def test_a_version_is_found_with_the_set_entity_and_project(site: Site) -> None:
    api = mirror.Api({"entity": "team", "project": "p"})
    assert api.artifact("data:small", type="dataset").metadata == {"rows": 2, "nested": {"x": [1]}}
    assert api.artifact("p/data:small").ttl == timedelta(days=1)
    assert api.artifact("data").version == "v1"
    with pytest.raises(mirror.CommError, match="type 'model' specified but this artifact is of type 'dataset'"):
        api.artifact("data:small", type="model")


def test_the_manifest_lists_files_and_references(site: Site) -> None:
    ours, theirs = (api.artifact("team/p/data:v1") for api in (site.ours, site.theirs))
    shown = [{path: entry.to_json() for path, entry in one.manifest.entries.items()} for one in (ours, theirs)]
    assert shown[0] == shown[1]
    assert (len(ours.manifest), ours.manifest.size(), ours.manifest.digest()) == (4, 45, ours.digest)
    assert ours.get_entry("far.bin").ref_target() == "s3://bucket/far.bin"
    assert ours.get_entry("a.txt").ref_url() == theirs.get_entry("a.txt").ref_url()
    assert [entry.path for entry in site.ours.artifact("team/p/data:v0").manifest.get_entries_in_directory("sub")] == [
        "sub/b.txt"
    ]
    with pytest.raises(KeyError, match="Path not contained in artifact: none"):
        ours.get_entry("none")


def contents(folder: str | Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


def test_mirrored_content_is_downloaded_without_the_server(site: Site, tmp_path: Path) -> None:
    artifact = site.ours.artifact("team/p/data:v0")
    assert site.asked(lambda: artifact.download(tmp_path / "a")) == []
    assert contents(tmp_path / "a") == {"a.txt": b"one", "sub/b.txt": b"two"}
    assert artifact.get_entry("sub/b.txt").download(tmp_path / "b") == str(tmp_path / "b" / "sub" / "b.txt")
    assert contents(tmp_path / "b") == {"sub/b.txt": b"two"}
    artifact.download(tmp_path / "c", path_prefix="sub")
    assert contents(tmp_path / "c") == {"sub/b.txt": b"two"}
    assert artifact.verify(tmp_path / "a") is None
    (tmp_path / "a" / "a.txt").write_text("changed")
    with pytest.raises(ValueError, match=r"Digest mismatch for file: a\.txt"):
        artifact.verify(tmp_path / "a")
    (tmp_path / "a" / "other").write_text("other")
    assert contents(artifact.checkout(tmp_path / "a")) == {"a.txt": b"one", "sub/b.txt": b"two"}
    old = site.ours.artifact("team/p/old layout:v0")
    assert Path(old.file(tmp_path / "d")).read_bytes() == b"x" * 50


def test_a_download_goes_to_the_same_folder_as_the_official_clients(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("data:small", "shelf:prod"):
        ours = site.ours.artifact(f"team/p/{name}").download()
        assert ours == site.theirs.artifact(f"team/p/{name}").download()
        assert contents(ours) == {"a.txt": b"one", "sub/b.txt": b"two"}


def test_a_reference_to_a_mirrored_artifact_is_followed_and_others_may_be_left_out(site: Site, tmp_path: Path) -> None:
    artifact = site.ours.artifact("team/p/data:v1")
    artifact.get_entry("again.txt").download(tmp_path / "a")
    assert contents(tmp_path / "a") == {"again.txt": b"two"}
    with pytest.warns(UserWarning, match=r"team/p/data:v1 refers to s3://bucket/far\.bin, which cannot be read"):
        artifact.download(tmp_path / "b", allow_missing_references=True)
    assert contents(tmp_path / "b") == {"a.txt": b"one", "again.txt": b"two", "c.json": b"{}"}


def test_content_that_is_not_mirrored_comes_from_the_server(site: Site, tmp_path: Path) -> None:
    artifact = site.ours.artifact("team/p/net:v0")
    assert site.asked(lambda: artifact.download(tmp_path)) == ["MirrorArtifactContents", "artifact"]
    assert contents(tmp_path) == {"weights": b"w" * 1000}
    # What is there already is not downloaded again.
    assert site.asked(lambda: artifact.download(tmp_path)) == []
    assert artifact.get_entry("weights").local_path is None
    assert artifact.files()[0].read() == b"w" * 1000


def test_what_cannot_be_written_or_is_damaged_is_an_error_and_leaves_nothing_behind(site: Site, tmp_path: Path) -> None:
    odd = site.ours.artifact("team/p/names:v0")
    with pytest.raises(ValueError, match=r"'\.\./out' leads out of .*; it was not downloaded"):
        odd.download(tmp_path / "a" / "b")
    assert contents(tmp_path) == {}
    odd.download(tmp_path / "b", path_prefix="good")
    odd.download(tmp_path / "b", path_prefix="Good")
    assert contents(tmp_path) == {"b/good": b"g", "b/Good": b"G"}
    with pytest.raises(mirror.StoreError, match=r"cannot write .*: File name too long"):
        odd.download(tmp_path / "c", path_prefix="z")
    damaged = site.ours.artifact("team/p/damaged:v0")
    with pytest.raises(mirror.CommError, match="damaged:v0: torn arrived with another content than listed"):
        damaged.get_entry("torn").download(tmp_path / "d")
    with pytest.raises(mirror.CommError):
        damaged.get_entry("lost").download(tmp_path / "d")
    bare = site.ours.artifact("team/p/bare:v0")
    for ask in (lambda: bare.manifest, lambda: bare.download(tmp_path / "e")):
        with pytest.raises(mirror.CommError, match="team/p/bare:v0: Failed to fetch artifact manifest"):
            ask()
    damaged.get_entry("fine").download(tmp_path / "d")
    assert contents(tmp_path / "d") == {"fine": b"f"}


def test_a_reference_that_cannot_be_read_is_named_and_an_expired_address_asked_for_again(
    site: Site, tmp_path: Path
) -> None:
    with pytest.raises(mirror.CommError, match=r"data:v1 refers to s3://bucket/far\.bin, which cannot be read: "):
        site.ours.artifact("team/p/data:v1").get_entry("far.bin").download(tmp_path)
    site.server.faults.add("expired", operation="artifact")
    site.ours.artifact("team/p/net:v0").download(tmp_path)
    assert contents(tmp_path) == {"weights": b"w" * 1000}


def test_content_that_was_deleted_since_comes_from_the_server(site: Site, tmp_path: Path) -> None:
    entry = site.ours.artifact("team/p/data:v1").get_entry("c.json")
    held = Path(entry.local_path)
    away = held.rename(held.with_name("away"))
    try:
        assert site.asked(lambda: entry.download(tmp_path)) == ["MirrorArtifactContents", "artifact"]
    finally:
        away.rename(held)
    assert contents(tmp_path) == {"c.json": b"{}"}


def test_files_are_listed_as_by_the_official_client(site: Site) -> None:
    ours, theirs = (api.artifact("team/p/data:v1") for api in (site.ours, site.theirs))
    names = ("name", "size", "mimetype", "md5", "updated_at")
    shown = [tuple(getattr(file, name) for name in names) for file in ours.files()]
    expected = [(file.name, file.size, file.mimetype, file.md5, file.updated_at) for file in theirs.files()]
    assert shown == sorted(expected)
    assert [file.name for file in ours.files(["c.json"])] == ["c.json"]
    assert (len(ours.files()), ours.files().path) == (4, ["team", "p", "data:v1"])
    assert ours.files()[0].read() == b"one"
    assert ours.files(["a.txt"])[0].id == theirs.files(["a.txt"])[0].id


def test_lists_are_the_same_as_the_official_clients(site: Site) -> None:
    def shown(api: Any) -> dict[str, Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run, user = api.run("team/p/maker"), api.run("team/p/user")
            collection = api.artifact_collection("dataset", "team/p/data")
            return {
                "versions": [one.name for one in api.artifacts("dataset", "team/p/data")],
                "older name": [one.name for one in api.artifact_versions("dataset", "team/p/data")],
                "oldest first": [one.name for one in api.artifacts("dataset", "team/p/data", order="+versionIndex")],
                "tagged": [one.name for one in api.artifacts("dataset", "team/p/data", tags=["gold"])],
                "types": sorted(kind.name for kind in api.artifact_types("team/p")),
                "of a type": [one.name for one in api.artifact_type("dataset", "team/p").collections()],
                "collections": [one.name for one in api.artifact_collections("team/p", "dataset")],
                "of the project": [
                    [kind.name for kind in api.project("p", "team").artifacts_types()],
                    [one.name for one in api.project("p", "team").collections()],
                ],
                "collection": [
                    *(collection.id, collection.name, collection.type, collection.description, collection.created_at),
                    *(collection.updated_at, list(collection.tags), sorted(collection.aliases), collection.project_id),
                    *(collection.is_sequence(), [one.name for one in collection.artifacts()]),
                ],
                "exists": [api.artifact_exists(f"team/p/{name}") for name in ("data:v0", "data:v9", "none:v0")],
                "collection exists": [
                    api.artifact_collection_exists("team/p/data", kind) for kind in ("dataset", "model")
                ],
                "logged": [one.name for one in run.logged_artifacts()],
                "used": [one.name for one in user.used_artifacts()],
                "lengths": [len(run.logged_artifacts()), len(user.used_artifacts()), len(run.used_artifacts())],
                "logged by": api.artifact("team/p/data:v0").logged_by().id,
                "logged by nobody": api.artifact("team/p/old layout:v0").logged_by(),
                "used by": [run.id for run in api.artifact("team/p/data:v0").used_by()],
            }

    ours = shown(site.ours)
    assert ours == shown(site.theirs)
    assert ours["logged"] == ["data:v0", "data:v1"]
    assert isinstance(site.ours.artifact("team/p/data:v0").logged_by(), mirror.Run)


def test_a_version_that_the_mirror_lacks_is_the_official_clients(site: Site, tmp_path: Path) -> None:
    newer: Artifact = site.server.world.add_artifact("team", "p", "fresh", "new", {"n": b"new"})
    found = site.ours.artifact("team/p/new:v0")
    assert (type(found).__module__, found.id) == ("wandb.sdk.artifacts.artifact", newer.storage_id)
    assert contents(found.download(str(tmp_path))) == {"n": b"new"}
    with pytest.raises(mirror.CommError, match="'data:v7' not found"):
        site.ours.artifact("team/p/data:v7")


def test_a_change_is_sent_to_the_server_and_pulled() -> None:
    folder = Path(tempfile.mkdtemp(prefix="m"))
    before = dict(os.environ)
    try:
        with Sandbox(world()) as server:
            rig = ContentRig(folder / "home", server)
            pull(rig)
            os.environ.clear()
            os.environ.update(environment(server, folder))
            os.environ["MIRROR_HOME"] = str(folder / "home")
            (folder / "home" / "config.toml").write_text('projects = ["team/p"]\n[sync]\nartifacts = "list"\n')
            artifact = mirror.Api().artifact("team/p/data:latest")
            artifact.aliases.append("checked")
            artifact.metadata["seen"] = True
            artifact.description = "better"
            artifact.tags.append("silver")
            artifact.save()
            there = server.world.artifact("team", "p", "data:v1")
            assert (sorted(there.aliases), there.metadata, there.description, there.tags) == (
                ["checked", "latest"], '{"seen":true}', "better", ["silver"],
            )  # fmt: skip
            older = mirror.Api().artifact("team/p/data:v0")
            older.aliases.remove("small")
            older.save()
            assert (server.world.artifact("team", "p", "data:v0").aliases, older.aliases) == ([], [])
            again = mirror.Api().artifact("team/p/data:checked")
            assert (again.metadata, again.description, again.tags) == ({"seen": True}, "better", ["silver"])
            collection = mirror.Api().artifact_collection("dataset", "team/p/data")
            collection.description, collection.tags = "all of it", ["used"]
            collection.save()
            held = mirror.Api().artifact_collection("dataset", "team/p/data")
            assert (held.description, held.tags) == ("all of it", ["used"])
            server.world.delete_artifact(there)
            mirror.Api().refresh(pull=True)
            with pytest.raises(mirror.CommError):
                mirror.Api().artifact("team/p/data:v1")
            kept = mirror.Api().artifact("team/p/data:v1", deleted=True)
            logged = mirror.Api().run("team/p/maker").logged_artifacts()
            assert [(one.name, one.state) for one in logged] == [("data:v0", "COMMITTED"), ("data:v1", "DELETED")]
            assert (kept.deleted, contents(kept.download(folder / "kept", path_prefix="c"))) == (
                True,
                {"c.json": b"{}"},
            )
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(folder)
