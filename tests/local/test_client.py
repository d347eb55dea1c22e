"""Files that the unmodified official client writes today, held against what the client itself makes of them.

A file is mirrored twice: read from the disk, and uploaded by `wandb sync` to the sample server and pulled from there.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest

from mirror.sandbox import Sandbox, World
from mirror.settings.home import Home
from tests.local.kit import ingest
from tests.sandbox import official
from tests.sync.rig import Rig

SCRIPT = """
import math, wandb
run = wandb.init(project="p", id="r1", name="a name", tags=["x", "y"], notes="some notes", group="g", job_type="train",
                 config={"lr": 0.1, "net": {"depth": 3, "layers": [1, {"a": 2}], "none": None}, "big": 2**60, "empty": {}})
run.define_metric("epoch")
run.define_metric("val/*", step_metric="epoch")
run.define_metric("score", summary="max,min,mean")
for step in range(120):
    run.log({"loss": 1 / (step + 1), "score": math.sin(step), "count": step, "epoch": step // 10, "val/acc": step / 7,
             "n": {"a": step, "b": {"c": float(step), "d.e": 1}}, "flag": step % 2 == 0})
    if step == 50:
        run.config.update({"late": [1, 2], "net": {"width": 8}, "lr": 0.2}, allow_val_change=True)
        run.tags = run.tags + ("z",)
