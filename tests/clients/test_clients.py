"""Programs that others wrote for the official client give the same from the server and from the mirror's endpoint.

Each runs in an environment of its own, made by `make test-clients`.
"""

from __future__ import annotations

import ast
import csv
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mirror.sandbox import World
from tests.sandbox.official import environment
from tests.serve.conftest import Served, served

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / ".cache" / "clients"
SCRIPTS = Path(__file__).parent / "scripts"

APP_URL = "https://wandb.example.com"

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def site() -> Iterator[Served]:
    """Live and exported histories, nested metrics, system metrics, texts, and runs that ended in each way."""
    world = World(username="ada", entity="team")
    for index in range(8):
        run = world.add_run(
            *("team", "p"),
            run_id=f"run{index}",
            name=f"name {index}",
            config={"lr": 10.0 ** -(index % 4), "model": {"depth": index, "kind": "vit"}},
            tags=["baseline"] if index % 2 else [],
            sweep="sw1" if index > 5 else None,
        )
        run.log_many(
            {"loss": 1.0 / (step + index + 1), "acc": step / 10, "grad": {"norm": step * 0.5, "max": float(step)}}
            for step in range(20 + index)
        )
        for second in range(5):
            run.log_system({"system.cpu": 10.0 * second, "system.gpu.0.gpu": 50.0 + second})
        if index == 7:
            continue
        run.finish(state="crashed" if index == 6 else "finished")
        if index < 3:
            run.export_history()
    with served(world, '["team/p"]') as site:
        yield site


def program(name: str, command: str = "python") -> str:
    found = ENVIRONMENTS / name / "bin" / command
    assert found.exists(), f"{found} is not there: run `make test-clients`"
    return str(found)


def both(site: Served, *command: Any, folder: Path) -> list[str]:
    """What a program prints, asking the server and asking the mirror; each in a folder of its own below `folder`."""
    sides = {"server": site.server, "mirror": site.address}
    return [printed(address, *command, folder=folder / name) for name, address in sides.items()]


def printed(address: Any, *command: Any, folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    environ = environment(address, folder) | {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    # As `mirror env` sets it: the pages of runs are those of the server.
    environ["WANDB_APP_URL"] = APP_URL
    done = subprocess.run(
        list(map(str, command)), env=environ, cwd=folder, capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def test_wandb_buddy_lists_the_same_runs(site: Served, tmp_path: Path) -> None:
    server, mirror = both(site, program("wandb-buddy"), SCRIPTS / "buddy.py", "team", "p", folder=tmp_path)
    assert [len(json.loads(line)) for line in server.splitlines()] == [8, 3, 2]
    assert mirror == server


def test_wandb_summarizer_writes_the_same_table(site: Served, tmp_path: Path) -> None:
    both(site, program("wandb-summarizer"), SCRIPTS / "summarizer.py", "team/p", "runs.csv", "false", folder=tmp_path)
    server, mirror = (rows(tmp_path / side / "runs.csv") for side in ("server", "mirror"))
    assert len(server) == 8
    assert mirror == server


def rows(file: Path) -> list[dict[str, Any]]:
    """The table with its cells as values: an object's keys have no order, and the mirror has them by name."""
    with file.open(newline="") as text:
        return [{name: value(cell) for name, cell in row.items()} for row in csv.DictReader(text)]


def value(cell: str) -> Any:
    return ast.literal_eval(cell) if cell.startswith("{") else cell


def test_wandb2numpy_gives_the_same_arrays(site: Served, tmp_path: Path) -> None:
    script = SCRIPTS / "to_numpy.py"
    server, mirror = both(site, program("wandb2numpy"), script, "team", "p", "loss,acc", folder=tmp_path)
    assert [len(json.loads(line)["loss"]) for line in server.splitlines()] == [8, 8]
    assert mirror == server


@pytest.mark.parametrize("mode", ["metadata", "history"])
def test_dr_wandb_exports_the_same_records(site: Served, tmp_path: Path, mode: str) -> None:
    command = (program("dr-wandb", "wandb-export"), "team", "p", "--name", "all", "--mode", mode)
    both(site, *command, folder=tmp_path)
    server, mirror = (records(tmp_path / side / "data") for side in ("server", "mirror"))
    assert server
    assert mirror == server


TIMES = ("exported_at", "history_exported_at", "synced_at", "last_exported_at", "updated_at_export")


def records(folder: Path) -> dict[str, list[Any]]:
    """The exported lines by file, without the times of the export itself."""
    found = {}
    for file in sorted(folder.rglob("*.jsonl")):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        found[file.name] = [{key: value for key, value in line.items() if key not in TIMES} for line in lines]
    return found


def test_wandb_to_mlflow_migrates_the_same_and_verifies_it(site: Served, tmp_path: Path) -> None:
    """With system metrics; what came from the server verifies against the mirror, too, and the other way round."""
    tool = program("wandb-to-mlflow", "wandb-to-mlflow")
    where = ("--entity", "team", "--project", "p", "--experiment", "p", "--system-metrics", "true")
    stores = {side: f"sqlite:///{tmp_path / side}.db" for side in ("server", "mirror")}
    for side, address in (("server", site.server), ("mirror", site.address)):
        target = ("--tracking-uri", stores[side], "--json")
        root = ("--artifact-root", str(tmp_path / f"{side}-artifacts"))
        printed(address, tool, "migrate", *where, *root, *target, folder=tmp_path / side)
    for store in stores.values():
        for address in (site.server, site.address):
            target = ("--tracking-uri", store, "--json")
            verdict = json.loads(printed(address, tool, "verify", *where, *target, folder=tmp_path / "verify"))
            assert not verdict.get("failures"), verdict
    script = SCRIPTS / "mlflow_metrics.py"
    server, mirror = (
        printed(site.server, program("wandb-to-mlflow"), script, stores[side], folder=tmp_path / side)
        for side in ("server", "mirror")
    )
    assert len(json.loads(server)["run0"]["grad.norm"]) == 20
    assert mirror == server
