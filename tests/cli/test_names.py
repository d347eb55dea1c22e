"""Runs are named by their display names wherever they are by their ids."""

from __future__ import annotations

from pathlib import Path
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


MIRRORED = "mirrored: team/audio, team/vision"
TOLD = {
    "visoin": f"no project visoin in the mirror; did you mean team/vision? {MIRRORED}",
    "team/visoin": f"no project team/visoin in the mirror; did you mean team/vision? {MIRRORED}",
    "taem/vision": f"no project taem/vision in the mirror; did you mean team/vision? {MIRRORED}",
    "speach": f"no project speach in the mirror; did you mean team/speech? {MIRRORED}",
    "team/speech": "team/speech is in the config, but nothing of it is mirrored yet: run `mirror sync`",
    "nothing": f"no project nothing in the mirror; {MIRRORED}",
}


@pytest.fixture
def configured(look: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The command with a config that has one project more than the mirror."""
    config = tmp_path / "config.toml"
    config.write_text('projects = ["team/vision", "team/speech", "team/a*"]\n')
    monkeypatch.setenv("MIRROR_CONFIG", str(config))
    return look


@pytest.mark.parametrize("text", TOLD)
@pytest.mark.parametrize(
    "command",
    [
        ["runs"],
        ["keys"],
        ["projects"],
        ["status"],
        ["table", "--select", "summary.acc"],
        ["query", "--project"],
        ["history", "--project"],
        ["plot", "--project"],
    ],
    ids=lambda command: command[0],
)
def test_a_misspelt_project_is_answered_with_the_nearest(configured: Any, command: list[str], text: str) -> None:
    """Of the mirror or of the config; a sync is not offered for it."""
    outcome = configured(*command, text)
    assert (outcome.exit_code, outcome.stdout, outcome.stderr) == (1, "", f"error: {TOLD[text]}\n")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("team/visoin/aaa", TOLD["team/visoin"]),
        ("team/speech/aaa", TOLD["team/speech"]),
        (
            "team/vision/aab",
            "no run team/vision/aab in the mirror; did you mean team/vision/aaa or team/vision/eee (aaa)?",
        ),
        ("visoin", "no run visoin in the mirror; did you mean the project team/vision?"),
        ("zz9", "no run zz9 in the mirror"),
        ("team/vision/zz9", "no run team/vision/zz9 in the mirror; `mirror sync team/vision/zz9` pulls it"),
        (
            "other/thing/zz9",
            f"no project other/thing in the mirror; {MIRRORED}; `mirror sync other/thing/zz9` pulls it",
        ),
    ],
)
def test_a_run_that_is_not_mirrored_is_offered_a_sync_only_if_nothing_is_like_it(
    configured: Any, path: str, message: str
) -> None:
    """In the commands and in Python."""
    outcome = configured("plot", path)
    assert (outcome.exit_code, outcome.stdout, outcome.stderr) == (1, "", f"error: {message}\n")
    with pytest.raises(mirror.NotMirrored) as raised:
        mirror.Api().run(path)
    assert str(raised.value) == message


def test_a_misspelt_project_in_python(configured: Any) -> None:
    """Its runs, and the project itself."""
    for text in ("team/visoin", "team/speech"):
        for ask in (lambda: len(mirror.Api().runs(text)), lambda: mirror.Api().project(*text.split("/")[::-1]).id):  # noqa: B023
            with pytest.raises(mirror.NotMirrored) as raised:
                ask()
            assert str(raised.value) == TOLD[text]


def test_a_misspelt_project_is_not_forgotten(configured: Any) -> None:
    """The nearest one is named, and not taken."""
    done = configured("forget", "team/visoin", "--yes")
    assert (done.exit_code, done.stderr) == (
        2,
        "error: nothing is mirrored of team/visoin; did you mean team/vision?\n",
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
        done = cli("flush", "--no-wait", "team/p/r77")
        assert (
            done.stderr == "nothing is mirrored of it, so there is nothing to pull again; `mirror sync PATH` pulls it\n"
        )
        world.add_run("team", "project", run_id="r9", name="other", config={}, state="finished")
        assert cli("sync", "team/project").exit_code == 0
        done = cli("flush", "--no-wait", "team/projetc")
        assert (done.exit_code, done.stderr) == (
            0,
            "nothing is mirrored of it, so there is nothing to pull again; did you mean team/project?\n",
        )
        reported = (
            f"error: team/projetc is not on {server.url}, or the key may not read it; did you mean team/project?\n"
        )
        for arguments in (["sync"], ["sync", "--dry-run", "--json"], ["verify"], ["flush"]):
            done = cli(*arguments, "team/projetc")
            assert (done.exit_code, done.stderr) == (1, reported)
        world.add_run("team", "p", run_id="r5", name="new", config={}, state="finished")
        assert cli("sync", "team/p/r5").exit_code == 0
        assert cli("show", "new").stdout.startswith("team/p/r5\n")
