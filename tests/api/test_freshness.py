"""What an Api shows, how old it is, and what moves it on."""

from __future__ import annotations

import asyncio
import warnings
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import mirror
from mirror.errors import ArgumentError
from tests.api.conftest import Bench

LIVE = "my-team/vision/vision03"


def log(small: Bench, **row: float) -> None:
    small.world.run("my-team", "vision", "vision03").log(row)


def test_one_snapshot_until_it_is_asked_for_another(small: Bench) -> None:
    """Also where another one of this process stands beside it, and where pages are read later."""
    old = mirror.Api()
    runs = old.runs("my-team/vision", per_page=1)
    assert len(old.run(LIVE).history()) == 100
    log(small, loss=7.5)
    small.world.run("my-team", "vision", "vision00").edit(notes="new")
    small.rig.sync("my-team/vision")
    fresh = mirror.Api()
    assert [len(api.run(LIVE).history()) for api in (old, fresh)] == [100, 101]
    assert [runs[-1].notes, fresh.run("my-team/vision/vision00").notes] == [None, "new"]
    old.refresh()
    assert (len(old.run(LIVE).history()), old.run(LIVE).summary["loss"]) == (101, 7.5)
    assert runs[-1].notes is None  # was handed out before


def test_as_of_is_when_the_project_was_last_synced(small: Bench, api: Any) -> None:
    """Aware, in UTC; of the projects that were looked at."""
    (first,) = small.rig.sql("select min(last_success_at) from projects")[0]
    assert api.as_of == first.replace(tzinfo=UTC)
    assert datetime.now(UTC) - api.as_of < timedelta(minutes=2)
    api.runs("my-team/vision")
    small.rig.sync("my-team/vision")
    api.refresh()
    (vision,) = small.rig.sql("select last_success_at from projects where project = 'vision'")[0]
    assert api.as_of == vision.replace(tzinfo=UTC) > first.replace(tzinfo=UTC)


def test_flush_pulls_opened_runs_again(small: Bench, api: Any) -> None:
    """Also an edit that moved no time, which no other pass could see."""
    run = api.run(LIVE)
    there = small.world.run("my-team", "vision", "vision03")
    there.labels.notes = "unseen"
    there.history.lines[3] = there.history.lines[3].replace('"loss":', '"lost":')
    assert run.notes is None
    api.flush()
    assert api.run(LIVE).notes == "unseen"
    assert "loss" not in next(row for row in api.run(LIVE).scan_history() if row["_step"] == 3)
    run.load(force=True)
    assert run.notes == "unseen"


def test_flush_takes_what_changed_of_listed_projects(small: Bench, api: Any) -> None:
    """A few requests, however long the histories; with a path, all of it."""
    assert len(api.runs("my-team/vision")) == 5
    log(small, loss=1.0)
    small.world.add_run("my-team", "vision", run_id="another", config={}).finish()
    small.server.reset_counts()
    api.flush()
    assert small.server.requests.total() <= 6
    assert (len(api.runs("my-team/vision")), api.runs("my-team/vision")[0].id) == (6, "another")
    small.world.run("my-team", "vision", "vision00").labels.notes = "unseen"
    api.flush()
    assert api.run("my-team/vision/vision00").notes is None
    api.flush("my-team/vision")
    assert api.run("my-team/vision/vision00").notes == "unseen"


def test_a_pull_before_it_is_too_old(small: Bench) -> None:
    """The project that is looked at, at its first use."""
    log(small, loss=1.0)
    assert len(mirror.Api(max_age="1h").run(LIVE).history()) == 100
    assert len(mirror.Api(max_age=0).run("vision/vision03").history()) == 101
    log(small, loss=2.0)
    api = mirror.Api(max_age="0s")
    assert api.runs("my-team/vision", {"summary_metrics.loss": 2.0})[0].id == "vision03"
    assert api.as_of > datetime.now(UTC) - timedelta(seconds=30)
    for wrong in ("5 minutes", "soon", -1):
        with pytest.raises(ArgumentError, match="max_age="):
            mirror.Api(max_age=wrong)


def test_a_project_that_was_never_mirrored_is_pulled_where_an_age_was_asked_for(small: Bench, tmp_path: Any) -> None:
    """Without one, the error says what to do."""
    with pytest.raises(mirror.StoreError, match="run `mirror sync`"):
        mirror.Api(home=tmp_path / "none").runs("my-team/vision")
    assert len(mirror.Api(home=tmp_path / "new", max_age="1m").runs("my-team/vision")) == 5
    with pytest.raises(mirror.CommError, match=r"no project my-team/oddities .*`mirror sync my-team/oddities`"):
        mirror.Api(home=tmp_path / "new").runs("my-team/oddities")


def test_in_a_notebook_a_loop_runs_already(small: Bench, api: Any) -> None:
    """Pulling and writing work there."""

    async def cell() -> Any:
        run = api.run(LIVE)
        api.flush()
        run.summary.update({"from": "a cell"})
        return api.run(LIVE).summary["from"]

    assert asyncio.run(cell()) == "a cell"


def test_a_server_that_cannot_be_had_is_a_comm_error(small: Bench, api: Any) -> None:
    """With the exception behind it; what was mirrored is still there."""
    api.run(LIVE)
    small.server.stop()
    with pytest.raises(mirror.CommError, match="cannot reach") as caught:
        api.flush()
    assert type(caught.value.exc).__name__ == "ConnectError"
    assert len(api.run(LIVE).history()) == 100


def test_a_run_that_failed_and_will_be_retried_is_warned_of(small: Bench, api: Any) -> None:
    """The others come."""
    from tests.sync.rig import spoil

    spoil(small.world.run("my-team", "vision", "vision00"))
    with pytest.warns(UserWarning, match="my-team/vision/vision00 failed, will be retried"):
        api.flush("my-team/vision")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(api.run(LIVE).history()) == 100
