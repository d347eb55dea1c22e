"""Artifacts as the server holds them, and as the unmodified official client writes and reads them."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from mirror.sandbox import Sandbox, World
from tests.sandbox.conftest import Client
from tests.sandbox.official import run


def md5(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


@pytest.fixture
def world() -> World:
    """Two versions of a data set and one of a model."""
    world = World(entity="my-team")
    first = world.add_run("my-team", "vision", run_id="first")
    second = world.add_run("my-team", "vision", run_id="second")
    data = world.add_artifact(
        "my-team", "vision", "dataset", "digits", {"a.txt": b"one", "sub/b.txt": b"two"}, by=first,
        aliases=["small"], metadata={"rows": 2}, description="two digits",
    )  # fmt: skip
    world.add_artifact(
        "my-team", "vision", "dataset", "digits", {"a.txt": b"one", "c.txt": b"three"}, by=first,
        references={"far.bin": ("s3://bucket/far.bin", 40), "page.html": "https://example.com/page.html"},
    )  # fmt: skip
    second.use_artifact(data)
    world.add_artifact("my-team", "vision", "model", "net", {"weights": b"w" * 100}, by=second, layout="V1")
    return world


MEMBERSHIP = """query M($name: String!) { project(name: "vision") { artifactCollectionMembership(name: $name) {
  versionIndex aliases { alias } artifactCollection { __typename name }
  artifact { state size fileCount digest description metadata artifactSequence { name latestArtifact { versionIndex } }
             artifactType { name } createdBy { __typename ... on Run { name } } usedBy { edges { node { name } } }
             currentManifest { file { directUrl } } } } } }"""


def named(client: Client, name: str) -> Any:
    return client.data(MEMBERSHIP, name=name)["project"]["artifactCollectionMembership"]


def test_versions_have_numbers_aliases_and_the_digest_of_their_manifest(client: Client) -> None:
    first = named(client, "digits:v0")
    assert named(client, "digits:small")["artifact"]["digest"] == first["artifact"]["digest"]
    url = first["artifact"].pop("currentManifest")["file"]["directUrl"]
    lines = f"wandb-artifact-manifest-v1\na.txt:{md5(b'one')}\nsub/b.txt:{md5(b'two')}\n"
    assert first == {
        "versionIndex": 0,
        "aliases": [{"alias": "small"}],
        "artifactCollection": {"__typename": "ArtifactSequence", "name": "digits"},
        "artifact": {
            "state": "COMMITTED", "size": 6, "fileCount": 2, "digest": hashlib.md5(lines.encode()).hexdigest(),
            "description": "two digits", "metadata": '{"rows":2}',
            "artifactSequence": {"name": "digits", "latestArtifact": {"versionIndex": 1}},
            "artifactType": {"name": "dataset"}, "createdBy": {"__typename": "Run", "name": "first"},
            "usedBy": {"edges": [{"node": {"name": "second"}}]},
        },
    }  # fmt: skip
    assert named(client, "digits:v2") is None
    assert named(client, "nothing:v0") is None
    assert named(client, "digits")["aliases"] == [{"alias": "latest"}]
    birth = client.server.world.artifact("my-team", "vision", "digits:v0").storage_id
    assert client.http.get(url, auth=None).json() == {
        "version": 1,
        "storagePolicy": "wandb-storage-policy-v1",
        "storagePolicyConfig": {"storageLayout": "V2"},
        "contents": {
            "a.txt": {"digest": md5(b"one"), "size": 3, "birthArtifactID": birth},
            "sub/b.txt": {"digest": md5(b"two"), "size": 3, "birthArtifactID": birth},
        },
    }


FILES = """query F($name: String!, $after: String) { project(name: "vision") { artifactCollectionMembership(name: $name) {
  files(first: 2, after: $after) { totalCount pageInfo { endCursor hasNextPage }
    edges { node { name displayName sizeBytes digest directUrl url mimetype } } } } } }"""


def test_files_come_in_pages_with_addresses_that_need_no_key_and_answer_ranges(client: Client) -> None:
    first = client.data(FILES, name="digits:v1")["project"]["artifactCollectionMembership"]["files"]
    assert (first["totalCount"], first["pageInfo"]["hasNextPage"]) == (4, True)
    rest = client.data(FILES, name="digits:v1", after=first["pageInfo"]["endCursor"])
    second = rest["project"]["artifactCollectionMembership"]["files"]
    nodes = [edge["node"] for edge in first["edges"] + second["edges"]]
    assert [(node["name"], node["sizeBytes"], node["digest"]) for node in nodes] == [
        ("a.txt", 3, md5(b"one")),
        ("c.txt", 5, md5(b"three")),
        ("far.bin", 40, "s3://bucket/far.bin"),
        ("page.html", 0, "https://example.com/page.html"),
    ]
    assert [node["directUrl"] for node in nodes[2:]] == ["s3://bucket/far.bin", "https://example.com/page.html"]
    assert client.http.get(nodes[1]["directUrl"], auth=None).content == b"three"
    part = client.http.get(nodes[1]["directUrl"], auth=None, headers={"Range": "bytes=2-"})
    assert (part.status_code, part.content) == (206, b"ree")
    assert client.http.get(nodes[1]["directUrl"]).status_code == 400
    assert client.http.get(nodes[1]["url"]).content == b"three"
    assert client.http.get(nodes[1]["url"], auth=None).status_code == 401


def test_content_that_an_earlier_version_has_is_stored_once(client: Client) -> None:
    store = client.server.world.artifacts
    assert sorted(store.contents.values()) == [b"one", b"three", b"two", b"w" * 100]


def test_a_deleted_version_keeps_its_number_and_gives_latest_back(client: Client) -> None:
    world = client.server.world
    gone = world.artifact("my-team", "vision", "digits:v1")
    world.delete_artifact(gone)
    assert named(client, "digits:v1") is None
    assert named(client, "digits:latest")["versionIndex"] == 0
    assert client.data("query A($id: ID!) { artifact(id: $id) { state } }", id=gone.storage_id) == {
        "artifact": {"state": "DELETED"}
    }
    assert world.add_artifact("my-team", "vision", "dataset", "digits", {"x": b"x"}).version == 2


LISTS = """query L($filters: JSONString, $order: String) { project(name: "vision") {
  artifactTypes { edges { node { name } } }
  artifactCollections { totalCount edges { node { name defaultArtifactType { name } } } }
  artifactType(name: "dataset") { artifactCollection(name: "digits") {
    artifacts(filters: $filters, order: $order) { totalCount edges { version } } aliases { edges { node { alias } } } } }
  run(name: "first") { outputArtifacts { totalCount edges { node { versionIndex } } } inputArtifacts { totalCount } } } }"""


def test_lists_of_types_collections_versions_and_of_what_a_run_logged_and_used(client: Client) -> None:
    everything = client.data(LISTS)["project"]
    assert everything == {
        "artifactTypes": {"edges": [{"node": {"name": "dataset"}}, {"node": {"name": "model"}}]},
        "artifactCollections": {
            "totalCount": 2,
            "edges": [
                {"node": {"name": "net", "defaultArtifactType": {"name": "model"}}},
                {"node": {"name": "digits", "defaultArtifactType": {"name": "dataset"}}},
            ],
        },
        "artifactType": {
            "artifactCollection": {
                "artifacts": {"totalCount": 2, "edges": [{"version": "v1"}, {"version": "v0"}]},
                "aliases": {"edges": [{"node": {"alias": "small"}}, {"node": {"alias": "latest"}}]},
            }
        },
        "run": {
            "outputArtifacts": {
                "totalCount": 2,
                "edges": [{"node": {"versionIndex": 0}}, {"node": {"versionIndex": 1}}],
            },
            "inputArtifacts": {"totalCount": 0},
        },
    }
    filtered = client.data(LISTS, filters='{"metadata.rows": {"$gt": 1}}', order="+createdAt")["project"]
    assert filtered["artifactType"]["artifactCollection"]["artifacts"]["edges"] == [{"version": "v0"}]
    assert client.errors(LISTS, filters='{"colour": 1}') == ["invalid filters: unknown field: colour"]


WRITE = """
import json, wandb
run = wandb.init(entity="my-team", project="training", id="writer")
data = wandb.Artifact("data", "dataset", description="numbers", metadata={"rows": 3})
with data.new_file("numbers.csv") as file:
    file.write("1,2,3")
