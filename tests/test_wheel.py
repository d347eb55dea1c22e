"""The wheel, installed in an empty environment, is the whole product."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.timeout(400)
@pytest.mark.xdist_group("wheel")
def test_the_wheel_runs_the_demo_in_an_empty_environment(tmp_path):
    """No file of the source tree is needed, and `sql` is no top-level module."""
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "build", "--wheel", "-q", "-o", tmp_path, ROOT], check=True)
    wheel = next(tmp_path.glob("wandb_mirror-*.whl"))
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"mirror"}
    standing = {f"mirror/{path.relative_to(ROOT)}" for path in (ROOT / "sql").rglob("*.sql")}
    assert standing == {name for name in names if name.endswith(".sql")}
    page = {f"mirror/web/static/{path.name}" for path in (ROOT / "mirror" / "web" / "static").iterdir()}
    assert page == {name for name in names if name.startswith("mirror/web/static/")}

    venv = tmp_path / "venv"
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, venv], check=True)
    python = venv / "bin" / "python"
    subprocess.run([uv, "pip", "install", "-q", "--python", python, "-r", ROOT / "requirements.txt", wheel], check=True)
    # A folder of its own with a short path, since the demo's home holds a socket.
    with tempfile.TemporaryDirectory(prefix="m") as short:
        environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": short, "NO_COLOR": "1"}
        done = subprocess.run(
            [venv / "bin" / "mirror", "demo"], env=environ, cwd=tmp_path, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "$ mirror runs acme/vision state=finished" in done.stdout
    assert "--filter" not in done.stdout
    assert "duckdb -readonly" in done.stdout
    left = subprocess.run(["pgrep", "-f", str(venv)], capture_output=True, text=True, check=False)
    assert left.stdout == ""
