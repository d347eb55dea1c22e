"""A project that moves from one server to another: mirrored, exported, uploaded by `wandb sync`, mirrored again."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirror.sandbox import Sandbox, World
from tests.content.rig import ContentRig
from tests.move import world
from tests.sandbox import official

EVERYTHING = {"system_metrics": True, "console": True, "metadata": True, "files": True}


@dataclass
class Moved:
    """The mirrors before and after, the folder between them, and what the export printed."""

    before: ContentRig
    after: ContentRig
    folder: Path
    printed: str
    exit_code: int


@pytest.fixture(scope="session")
def mirrored(tmp_path_factory):
    """The mirror of the project; its server is gone, and one of the runs was deleted before."""
    root = tmp_path_factory.mktemp("before")
    with Sandbox(world.made()) as server:
        rig = ContentRig(root, server)
        assert rig.sync("team/p", **EVERYTHING)["team/p"].error is None
        server.world.delete_run("team", "p", "gone")
        assert rig.sync("team/p", **EVERYTHING)["team/p"].error is None
        assert rig.pull(listed=False).failed == {}
    return rig


@pytest.fixture(scope="session")
def moved(mirrored, tmp_path_factory):
    """The same project on another server under another name, uploaded by the official client."""
    root = tmp_path_factory.mktemp("moved")
    environ = {key: value for key, value in os.environ.items() if not key.startswith(official.PREFIXES)}
    done = subprocess.run(
        [sys.executable, "-m", "mirror.cli", "export", "team/p", "--wandb", str(root / "out")],
        env=environ | {"MIRROR_HOME": str(mirrored.home.data)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    with Sandbox(World(entity="other")) as server:
        (root / "upload").mkdir()
        synced = subprocess.run(
            [sys.executable, "-m", "wandb", "sync", "--entity", "other", "--project", "q", *(root / "out").iterdir()],
            env=official.environment(server, root / "upload"),
            cwd=root / "upload",
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert synced.returncode == 0, synced.stdout + synced.stderr
        rig = ContentRig(root / "after", server)
        assert rig.sync("other/q", **EVERYTHING)["other/q"].error is None
        assert rig.pull(listed=False).failed == {}
    return Moved(mirrored, rig, root / "out", done.stderr, done.returncode)
