"""What the mirror does not hold comes from the server, by the official client."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import wandb

import mirror
from mirror.sandbox import sample
from mirror.sandbox.sweep import Sweep
from tests.api.conftest import Bench, bench

pytestmark = pytest.mark.xdist_group("official")


@pytest.fixture(scope="module")
def there() -> Iterator[Bench]:
    world = sample.small()
    for index in range(3):
        run = world.add_run("acme", "vision", run_id=f"swept{index}", sweep="sw1")
        run.log({"loss": 3.0 - index})
        run.finish()
    text = "method: grid\nmetric: {name: loss, goal: minimize}\nparameters: {lr: {values: [1, 2, 3]}}\n"
    sweep = Sweep("sw1", "acme", "vision", datetime(2026, 1, 1), text, method="grid", expected_runs=3)
    world.projects["acme", "vision"].sweeps["sw1"] = sweep
    with bench(world) as made:
        yield made
        wandb.teardown()


@pytest.fixture
def api(there: Bench) -> Any:
    return mirror.Api()


def test_the_key_and_the_organization_are_those_of_the_call(api: Any, there: Bench) -> None:
    """As the official client has them; an organization is only for the server."""
    assert (api.api_key, mirror.Api(api_key="k" * 40).api_key) == (there.server.key, "k" * 40)
    ours = mirror.Api({"organization": "org"})
    assert (ours.settings["organization"], api.settings["organization"]) == ("org", None)
    assert ours.session.official.settings["organization"] == "org"


def test_a_run_is_created_on_the_server_then_mirrored(api: Any, there: Bench) -> None:
    run = api.create_run(project="vision", entity="acme", run_id="made1")
    assert (run.path, run.state) == (["acme", "vision", "made1"], "running")
    assert [one.id for one in mirror.Api().runs("acme/vision", {"name": "made1"})] == ["made1"]
    assert there.world.run("acme", "vision", "made1") is not None


def test_a_file_is_uploaded_listed_and_deleted(api: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("as uploaded")
    run = api.runs("acme/vision")[0]
    file = run.upload_file(str(tmp_path / "notes.txt"), root=str(tmp_path))
    assert (file.name, file.size, file.read()) == ("notes.txt", 11, b"as uploaded")
    assert [one.name for one in run.files(["notes.txt"])] == ["notes.txt"]
    run.file("notes.txt").delete()
    assert len(run.files(["notes.txt"])) == 0


def test_paths_lead_to_what_they_name(api: Any) -> None:
    run = api.runs("acme/vision")[0]
    assert api.from_path(f"acme/vision/runs/{run.id}") is api.run(f"acme/vision/{run.id}")
    assert api.from_path("acme/vision").path == ["acme", "vision"]
    with pytest.raises(mirror.errors.ArgumentError, match="runs/id"):
        api.from_path("a/b/c/d/e")


def test_without_the_official_client_the_error_says_what_to_install(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(mirror.errors.MissingPackage, match="pip install wandb"):
        api.artifact("acme/vision/model:latest")


def test_a_list_shows_itself_in_a_notebook(api: Any) -> None:
    runs = api.runs("acme/vision")
    assert [run.id for run in runs.objects] == [run.id for run in runs]
    html = runs._repr_html_()
    assert html.count("<tr>") == 1 + len(runs)
    assert not runs[0].display()


def test_addresses_of_pages_are_those_of_the_official_client(api: Any) -> None:
    official = wandb.Api()
    project = api.project("vision", "acme")
    assert project.url == official.project("vision", "acme").url
    assert api.run("acme/vision/swept0").sweep.url == official.sweep("acme/vision/sw1").url
    assert project.to_html(height=100) == (
        f'<iframe src="{project.url}?jupyter=true" style="border:none;width:100%;height:100px;"></iframe>'
    )


def test_a_sweep_tells_its_config_and_its_best_run(api: Any) -> None:
    """Its runs are mirrored; how it searches is asked of the server."""
    sweep = api.sweep("acme/vision/sw1")
    assert sweep.config["metric"] == {"name": "loss", "goal": "minimize"}
    assert (sweep.expected_run_count, sweep.order) == (3, wandb.Api().sweep("acme/vision/sw1").order)
    assert [run.id for run in sweep.runs] == ["swept0", "swept1", "swept2"]
    assert sweep.best_run().id == "swept2"
    assert sweep.best_run("-summary_metrics.loss").id == "swept0"
    with pytest.raises(mirror.CommError):
        api.sweep("acme/vision/none")


def test_a_server_out_of_reach_is_not_waited_for_again_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The official client takes its whole timeout to find that out; a loop over runs must not take it each time."""
    clock, tries = [1000.0], []

    def connect(*_: Any) -> Any:
        tries.append(clock[0])
        if len(tries) < 3:
            raise mirror.CommError("no answer", TimeoutError())
        return "there"

    monkeypatch.setattr("mirror.api.official.connect", connect)
    monkeypatch.setattr("mirror.api.session.monotonic", lambda: clock[0])
    session = mirror.Api(home=tmp_path).session
    for clock[0] in (1000.0, 1009.0, 1011.0, 1020.0):
        with pytest.raises(mirror.CommError, match="no answer") as refused:
            _ = session.official
        assert isinstance(refused.value.exc, TimeoutError)
    assert str(refused.value) == "no answer; it is asked again in a moment"
    clock[0] = 1022.0
    assert (session.official, session.official, tries) == ("there", "there", [1000.0, 1011.0, 1022.0])
