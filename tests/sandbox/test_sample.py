"""The sample worlds: the same each time, and with every kind of value."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import datetime, timedelta
from typing import Any

import httpx

from mirror.sandbox import Sandbox, World, sample
from tests.sandbox.conftest import connected


def contents(world: World) -> list[Any]:
    return [
        (run.path, run.name, run.state, run.config_text, run.summary_text, run.updated_at, run.history.lines)
        for home in world.projects.values()
        for run in home.runs.values()
    ]


def test_small_is_small_and_the_same_for_a_seed() -> None:
    first = contents(sample.small(3))
    assert first == contents(sample.small(3))
    assert first != contents(sample.small(4))
    assert len(first) == 12
    assert sum(len(lines) for *_, lines in first) < 1000
    assert {state for _, _, state, *_ in first} == {"finished", "running", "crashed", "failed"}


def test_full_holds_every_kind_of_thing() -> None:
    world = sample.full()
    assert {key: len(home.runs) for key, home in world.projects.items()} == {
        ("acme", "vision"): 240,
        ("acme", "language"): 160,
        ("acme", "rl-control"): 120,
        ("acme", "oddities"): 7,
    }
    runs = [run for home in world.projects.values() for run in home.runs.values()]
    assert {run.state for run in runs} == {"finished", "crashed", "failed", "killed", "running"}
    assert any(run.config_document is None for run in runs)
    assert any(not len(run.history) and run.state == "finished" for run in runs)
    kinds = {kind for run in runs for stats in run.history.keys.values() for kind in stats.counts}
    assert kinds >= {"number", "string", "boolean", "list", "histogram", "image-file", "table-file"}
    text = "\n".join(line for run in runs for line in run.history.lines)
    assert all(token in text for token in (":NaN", ":Infinity", ':"NaN"', "eval/bleu.de", "tokens_seen"))
    assert {run.labels.sweep for run in world.runs("acme", "vision")} > set(world.projects["acme", "vision"].sweeps)


def test_full_can_end_at_a_given_time() -> None:
    until = datetime(2026, 5, 4, 3, 2, 1)
    world = sample.full(until=until)
    runs = [run for home in world.projects.values() for run in home.runs.values()]
    live = [run for run in runs if run.state == "running"]
    assert {(run.project.name, run.heartbeat_at) for run in live} == {
        (project, until) for project in ("vision", "language", "rl-control")
    }
    assert max(run.heartbeat_at for run in runs if run not in live) < until
    assert max(until - run.created_at for run in live) < timedelta(hours=3)


def test_grid_is_a_row_of_every_metric_at_every_step() -> None:
    world = sample.grid(runs=3, steps=50, metrics=4)
    runs = world.runs("acme", "bench")
    rows = runs[0].rows()
    assert [row["_step"] for row in rows] == list(range(50))
    names = {"loss", "val/loss", "layer/00/grad_norm", "layer/01/grad_norm"}
    assert set(rows[0]) == names | {"_step", "_runtime", "_timestamp"}
    assert runs[0].summary == rows[-1]
    assert len({run.history.lines[7] for run in runs}) == 3
    exported = sample.grid(runs=1, steps=50, metrics=4, exported=True).runs("acme", "bench")[0]
    assert (len(exported.exports), exported.live_steps()) == (1, [])


def test_a_live_run_grows_until_it_is_stopped() -> None:
    world = World()
    run = world.add_run("e", "p", run_id="live")
    with Sandbox(world) as server, connected(server) as client, sample.keep_logging(run, every=0.01):
        query = '{ project(name: "p", entityName: "e") { run(name: "live") { historyLineCount heartbeatAt } } }'
        first = client.data(query)["project"]["run"]
        while client.data(query)["project"]["run"]["historyLineCount"] < first["historyLineCount"] + 3:
            time.sleep(0.01)
        assert client.data(query)["project"]["run"]["heartbeatAt"] > first["heartbeatAt"]
    count = len(run.history)
    time.sleep(0.05)
    assert len(run.history) == count
    assert run.state == "running"


def test_a_live_run_goes_on_where_its_past_ended() -> None:
    run = sample.small().run("my-team", "vision", "vision03")
    before = run.history.last_row()
    with sample.keep_logging(run, every=0.01):
        while run.history.last_step < 102:
            time.sleep(0.01)
    row = run.rows()[100]
    assert (row["_step"], round(row["_runtime"] - before["_runtime"], 2)) == (100, 0.01)
    assert row["_timestamp"] > before["_timestamp"]


def test_a_hundred_thousand_rows_are_logged_in_seconds() -> None:
    run = World().add_run("e", "p")
    began = time.process_time()
    run.log_many({"loss": 1 / (step + 1), "acc": step * 0.5} for step in range(100_000))
    assert time.process_time() - began < 6
    assert len(run.history) == 100_000


def test_the_command_serves_until_it_is_told_to_stop() -> None:
    process = subprocess.Popen([sys.executable, "-m", "mirror.sandbox"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(2)]
        facts = dict(line.removeprefix("export ").split("=") for line in lines)
        answer = httpx.post(
            f"{facts['WANDB_BASE_URL']}/graphql",
            content=json.dumps({"query": "{ viewer { entity } }"}),
            auth=("api", facts["WANDB_API_KEY"]),
        )
        assert answer.json() == {"data": {"viewer": {"entity": "my-team"}}}
    finally:
        process.terminate()
        assert process.wait(timeout=10) == 0
        process.stdout.close()
