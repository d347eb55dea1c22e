"""The same questions, asked three ways of one server and its mirror."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.facts.world import WAYS
from tests.sandbox import official
from tests.serve.conftest import Served

HERE = Path(__file__).parent

PROJECTS = '["team/*", "lab/*"]'
SYNC = "console = true\nmetadata = true\nreports = true\n"

Answers = dict[str, dict[str, Any]]


def environment(site: Served, way: str, folder: Path) -> dict[str, str]:
    """Where a script of this way finds what it asks; `mirror env` prints the same for the endpoint."""
    asks: Any = site.address if way == "endpoint" else site.server
    reported = official.environment(asks, folder)
    reported |= {"PYTHONPATH": str(HERE.parents[1]), "FACTS_PAGES": site.server.url}
    if way == "endpoint":
        reported["WANDB_APP_URL"] = site.server.url
    if way == "mirror":
        reported["MIRROR_HOME"] = str(site.home)
    return reported


def asked(site: Served, script: str, **more: str) -> Answers:
    """What the functions of a script answer, by way; all ways at once."""
    running = {}
    try:
        for way in WAYS:
            folder = Path(tempfile.mkdtemp(dir=site.root))
            running[way] = subprocess.Popen(
                [sys.executable, str(HERE / script), way],
                env=environment(site, way, folder) | more,
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        found = {}
        for way, process in running.items():
            out, said = process.communicate(timeout=150)
            assert process.returncode == 0, said[-3000:]
            found[way] = json.loads(out.splitlines()[-1])
        return found
    finally:
        for process in running.values():
            if process.poll() is None:
                process.kill()
                process.wait()


def of_old_server(old: Served) -> dict[str, str]:
    """Where scripts find a server of an older version, its mirror and the endpoint over that."""
    return {"FACTS_OLD_SERVER": old.server.url, "FACTS_OLD_ENDPOINT": old.address.url, "FACTS_OLD_HOME": str(old.home)}


def reported(answers: Answers, name: str) -> dict[str, Any]:
    """What each way answers to one question."""
    return {way: answers[way][name] for way in WAYS}
