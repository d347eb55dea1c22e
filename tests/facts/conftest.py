"""The same questions, asked three ways of one server and its mirror."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mirror.sandbox import World
from tests.facts.world import world
from tests.sandbox import official
from tests.serve.conftest import Served, served

HERE = Path(__file__).parent
WAYS = ("server", "endpoint", "mirror")
SYNC = "console = true\nmetadata = true\n"


def environment(site: Served, way: str, folder: Path) -> dict[str, str]:
    """Where a script of this way finds what it asks; `mirror env` prints the same for the endpoint."""
    found: Any = site.address if way == "endpoint" else site.server
    told = official.environment(found, folder)
    if way == "endpoint":
        told["WANDB_APP_URL"] = site.server.url
    if way == "mirror":
        told["MIRROR_HOME"] = str(site.home)
    return told | {"PYTHONPATH": str(HERE.parents[1])}


def asked(site: Served, script: str, *ways: str) -> dict[str, dict[str, Any]]:
    """What the functions of a script answer, by way; all ways at once."""
    running = {}
    for way in ways or WAYS:
        folder = Path(tempfile.mkdtemp(dir=site.root))
        running[way] = subprocess.Popen(
            [sys.executable, str(HERE / script), way],
            env=environment(site, way, folder)
            | {name: value for name, value in os.environ.items() if name == "FACTS_TIMES"},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    found = {}
    for way, process in running.items():
        out, said = process.communicate(timeout=120)
        assert process.returncode == 0, said[-3000:]
        if os.environ.get("FACTS_TIMES"):
            print(way, said)
        found[way] = json.loads(out.splitlines()[-1])
    return found