with data.new_file("deep/er/note.txt") as file:
    file.write("a note")
data.add_reference("https://127.0.0.1:9/far.bin", name="far.bin", checksum=False)
run.log_artifact(data, aliases=["raw"]).wait()
again = wandb.Artifact("data", "dataset")
with again.new_file("numbers.csv") as file:
    file.write("1,2,3")
with again.new_file("more.csv") as file:
    file.write("4")
run.log_artifact(again, aliases=["best"]).wait()
same = wandb.Artifact("data", "dataset")
with same.new_file("numbers.csv") as file:
    file.write("1,2,3")
with same.new_file("more.csv") as file:
    file.write("4")
run.log_artifact(same, aliases=["twice"]).wait()
run.log({"table": wandb.Table(columns=["x"], data=[[1], [2]])})
image = wandb.Artifact("pictures", "dataset")
import numpy
image.add(wandb.Image(numpy.zeros((2, 2, 3), dtype="uint8")), "black")
run.log_artifact(image).wait()
run.finish()
"""

READ = """
import datetime, json, os, pathlib, wandb
run = wandb.init(entity="my-team", project="training", id="reader")
used = run.use_artifact("data:raw")
api = wandb.Api()
first = api.artifact("my-team/training/data:v0", type="dataset")
note = pathlib.Path(first.get_entry("deep/er/note.txt").download(root="one"))
second = api.artifact("my-team/training/data:latest")
folder = pathlib.Path(second.download(root="two"))
link = second.link("my-team/shelf/chosen", aliases=["prod"])
linked = api.artifact("my-team/shelf/chosen:prod")
table = api.artifact("my-team/training/run-writer-table:v0").get("table")
picture = api.artifact("my-team/training/pictures:v0").get("black")
second.metadata["seen"] = True
second.aliases.append("checked")
second.aliases.remove("best")
second.tags = ["gold"]
second.ttl = datetime.timedelta(days=2)
second.save()
draft = wandb.Artifact("made", "dataset")
with draft.new_file("x") as file:
    file.write("x")
