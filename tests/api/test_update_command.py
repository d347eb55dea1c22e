"""`mirror update` as a user runs it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.conftest import Bench
from tests.conftest import InProcess

PATH = "my-team/vision/vision01"


@pytest.fixture
def cli(small: Bench) -> InProcess:
    return InProcess()


def test_it_changes_a_run_on_the_server_and_in_the_mirror(small: Bench, cli: Any) -> None:
    """Values are JSON where they can be, else text; paths lead into objects that are there."""
    done = cli(
        "update", PATH, "--name", "neu", "--notes", "", "--add-tag", "a", "--add-tag", "b", "--remove-tag", "baseline",
        "--group", "g", "--job-type", "eval", "--config", "lr=1e-3", "--config", "model.depth=50", "--config", "new.key=x",
        "--config", "model.extra.deep=[1]", "--summary", "acc=0.9", "--summary", "best=true",
    )  # fmt: skip
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", f"updated {PATH}\n")
    there = small.world.run("my-team", "vision", "vision01")
    assert there.config == {
        "lr": 1e-3,
        "batch_size": 64,
        "augment": False,
        "seed": 1,
        "new": {"key": "x"},
        "model": {"name": "resnet", "depth": 50, "heads": [4, 8], "extra": {"deep": [1]}},
    }
    assert (there.tags, there.name, there.labels.notes, there.labels.group, there.labels.job_type) == (
        ["a", "b"], "neu", "", "g", "eval",
    )  # fmt: skip
    assert (there.summary["acc"], there.summary["best"], "loss" in there.summary) == (0.9, True, True)
    shown = small.rig.sql("select name, tags, config, summary from runs where run_id = 'vision01'")[0]
    assert shown[:2] == ("neu", "a,b")
    assert ('"depth":50' in shown[2], '"acc":0.9' in shown[3]) == (True, True)


def test_a_dry_run_shows_and_writes_nothing(small: Bench, cli: Any) -> None:
    """Old and new value of what would change."""
    small.server.reset_counts()
    done = cli("update", PATH, "vision00", "--dry-run", "--notes", "n", "--config", "lr=0.5", "--add-tag", "baseline")
    lr = [small.world.run("my-team", "vision", run).config["lr"] for run in ("vision01", "vision00")]
    assert done.stdout.splitlines() == [
        f'{PATH}\tnotes\t"The run to beat" -> "n"',
        f"{PATH}\tconfig.lr\t{lr[0]} -> 0.5",
        'my-team/vision/vision00\tnotes\tnull -> "n"',
        'my-team/vision/vision00\ttags\t[] -> ["baseline"]',
        f"my-team/vision/vision00\tconfig.lr\t{lr[1]} -> 0.5",
    ]
    assert done.stderr == "dry run: nothing was written; checked 2 runs, changes are listed above\n"
    assert small.server.requests.total() == 0


def test_every_run_that_matches_a_filter(small: Bench, cli: Any) -> None:
    """And nothing where none does."""
    done = cli("update", "--project", "my-team/vision", "--filter", '{"state": "finished"}', "--add-tag", "done")
    assert done.stderr.splitlines() == [f"updated my-team/vision/vision0{n}" for n in (0, 1, 4)]
    tagged = [run.run_id for run in small.world.runs("my-team", "vision") if "done" in run.tags]
    assert tagged == ["vision00", "vision01", "vision04"]
    assert small.rig.sql("select run_id from run_tags where tag = 'done' order by 1") == [(run,) for run in tagged]
    none = cli("update", "--project", "my-team/vision", "--filter", '{"state": "x"}', "--notes", "n")
    assert (none.exit_code, none.stderr) == (0, "no run matches\n")


def test_what_was_written_before_a_refusal_is_mirrored(small: Bench, cli: Any) -> None:
    """The refused run is named, the others after it are not tried."""
    small.world.delete_run("my-team", "vision", "vision02")
    done = cli("update", "vision01", "vision02", "vision03", "--notes", "n")
    assert done.exit_code == 1
    assert done.stderr.splitlines() == [
        "1 of 3 runs were changed before this one",
        f"error: {small.server.url} has no run my-team/vision/vision02",
    ]
    assert small.rig.sql("select run_id from runs where notes = 'n'") == [("vision01",)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([PATH], "nothing to change: give --name"),
        (["--notes", "x"], "which runs?"),
        ([PATH, "--filter", "{}", "--project", "p", "--notes", "x"], "which runs?"),
        (["--filter", "{}", "--notes", "x"], "--filter and --where need --project"),
        ([PATH, "--config", "lr"], "--config 'lr': use KEY=VALUE"),
        ([PATH, "--summary", "=1"], "--summary '=1': use KEY=VALUE"),
        (["nope", "--notes", "x"], "no run nope in the mirror"),
    ],
)
def test_what_cannot_be_done_is_one_line(small: Bench, cli: Any, arguments: list[str], message: str) -> None:
    """Exit code 2 for usage, 1 for what is not there."""
    done = cli("update", *arguments)
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (1 if "nope" in arguments else 2, "", 1)
    assert message in done.stderr
