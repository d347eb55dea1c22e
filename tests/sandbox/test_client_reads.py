"""The official client reads the server, and gets exactly what was put in."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mirror.sandbox import Run, Sandbox, World, sample
from tests.sandbox.official import environment

pytestmark = pytest.mark.xdist_group("client")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sandbox, Any]]:
    """A server, and the client's Api on it. The client's own service process ends with the module."""
    folder = tmp_path_factory.mktemp("official")
    before = dict(os.environ)
    with Sandbox(sample.small()) as server:
        os.environ.clear()
        os.environ.update(environment(server, folder))
        import wandb

        try:
            yield server, wandb.Api(timeout=20)
        finally:
            wandb.teardown()
            os.environ.clear()
            os.environ.update(before)


@pytest.fixture
def server(home: tuple[Sandbox, Any]) -> Sandbox:
    return home[0]


@pytest.fixture
def api(home: tuple[Sandbox, Any]) -> Any:
    return home[1]


@pytest.fixture
def world(home: tuple[Sandbox, Any]) -> World:
    return home[0].world


def put(world: World, run: str, project: str = "vision") -> Run:
    return world.run("my-team", project, run)


@pytest.fixture
def scratch(world: World) -> Iterator[Run]:
    """A run of a hundred rows that a test may change, in a project of its own."""
    run = world.add_run("my-team", "scratch", config={"lr": 0.1, "deep": {"er": [1, 2]}}, tags=["old"])
    run.log_many({"loss": 100.5 - step, "odd" if step % 2 else "even": f"{step}"} for step in range(100))
    run.finish()
    yield run
    world.projects.pop(("my-team", "scratch"), None)


def test_who_it_is_and_what_there_is(api: Any) -> None:
    assert (api.viewer.username, api.default_entity) == ("ada", "my-team")
    assert {project.name for project in api.projects("my-team")} == {"vision", "oddities"}


def test_runs_with_order_and_pages(api: Any, world: World) -> None:
    runs = api.runs("my-team/vision", order="-created_at", per_page=2)
    assert len(runs) == 5
    assert [run.id for run in runs] == ["vision04", "vision03", "vision02", "vision01", "vision00"]
    assert api.runs("my-team/vision", order="+config.batch_size.value")[0].id == "vision00"
    best = max(world.runs("my-team", "vision"), key=lambda run: run.summary["train/acc"])
    assert api.runs("my-team/vision", order="-summary_metrics.train/acc")[0].id == best.run_id


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"state": "failed"}, ["vision02"]),
        ({"$or": [{"config.batch_size": 32}, {"display_name": {"$regex": "^still"}}]}, ["vision00", "vision03"]),
        ({"config.model.value.depth": {"$in": [34]}}, ["vision01", "vision04"]),
        ({"summary_metrics.loss": {"$gt": 1e9}}, []),
        ({"tags": "gpu", "username": {"$ne": "ada"}}, ["vision02"]),
    ],
)
def test_runs_with_filters(api: Any, filters: dict[str, Any], found: list[str]) -> None:
    runs = api.runs("my-team/vision", filters=filters)
    assert len(runs) == len(found)
    assert [run.id for run in runs] == found


@pytest.mark.parametrize("project", ["vision", "oddities"])
@pytest.mark.parametrize("lazy", [True, False])
def test_every_run_is_what_was_put_in(api: Any, world: World, project: str, lazy: bool) -> None:
    runs = api.runs(f"my-team/{project}", lazy=lazy)
    assert len(runs) == len(world.runs("my-team", project))
    for run in runs:
        there = put(world, run.id, project)
        assert (run.name, run.state, run.tags, run.notes) == (there.name, there.state, there.tags, there.labels.notes)
        assert (run.group, run.job_type, run.commit) == (there.labels.group, there.labels.job_type, there.labels.commit)
        assert run.user.username == there.labels.user
        assert run.config == there.config
        assert repr(run.summary._json_dict) == repr(there.summary)
        assert run.lastHistoryStep == there.history.last_step


def test_history_as_a_frame_and_as_rows(api: Any, world: World) -> None:
    run, there = api.run("my-team/vision/vision00"), put(world, "vision00")
    assert run.history(pandas=False) == there.rows()
    frame = run.history()
    assert list(frame["_step"]) == list(range(100))
    assert list(frame["loss"]) == [row["loss"] for row in there.rows()]
    assert len(run.history(samples=7, pandas=False)) == 7
    assert run.history(keys=["loss", "val/acc"], pandas=False) == [
        {"_step": row["_step"], "loss": row["loss"], "val/acc": row["val/acc"]}
        for row in there.rows()
        if "val/acc" in row
    ]
    assert list(run.history(stream="system")["system.cpu"]) == [40.0, 41.0, 42.0, 43.0]


def test_scan_history_of_live_rows(api: Any, world: World) -> None:
    for run in api.runs("my-team/oddities"):
        scanned = list(run.scan_history(page_size=100_000))
        there = put(world, run.id, "oddities").rows()
        assert repr([sorted(row.items(), key=lambda item: item[0]) for row in plain(scanned)]) == repr(
            [sorted(row.items(), key=lambda item: item[0]) for row in plain(there)]
        )


def plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with whole floats as integers: the client's core does not tell 2.0 from 2."""
    return [{key: whole(value) for key, value in row.items()} for row in rows]


