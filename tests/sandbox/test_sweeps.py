"""The official client creates a sweep, runs an agent, and reads both back; reports are listed as the app keeps them."""

from __future__ import annotations

import json
from pathlib import Path

from mirror.sandbox import Sandbox, World
from tests.sandbox.official import run

SWEEP = """
import json, os, wandb
from wandb.agents.pyagent import Agent
Agent.HEARTBEAT_SLEEP_SECONDS = 0.05

def train():
    with wandb.init() as run:
        run.log({"loss": run.config.lr * 10})

config = {"name": "rates", "method": "grid", "metric": {"name": "loss", "goal": "minimize"},
          "parameters": {"lr": {"values": [0.1, 0.2]}}}
made = wandb.sweep(config, entity="team", project="swept", prior_runs=["old"])
wandb.agent(made, train, entity="team", project="swept")
api = wandb.Api()
sweep = api.sweep(f"team/swept/{made}")
agents = sweep.agents()
print(json.dumps({
    "facts": [sweep.name, sweep.state, sweep.expected_run_count, sweep.config, sweep.best_loss],
    "rates": [run.config["lr"] for run in sweep.runs],
    "best": sweep.best_run().config["lr"],
    "agents": [[len(list(agent.runs())), sweep.agent(agent.name).id == agent.id] for agent in agents],
}))
"""

REPORTS = """
import json, wandb
from wandb.apis.public.sweeps import _set_sweep_state, _get_sweep_state
api = wandb.Api()
reports = api.reports("team/swept")
print(json.dumps({
    "reports": [[one.id, one.name, one.display_name, one.description, one.user["username"], one.spec, one.created_at,
                 one.url.rpartition("/")[2]] for one in reports],
    "named": [one.id for one in api.reports("team/swept", name="second")],
    "none": [one.id for one in api.reports("team/other")],
}))
_set_sweep_state(api, "abc", "PAUSED", entity="team", project="swept")
print(_get_sweep_state(api, "abc", entity="team", project="swept"))
"""


def test_a_sweep_and_its_agent(tmp_path: Path) -> None:
    """An agent gets each point of a grid once; then the sweep is finished and the agent ends."""
    world = World(entity="team")
    world.add_run("team", "swept", run_id="old").finish()
    with Sandbox(world) as server:
        done = run(server, tmp_path, SWEEP)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    config = {
        "method": "grid",
        "metric": {"goal": "minimize", "name": "loss"},
        "name": "rates",
        "parameters": {"lr": {"values": [0.1, 0.2]}},
    }
    assert found == {
        "facts": ["rates", "FINISHED", 2, config, 1.0],
        "rates": [0.1, 0.2],
        "best": 0.1,
        "agents": [[2, True]],
    }
    (sweep,) = world.projects["team", "swept"].sweeps.values()
    assert sweep.prior_runs == ("old",)


def test_reports_and_the_state_of_a_sweep(tmp_path: Path) -> None:
    """Reports come newest first, saved views apart from them; the client changes the state of a sweep."""
    world = World(username="ada", entity="team")
    world.add_sweep("team", "swept", {"method": "random", "parameters": {}}, sweep_id="abc")
    world.add_project("team", "other")
    first = world.add_report(
        "team", "swept", "As we: began!", {"version": 5, "blocks": []}, description="d", name="one"
    )
    second = world.add_report("team", "swept", "Later", "{}", name="second")
    world.add_report("team", "swept", "My workspace", {"section": {}}, kind="project-view")
    with Sandbox(world) as server:
        done = run(server, tmp_path, REPORTS)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    found = json.loads(lines[-2])
    assert sorted(found["reports"]) == sorted([
        [second.storage_id, "second", "Later", "", "ada", {}, found["reports"][0][6], "Later--" + second.storage_id.rstrip("=")],
        [
            *(first.storage_id, "one", "As we: began!", "d", "ada", {"version": 5, "blocks": []}),
            *(found["reports"][1][6], "As-we-began--" + first.storage_id.rstrip("=")),
        ],
    ])  # fmt: skip
    assert (found["named"], found["none"], lines[-1]) == ([second.storage_id], [], "PAUSED")