run.log({"odd": float("nan"), "up": float("inf"), "down": -float("inf"), "word": "text", "none": None, "list": [1, 2]})
run.log({"hist": wandb.Histogram([1, 2, 3]), "table": wandb.Table(columns=["a"], data=[[1]])}, step=500)
run.log({"html": wandb.Html("<b>x</b>"), "huge": 2**62 + 1, "key with.dots and/slashes": 1}, step=700)
run.log({"late": 1}, step=600)
run.log({"two": 1}, step=900, commit=False)
run.log({"parts": 2}, step=900, commit=True)
run.summary["best"] = {"x": 1, "y": {"z": float("nan")}}
run.summary["loss"] = 42
run.summary.update({"a": {"b": 1}, "count": "many"})
run.finish(exit_code=CODE)
"""

RELATIONS = {
    "config_values": "run_id, key, value, number, kind",
    "summary_values": "run_id, key, value, number, kind",
    "history": "run_id, step, key, value, text",
    "history_keys": "run_id, key, rows, first_step, last_step, min, max, last",
    "run_tags": "run_id, tag",
    "runs": "run_id, name, state, group_name, job_type, sweep, notes, tags, git_commit, host, history_rows, deleted_at",
}


def offline(folder: Path, script: str, **environ) -> subprocess.Popen[str]:
    """Run a script with the client offline, in an environment of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(official.PREFIXES)}
    own = {"HOME": str(folder), "TMPDIR": str(folder), "WANDB_DIR": str(folder), "WANDB_MODE": "offline"}
    quiet = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false", "WANDB_CACHE_DIR": str(folder / "cache")}
    return subprocess.Popen(
        [sys.executable, "-c", script],
        env={**clean, **own, **quiet, "WANDB_DATA_DIR": str(folder / "data"), **environ},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def write(folder: Path, script: str, **environ) -> Path:
    """The run folder that a script leaves."""
    process = offline(folder, script, **environ)
    out, _ = process.communicate(timeout=100)
    assert process.returncode == 0, out
    return max((folder / "wandb").glob("offline-run-*"))


def upload(server: Sandbox, folder: Path, run: Path) -> None:
    """What `wandb sync` does with a run."""
    environ = official.environment(server, folder)
    done = subprocess.run(
        [sys.executable, "-m", "wandb", "sync", "--entity", "team", str(run)],
        env=environ,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def rows(home: Home, relation: str, columns: str):
    with duckdb.connect(str(home.published), read_only=True) as connection:
        found = connection.execute(f"select {columns} from {relation} order by all").fetchall()
    return [tuple(map(comparable, row)) for row in found]


def comparable(cell):
    """A cell so that equal ones are equal: NaN is, and so are objects whose members the client writes in any order."""
    if isinstance(cell, float) and math.isnan(cell):
        return "nan"
    return json.dumps(json.loads(cell), sort_keys=True) if isinstance(cell, str) and cell.startswith("{") else cell


@pytest.mark.parametrize("code", [0, 3])
def test_a_file_is_mirrored_as_the_client_uploads_it(tmp_path, code):
    """Nested values, media, NaN, define_metric, summary overrides, config updates, steps with gaps and in parts."""
    run = write(tmp_path / "train", SCRIPT.replace("CODE", str(code)))
    home = Home(data=tmp_path / "local", config=tmp_path / "local" / "config.toml")
    [result] = ingest(home, tmp_path / "train", system_metrics=True)
    assert (result.outcome, result.state, result.rows, result.trouble()) == (
        "new",
        "failed" if code else "finished",
        124,
        None,
    )
    with Sandbox(World()) as server:
        (tmp_path / "upload").mkdir()
        upload(server, tmp_path / "upload", run)
        rig = Rig(tmp_path / "remote", server)
        assert rig.sync(system_metrics=True)["team/p"].error is None
        for relation, columns in RELATIONS.items():
            assert rows(home, relation, columns) == rows(rig.home, relation, columns), relation
        # The server samples nothing of so few: each of the client's own measurements is there.
        metrics = "select key, round(value, 3), text from system_metrics where key <> '_runtime' order by all"
        with duckdb.connect(str(home.published), read_only=True) as connection:
            assert connection.execute(metrics).fetchall() == rig.sql(metrics)
        # And now into one mirror: the run is there once, as the server has it.
        ingest(rig.home, tmp_path / "train")
        assert rows(rig.home, "runs", "entity, history_rows") == [("team", 124)]


REWOUND = """
import wandb
def part(first, **options):
    run = wandb.init(project="p", **options)
    for value in range(first, first + 3):
        run.log({"a": value})
    run.finish()
part(0, id="r1")
part(100, id="r1", resume_from="r1?_step=1")
part(200, id="r1", resume="allow")
part(300, id="r2", fork_from="r1?_step=1")
"""


def test_runs_that_were_rewound_resumed_and_forked_offline(tmp_path):
    """Rewinding drops what lies behind its step; resuming, which counts from 0 again offline, goes on behind it all."""
    write(tmp_path, REWOUND)
    home = Home(data=tmp_path / "home", config=tmp_path / "home" / "config.toml")
    assert [result.rows for result in ingest(home, tmp_path / "wandb")] == [3, 3, 3, 3]
    values = [row for row in rows(home, "history", "run_id, step, value, key") if row[3] == "a"]
    r1 = [(0, 0), (1, 1), (2, 100), (3, 101), (4, 102), (5, 200), (6, 201), (7, 202)]
    r2 = [(2, 300), (3, 301), (4, 302)]
    assert [row[:3] for row in values] == [*(("r1", *row) for row in r1), *(("r2", *row) for row in r2)]
    assert rows(home, "runs", "run_id, state, history_rows") == [("r1", "finished", 8), ("r2", "finished", 3)]


def test_a_killed_run_is_there_up_to_its_last_whole_block(tmp_path):
    """The client writes blocks of 32 KiB, so SIGKILL costs what is less; the run has crashed, and nothing is damaged."""
    script = """
import os, signal, wandb
run = wandb.init(project="p", id="r1")
for step in range(3000):
    run.log({"loss": step, "other": step / 3})
os.kill(os.getpid(), signal.SIGSTOP)
"""
    process = offline(tmp_path, script)
    try:
        [file] = until(lambda: list(tmp_path.glob("wandb/offline-run-*/run-r1.wandb")))
        until(lambda: state_of(process.pid) == "T" and file.stat().st_size > 10 * 32768)
        home = Home(data=tmp_path / "home", config=tmp_path / "home" / "config.toml")
        [result] = ingest(home, tmp_path / "wandb")
        assert (result.state, result.damaged) == ("running", 0)
        for pid in [*children(process.pid), process.pid]:
            os.kill(pid, signal.SIGKILL)
        process.wait(20)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
    os.utime(file, (1, 1))
    [result] = ingest(home, tmp_path / "wandb")
    assert (result.state, result.damaged) == ("crashed", 0)
    [(steps, last)] = [row[1:] for row in rows(home, "history_keys", "key, rows, last") if row[0] == "loss"]
    assert steps == last + 1 > 100
    assert rows(home, "runs", "state, history_rows") == [("crashed", steps)]


def until(fact, seconds=60):
    """Wait for something to become true, and give it."""
    limit = time.monotonic() + seconds
    while not (found := fact()):
        assert time.monotonic() < limit, "did not happen in time"
        time.sleep(0.05)
    return found


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def children(pid: int) -> list[int]:
    """The processes that a process started, and theirs."""
    found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [one for child in found for one in (*children(child), child)]
