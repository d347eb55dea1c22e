"""A server that is slow, drops packets or answers something else: what it costs, and what comes all the same."""

from __future__ import annotations

import asyncio
import time

import pytest
from msgspec.structs import replace

from mirror.errors import CommError
from mirror.remote import history as remote_history
from mirror.remote import runs as remote_runs
from mirror.remote.errors import SlowAnswer
from mirror.remote.history import Window
from mirror.sync import history, request_windows
from mirror.sync.ahead import in_order
from mirror.sync.engine import PROJECTS_AT_ONCE
from mirror.sync.history_batch import Batch
from tests.remote.network import dropping
from tests.sync.rig import HASTY
from tests.sync.test_passes import add


@pytest.fixture
def hasty(rig):
    rig.timeout = 0.8
    rig.retry = replace(HASTY, seconds=30)
    return rig


def test_the_next_page_is_requested_before_the_records_of_a_page_are_made(rig, monkeypatch):
    """Else each page of a distant server costs its way and the making of its records, one after the other."""
    for number in range(150):
        rig.world.add_run("team", "p", run_id=f"r{number:03}", state="finished")
    asked: dict[str, int] = {}
    record_of = remote_runs.record_of

    def noted(server, project, node, *more):
        time.sleep(0.002)  # the sandbox runs in another thread, and has time to count
        asked[node["name"]] = rig.sandbox.requests["MirrorRuns"]
        return record_of(server, project, node, *more)

    monkeypatch.setattr(remote_runs, "record_of", noted)
    assert rig.sync()["team/p"].runs == 150
    assert asked["r099"] == 2


def test_one_run_that_answers_too_slowly_is_retried_later_and_costs_each_size_one_wait(hasty):
    """Fifty runs in a question, then a group of seven, the run alone, its pieces, one step."""
    for index in range(50):
        add(hasty, f"run{index:02}", rows=40)
    hasty.sandbox.faults.add("latency", times=None, operation="MirrorHistory", seconds=60, about='"run23"')
    result = hasty.sync()["team/p"]
    assert list(result.failed) == ["run23"]
    assert result.failed["run23"].endswith("did not answer MirrorHistory in time")
    assert result.rows == 49 * 40
    assert hasty.sandbox.faults.counts["latency"] <= 8


def test_the_others_of_a_project_do_not_wait_for_the_slow_run(hasty, monkeypatch):
    """It is answered only when they are mirrored: if they waited for it, it would never be."""
    monkeypatch.setattr(request_windows, "REQUEST_RUNS", 2)
    monkeypatch.setattr(history, "COMMIT_SECONDS", 0.0)
    for index in range(40):
        add(hasty, f"run{index:02}", rows=5)
    came, others = set(), asyncio.Event()
    commit, fetch = history._Job._commit, remote_history.fetch

    async def committed(self, batch, drafted):
        await commit(self, batch, drafted)
        came.update(page.run_id for _, page in batch.pages)
        if len(came) == 38:
            others.set()

    async def answered(server, project, windows):
        if any(window.run_id == "run00" for window in windows):
            if len(windows) == 1:
                await asyncio.wait_for(others.wait(), 60)
            raise SlowAnswer("not in time")
        return await fetch(server, project, windows)

    monkeypatch.setattr(history._Job, "_commit", committed)
    monkeypatch.setattr(remote_history, "fetch", answered)
    result = hasty.sync()["team/p"]
    assert (result.failed, result.rows) == ({"run00": "not in time"}, 39 * 5)
    assert others.is_set()


def test_answers_come_as_they_are_ready_but_those_of_one_run_in_order():
    async def go():
        trouble, order = set(), []
        free = asyncio.Event()
        jobs = [[Window("slow", 0, 1)], [Window("slow", 1, 2)], [Window("a", 0, 1), Window("slow", 2, 3)]]
        jobs += [[Window(f"other{n}", 0, 1)] for n in range(9)] + [[Window("dropped", 0, 1)]]

        async def fetch(windows):
            if windows[0] == Window("slow", 0, 1):
                trouble.add("slow")
                await free.wait()
                trouble.clear()
            return Batch(windows)

        async for batch in in_order(iter(jobs), fetch, ahead=2, in_trouble=trouble, dropped={"dropped"}):
            order += [(window.run_id, window.first) for window in batch.windows]
            if len(order) == 10:
                free.set()
        return order

    order = asyncio.run(asyncio.wait_for(go(), 10))
    assert order == [("a", 0), *((f"other{n}", 0) for n in range(9)), ("slow", 0), ("slow", 1), ("slow", 2)]


