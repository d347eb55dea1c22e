from __future__ import annotations

import shutil

import pytest

from mirror.settings.home import Home
from mirror.store.store import Store
from tests.content.rig import content_rig


@pytest.fixture(scope="session")
def empty(tmp_path_factory):
    """An empty mirror: to create one takes longer than most of these tests."""
    root = tmp_path_factory.mktemp("empty") / "mirror"
    Store.open(Home(root, root / "config.toml")).close()
    return root


@pytest.fixture
def rig(tmp_path, empty):
    shutil.copytree(empty, tmp_path / "mirror")
    with content_rig(tmp_path / "mirror") as made:
        yield made
