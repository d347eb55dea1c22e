"""A mirrored sample server, the Python API on it, and the official client beside it."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
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
    try:
        with Sandbox(world) as server, _found(server, folder) as made:
            _mirror(made, **scope)
            yield made
    finally:
        shutil.rmtree(folder)


@contextmanager
def _found(server: Sandbox, folder: Path) -> Iterator[Bench]:
    """Have scripts find the server and the mirror in the folder by their environment."""
    before = dict(os.environ)
    try:
        os.environ.clear()
        os.environ.update(environment(server, folder))
        os.environ["MIRROR_HOME"] = str(folder / "home")
        yield Bench(server, Rig(folder / "home", server))
    finally:
        os.environ.clear()
        os.environ.update(before)


def _mirror(made: Bench, **scope: Any) -> None:
    results = made.rig.sync(*(f"{entity}/{name}" for entity, name in made.world.projects), **scope)
    assert not any(result.error or result.failed for result in results.values())


@pytest.fixture(scope="session")
def smalls() -> Iterator[Callable[[], AbstractContextManager[Bench]]]:
    """Gives the small sample, mirrored, as often as wanted: mirrored once, and copied to the place where it was made.

    It is the same each time, and so is the address of its server, which the mirror holds.
    """
    root = Path(tempfile.mkdtemp(prefix="m"))
    folder, copy = root / "here", root / "copy"
    # Bound, but not listening, this keeps the port from others, and leaves it to one server at a time.
    kept = socket.socket()
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept.bind(("127.0.0.1", 0))

    @contextmanager
    def made() -> Iterator[Bench]:
        with Sandbox(sample.small(), port=kept.getsockname()[1]) as server, _found(server, folder) as one:
            if copy.exists():
                shutil.copytree(copy, folder)
            else:
                folder.mkdir()
                _mirror(one)
                shutil.copytree(folder, copy)
            try:
                yield one
            finally:
                shutil.rmtree(folder)

    with kept:
        yield made
    shutil.rmtree(root)


@pytest.fixture
def small(smalls: Callable[[], AbstractContextManager[Bench]]) -> Iterator[Bench]:
    """Two projects of a dozen runs, for tests that change things."""
    with smalls() as made:
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
