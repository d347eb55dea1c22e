"""A sample server, a temporary home, and passes between them."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from pathlib import Path

from msgspec.structs import replace

from mirror.remote import history
from mirror.remote.client import RetryPolicy, Server, TooMuch
from mirror.sandbox import Sandbox, World
from mirror.settings.home import Home
from mirror.store.store import Store
from mirror.sync import engine
from mirror.sync.context import Context, Scope
from mirror.sync.targets import expand, not_listed, parse
from mirror.sync.writer import Writer
from tests.reading import rows

HASTY = RetryPolicy(attempts=6, seconds=20, first_wait=0.01, longest_wait=0.05)


class Rig:
    """Runs passes and reads what was published."""

    def __init__(self, root: Path, sandbox: Sandbox, scope: Scope | None = None) -> None:
        self.home = Home(data=root, config=root / "config.toml")
        self.sandbox = sandbox
        self.world: World = sandbox.world
        self.scope = scope or Scope()
        self.retry = HASTY
        self.tail_values = 10_000_000
        self.timeout = 10.0
        self.max_concurrency = 8

    def sync(self, *paths: str, afresh: bool = False, since=None, **scope):
        """One pass; the results by project."""
        return asyncio.run(self._sync(paths or ("team/p",), afresh, since, replace(self.scope, **scope)))

    async def _sync(self, paths, afresh, since, scope):
        server = Server(
            self.sandbox.url,
            self.sandbox.key,
            timeout=self.timeout,
            retry=self.retry,
            max_concurrency=self.max_concurrency,
        )
        store = Store.open(self.home, tail_values=self.tail_values)
        writer = Writer(store, publish_interval=3600)
        try:
            failed = {}
            targets = await expand(server, [parse(path) for path in paths], failed)
            results = await engine.sync(Context(server, writer, scope), targets, afresh=afresh, since=since)
            results += not_listed(failed)
        finally:
            writer.close()
            store.close()
            await server.close()
        return {str(result.project): result for result in results}

    @contextmanager
    def store(self):
        """The store between two passes."""
        store = Store.open(self.home, tail_values=self.tail_values)
        try:
            yield store
        finally:
            store.close()

    def sql(self, query: str, *params):
        """Rows of the published file."""
        return rows(self.home.published, query, *params)

    def history(self, run_id: str, key: str = "loss"):
        """The mirrored (step, value) pairs of one key of a run."""
        return self.sql("select step, value from history where run_id = ? and key = ? order by step", run_id, key)


@contextmanager
def rig(root: Path, **sandbox):
    """A fresh world behind a server."""
    with Sandbox(World(), **sandbox) as server:
        yield Rig(root, server)


def spoil(run):
    """Damage the first history line of a run, as a server that stores what it was sent may hold one."""
    run.history.lines[0] = '{"_step": 0, "loss"'
    run.history._sorted = None


def silence(monkeypatch, prefix):
    """Let the server fail whenever it is asked for history of a run whose id begins so."""
    ask = history.fetch

    async def fetch(server, project, windows):
        if any(window.run_id.startswith(prefix) for window in windows):
            raise TooMuch("the server failed")
        return await ask(server, project, windows)

    monkeypatch.setattr(history, "fetch", fetch)
