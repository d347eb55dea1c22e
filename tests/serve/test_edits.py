"""Runs that are edited by way of the endpoint are read as they are then, although no pass is due for an hour."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mirror.control import Control
from mirror.sandbox import World
from mirror.sandbox.run import Run
from mirror.serve import bodies, touched
from tests.daemon.conftest import Bench
from tests.serve.conftest import Served, served

pytestmark = pytest.mark.xdist_group("edits")

SOON = "from mirror.serve import edits; edits.DELAY, edits.PAUSE = 0.1, 0.1"
IMPATIENT = "from mirror.serve import edits; edits.PATIENCE, edits.ANSWER_SECONDS = 0.1, 2"

START = """mutation ($id: String, $name: String, $tags: [String!]) { upsertBucket(
    input: {id: $id, entityName: "team", modelName: "p", name: $name, host: "h", tags: $tags}) { bucket { id } } }"""
EDIT = "mutation ($id: String!, $notes: String) { upsertBucket(input: {id: $id, notes: $notes}) { bucket { id } } }"
RUN = 'query ($name: String!) { project(name: "p", entityName: "team") { run(name: $name) { notes } } }'
LIST = """query ($filters: JSONString) { project(name: "p", entityName: "team") {
    runCount(filters: $filters) runs(filters: $filters) { edges { node { name state notes } } } } }"""


def a_world() -> World:
    world = World(username="ada", entity="team")
    for index in range(4):
        run = world.add_run("team", "p", run_id=f"run{index}", config={"lr": index}, tags=["old"])
        run.log({"loss": 1.0})
        run.finish()
    return world


@pytest.fixture(scope="module")
def site() -> Iterator[Served]:
    with served(a_world(), '["team/*"]', prelude=SOON) as made:
        yield made


@contextmanager
def where_pulls_hang(**settings: str) -> Iterator[Served]:
    """A site whose passes hang from now on, while the server answers everything else."""
    with served(a_world(), '["team/p"]', prelude=IMPATIENT, **settings) as made:
        made.server.faults.add("latency", None, "MirrorRuns", seconds=60)
        yield made


def run_of(site: Served, run_id: str) -> Run:
    return site.world.run("team", "p", run_id)


def edit(site: Served, run_id: str, notes: str) -> None:
    assert "errors" not in site.ask(EDIT, id=run_of(site, run_id).storage_id, notes=notes)


def listed(site: Served, **filters: Any) -> dict[str, tuple[str, str | None]]:
    found = site.ask(LIST, filters=json.dumps(filters))["data"]["project"]
    nodes = [edge["node"] for edge in found["runs"]["edges"]]
    assert found["runCount"] == len(nodes)
    return {node["name"]: (node["state"], node["notes"]) for node in nodes}


def notes_of(site: Served, run_id: str) -> str | None:
    notes: str | None = site.ask(RUN, name=run_id)["data"]["project"]["run"]["notes"]
    return notes


def test_what_a_script_edits_it_reads_back(site: Served) -> None:
    text = """
import json, wandb
def run(name): return wandb.Api().run("team/p/" + name)
def ids(**filters): return sorted(run.id for run in wandb.Api().runs("team/p", filters))
def tell(*values): print(json.dumps(values))

edited = run("run0")
edited.config["seed"], edited.display_name, edited.group, edited.tags = 7, "best", "g", ["new"]
edited.update()
read = run("run0")
tell(read.config, read.name, read.group, read.tags)
tell(ids(tags="new"), ids(**{"config.seed": 7}), ids(group="g"))
for name in ("run1", "run2"):
    other = run(name)
    other.summary.update({"test": 3})
tell(run("run1").summary["test"], ids(**{"summary_metrics.test": 3}))
run("run3").delete()
tell(ids(), len(wandb.Api().runs("team/p")))
try:
    run("run3")
except wandb.CommError:
    tell("gone")
