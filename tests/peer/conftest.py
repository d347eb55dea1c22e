"""A mirrored sample server whose port is open, read from here and through that port; one for all tests of a process."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import mirror
from mirror.sandbox import Sandbox, World, sample
from mirror.settings.values import ArtifactPattern
from mirror.store.contents import Selection
from tests.content.rig import ContentRig
from tests.web.door import Door, opened


@dataclass(frozen=True)
class Site:
    """A mirror, its open port, and its folder."""

    rig: ContentRig
    door: Door

    @property
    def here(self) -> Any:
        """The mirror as its own machine reads it."""
        return mirror.Api(home=self.rig.home.data)

    @property
    def there(self) -> Any:
        """The same mirror as another machine reads it."""
        return mirror.Api(url=self.door.url, token=self.door.token)

    def connect(self) -> Any:
        return mirror.connect(self.door.url, token=self.door.token)


PROJECTS = ("my-team/vision", "my-team/oddities", "team/p")
TABLE = {"columns": ["n", "word"], "data": [[1, "one"], [2, "two"]]}


def world() -> World:
    """The small sample, and a project with a sweep, files, a table, console lines, system metrics and artifacts."""
    world = sample.small()
    world.add_sweep("team", "p", {"method": "grid", "parameters": {"lr": {"values": [1, 2]}}}, sweep_id="s1")
    table = json.dumps(TABLE)
    for number in range(3):
        run = world.add_run("team", "p", run_id=f"run{number}", config={"lr": number}, sweep="s1")
        for step in range(5):
            run.log({"loss": 1 / (step + number + 1), "odd": [float("nan"), float("inf"), "text"][step % 3]})
        run.log({"t": {"_type": "table-file", "path": "media/t.table.json", "nrows": 2, "ncols": 2}})
        run.add_file("media/t.table.json", table)
        run.add_file("model.bin", bytes(range(256)) * (number + 1))
        run.write_console(0, ["epoch 1", "epoch 2"])
        run.log_system({"system.cpu": 40.0 + number})
        run.finish()
    maker = world.run("team", "p", "run0")
    first = world.add_artifact(
        "team", "p", "dataset", "data", {"a.txt": b"one", "sub/b.txt": b"two"}, by=maker, aliases=["small"],
        metadata={"rows": 2, "nested": {"x": [1]}}, description="two files", tags=["gold"],
    )  # fmt: skip
    world.add_artifact("team", "p", "dataset", "data", {"a.txt": b"one", "c.json": b"{}"}, by=maker)
    world.run("team", "p", "run1").use_artifact(first)
    return world


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    folder = Path(tempfile.mkdtemp(prefix="m"))
    try:
        with Sandbox(world()) as server:
            rig = ContentRig(folder / "home", server)
            paths = [f"{entity}/{name}" for entity, name in server.world.projects]
            everything = dict.fromkeys(("system_metrics", "console", "metadata", "files", "artifacts"), True)
            results = rig.sync(*paths, **everything)
            assert not any(result.error or result.failed for result in results.values())
            wanted = Selection(("*",), artifacts=(ArtifactPattern("*", "*", "*"),))
            assert not rig.pull(wanted, listed=False).failed
        with opened(rig.home) as door:
            yield Site(rig, door)
    finally:
        shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def another_machine(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment knows neither the home nor a server or its key."""
    for name in list(os.environ):
        if name.startswith(("WANDB_", "MIRROR_", "XDG_")) or name == "NETRC":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
