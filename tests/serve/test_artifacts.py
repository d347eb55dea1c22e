"""Artifacts at the endpoint: the unmodified official client reads the same as from the server, also without it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from wandb.sdk.artifacts._generated import operations

from mirror.sandbox import Sandbox, World
from mirror.serve import PATHS
from mirror.serve.app import Policy, application
from mirror.settings.values import ArtifactPattern
from mirror.store.contents import Selection
from mirror.web.snapshots import Snapshots
from tests.content.rig import ContentRig
from tests.sandbox import official

WANTED = Selection(artifacts=(ArtifactPattern("dataset", "*", "*"),))
"""The content of models is not mirrored."""


def world() -> World:
    world = World(username="ada", entity="team")
    maker = world.add_run("team", "p", run_id="maker", config={"lr": 1})
    user = world.add_run("team", "p", run_id="user", config={})
    first = world.add_artifact(
        "team", "p", "dataset", "data", {"a.txt": b"one", "sub/b c.txt": b"two"}, by=maker, aliases=["small"],
        metadata={"rows": 2}, description="two files", tags=["gold"],
    )  # fmt: skip
    world.add_artifact(
        "team", "p", "dataset", "data", {"a.txt": b"one", "c.json": b"{}"}, by=maker,
        references={"far.bin": ("s3://bucket/far.bin", 40)},
    )  # fmt: skip
    world.add_artifact("team", "p", "dataset", "old", {"x": b"x" * 50}, layout="V1", ttl_seconds=86400)
    world.add_artifact("team", "p", "model", "net", {"weights": b"w" * 1000}, by=user)
    user.use_artifact(first)
    world.link_artifact(first, "team", "p", "shelf", ["prod"])
    return world


MEMBERSHIP = operations.ARTIFACT_MEMBERSHIP_BY_NAME_GQL
NAMED = {"entity": "team", "project": "p"}


class Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@dataclass(frozen=True)
class Address:
    """Where the official client is to ask, and with which key."""

    url: str
    key: str


class Site(ContentRig):
    """A mirror and the endpoint over it, which listens on a port."""

    def __init__(self, root: Path, sandbox: Sandbox) -> None:
        super().__init__(root / "home", sandbox)
        self.root = root
        policy = Policy(base_url=sandbox.url, entity="team", username="ada")
        self.app = application(Snapshots(self.home), lambda: sandbox.key, lambda: policy, lambda _: None)
        self.address = Address("", sandbox.key)

    def pass_over(self) -> None:
        assert not self.sync("team/p", artifacts=True)["team/p"].error
        assert not self.pull(WANTED, listed=False).failed

    @contextmanager
    def listening(self) -> Iterator[None]:
        listener = socket.create_server(("127.0.0.1", 0))
        self.address = Address(f"http://127.0.0.1:{listener.getsockname()[1]}", self.sandbox.key)
        server = Server(uvicorn.Config(self.app, log_level="critical", lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        assert server.ready.wait(10)
        try:
            yield
        finally:
            server.should_exit = True
            thread.join(10)

    def script(self, address: Any, text: str) -> Any:
        folder = self.root / f"script{len(list(self.root.glob('script*')))}"
        folder.mkdir()
        done = official.run(address, folder, text)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    def request(self, method: str, path: str, *, key: bool = True, **arguments: Any) -> httpx.Response:
        async def answer() -> httpx.Response:
            auth = ("api", self.sandbox.key) if key else None
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1", auth=auth) as client:
                return await client.request(method, path, **arguments)

        return asyncio.run(answer())

    def ask(self, query: str, **variables: Any) -> Any:
        return self.request("POST", "/graphql", json={"query": query, "variables": variables}).json()

    def reported(self, query: str, **variables: Any) -> Any:
        """What the server itself answers."""
        body = {"query": query, "variables": variables}
        return httpx.post(f"{self.sandbox.url}/graphql", auth=("api", self.sandbox.key), json=body).json()

    def address_of(self, collection: str, alias: str) -> str:
        """The address of the first file of a version, at the endpoint."""
        listed = operations.GET_ARTIFACT_MEMBERSHIP_FILE_URLS_GQL
        found = self.ask(listed, **NAMED, collection=collection, alias=alias)["data"]["project"]["artifactCollection"]
        address: str = found["artifactMembership"]["files"]["edges"][0]["node"]["directUrl"]
        return address.removeprefix("http://127.0.0.1:1")

    def asked(self, query: str, **variables: Any) -> tuple[Any, bool]:
        """The endpoint's answer, and whether the server was asked for it."""
        before = self.sandbox.requests.total()
        return self.ask(query, **variables), self.sandbox.requests.total() > before


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The tests that stop its server are the last ones."""
    with Sandbox(world()) as server:
        site = Site(tmp_path_factory.mktemp("site"), server)
        site.pass_over()
        yield site


def test_the_servers_answer_comes_where_the_mirror_lacks_one(site: Site) -> None:
    """Content and versions that are not mirrored, and fields that the mirror does not hold."""
    assert site.asked(MEMBERSHIP, **NAMED, name="data:latest")[1] is False
    site.world.add_artifact("team", "p", "dataset", "data", {"a.txt": b"new"})
    newer, forwarded = site.asked(MEMBERSHIP, **NAMED, name="data:v2")
    assert (newer, forwarded) == (site.reported(MEMBERSHIP, **NAMED, name="data:v2"), True)
    # When a version was linked is not mirrored.
    assert site.asked(MEMBERSHIP, **NAMED, name="shelf:prod") == (
        site.reported(MEMBERSHIP, **NAMED, name="shelf:prod"),
        True,
    )
    types = operations.PROJECT_ARTIFACT_TYPES_GQL
    assert site.asked(types, **NAMED) == (site.reported(types, **NAMED), True)
    named = {"collection": "data", "alias": "v2"}
    [edge] = site.ask(operations.ARTIFACT_MEMBERSHIP_FILES_GQL, **NAMED, **named)["data"]["project"][
        "artifactCollection"
    ]["artifactMembership"]["files"]["edges"]
    # The official client sends the key to no other host.
    url = edge["node"]["url"].removeprefix("http://127.0.0.1:1")
    assert site.request("GET", url).content == b"new"
    before = site.sandbox.requests.total()
    address = site.address_of("net", "v0")
    assert site.sandbox.requests.total() == before
    assert site.request("GET", address, key=False).content == b"w" * 1000


def test_the_port_passes_every_path_of_the_endpoint_to_it(site: Site) -> None:
    """The page has all others."""
    assert sorted(route.path.partition("{")[0] for route in site.app.routes) == sorted(PATHS)


def test_addresses_of_files_need_the_signature_or_the_key(site: Site) -> None:
    address = site.address_of("data", "v0")
    plain = address.partition("?")[0]
    assert [site.request("GET", plain, key=key).status_code for key in (False, True)] == [401, 200]
    part = site.request("GET", address, key=False, headers={"Range": "bytes=1-"})
    assert (part.status_code, part.content) == (206, b"ne")
    assert part.headers["content-security-policy"] == "sandbox"
    for bad in ("/artifactsV2/a/b", "/artifacts/team/nothex", "/artifact-manifests/x"):
        assert site.request("GET", bad).status_code == 404


def test_a_change_through_the_endpoint_is_seen_at_once_and_mirrored_by_the_next_pass(site: Site) -> None:
    artifact = site.world.artifact("team", "p", "data:v0")
    alias = {"entityName": "team", "projectName": "p", "artifactCollectionName": "data", "alias": "best"}
    given = {"artifactID": artifact.storage_id, "aliases": [alias]}
    assert site.ask(operations.ADD_ALIASES_GQL, input=given) == {"data": {"result": {"success": True}}}
    used = operations.RUN_INPUT_ARTIFACTS_GQL
    assert site.asked(used, **NAMED, run="maker")[1] is False
    use = {"entityName": "team", "projectName": "p", "runName": "maker", "artifactID": artifact.storage_id}
    document = "mutation Use($input: UseArtifactInput!) { useArtifact(input: $input) { artifact { id } } }"
    site.ask(document, input=use)
    for query, variables in ((MEMBERSHIP, {"name": "data:best"}), (used, {"run": "maker"})):
        found, forwarded = site.asked(query, **NAMED, **variables)
        assert (found, forwarded) == (site.reported(query, **NAMED, **variables), True)
    site.sync("team/p", artifacts=True, afresh=True)
    for query, variables in ((MEMBERSHIP, {"name": "data:best"}), (used, {"run": "maker"})):
        found, forwarded = site.asked(query, **NAMED, **variables)
        assert (plain(found), forwarded) == (plain(site.reported(query, **NAMED, **variables)), False)


def plain(answer: Any) -> Any:
    """An answer without the ids of memberships and aliases, which are the mirror's own, and with sorted aliases."""
    if isinstance(answer, list):
        return sorted(map(plain, answer), key=json.dumps)
    if not isinstance(answer, dict):
        return answer
    own = answer.get("__typename") in ("ArtifactCollectionMembership", "ArtifactAlias")
    return {name: plain(value) for name, value in answer.items() if not (name == "endCursor" or (name == "id" and own))}


