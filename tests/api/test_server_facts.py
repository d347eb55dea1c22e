"""What the server reported of projects, runs and the owner of the key is answered by the mirror, without the server."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb

import mirror
from mirror.sandbox import sample
from mirror.settings.home import Home
from tests.api.conftest import Bench, bench
from tests.conftest import InProcess
from tests.local.kit import ingest, run_file

pytestmark = pytest.mark.xdist_group("official")

USER = ("id", "name", "username", "email", "admin", "flags", "entity", "deleted_at", "deletedAt", "teams", "api_keys")
PROJECT = ("id", "name", "entity", "entity_name", "path", "created_at", "createdAt", "is_benchmark", "isBenchmark")
RUN = ("system_metrics", "systemMetrics", "read_only", "readOnly", "project_id", "projectId", "lastHistoryStep")


def reported(api: Any) -> dict[str, Any]:
    """What a script would ask, by name."""
    project = api.project("vision", "my-team")
    runs = sorted(api.runs("my-team/vision"), key=lambda run: run.id)
    return {
        "viewer": {name: getattr(api.viewer, name) for name in USER} | {"shown": repr(api.viewer)},
        "default_entity": api.default_entity,
        "project": {name: getattr(project, name) for name in PROJECT} | {"shown": repr(project), "url": project.url},
        "owner": {name: getattr(project.owner, name) for name in ("id", "name", "username", "email", "entity")},
        "of the entity that is meant": api.project("vision").path,
        "runs": [{name: getattr(run, name) for name in RUN} for run in runs],
        "users": [
            (repr(run.user), run.user.name, run.user.username, run.user.teams, run.user.api_keys) for run in runs
        ],
        "console": [
            (line.number, line.timestamp, line.level, line.label, line.content)
            for line in api.run("my-team/vision/measured").console_logs()
        ],
        "silent": [repr(logs := api.run("my-team/vision/silent").console_logs()), next(logs, "end"), list(logs)],
        "rawconfig": [run.rawconfig for run in map(api.run, (f"my-team/vision/{run.id}" for run in runs))],
    }


@pytest.fixture(scope="module")
def cut_off() -> Iterator[tuple[dict[str, Any], Bench]]:
    """What the official client said, and the mirror after the server is gone."""
    world = sample.small()
    run = world.add_run("my-team", "vision", run_id="measured")
    run.log({"loss": 1.0})
    run.log_system({"system.cpu": 12.5, "system.gpu.0.temp": 61.0})
    run.write_console(0, ["2025-03-03T12:00:00.500000 started", "ERROR 2025-03-03T12:01:00.500000 [rank1] broken"])
    run.finish()
    other = world.add_run("acme", "vision", run_id="other")
    other.finish()
    world.add_run("my-team", "vision", run_id="silent").finish()
    with bench(world, console=True) as made:
        theirs = reported(wandb.Api(timeout=20))
        wandb.teardown()
        made.server.stop()
        yield theirs, made


def test_what_the_mirror_holds_it_tells_without_the_server(cut_off: tuple[dict[str, Any], Bench]) -> None:
    """As the official client reported it."""
    theirs, _ = cut_off
    ours = reported(mirror.Api(timeout=1))
    assert ours == theirs
    assert [run for run in ours["runs"] if run["system_metrics"]] != []
    assert ours["silent"] == ["<ConsoleLogs my-team/vision/silent>", "end", []]
    assert [line[2:] for line in ours["console"]] == [("", "", "started"), ("error", "rank1", "broken")]


def test_an_attribute_that_the_server_did_not_report_is_none(cut_off: tuple[dict[str, Any], Bench]) -> None:
    """An AttributeError, also while an object is copied."""
    api = mirror.Api(timeout=1)
    run, project = api.run("my-team/vision/measured"), api.project("vision", "my-team")
    for thing in (run, run.user, project, api.viewer):
        for name in ("nope", "_nope"):
            with pytest.raises(AttributeError, match=name):
                getattr(thing, name)
    with pytest.raises(AttributeError):
        run.user.email  # noqa: B018
    assert copy.copy(run.user) == run.user
    assert copy.copy(project) == project


def test_what_only_the_server_has_is_a_comm_error(cut_off: tuple[dict[str, Any], Bench]) -> None:
    api = mirror.Api(timeout=1)
    run, project = api.run("my-team/vision/measured"), api.project("vision", "my-team")
    for ask in (
        lambda: api.user("ada"),
        lambda: api.create_run(project="vision", entity="my-team"),
        lambda: list(run.logged_artifacts()),
        lambda: list(run.used_artifacts()),
        lambda: run.download_history_exports("."),
        run.stop,
        lambda: run.update_state("failed"),
        lambda: run.files(["a"])[0],
        lambda: project.sweeps(filters={"state": "finished"}),
    ):
        with pytest.raises(mirror.CommError):
            ask()


def test_the_pages_of_a_list_of_the_official_client_are_asked_for_with_care(small: Bench) -> None:
    """A server that refuses one is a CommError, also when it is read later."""
    listed = mirror.Api().run("my-team/vision/vision00").logged_artifacts()
    small.server.faults.add("graphql", times=None, operation="RunOutputArtifacts")
    with pytest.raises(mirror.CommError, match="An internal error occurred"):
        list(listed)


def test_a_frame_that_is_hidden_has_a_button_that_shows_it(api: Any) -> None:
    """As the official client's."""
    project = api.project("vision", "my-team")
    theirs = wandb.Api().project("vision", "my-team").to_html(100, hidden=True)
    assert project.to_html(100, hidden=True).replace("&amp;", "&") == theirs.replace("'http", '"http').replace(
        "=true' style='", '=true" style="'
    ).replace("none;'></iframe>", 'none;"></iframe>')
    wandb.teardown()


