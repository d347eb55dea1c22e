from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mirror.sandbox import Sandbox, World
from tests.verify.bench import Bench, populate


@pytest.fixture(scope="session")
def shared():
    """A server whose world no test changes."""
    with Sandbox(populate(World())) as server:
        yield server


@pytest.fixture(scope="session")
def made():
    """Mirrors of that world by their config, with their content."""
    mirrors: dict[str, tuple[Path, dict[str, list[tuple[object, ...]]]]] = {}
    yield mirrors
    for folder, _ in mirrors.values():
        shutil.rmtree(folder)


@pytest.fixture
def bench(shared, made, home, cli, monkeypatch):
    """A mirror of the shared world, whose files may be damaged."""
    return Bench(home, shared, cli, monkeypatch, made)


@pytest.fixture
def own(home, cli, monkeypatch):
    """A mirror of a world of its own, which may be changed."""
    with Sandbox(populate(World())) as server:
        yield Bench(home, server, cli, monkeypatch)
