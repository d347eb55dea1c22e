"""Passes with downloads between a sample server and a temporary home."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from mirror.content.outcome import Outcome
from mirror.content.pull import pull
from mirror.remote.client import Server
from mirror.sandbox import Sandbox, World
from mirror.store import contents
from mirror.store.contents import Selection
from mirror.store.records import ProjectKey
from mirror.store.store import Store
from mirror.sync.context import Context, Scope
from mirror.sync.project import sync_project
from mirror.sync.writer import Writer
from tests.sync.rig import HASTY, Rig

EVERYTHING = Selection(("*",))


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Counting:
    """How many files a round expected and has done."""

    def __init__(self) -> None:
        self.expected = self.done = 0

    def files_expected(self, project: ProjectKey, files: int) -> None:
        self.expected += files

    def files_done(self, project: ProjectKey, files: int) -> None:
        self.done += files


class ContentRig(Rig):
    """Runs passes, then rounds of downloads; `progress` counts the files of the last round, `result` is of its pass."""

    lists = Scope(files=True)

    def pull(self, selection: Selection = EVERYTHING, *, listed: bool = True, retry: bool = False) -> Outcome:
        """Pull the lists of files and then what is missing of their content; `retry` does not wait for failed ones."""
        return asyncio.run(self._pull(selection, listed, retry))

    async def _pull(self, selection: Selection, listed: bool, retry: bool) -> Outcome:
        server = Server(self.sandbox.url, self.sandbox.key, timeout=self.timeout, retry=HASTY)
        store = Store.open(self.home)
        writer = Writer(store, publish_interval=3600)
        try:
            if listed:
                # In one process, as `mirror sync` does it: to open the store twice would take most of the time.
                self.result = await sync_project(Context(server, writer, self.lists), ProjectKey("team", "p"))
            if retry:
                await writer.write(contents.retry_now)
            self.progress = Counting()
            outcome = await pull(server, writer, selection, progress=self.progress)
            await writer.publish()
        finally:
            writer.close()
            store.close()
            await server.close()
        return outcome

    def collect(self, grace: float = 0.0, **options):
        """Collect garbage."""
        with self.store() as store:
            return store.collect(timedelta(seconds=grace), **options)

    def files(self, run_id: str = "one") -> dict[str, bytes | None]:
        """The content that the published file names, by file."""
        rows = self.sql("select name, local_path, digest, size from files where run_id = ? order by name", run_id)
        found = {}
        for name, path, digest, size in rows:
            content = Path(path).read_bytes() if path else None
            if content is not None:
                assert (sha256(content), len(content)) == (digest, size)
            found[name] = content
        return found

    def blobs(self) -> list[bytes]:
        """Every content on the disk."""
        folder = self.home.blobs
        return sorted(path.read_bytes() for path in folder.glob("??/*"))


@contextmanager
def content_rig(root: Path, **sandbox):
    """A fresh world behind a server."""
    with Sandbox(World(), **sandbox) as server:
        yield ContentRig(root, server)
