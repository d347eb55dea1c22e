"""A daemon that serves the mirror of a sample server, and the unmodified SDK in a process of its own."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from mirror.control import Control
from mirror.sandbox import Sandbox, World
from tests.daemon.conftest import Bench
from tests.sandbox import official

SCRIPT = Path(__file__).parent / "script.py"


@dataclass(frozen=True)
class Address:
    """Where the SDK is to ask, and with which key."""

    url: str
    key: str


class Served(Bench):
    """A home whose daemon serves the mirror. It makes a pass when a test waits for something, and else rests."""

    def configure_http(self, projects: str, writes: str = "pass", sync: str = "", files: str = "true") -> None:
        http = f'[http]\nlisten = "127.0.0.1:0"\nwrites = "{writes}"\n'
        seldom = f'[sync]\ninterval = "1h"\nlive_interval = "1h"\nsystem_metrics = true\nfiles = {files}\n'
        self.configure(text=f'projects = {projects}\n{seldom}{sync}[publish]\nmin_interval = "200ms"\n{http}')

    def until(self, fact: Callable[[], object], seconds: float = 60) -> None:  # type: ignore[override]
        """Wait for something to become true, with a pass before each further look."""

        def look() -> bool:
            if fact():
                return True
            self.pull()
            return False

        super().until(look, seconds)

    @property
    def address(self) -> Address:
        found = Control(self.home / "mirror.sock").status()["http"]
        assert found["error"] is None, found
        return Address(found["url"], self.server.key)

    def script(self, address: Any, text: str) -> list[Any]:
        """What a script for the SDK prints, a JSON value a line."""
        folder = Path(tempfile.mkdtemp(dir=self.root))
        done = official.run(address, folder, text)
        assert done.returncode == 0, done.stderr[-3000:]
        return [json.loads(line) for line in done.stdout.splitlines()]

    def client(self, key: str | None = None, **headers: str) -> httpx.Client:
        auth = ("api", self.server.key if key is None else key)
        return httpx.Client(base_url=self.address.url, auth=auth, headers=headers, timeout=30)

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        with self.client() as client:
            return client.post("/graphql", json={"query": query, "variables": variables}).json()


@contextmanager
def served(
    world: World, projects: str, sandbox: Mapping[str, Any] | None = None, prelude: str = "", **settings: str
) -> Iterator[Served]:
    """The daemon, once it has mirrored this world; `sandbox` is how its server is set up."""
    root = Path(tempfile.mkdtemp(prefix="m"))
    try:
        with Sandbox(world, **(sandbox or {})) as server:
            site = Served(root, server)
            site.configure_http(projects, **settings)
            runs = sum(len(project.runs) for project in world.projects.values())
            with site.daemon(prelude):
                site.until(lambda: site.sql("select count(*) from runs") == [(runs,)], 90)
                rows = sum(len(run.history) for project in world.projects.values() for run in project.runs.values())
                site.until(lambda: site.sql("select sum(history_rows) from runs") == [(rows,)], 90)
                yield site
    finally:
        shutil.rmtree(root)


@pytest.fixture(scope="module")
def live() -> Iterator[Served]:
    """A small project whose server stays reachable."""
    world = World(username="ada", entity="team")
    for index in range(5):
        run = world.add_run("team", "p", run_id=f"run{index}", config={"lr": 10.0**-index}, tags=[f"t{index % 2}"])
        run.log_many({"loss": 1.0 / (step + 1), "acc": step / 10} for step in range(10))
        run.add_file("notes.txt", f"notes of {index}")
        run.finish()
    with served(world, '["team/p"]') as site:
        yield site