made = wandb.Api().create_run(run_id="made", project="p", entity="team")
tell(ids(), made.id)
wandb.Api().create_project("q", "team")
tell(sorted(project.name for project in wandb.Api().projects("team")))
"""
    assert site.script(site.address, text) == [
        [{"lr": 0, "seed": 7}, "best", "g", ["new"]],
        [["run0"], ["run0"], ["run0"]],
        [3, ["run1", "run2"]],
        [["run0", "run1", "run2"], 3],
        ["gone"],
        [["made", "run0", "run1", "run2"], "made"],
        [["p", "q"]],
    ]


def test_an_edit_is_mirrored_without_anyone_reading_it_and_then_the_server_is_not_asked(site: Served) -> None:
    edit(site, "run0", "unread")
    Bench.until(lambda: site.sql("select notes from runs where run_id = 'run0'") == [("unread",)])
    # The pull may not have ended yet, for which a list waits.
    listed(site)
    site.server.reset_counts()
    assert listed(site)["run0"] == ("finished", "unread")
    assert notes_of(site, "run0") == "unread"
    assert not site.server.requests


def test_a_change_whose_answer_was_lost_is_read_back(site: Served) -> None:
    site.server.faults.add("reset", 1, about="upsertBucket")
    answer = site.ask(EDIT, id=run_of(site, "run1").storage_id, notes="unsure")
    assert "changes go to the server" in answer["errors"][0]["message"]
    assert listed(site)["run1"] == ("finished", "unsure")


def test_a_body_that_cannot_be_looked_at_is_none_that_ends_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    end = gzip.compress(b'{"complete": true, "exitcode": 0}')
    assert touched.ended_run("team/p/a/file_stream", end, "gzip") == ("team", "p", "a")
    damaged = end[:10] + bytes([7]) + end[11:]
    with pytest.raises(zlib.error):
        gzip.decompress(damaged)
    assert touched.ended_run("team/p/a/file_stream", damaged, "gzip") is None
    monkeypatch.setattr(bodies, "MOST_BYTES", 20)
    assert touched.ended_run("team/p/a/file_stream", end, "gzip") is None


def test_a_run_is_listed_from_its_start_on_and_ended_with_its_process_but_its_lines_cause_no_pull(site: Served) -> None:
    stream = "/files/team/p/process/file_stream"
    storage_id = site.ask(START, name="process")["data"]["upsertBucket"]["bucket"]["id"]
    assert listed(site)["process"] == ("running", None)
    # Passes follow it more often from now on.
    assert Control(site.home / "mirror.sock").status()["projects"]["team/p"]["live"] is True
    site.server.reset_counts()
    with site.client() as client:
        client.post(
            stream, json={"files": {"wandb-history.jsonl": {"offset": 0, "content": ['{"_step": 0, "loss": 1}']}}}
        )
        assert "errors" not in site.ask(START, name="process", tags=["while it runs"])
        assert listed(site)["process"] == ("running", None)
        assert dict(site.server.requests) == {"file_stream": 1, "upsertBucket": 1}
        client.post(stream, json={"complete": True, "exitcode": 0})
    assert listed(site, tags="while it runs")["process"] == ("finished", None)
    assert site.sql("select history_rows from runs where run_id = 'process'") == [(1,)]
    assert "errors" not in site.ask(START, id=storage_id, name="process")
    assert listed(site)["process"] == ("running", None)


def test_where_no_pull_succeeds_in_time_the_server_is_asked_and_where_it_fails_the_mirror_answers() -> None:
    with where_pulls_hang() as site:
        edit(site, "run0", "new")
        site.server.faults.add("502", 1)
        assert listed(site)["run0"] == ("finished", "new")
        site.server.faults.add("502", None)
        assert listed(site)["run0"] == ("finished", None)
        assert notes_of(site, "run0") is None


def test_a_list_has_no_runs_that_the_config_leaves_out() -> None:
    with where_pulls_hang(sync='filters = {"config.lr" = {"$lt" = 4}}\n') as site:
        site.world.add_run("team", "p", run_id="other", config={"lr": 4}).finish()
        edit(site, "run0", "new")
        assert listed(site) == {f"run{index}": ("finished", None) for index in range(4)}
        assert notes_of(site, "run0") == "new"
        site.server.stop()
        assert notes_of(site, "run0") is None
