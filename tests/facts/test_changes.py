"""What is changed: three ways do the same to the server, and read the same afterwards. The questions: changes.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from mirror.sandbox.run import TELEMETRY, Run
from tests.facts.conftest import PROJECTS, SYNC, Answers, asked, reported
from tests.facts.world import WAYS, changeable
from tests.serve.conftest import Served, served

pytestmark = pytest.mark.xdist_group("facts changed")

CONFIG = {"foo": "bar", "more": {"deep": [1, None, "x"]}}
SUMMED = {"acc": 1, "loss": 0, "cool": 1000, "spaced": 1, "nested": {"a": {"b": 2}}, "fresh": 6, "by_name": 3}
WRITTEN = [
    [["old", "test"], CONFIG, "noted", "renamed", "described", "B", "eval"],
    [{"acc": 7, "loss": 0}, "saved", ["a", "b"], SUMMED, {"loss": 0}],
    [{"cool": 1000}, "running", "pending", "failed", "pending"],
]
AS_IT_IS = [True] * 4

RIGHT: dict[str, Any] = {
    "a_run_is_created": ["made", True, "running", [], {}, {"cool": 1000}, "made", "made", 1000],
    "a_run_is_created_where_nothing_is_named": ["team", "uncategorized", 8],
    "a_run_is_created_in_the_entity_that_is_the_default": "team",
    "a_run_is_created_pending": ["later", "pending"],
    "a_run_is_edited": [["old", "test"], CONFIG, TELEMETRY, "noted", "renamed", "B", "eval", 7],
    "saving_is_updating": ["saved", ["a", "b"]],
    "an_update_without_changes": [{"foo": "not bar", "gone": 1}, ["old"], "before", {"acc": 1, "loss": 0}],
    "a_summary_is_updated": [1000, 2, 3, sorted(SUMMED)],
    "a_summary_key_is_deleted": ["KeyError", 0],
    "a_run_is_deleted": ["CommError", [], "CommError"],
    "a_run_is_deleted_with_its_artifacts": "CommError",
    "a_state_is_changed": [True, "failed", True, "CommError", "failed"],
    "a_state_goes_back_to_pending": ["crashed", True, "pending"],
    "the_state_of_a_run_of_a_sweep": "CommError",
    "a_run_is_asked_to_stop": [None, None],
    "a_file_is_uploaded": ["in/weights.txt", 10, "text/plain", ["in/weights.txt", "old.txt"], "as trained"],
    "a_file_outside_of_the_root": ["__/test.txt"],
    "a_file_is_deleted": [["old.txt"], []],
    "files_of_several_runs_are_deleted": [[], []],
    "a_server_that_fails_once": {"acc": 1, "loss": 0},
    "what_was_written_is_read": WRITTEN,
    "sweeps_are_made": {
        "grid": ["a grid", "PENDING", "team", 3, None, *AS_IT_IS, ["one"]],
        "nested": ["nested", "PENDING", "team", 9, None, *AS_IT_IS, ["one", "two"]],
        "bayes": ["bayes", "PENDING", "team", None, "-summary_metrics.acc", *AS_IT_IS, ["one"]],
        "random": ["random", "PENDING", "team", None, None, *AS_IT_IS, ["one"]],
        "nameless": [True, "PENDING", "team", None, None, *AS_IT_IS, ["one"]],
    },
    "a_sweep_is_listed_once_it_is_made": True,
    "a_sweep_with_prior_runs": [3, [{"node": {"name": "edited"}}]],
    "a_sweep_is_renamed": ["bayes", "renamed"],
    "a_run_of_a_sweep_is_enqueued": True,
}


@pytest.fixture(scope="module")
def site() -> Iterator[Served]:
    with served(changeable(), PROJECTS, sync=SYNC) as site:
        config = (site.home / "config.toml").read_text()
        site.configure(text=config.replace('interval = "1h"', 'interval = "4s"'))
        yield site


@pytest.fixture(scope="module")
def answers(site: Served) -> Answers:
    # Met by the official client on the server: the mirror answers the other two.
    site.server.faults.add("500", operation="Run", about='"retried"')
    found = asked(site, "changes.py", FACTS_WRITTEN=json.dumps(WRITTEN))
    assert site.server.faults.counts["500"] == 1
    return found


@pytest.mark.parametrize("name", RIGHT)
def test_three_ways_tell_the_same(answers: Answers, name: str) -> None:
    assert reported(answers, name) == dict.fromkeys(WAYS, RIGHT[name])


def test_every_question_has_its_right_answer(answers: Answers) -> None:
    assert sorted(RIGHT) == sorted(answers["server"])


def there(run: Run) -> dict[str, Any]:
    """All that scripts may change of a run, as the server holds it."""
    labels = run.labels
    return {
        "config": run.config,
        "telemetry": (run.config_document or {}).get("_wandb", {}).get("value"),
        "summary": run.summary,
        "tags": run.tags,
        "names": [labels.display_name, labels.notes, labels.description, labels.group, labels.job_type],
        "of a sweep": bool(labels.sweep),
        "state": [run.state, run.stop_requested],
        "files": {name: file.content for name, file in run.files.items()},
        "history": [{key: row[key] for key in ("_step", "acc", "loss")} for row in run.rows()],
    }


@pytest.mark.usefixtures("answers")
def test_three_ways_leave_the_server_the_same(site: Served) -> None:
    """Every run, by its id or, where the server drew that, by its name."""
    held = {
        way: {
            run.run_id if run.labels.display_name != "queued" else "queued": there(run)
            for run in site.world.runs("team", f"by-{way}")
        }
        for way in WAYS
    }
    right = held["server"]
    assert right["edited"] == {
        "config": CONFIG,
        "telemetry": TELEMETRY,
        "summary": {"acc": 7, "loss": 0},
        "tags": ["old", "test"],
        "names": ["renamed", "noted", "described", "B", "eval"],
        "of a sweep": False,
        "state": ["finished", False],
        "files": {},
        "history": [{"_step": 0, "acc": 1, "loss": 0}],
    }
    assert right["untouched"]["names"] == ["as begun", "before", None, None, None]
    assert (right["summed"]["summary"], right["trimmed"]["summary"], right["made"]["summary"]) == (
        SUMMED, {"loss": 0}, {"cool": 1000},
    )  # fmt: skip
    assert {name: right[name]["state"] for name in ("live", "lost", "later", "stopped", "swept")} == {
        "live": ["failed", False],
        "lost": ["pending", False],
        "later": ["pending", False],
        "stopped": ["running", True],
        "swept": ["running", False],
    }
    assert right["filed"]["files"] == {"old.txt": b"as it was", "in/weights.txt": b"as trained"}
    assert (right["climbing"]["files"], right["shrinking"]["files"]) == ({"__/test.txt": b"test"}, {})
    queued = right["queued"]
    assert (queued["config"], queued["state"], queued["of a sweep"]) == ({"one": 1}, ["pending", False], True)
    assert "doomed" not in right
    for way in WAYS[1:]:
        assert held[way].keys() == right.keys()
        for run_id in right:
            assert (way, run_id, held[way][run_id]) == (way, run_id, right[run_id])
