"""Files behind signed addresses: fetched without the key, again after faults, and never more than was allowed."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from mirror.errors import CommError
from mirror.remote.client import NotFound, Server, TooMuch
from mirror.sandbox import Sandbox, World
from tests.sync.rig import HASTY

FILES = 'query Files { project(name: "p", entityName: "team") { run(name: "one") { files { edges { node { directUrl } } } } } }'


@pytest.fixture
def sandbox():
    with Sandbox(World()) as server:
        server.world.add_run("team", "p", run_id="one").add_file("notes.txt", "hello")
        yield server


def fetch(sandbox, change=lambda url: url, retry=HASTY, **options):
    async def go():
        async with Server(sandbox.url, sandbox.key, retry=retry) as server:
            data = await server.graphql("Files", FILES, {})
            url = data["project"]["run"]["files"]["edges"][0]["node"]["directUrl"]
            return await server.download(change(url), **options)

    return asyncio.run(go())


def test_the_content_comes_without_the_key(sandbox):
    """The storage of the sandbox refuses every request that carries a key, as signed addresses do."""
    assert fetch(sandbox) == b"hello"


@pytest.mark.parametrize("kind", ["500", "503", "429", "reset"])
def test_a_fault_that_passes_changes_nothing(sandbox, kind):
    sandbox.faults.add(kind, times=2, operation="file", **({"retry_after": 0.01} if kind in ("429", "503") else {}))
    assert fetch(sandbox) == b"hello"
    assert sandbox.faults.counts[kind] == 2


def test_a_fault_that_stays_is_too_much(sandbox):
    sandbox.faults.add("500", times=None, operation="file")
    with pytest.raises(TooMuch, match=r"/storage/files/team/p/one/notes\.txt could not be downloaded \(500\)$"):
        fetch(sandbox, retry=replace(HASTY, attempts=2))


def test_an_expired_address_is_refused_at_once_and_its_signature_is_not_shown(sandbox):
    sandbox.faults.add("expired", operation="file")
    with pytest.raises(CommError, match=r"notes\.txt was refused \(403\)$"):
        fetch(sandbox)
    assert sandbox.requests["file"] == 1


def test_a_file_that_is_too_large_is_refused(sandbox):
    with pytest.raises(CommError, match="is larger than 4 bytes"):
        fetch(sandbox, most_bytes=4)
    assert fetch(sandbox, most_bytes=5) == b"hello"


def test_a_file_that_is_not_there_is_not_found(sandbox):
    def removed(url):
        sandbox.world.run("team", "p", "one").files.clear()
        return url

    with pytest.raises(NotFound, match=r"notes\.txt does not exist"):
        fetch(sandbox, removed)


def test_an_address_that_is_none_is_an_error(sandbox):
    with pytest.raises(CommError, match="is not a valid file address"):
        fetch(sandbox, lambda _: "ftp://somewhere/file")