def whole(value: Any) -> Any:
    if isinstance(value, float) and math.isfinite(value) and value == int(value) and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {key: whole(value[key]) for key in sorted(value)}
    return [whole(item) for item in value] if isinstance(value, list) else value


def test_scan_history_by_pages_bounds_and_keys(api: Any, server: Sandbox, world: World) -> None:
    run, rows = api.run("my-team/vision/vision00"), put(world, "vision00").rows()
    server.reset_counts()
    assert [row["_step"] for row in run.scan_history(page_size=30)] == list(range(100))
    assert server.requests["HistoryPage"] == 4
    assert [row["_step"] for row in run.scan_history(min_step=10, max_step=20)] == list(range(10, 20))
    with_accuracy = [row["val/acc"] for row in rows if "val/acc" in row]
    assert [row["val/acc"] for row in run.scan_history(keys=["val/acc"])] == with_accuracy


def test_scan_history_of_exported_rows(api: Any, server: Sandbox, scratch: Run) -> None:
    scratch.export_history()
    run = api.run(scratch.path)
    server.reset_counts()
    scanned = list(run.scan_history(use_cache=False))
    assert (server.requests["parquet"], server.requests["HistoryPage"]) == (1, 0)
    assert [{key: value for key, value in row.items() if value is not None} for row in scanned] == scratch.rows()


def test_scan_history_by_keys_of_an_exported_run_reads_parts_of_the_file(
    api: Any, server: Sandbox, scratch: Run
) -> None:
    scratch.export_history()
    run = api.run(scratch.path)
    server.reset_counts()
    scanned = [row for row in run.scan_history(keys=["odd"], use_cache=False) if row["odd"] is not None]
    assert [(row["_step"], row["odd"]) for row in scanned] == [(step, str(step)) for step in range(1, 100, 2)]
    assert server.requests["parquet"] >= 1


def test_scan_history_across_exported_and_live_rows(api: Any, scratch: Run) -> None:
    """With pages that end where the export ends; a page across that border comes twice in the client."""
    scratch.export_history(upto_step=59)
    run = api.run(scratch.path)
    assert [row["_step"] for row in run.scan_history(page_size=20, use_cache=False)] == list(range(100))


def test_files(api: Any, tmp_path: Path, scratch: Run) -> None:
    scratch.add_file("notes/read me.txt", "grüße")
    scratch.add_file("wandb-metadata.json", '{"host": "here"}')
    run = api.run(scratch.path)
    assert [file.name for file in run.files()] == ["notes/read me.txt", "wandb-metadata.json"]
    with run.file("notes/read me.txt").download(root=str(tmp_path)) as handle:
        assert handle.read() == "grüße"
    assert run.metadata == {"host": "here"}
    (tmp_path / "up.txt").write_text("from here")
    assert run.upload_file(str(tmp_path / "up.txt"), root=str(tmp_path)).size == 9
    assert scratch.files["up.txt"].content == b"from here"


def test_console_logs(api: Any, scratch: Run) -> None:
    scratch.write_console(0, [f"2025-03-03T09:00:00.00000{n} line {n}" for n in range(5)])
    run = api.run(scratch.path)
    assert [line.content for line in run.console_logs(per_page=2)] == [f"line {n}" for n in range(5)]
    assert [line.content for line in run.console_logs(last=2)] == ["line 3", "line 4"]


def test_update_changes_config_tags_notes_and_summary(api: Any, scratch: Run) -> None:
    heartbeat, before = scratch.heartbeat_at, scratch.updated_at
    telemetry = (scratch.config_document or {})["_wandb"]
    run = api.run(scratch.path)
    run.config["lr"] = 0.5
    run.config["neu"] = {"a": [1]}
    run.tags.append("x")
    run.notes = "from the client"
    run.name = "renamed"
    run.summary["acc"] = 0.9
    run.update()
    assert scratch.config == {"lr": 0.5, "deep": {"er": [1, 2]}, "neu": {"a": [1]}}
    assert {**(scratch.config_document or {})["_wandb"], "desc": None} == {**telemetry, "desc": None}
    assert (scratch.tags, scratch.labels.notes, scratch.name) == (["old", "x"], "from the client", "renamed")
    assert scratch.summary == {**scratch.rows()[-1], "even": "98", "acc": 0.9}
    assert scratch.heartbeat_at == heartbeat
    assert scratch.updated_at > before


def test_delete(api: Any, world: World, scratch: Run) -> None:
    api.run(scratch.path).delete()
    assert world.runs("my-team", "scratch") == []
    with pytest.raises(Exception, match="Could not find run"):
        api.run(f"my-team/scratch/{scratch.run_id}").load(force=True)


def test_what_is_not_there_or_not_understood(api: Any) -> None:
    with pytest.raises(ValueError, match="Could not find project nope"):
        len(api.runs("my-team/nope"))
    with pytest.raises(Exception, match="unknown operator"):
        len(api.runs("my-team/vision", filters={"state": {"$foo": 1}}))


def test_the_client_gets_over_faults(api: Any, server: Sandbox) -> None:
    server.reset_counts()
    for kind in ("429", "502"):
        server.faults.add(kind, operation="Runs", retry_after=0.05)
    assert len(api.runs("my-team/vision", filters={"state": {"$ne": "not asked before"}})) == 5
    assert server.faults.counts == {"429": 1, "502": 1}
