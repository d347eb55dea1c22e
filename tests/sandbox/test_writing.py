"""What clients change: runs, rows, files."""

from __future__ import annotations

import gzip
import json
from datetime import datetime, timedelta
from typing import Any

import httpx

from mirror.sandbox import World
from tests.sandbox.conftest import Client

UPSERT = """mutation UpsertBucket($i: UpsertBucketInput!) {
  upsertBucket(input: $i) { bucket { id name displayName project { name entity { name } } } inserted } }"""


def stream(client: Client, run: str, **body: Any) -> httpx.Response:
    return client.http.post(f"/files/my-team/vision/{run}/file_stream", json=body)


def test_upsert_makes_a_run_and_then_changes_it(client: Client, world: World) -> None:
    given = {"entityName": "my-team", "modelName": "fresh", "name": "r1", "displayName": "first", "host": "node-9"}
    made = client.data(UPSERT, i=given)["upsertBucket"]
    run = world.run("my-team", "fresh", "r1")
    assert made == {
        "bucket": {
            "id": run.storage_id,
            "name": "r1",
            "displayName": "first",
            "project": {"name": "fresh", "entity": {"name": "my-team"}},
        },
        "inserted": True,
    }
    changed = {"id": run.storage_id, "tags": ["x"], "config": '{"lr": {"value": 1}}', "summaryMetrics": '{"acc": NaN}'}
    assert client.data(UPSERT, i=changed)["upsertBucket"]["inserted"] is False
    assert (run.tags, run.config, str(run.summary["acc"]), run.name) == (["x"], {"lr": 1}, "nan", "first")


def test_upsert_refuses_what_it_cannot_store(client: Client, world: World) -> None:
    run = world.run("my-team", "vision", "vision00")
    before = run.config_text
    answer = client.post(UPSERT, i={"id": run.storage_id, "config": "[1]"})
    assert answer.status_code == 400
    assert answer.json()["errors"] == [{"message": "config is not a JSON object", "path": ["upsertBucket"]}]
    assert run.config_text == before
    assert client.post(UPSERT, i={"id": "nothing"}).status_code == 404


def test_upsert_refuses_a_sweep_that_the_project_does_not_have(client: Client, world: World) -> None:
    """As the real server does (github:wandb/wandb#8115); no run is made."""
    given = {"entityName": "my-team", "modelName": "fresh", "name": "r1", "sweep": "6obsuqtj"}
    answer = client.post(UPSERT, i=given)
    assert answer.status_code == 404
    assert answer.json()["errors"] == [{"message": "sweep 6obsuqtj not found", "path": ["upsertBucket"]}]
    assert world.find("my-team", "fresh", "r1") is None


def test_delete_removes_the_run_once(client: Client, world: World) -> None:
    delete = "mutation DeleteRun($id: ID!) { deleteRun(input: {id: $id}) { clientMutationId } }"
    run = world.run("my-team", "vision", "vision00")
    client.data(delete, id=run.storage_id)
    assert world.find("my-team", "vision", "vision00") is None
    assert client.post(delete, id=run.storage_id).status_code == 404


def test_the_file_stream_appends_and_a_repeated_request_adds_nothing(client: Client, world: World) -> None:
    run = world.add_run("my-team", "vision", run_id="streamed", config={})
    lines = ['{"_step": 0, "loss": 1.0}', '{"_step": 1, "loss": NaN}']
    for _ in range(2):
        answer = stream(client, "streamed", files={"wandb-history.jsonl": {"offset": 0, "content": lines}})
        assert answer.json() == {"exitcode": None, "limits": {}, "stopped": False}
    stream(client, "streamed", files={"wandb-history.jsonl": {"offset": 2, "content": ['{"_step": 7}']}})
    assert run.history.lines == [*lines, '{"_step": 7}']
    assert run.history.last_step == 7


