"""Runs are named by their display names wherever they are by their ids."""

from __future__ import annotations

from typing import Any

import pytest

import mirror
from mirror.sandbox import Sandbox, World
from tests.cli.conftest import created


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("deep", "team/vision/bbb"),
        ("vision/deep", "team/vision/bbb"),
        ("team/vision/deep", "team/vision/bbb"),
        ("0.1/0", "team/vision/fff"),
        ("vision/0.1/0", "team/vision/fff"),
        ("team/vision/0.1/0", "team/vision/fff"),
        ("song", "team/audio/ggg"),
        ("aaa", "team/vision/aaa"),
        ("team/vision/aaa", "team/vision/aaa"),
        ("old", "team/vision/old"),
    ],
)
def test_a_name_finds_its_run(look: Any, text: str, path: str) -> None:
    """An id wins over a name, a run over a deleted one, and a name may hold slashes."""
    api = mirror.Api()
    run = api.run(text, deleted=True)
    assert f"{run.entity}/{run.project}/{run.id}" == path
    assert look("history", text).exit_code == 0
    assert look("history", text).stdout == look("history", path).stdout


def test_a_name_of_several_runs_is_an_error_that_lists_them(look: Any) -> None:
    """The newest first; ids find each."""
    listed = (
        f"2 runs are called twice: team/vision/ddd ({created(3)}, finished), team/vision/ccc ({created(2)}, failed)"
    )
    for text in ("twice", "team/vision/twice"):
        outcome = look("history", text)
        assert (outcome.exit_code, outcome.stdout, outcome.stderr) == (1, "", f"error: {listed}\n")
        with pytest.raises(mirror.NotMirrored) as raised:
            mirror.Api().run(text)
        assert str(raised.value) == f"{listed}; name one"


@pytest.mark.parametrize("text", ["team/vision", "vision", "team/vision/"])
def test_a_project_where_a_run_is_wanted_is_said_to_be_one(look: Any, text: str) -> None:
    """With the command that lists its runs."""
    message = "team/vision is a project, not a run; `mirror runs team/vision` lists its runs"
    for command in (["history", text], ["plot", text], ["update", text, "--notes", "x"]):
        outcome = look(*command)
        assert (outcome.exit_code, outcome.stdout, outcome.stderr) == (1, "", f"error: {message}\n")
    with pytest.raises(mirror.NotMirrored, match="team/vision is a project, not a run"):
        mirror.Api().run(text)


def test_a_run_where_a_project_is_wanted_is_said_to_be_one(look: Any) -> None:
    """With its project."""
    outcome = look("query", "--project", "team/vision/bbb")
    assert (outcome.exit_code, outcome.stdout) == (1, "")
    assert outcome.stderr == "error: team/vision/bbb names a run; give its project, team/vision\n"


def test_a_misspelt_name_is_answered_with_the_nearest(look: Any) -> None:
    """By id or by name, whichever is more like it."""
    assert look("history", "baselin").stderr == (
        "error: no run baselin in the mirror; did you mean team/vision/aaa (baseline)?\n"
    )


def test_paths_for_the_server_take_names_too(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of mirrored runs; the server itself only knows ids."""
    world = World()
    for run_id, name in (("r1", "deep run"), ("r2", "twice"), ("r3", "twice"), ("r4", "r1"), ("r6", "lr:0.1 #2?")):
        world.add_run("team", "p", run_id=run_id, name=name, config={"lr": 1}, state="finished")
    with Sandbox(world) as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", server.key)
        assert cli("sync", "team/p").exit_code == 0
        for text in ("lr:0.1 #2?", "p/lr:0.1 #2?", "team/p/lr:0.1 #2?"):
            assert mirror.Api().run(text).id == "r6"
            assert cli("show", text).stdout.startswith("team/p/r6\n")
        for command in ("sync", "flush", "verify"):
            done = cli(command, "team/p/deep run")
            assert done.exit_code == 0, done.stderr
            several = cli(command, "team/p/twice")
            assert (several.exit_code, several.stdout) == (1, "")
            assert several.stderr.startswith("error: 2 runs are called twice: team/p/r")
        world.add_run("team", "p", run_id="r5", name="new", config={}, state="finished")
        assert cli("sync", "team/p/r5").exit_code == 0
        assert cli("show", "new").stdout.startswith("team/p/r5\n")
