"""A mirrored sample server, the Python API on it, and the official client beside it."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import mirror
from mirror.sandbox import Sandbox, World, sample
from tests.sandbox.official import environment
from tests.sync.rig import Rig


@dataclass(frozen=True)
class Bench:
    """A server, the mirror of all its projects, and an environment that names both."""

    server: Sandbox
    rig: Rig

    @property
    def world(self) -> World:
        return self.server.world


@contextmanager
def bench(world: World, **scope: Any) -> Iterator[Bench]:
    """The world behind a server, mirrored; a script that runs now finds both by its environment."""
    folder = Path(tempfile.mkdtemp(prefix="m"))
    before = dict(os.environ)
    try:
        with Sandbox(world) as server:
            rig = Rig(folder / "home", server)
            results = rig.sync(*(f"{entity}/{name}" for entity, name in world.projects), **scope)
            assert not any(result.error or result.failed for result in results.values())
            os.environ.clear()
            os.environ.update(environment(server, folder))
            os.environ["MIRROR_HOME"] = str(folder / "home")
            yield Bench(server, rig)
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(folder)


@pytest.fixture
def small() -> Iterator[Bench]:
    """Two projects of a dozen runs, for tests that change things."""
    with bench(sample.small()) as made:
        yield made


@pytest.fixture
def api(small: Bench) -> Any:
    return mirror.Api()


@pytest.fixture(scope="module")
def full() -> Iterator[Bench]:
    """Four projects of 527 runs, half of them with exported histories; for reading."""
    with bench(sample.full(), system_metrics=True) as made:
        yield made


@pytest.fixture(scope="module")
def both(full: Bench) -> Iterator[tuple[Any, Any]]:
    """The official client's Api and ours."""
    import wandb

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            yield wandb.Api(timeout=20), mirror.Api()
        finally:
            wandb.teardown()