def test_runs_that_there_was_no_time_to_ask_for_are_retried_later(hasty):
    hasty.retry = replace(HASTY, seconds=0.5)
    for index in range(30):
        add(hasty, f"run{index:02}", rows=5)
    for index in (0, 5, 9, 14):
        hasty.sandbox.faults.add("latency", None, "MirrorHistory", seconds=60, about=f'"run{index:02}"')
    result = hasty.sync()["team/p"]
    assert result.error is None
    assert {"run00", "run29"} <= set(result.failed)
    assert "the time for it and for its smaller parts is over" in result.failed["run29"]
    hasty.sandbox.faults.clear()
    hasty.sync("team/p", afresh=True)
    assert hasty.sql("select count(*), sum(history_rows) from runs") == [(30, 150)]


def test_a_list_of_runs_that_does_not_come_is_given_up_after_few_sizes(hasty):
    add(hasty, "one")
    hasty.sync()
    hasty.sandbox.faults.add("latency", times=None, seconds=60)
    result = hasty.sync()["team/p"]
    assert result.error.endswith("did not answer MirrorRuns in time")
    assert hasty.sandbox.faults.counts["latency"] <= 4


def test_many_projects_of_a_server_that_drops_packets_cost_as_much_as_one(hasty, monkeypatch):
    hasty.retry = replace(HASTY, connects=3)
    paths = [f"team/p{index}" for index in range(12)]
    with dropping() as url:
        monkeypatch.setattr(type(hasty.sandbox), "url", property(lambda _: url))
        results = hasty.sync(*paths)
    assert {result.error.partition(" (")[0] for result in results.values()} == {f"cannot reach {url}"}
    assert [len(results), {result.exit_code for result in results.values()}] == [12, {3}]
    assert sum(result.requests for result in results.values()) <= PROJECTS_AT_ONCE * 3


def test_storage_that_drops_packets_leaves_the_histories_to_come_as_lines(hasty):
    for index in range(12):
        add(hasty, f"run{index:02}", rows=1200).export_history()
    with dropping() as url:
        hasty.sandbox._context.storage_url = url
        result = hasty.sync()["team/p"]
    assert (result.error, result.failed, result.rows) == (None, {}, 12 * 1200)


def test_exports_that_a_run_spoils_leave_its_neighbours_to_come_as_lines(hasty):
    for index in range(3):
        add(hasty, f"run{index:02}", rows=1200).export_history()
    hasty.sandbox.faults.add("502", times=None, operation="MirrorExports")
    result = hasty.sync()["team/p"]
    assert (result.error, result.failed, result.rows) == (None, {}, 3 * 1200)


def test_one_console_that_does_not_come_leaves_the_others_alone(hasty):
    for index in range(20):
        add(hasty, f"run{index:02}", rows=1).write_console(0, ["hello"])
    hasty.sandbox.faults.add("latency", None, "MirrorConsole", seconds=60, about='"run13"')
    result = hasty.sync(console=True)["team/p"]
    assert list(result.failed) == ["run13"]
    assert hasty.sql("select count(*) from console") == [(19,)]


def test_a_page_of_html_ends_a_pass_soon_and_is_an_error_of_the_server(hasty):
    add(hasty, "one")
    hasty.sandbox.faults.add("html", times=None)
    result = hasty.sync()["team/p"]
    assert "with HTML, not as the W&B API: 'Sign in" in result.error
    assert (result.exit_code, isinstance(result.failure, CommError)) == (3, True)
    assert hasty.sandbox.requests["MirrorRuns"] == HASTY.connects