run.use_artifact(draft)
api.artifact("my-team/training/data:v0").delete(delete_aliases=True)
run.finish()
writer = api.run("my-team/training/writer")
print(json.dumps({
    "used": used.name,
    "note": [str(note.relative_to("one")), note.read_text()],
    "two": {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()},
    "facts": [first.version, first.aliases, first.digest, first.size, first.state, first.metadata, first.description],
    "entries": {path: [entry.digest, entry.size, entry.ref] for path, entry in first.manifest.entries.items()},
    "files": sorted([file.name, file.size] for file in second.files()),
    "logged_by": first.logged_by().id,
    "used_by": [run.id for run in first.used_by()],
    "logged": sorted(artifact.name for artifact in writer.logged_artifacts()),
    "used_list": [artifact.name for artifact in api.run("my-team/training/reader").used_artifacts()],
    "versions": [artifact.name for artifact in api.artifacts("dataset", "my-team/training/data")],
    "types": sorted(kind.name for kind in api.artifact_types("my-team/training")),
    "collections": sorted(each.name for each in api.artifact_collections("my-team/training", "dataset")),
    "exists": [api.artifact_exists("my-team/training/data:v1"), api.artifact_exists("my-team/training/data:v9")],
    "table": [table.columns, table.data],
    "picture": picture.image.size,
    "linked": [link.name, linked.name, linked.version, linked.aliases, linked.is_link, linked.source_name],
    "links": [one.qualified_name for one in second.linked_artifacts],
    "link's files": sorted(file.name for file in linked.files()),
}))
"""


@dataclass(frozen=True)
class Written:
    """What the client's own scripts wrote and read."""

    world: World
    read: dict[str, Any]
    requests: dict[str, int]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Written]:
    folder = tmp_path_factory.mktemp("written")
    with Sandbox(World(entity="my-team")) as server:
        outcome = run(server, folder, WRITE)
        assert outcome.returncode == 0, outcome.stderr
        requests = dict(server.requests)
        outcome = run(server, folder, READ)
        assert outcome.returncode == 0, outcome.stderr
        yield Written(server.world, json.loads(outcome.stdout.splitlines()[-1]), requests)


def test_the_client_logs_versions_with_files_and_references(written: Written) -> None:
    second = written.world.artifact("my-team", "training", "data:v1")
    first = written.world.artifacts.needed(second.entries["numbers.csv"].birth_id)
    assert (first.version, first.state, first.description, first.metadata) == (0, "DELETED", "numbers", '{"rows":3}')
    assert {path: (entry.size, entry.ref) for path, entry in first.entries.items()} == {
        "numbers.csv": (5, None),
        "deep/er/note.txt": (6, None),
        "far.bin": (0, "https://127.0.0.1:9/far.bin"),
    }
    assert (second.version, sorted(second.aliases)) == (1, ["checked", "latest", "twice"])
    assert (second.tags, second.ttl_seconds) == (["gold"], 2 * 86400)
    # The same file of the next version was not sent again.
    assert second.entries["numbers.csv"].birth_id == first.storage_id
    assert first.digest == written.read["facts"][2]
    assert json.loads(second.metadata or "") == {"seen": True}


def test_the_client_reads_back_what_it_wrote(written: Written) -> None:
    digest = written.read["facts"].pop(2)
    assert len(digest) == 32
    table = written.world.artifact("my-team", "training", "run-writer-table:v0")
    assert written.read == {
        "used": "data:raw",
        "note": ["deep/er/note.txt", "a note"],
        "two": {"more.csv": "4", "numbers.csv": "1,2,3"},
        "facts": ["v0", ["raw"], 11, "COMMITTED", {"rows": 3}, "numbers"],
        "entries": {
            "numbers.csv": [md5(b"1,2,3"), 5, None],
            "deep/er/note.txt": [md5(b"a note"), 6, None],
            "far.bin": ["https://127.0.0.1:9/far.bin", 0, "https://127.0.0.1:9/far.bin"],
        },
        "files": [["more.csv", 1], ["numbers.csv", 5]],
        "logged_by": "writer",
        "used_by": ["reader"],
        "logged": ["data:v0", "data:v1", "pictures:v0", "run-writer-table:v0"],
        "used_list": ["data:v0", "made:v0"],
        "versions": ["data:v1"],
        "types": ["dataset", "run_table"],
        "collections": ["data", "made", "pictures"],
        "exists": [True, False],
        "table": [["x"], [[1], [2]]],
        "picture": [2, 2],
        "linked": ["chosen:v0", "chosen:prod", "v0", ["prod", "latest"], True, "data:v1"],
        "links": ["my-team/shelf/chosen:v0"],
        "link's files": ["more.csv", "numbers.csv"],
    }
    assert table.collection.kind == "run_table"
    assert list(table.entries) == ["table.table.json"]