def test_the_file_stream_writes_lines_over_each_other(client: Client, world: World) -> None:
    """Those behind stay; an offset past the end adds at the end. Source: wandb#12269, wandb#3933."""
    run = world.add_run("my-team", "vision", run_id="placed", config={})

    def lines(offset: int, *steps: int) -> list[int]:
        content = [json.dumps({"_step": step}) for step in steps]
        stream(client, "placed", files={"wandb-history.jsonl": {"offset": offset, "content": content}})
        return run.history.steps

    assert lines(0, 0, 1, 2, 3) == [0, 1, 2, 3]
    assert lines(1, 11, 12) == [0, 11, 12, 3]
    assert lines(3, 3, 4) == [0, 11, 12, 3, 4]
    assert lines(9, 20) == [0, 11, 12, 3, 4, 20]


def test_a_crashed_run_that_sends_again_runs(client: Client, world: World) -> None:
    run = world.add_run("my-team", "vision", run_id="back", state="crashed")
    stream(client, "back", files={})
    assert run.state == "running"
    stream(client, "back", files={}, complete=True, exitcode=0)
    assert run.state == "finished"


def test_the_file_stream_carries_summary_events_console_and_the_end(client: Client, world: World) -> None:
    run = world.add_run("my-team", "vision", run_id="streamed", config={})
    answer = stream(
        client,
        "streamed",
        files={
            "wandb-summary.json": {"offset": 0, "content": ['{"loss": 0.5}']},
            "wandb-events.jsonl": {"offset": 0, "content": ['{"system.cpu": 1.0, "_runtime": 2.0}']},
            "output.log": {"offset": 1, "content": ["2025-01-01T00:00:00 second"]},
        },
        complete=True,
        exitcode=3,
    )
    assert answer.json()["exitcode"] == 3
    assert (run.state, run.exitcode, run.summary, len(run.events)) == ("failed", 3, {"loss": 0.5}, 1)
    assert [line.line for line in run.console] == ["", "second"]


def test_the_file_stream_takes_gzip(client: Client, world: World) -> None:
    run = world.add_run("my-team", "vision", run_id="streamed", config={})
    body = gzip.compress(
        json.dumps({"files": {"wandb-history.jsonl": {"offset": 0, "content": ['{"_step": 4}']}}}).encode()
    )
    answer = client.http.post(
        "/files/my-team/vision/streamed/file_stream", content=body, headers={"Content-Encoding": "gzip"}
    )
    assert answer.status_code == 200
    assert run.history.last_step == 4


def test_the_file_stream_refuses_what_is_no_row(client: Client, world: World) -> None:
    run = world.add_run("my-team", "vision", run_id="streamed", config={})
    for content in (["[1]"], ["{"], [1], "x"):
        chunk = {"offset": 0, "content": content}
        answer = stream(client, "streamed", files={"wandb-history.jsonl": chunk, "output.log": {"content": ["a"]}})
        assert answer.status_code == 400
    assert (len(run.history), run.console) == (0, [])
    assert stream(client, "gone", files={}).status_code == 404
    assert client.http.post("/files/my-team/vision/streamed/file_stream", content=b"{").status_code == 400


def test_logging_moves_both_times_an_edit_one_and_the_server_none(world: World) -> None:
    moments = iter(datetime(2030, 1, 1) + timedelta(seconds=second) for second in range(100))
    world.now = lambda: next(moments)
    run = world.add_run("my-team", "vision", run_id="timed")
    run.log({"loss": 1})
    logged = run.heartbeat_at
    assert run.updated_at == logged == datetime(2030, 1, 1, 0, 0, 1)
    run.edit(tags=["x"])
    assert (run.heartbeat_at, run.updated_at) == (logged, datetime(2030, 1, 1, 0, 0, 2))
    run.set_state("crashed")
    assert (run.heartbeat_at, run.updated_at) == (logged, datetime(2030, 1, 1, 0, 0, 2))
    run.finish()
    assert run.heartbeat_at == run.updated_at == datetime(2030, 1, 1, 0, 0, 3)