def test_a_run_that_no_server_has_is_described_by_its_file(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", tmp_path / "home" / "config.toml")
    file = run_file(tmp_path / "wandb", entity="team", project="p").lines(0, 3)
    file.stats(1, cpu=10.0).stats(2, cpu=12.5).exit()
    assert [result.error for result in ingest(home, tmp_path / "wandb", system_metrics=True)] == [None]
    run = mirror.Api(home=home.data, timeout=1).run("team/p/r1")
    assert run.system_metrics == run.systemMetrics == {"system.cpu": 12.5}
    assert run.history_keys["keys"]["loss"] == {
        "typeCounts": [{"type": "number", "count": 3}], "monotonic": False, "previousValue": 1 / 3,
    }  # fmt: skip
    assert run.history_keys["keys"]["_step"] == {
        "typeCounts": [{"type": "number", "count": 3}], "monotonic": True, "previousValue": 2,
    }  # fmt: skip


def test_the_axis_of_define_metric_plays_no_part_in_history(small: Bench) -> None:
    """Nor does it in the official client: with `x_axis` only rows that hold it count. The command follows it."""
    defined = {"m": [{"1": "epoch", "6": [3]}, {"2": "val/*", "5": 1, "6": [2, 3], "7": [1]}]}
    run = small.world.add_run("my-team", "vision", run_id="axes", config={}, wandb_config=defined)
    for row in ({"epoch": 1}, {"val/loss": 0.5}, {"epoch": 2, "val/loss": 0.25}, {"loss": 3.0}, {"val/loss": 0.125}):
        run.log(row)
    run.finish()
    small.rig.sync("my-team/vision")
    theirs, ours = (api.run("my-team/vision/axes") for api in (wandb.Api(timeout=20), mirror.Api()))
    whole = [{"_step": 1, "val/loss": 0.5}, {"_step": 2, "val/loss": 0.25}, {"_step": 4, "val/loss": 0.125}]
    for keys, expected in (
        (["val/loss"], whole),
        (["epoch", "val/loss"], [{"_step": 2, "epoch": 2, "val/loss": 0.25}]),
    ):
        assert theirs.history(keys=keys, pandas=False) == ours.history(keys=keys, pandas=False) == expected
        assert list(theirs.scan_history(keys=keys)) == list(ours.scan_history(keys=keys)) == expected
    over = [{"epoch": 2, "val/loss": 0.25}]
    for one in (theirs, ours):
        assert one.history(keys=["val/loss"], x_axis="epoch", pandas=False) == over
    assert list(ours.history(keys=["val/loss"]).columns) == ["_step", "val/loss"]
    shown = InProcess()("history", "my-team/vision/axes", "--keys", "val/loss").stdout
    assert shown == "step\tepoch\tval/loss\n1\t1.0\t0.5\n2\t2.0\t0.25\n4\t2.0\t0.125\n"
    wandb.teardown()