def test_without_mirrored_artifacts_everything_is_the_servers(tmp_path: Path) -> None:
    with Sandbox(world()) as server:
        site = Site(tmp_path, server)
        site.sync("team/p")
        for query, variables in (
            (MEMBERSHIP, {"name": "data:v0"}),
            (operations.RUN_OUTPUT_ARTIFACTS_GQL, {"run": "maker"}),
            (operations.PROJECT_ARTIFACTS_GQL, {"type": "dataset", "collection": "data"}),
        ):
            assert site.asked(query, **NAMED, **variables) == (site.reported(query, **NAMED, **variables), True)


READ = """
import json, pathlib, wandb

def content(folder):
    folder = pathlib.Path(folder)
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}

def facts(artifact):
    names = "id name version type state digest size file_count created_at updated_at description metadata aliases tags"
    more = "commit_hash history_step source_name is_link"
    return [getattr(artifact, name) for name in f"{names} {more}".split()] + [str(artifact.ttl)]

api = wandb.Api(timeout=20)
small = api.artifact("team/p/data:small", type="dataset")
latest = api.artifact("team/p/data:latest")
old = api.artifact("team/p/old:v0")
maker, user = api.run("team/p/maker"), api.run("team/p/user")
collection = api.artifact_collection("dataset", "team/p/data")
print(json.dumps({
    "facts": [facts(one) for one in (small, latest, old)],
    "download": [content(small.download("small")), content(old.download("old"))],
    "one file": pathlib.Path(small.get_entry("sub/b c.txt").download("one")).read_text(),
    "old file": pathlib.Path(old.get_entry("x").download("older")).read_text(),
    "entries": {path: [entry.digest, entry.size, entry.ref] for path, entry in latest.manifest.entries.items()},
    "files": [[file.name, file.size, file.mimetype, file.md5, file.updated_at] for file in latest.files()],
    "named": [file.name for file in latest.files(names=["c.json"])],
    "file": small.files(names=["a.txt"])[0].download("file").read(),
    "versions": [facts(one) for one in api.artifacts("dataset", "team/p/data")],
    "older name": [one.name for one in api.artifact_versions("dataset", "team/p/data")],
    "pages": [one.name for one in api.artifacts("dataset", "team/p/data", per_page=1, order="+createdAt")],
    "logged": [len(maker.logged_artifacts()), [facts(one) for one in maker.logged_artifacts()]],
    "used": [one.name for one in user.used_artifacts()],
    "logged by": small.logged_by().id,
    "by nobody": old.logged_by(),
    "used by": [run.id for run in small.used_by()],
    "collection": [collection.id, collection.name, collection.description, list(collection.tags), collection.created_at],
    "aliases": sorted(collection.aliases),
    "collections": [one.name for one in api.artifact_collections("team/p", "dataset")],
    "exists": api.artifact_exists("team/p/data:v1"),
}))
"""


