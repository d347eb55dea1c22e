"""A training script with the official client writes to the server, which then holds exactly that."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.sandbox import Sandbox, World
from tests.sandbox.official import run

TRAIN = """
import wandb
run = wandb.init(
    entity="my-team", project="training", id="train001", name="first try", group="g", job_type="train",
    tags=["a", "b"], notes="hello", config={"lr": 0.1, "model": {"depth": 3}, "größe": 1}, resume="allow",
)
print("a printed line")
for step in range(5):
    run.log({"loss": 1 / (step + 2), "nested": {"a": step}, "näme": float("nan") if step == 2 else 0.5, "big": 2**53 + 1})
run.log({"hist": wandb.Histogram(np_histogram=([1, 2], [0.0, 0.5, 1.5]))})
run.log({"table": wandb.Table(columns=["x"], data=[[1], [2]])})
run.log({"late": True}, step=LATE)
run.summary["best"] = 0.25
run.config["extra"] = "x"
run.finish(exit_code=EXIT)
"""


@pytest.fixture
def server() -> Iterator[Sandbox]:
    with Sandbox(World(entity="my-team")) as running:
        yield running


def test_a_script_logs_and_then_resumes(server: Sandbox, tmp_path: Path) -> None:
    first = run(server, tmp_path, TRAIN.replace("EXIT", "0").replace("LATE", "20"))
    assert first.returncode == 0, first.stderr
    there = server.world.run("my-team", "training", "train001")
    assert (there.state, there.exitcode) == ("finished", 0)
    assert (there.name, there.labels.group, there.labels.job_type, there.labels.notes, there.tags) == (
        "first try", "g", "train", "hello", ["a", "b"],
    )  # fmt: skip
    assert there.config == {"lr": 0.1, "model": {"depth": 3}, "größe": 1, "extra": "x"}
    rows = there.rows()
    assert [row["_step"] for row in rows] == [0, 1, 2, 3, 4, 5, 6, 20]
    assert [row["loss"] for row in rows[:5]] == [1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 6]
    assert [row["nested"] for row in rows[:5]] == [{"a": 0}, {"a": 1}, {"a": 2}, {"a": 3}, {"a": 4}]
    assert math.isnan(rows[2]["näme"])
    assert {row["big"] for row in rows[:5]} == {2**53 + 1}
    assert rows[5]["hist"] == {"_type": "histogram", "values": [1, 2], "bins": [0, 0.5, 1.5]}
    assert (rows[6]["table"]["_type"], rows[6]["table"]["nrows"]) == ("table-file", 2)
    assert rows[7]["late"] in (True, 1)
    assert there.files[rows[6]["table"]["path"]].content.startswith(b'{"columns"')
    assert there.summary["best"] == 0.25
    assert there.summary["nested"] == {"a": 4}
    assert there.metadata()["host"] == there.labels.host
    assert [line.line for line in there.console] == ["a printed line"]

    second = run(server, tmp_path, TRAIN.replace("EXIT", "3").replace("LATE", "41"))
    assert second.returncode == 0, second.stderr
    steps = [row["_step"] for row in there.rows()]
    assert steps == [0, 1, 2, 3, 4, 5, 6, 20, 21, 22, 23, 24, 25, 26, 27, 41]
    assert (there.state, there.exitcode) == ("failed", 3)
    assert [line.line for line in there.console] == ["a printed line"] * 2
    assert len(server.world.runs("my-team", "training")) == 1
    assert server.requests["RunResumeStatus"] == 2


def test_a_script_goes_back_and_on_through_faults(server: Sandbox, tmp_path: Path) -> None:
    there = server.world.add_run("my-team", "training", run_id="again", config={"lr": 1})
    there.log_many({"loss": 10 - step} for step in range(10))
    there.finish()
    for kind in ("502", "reset", "429"):
        server.faults.add(kind, operation="file_stream", retry_after=0.1)
    script = """
import wandb
run = wandb.init(entity="my-team", project="training", resume_from="again?_step=4")
for step in range(3):
    run.log({"loss": 100.5 + step})
run.finish()
"""
    outcome = run(server, tmp_path, script)
    assert outcome.returncode == 0, outcome.stderr
    assert [row["loss"] for row in there.rows()] == [10, 9, 8, 7, 6, 100.5, 101.5, 102.5]
    assert [row["_step"] for row in there.rows()] == list(range(8))
    assert there.state == "finished"
    assert server.faults.counts["502"] == 1
    assert server.requests["RewindRun"] == 1


def test_no_process_of_the_client_is_left(server: Sandbox, tmp_path: Path) -> None:
    outcome = run(server, tmp_path, "import wandb; print(len(wandb.Api().runs('my-team/none')))")
    assert "Could not find project none" in outcome.stderr
    left = []
    for folder in Path("/proc").glob("[0-9]*") if Path("/proc").exists() else ():
        try:
            if str(tmp_path).encode() in (folder / "environ").read_bytes() and int(folder.name) != os.getpid():
                left.append((folder / "cmdline").read_bytes())
        except OSError:
            continue
    assert left == []