def test_rows_and_summary_as_the_client_would_write_them(world: World) -> None:
    run = world.add_run("my-team", "vision", run_id="logged", created_at=datetime(2030, 1, 1))
    world.now = lambda: datetime(2030, 1, 1, 0, 0, 9)
    run.log({"a": {"x": 1}, "loss": 2}, timestamp=1893456002.5)
    run.log({"a": {"y": 2}})
    run.log({"late": True}, step=7)
    run.log({"more": "text"}, step=7)
    assert run.rows() == [
        {"a": {"x": 1}, "loss": 2, "_step": 0, "_timestamp": 1893456002.5, "_runtime": 2.5},
        {"a": {"y": 2}, "_step": 1, "_timestamp": 1893456009.0, "_runtime": 9.0},
        {"late": True, "more": "text", "_step": 7, "_timestamp": 1893456009.0, "_runtime": 9.0},
    ]
    assert run.summary == {
        "a": {"x": 1, "y": 2}, "loss": 2, "late": True, "more": "text",
        "_step": 7, "_timestamp": 1893456009.0, "_runtime": 9.0,
    }  # fmt: skip


def test_edits_replace_what_is_the_users(world: World) -> None:
    run = world.run("my-team", "vision", "vision00")
    run.edit(config={"new": 1}, summary={"acc": 1}, display_name="renamed", group="g", notes="n", tags=[])
    assert run.config == {"new": 1}
    assert set(run.config_document or {}) == {"new", "_wandb"}
    assert set(run.summary) == {"acc", "_step", "_runtime", "_timestamp"}
    assert (run.name, run.labels.group, run.labels.notes, run.tags) == ("renamed", "g", "n", [])


def test_files_are_listed_uploaded_and_fetched(client: Client, world: World) -> None:
    run = world.run("my-team", "vision", "vision00")
    create = """mutation C($n: [String!]!) { createRunFiles(input: {entityName: "my-team", projectName: "vision",
      runName: "vision00", files: $n}) { runID uploadHeaders files { name uploadUrl } } }"""
    created = client.data(create, n=["media/ä b.txt"])["createRunFiles"]
    assert created["runID"] == run.storage_id
    assert httpx.put(created["files"][0]["uploadUrl"], content=b"hello").status_code == 200
    query = """query F($p: String, $n: [String]) { project(name: "vision") { run(name: "vision00") { fileCount
      files(pattern: $p, names: $n) { edges { node { id name sizeBytes mimetype md5 url directUrl } } } } } }"""
    listed = client.data(query, p="media/%.txt")["project"]["run"]
    (file,) = [edge["node"] for edge in listed["files"]["edges"]]
    assert listed["fileCount"] == 2
    assert {key: file[key] for key in ("name", "sizeBytes", "mimetype", "md5")} == {
        "name": "media/ä b.txt",
        "sizeBytes": 5,
        "mimetype": "text/plain",
        "md5": "XUFAKrxLKna5cZ2REBfFkg==",
    }
    assert httpx.get(file["directUrl"]).content == b"hello"
    assert httpx.get(file["url"]).status_code == 401
    assert client.http.get(file["url"]).content == b"hello"
    assert client.data(query, n=["wandb-metadata.json"])["project"]["run"]["files"]["edges"][0]["node"]["sizeBytes"] > 2
    client.data("mutation D($f: [ID!]!) { deleteFiles(input: {files: $f}) { success } }", f=[file["id"]])
    assert client.http.get(file["url"]).status_code == 404


def test_state_changes_that_the_server_allows(client: Client, world: World) -> None:
    change = "mutation S($id: ID!, $s: String!) { updateRunState(input: {id: $id, state: $s}) { success } }"
    stop = "mutation X($id: ID!) { stopRun(input: {id: $id}) { success } }"
    run = world.run("my-team", "vision", "vision03")
    assert client.data(stop, id=run.storage_id) == {"stopRun": {"success": True}}
    assert client.data('{ project(name: "vision") { run(name: "vision03") { stopped } } }')["project"]["run"]["stopped"]
    assert client.data(change, id=run.storage_id, s="failed") == {"updateRunState": {"success": True}}
    assert client.errors(change, id=run.storage_id, s="finished") == ["invalid state transition: failed to finished"]