WRITE = """
import json, pathlib, wandb
run = wandb.init(entity="team", project="p", id="writer")
run.use_artifact("data:small")
made = wandb.Artifact("data", "dataset")
with made.new_file("n.txt") as file:
    file.write("made")
run.log_artifact(made, aliases=["best"]).wait()
run.finish()
api = wandb.Api()
run = api.run("team/p/writer")
print(json.dumps({
    "best": pathlib.Path(api.artifact("team/p/data:best").file("made")).read_text(),
    "logged": [one.name for one in run.logged_artifacts()],
    "used": [one.name for one in run.used_artifacts()],
    "newest": api.artifacts("dataset", "team/p/data")[0].name,
}))
"""


def test_the_official_client_logs_through_the_endpoint_and_reads_it_at_once(site: Site) -> None:
    with site.listening():
        written = site.script(site.address, WRITE)
    newest = site.world.artifact("team", "p", "data:latest").name
    assert written == {
        "best": "made",
        "logged": [f"data:{newest}"],
        "used": ["data:v0"],
        "newest": f"data:{newest}",
    }


def test_the_official_client_reads_the_same_without_the_server(site: Site) -> None:
    site.pass_over()
    expected = site.script(site.sandbox, READ)
    assert expected["download"] == [{"a.txt": "one", "sub/b c.txt": "two"}, {"x": "x" * 50}]
    site.sandbox.stop()
    with site.listening():
        assert site.script(site.address, READ) == expected
    refused = site.request("GET", site.address_of("net", "v0"), key=False)
    reason = "the mirror does not serve this (the content of this file is not mirrored)"
    assert reason in refused.json()["errors"][0]["message"]
