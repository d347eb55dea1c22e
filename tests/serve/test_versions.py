"""SDK versions that are still around read the same from the mirror as from the server."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from mirror.sandbox import sample
from tests.sandbox import official
from tests.serve.conftest import served
from tests.serve.test_sdk import shown

ENVIRONMENTS = Path(__file__).parents[2] / ".cache"
SCRIPT = """
import json, wandb
def tell(name, value):
    print(json.dumps([name, value], sort_keys=True, default=str), flush=True)
api = wandb.Api(timeout=20)
tell("entity", api.default_entity)
tell("projects", sorted(project.name for project in api.projects("my-team")))
for path in ("my-team/vision", "my-team/oddities"):
    runs = api.runs(path, per_page=2)
    tell(path, [len(runs), [run.id for run in runs]])
    for run in runs:
        tell(run.id, [run.name, run.state, run.tags, run.group, run.created_at, run.config, run.summary._json_dict])
        tell(run.id + " history", run.history(pandas=False, samples=1000))
        tell(run.id + " loss", run.history(pandas=False, keys=["loss"], samples=1000))
        tell(run.id + " files", sorted((file.name, file.size, file.md5) for file in run.files()))
        if run.id != "gaps0001":
            tell(run.id + " scan", list(run.scan_history(page_size=50)))
            tell(run.id + " scan of keys", list(run.scan_history(keys=["loss"])))
tell("filter", [run.id for run in api.runs("my-team/vision", {"config.batch_size": {"$gt": 64}}, order="-created_at")])
tell("run", api.run("my-team/vision/vision01").config)
"""


def python_with(version: str) -> Path:
    """The interpreter of an environment that holds this SDK, made when it is first asked for."""
    folder = ENVIRONMENTS / f"wandb-{version}"
    ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
    with (ENVIRONMENTS / f"wandb-{version}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / ".done"
        if not done.exists():
            uv = [sys.executable, "-m", "uv", "--quiet"]
            subprocess.run([*uv, "venv", "--clear", "--python", sys.executable, str(folder)], check=True)
            python = folder / "bin" / "python"
            wanted = [f"wandb=={version}", "pandas", "setuptools"]
            subprocess.run([*uv, "pip", "install", "--python", str(python), *wanted], check=True)
            done.touch()
    return folder / "bin" / "python"


def answers(python: Path, address: Any, root: Path) -> list[Any]:
    folder = Path(tempfile.mkdtemp(dir=root))
    done = subprocess.run(
        [python, "-c", SCRIPT],
        env=official.environment(address, folder),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.soak
def test_older_sdks_read_the_same_with_the_server_switched_off() -> None:
    """0.20 asks which fields the schema has, which the sample server does not tell; so 0.18 reads there for both."""
    older, newer = (python_with(version) for version in ("0.18.7", "0.20.1"))
    with served(sample.small(), '["my-team/*"]') as site:
        expected = shown(answers(older, site.server, site.root))
        site.server.stop()
        assert len(expected) > 50
        for python in (older, newer):
            found = shown(answers(python, site.address, site.root))
            assert {name: found.get(name) for name in expected} == expected
            assert found.keys() == expected.keys()
