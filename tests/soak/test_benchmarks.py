"""Every benchmark still runs, on little data; its figures are not judged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.soak

FOLDER = Path(__file__).parents[2] / "benchmarks"

LITTLE = {
    "api": ["--small", "--repeat", "1", "--sdk-repeat", "1"],
    "files": ["--small", "20", "--large", "1", "--megabytes", "5", "--rates", "", "--repeat", "1"],
    "filters": ["--runs", "500", "--sdk-runs", "50", "--repeat", "1"],
    "growth": ["--runs", "100", "--projects", "5", "--daemon", "2"],
    "lake": ["--values", "1", "--runs", "20", "--spread", "--read"],
    "publish": ["--values", "1", "--runs", "100", "--repeat", "1"],
    "query_api": ["--repeat", "1", "--clients", "2", "--statements", "2"],
    "same": [str(Path(sys.executable).with_name("mirror")), "--only", "small"],
    "serve": ["--runs", "20", "--steps", "200", "--repeat", "1"],
    "sync": ["--small", "--repeat", "1", "--latency", "0"],
}


def test_each_benchmark_is_tried():
    # `replay` is the server of `serve`.
    assert LITTLE.keys() == {path.stem for path in FOLDER.glob("*.py")} - {"replay"}


@pytest.mark.parametrize("name", LITTLE)
def test_a_benchmark_runs(name, tmp_path):
    # The environment of an installed program, as `make bench` has it.
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "MIRROR_"))}
    environ |= {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    command = [sys.executable, str(FOLDER / f"{name}.py"), *LITTLE[name]]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, cwd=tmp_path, timeout=600, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    assert any(character.isdigit() for character in done.stdout)
    # Those that judge their figures say so in one line.
    assert done.returncode == 0 or len(done.stderr.splitlines()) == 1, done.stderr
