"""Sweeps are mirrored without a request where nothing is new; reports and saved views once an hour if selected."""

from __future__ import annotations

import json
from datetime import timedelta

from mirror.query.status import mirror_status
from mirror.store import forget
from mirror.store.records import ProjectKey
from mirror.sync.context import Scope
from mirror.sync.reports import AGAIN
from tests.sync.rig import rig as make_rig

GRID = {
    "name": "rates",
    "method": "grid",
    "metric": {"name": "loss", "goal": "minimize"},
    "parameters": {"lr": {"values": [0.1, 0.2]}},
}


def add(rig, run_id, sweep, loss=1.0, *, ended=True):
    run = rig.world.add_run("team", "p", run_id=run_id, sweep=sweep, config={})
    run.log({"loss": loss})
    if ended:
        run.finish()
    return run


def asked(rig):
    """How often the next pass asks for what, without histories."""
    rig.sandbox.requests.clear()
    result = rig.sync()["team/p"]
    assert result.error is None
    return {name: count for name, count in rig.sandbox.requests.items() if name not in ("MirrorHistory", "parquet")}


def test_a_sweep_is_a_row(rig):
    sweep = rig.world.add_sweep("team", "p", GRID, sweep_id="s1", description="d", prior_runs=["old"])
    add(rig, "old", None)
    add(rig, "a", "s1", 2.0)
    add(rig, "b", "s1", 0.5)
    add(rig, "nan", "s1", float("nan"))
    rig.sync()
    [row] = rig.sql("select * exclude (config_yaml, created_at, updated_at) from sweeps")
    assert row == (
        *(
            "team",
            "p",
            "s1",
            "rates",
            "RUNNING",
            "grid",
            "d",
            json.dumps(GRID, separators=(",", ":")),
            "loss",
            "minimize",
        ),
        *("b", 0.5, 3, 2, '["old"]', f"{rig.sandbox.url}/team/p/sweeps/s1", None),
    )
    [(text, created, updated)] = rig.sql("select config_yaml, created_at, updated_at from sweeps")
    assert (text, created, updated) == (
        sweep.config, sweep.created_at, sweep.created_at,
    )  # fmt: skip


def test_a_sweep_without_metric_or_name_and_with_a_config_that_cannot_be_read(rig):
    rig.world.add_sweep("team", "p", "method: random\nparameters: {}", sweep_id="plain", display_name="as renamed")
    broken = rig.world.add_sweep("team", "p", "method: random", sweep_id="broken")
    bomb = "a: &a [" + "x, " * 400 + "x]\nb: &b [" + "*a, " * 400 + "*a]\nc: [" + "*b, " * 400 + "*b]\n"
    rig.world.change_sweep(broken, config=bomb)
    add(rig, "a", "plain")
    rig.sync()
    assert rig.sql("select sweep_id, name, config, metric, goal, best_run, runs from sweeps order by 1") == [
        ("broken", "broken", None, None, None, None, 0),
        ("plain", "as renamed", '{"method":"random","parameters":{}}', None, None, None, 1),
    ]


def test_a_pass_over_nothing_new_asks_for_nothing_more(rig):
    """What happens to an open sweep comes with the runs; one that was over is asked for if it has a changed run."""
    sweep = rig.world.add_sweep("team", "p", GRID, sweep_id="s1")
    add(rig, "a", "s1")
    assert asked(rig) == {"MirrorRuns": 1, "MirrorSweeps": 1}
    assert asked(rig) == {"MirrorRuns": 1}
    add(rig, "b", "s1", 0.25)
    sweep = rig.world.change_sweep(sweep, state="FINISHED", display_name="done")
    # The second request is for the record of the run.
    assert asked(rig) == {"MirrorRuns": 2}
    assert rig.sql("select name, state, best_run, best_loss, runs from sweeps") == [("done", "FINISHED", "b", 0.25, 2)]
    add(rig, "c", "s1")
    rig.world.change_sweep(sweep, state="RUNNING")
    assert asked(rig) == {"MirrorRuns": 2, "MirrorSweep": 1}
    assert rig.sql("select state, runs from sweeps") == [("RUNNING", 3)]


def test_new_and_deleted_sweeps_are_found_by_their_number(rig):
    rig.world.add_sweep("team", "p", GRID, sweep_id="s1")
    add(rig, "a", "s1")
    rig.sync()
    rig.world.add_sweep("team", "p", GRID, sweep_id="s2")
    assert asked(rig) == {"MirrorRuns": 1, "MirrorSweeps": 1}
    del rig.world.projects["team", "p"].sweeps["s1"]
    rig.world.changed()
    assert asked(rig) == {"MirrorRuns": 1, "MirrorSweeps": 1}
    assert rig.sql("select sweep_id, name, deleted_at is not null, runs from sweeps order by 1") == [
        ("s1", "rates", True, 1),
        ("s2", "rates", False, 0),
    ]
    rig.world.add_sweep("team", "p", GRID, sweep_id="s1")
    rig.sync()
    assert rig.sql("select sweep_id from sweeps where deleted_at is null order by 1") == [("s1",), ("s2",)]


def test_a_sweep_that_the_server_lacks_is_asked_for_once(rig):
    add(rig, "a", "gone")
    rig.sync()
    add(rig, "b", "gone")
    assert asked(rig) == {"MirrorRuns": 2, "MirrorSweep": 1}
    rig.world.add_run("team", "p", run_id="c", config={}).finish()
    assert asked(rig) == {"MirrorRuns": 2}
    assert rig.sql("select sweep_id, name, state, deleted_at is not null, runs from sweeps") == [
        ("gone", "gone", None, True, 2)
    ]


def test_full_listings_and_flush_find_silent_edits(rig):
    sweep = rig.world.add_sweep("team", "p", GRID, sweep_id="s1", state="FINISHED")
    add(rig, "a", "s1")
    rig.sync()
    for number, options in enumerate(({"reconcile_interval": 0.0}, {"afresh": True})):
        sweep = rig.world.change_sweep(sweep, display_name=f"renamed {number}")
        rig.sync(**options)
        assert rig.sql("select name from sweeps") == [(f"renamed {number}",)]


def test_an_older_server_is_mirrored_without(tmp_path):
    with make_rig(tmp_path / "home", features={"sweeps": False, "reports": False}) as rig:
        add(rig, "a", None)
        for _ in range(2):
            assert rig.sync(reports=True)["team/p"].error is None
        assert rig.sql("select count(*) from runs") == [(1,)]


def test_specs_come_by_name_from_a_server_that_returns_no_views_by_id(tmp_path):
    with make_rig(tmp_path / "home", features={"views_by_id": False}) as rig:
        add(rig, "a", None)
        for number in range(3):
            rig.world.add_report("team", "p", f"report {number}", {"blocks": [number]})
        rig.sync(reports=True)
        assert rig.sql("select title, spec from reports order by 1") == [
            (f"report {number}", f'{{"blocks":[{number}]}}') for number in range(3)
        ]


def test_a_list_that_fails_is_named_and_tried_again(rig):
    rig.world.add_sweep("team", "p", GRID, sweep_id="s1")
    add(rig, "a", "s1")
    rig.sandbox.faults.add("403", None, "MirrorSweeps")
    assert rig.sync()["team/p"].error is None
    assert rig.sql("select count(*) from runs") == [(1,)]
    [(kind, error, attempts)] = rig.sql("select kind, error, attempts from store.listings")
    assert (kind, attempts) == ("sweeps", 1)
    assert "MirrorSweeps" in error
    [failed] = mirror_status(rig.home.published)["lists_set_aside"]
    assert (failed["project"], failed["list"], failed["attempts"]) == ("team/p", "sweeps", 1)
    rig.sandbox.faults.clear()
    rig.sync(afresh=True)
    assert (rig.sql("select sweep_id from sweeps"), mirror_status(rig.home.published)["lists_set_aside"]) == (
        [("s1",)],
        [],
    )


def test_reports_and_saved_views_are_rows(rig):
    spec = {"version": 5, "blocks": []}
    report = rig.world.add_report("team", "p", "As we: began!", spec, name="one", description="d", user="grace")
    rig.world.add_report("team", "p", "My workspace", {"section": {}}, kind="project-view")
    add(rig, "a", None)
    rig.sync()
    assert (rig.sql("from reports"), rig.sql("from saved_views")) == ([], [])
    rig.sync(reports=True)
    assert rig.sql("select * exclude (created_at, updated_at) from reports") == [
        (
            *("team", "p", report.storage_id, "one", "As we: began!", "d", "grace", report.spec),
            *(f"{rig.sandbox.url}/team/p/reports/As-we-began--{report.storage_id.rstrip('=')}", None),
        )
    ]
    assert rig.sql("select view_type, title, spec from saved_views") == [
        ("project-view", "My workspace", '{"section":{}}')
    ]


def test_only_specs_that_changed_are_pulled_and_deleted_reports_stay(rig, monkeypatch):
    rig.scope = Scope(reports=True)
    old = rig.world.now
    rig.world.now = lambda: old() - timedelta(hours=1)
    reports = [rig.world.add_report("team", "p", f"report {number}", {}) for number in range(3)]
    add(rig, "a", None)
    rig.world.now = old
    rig.sync()
    assert asked(rig) == {"MirrorRuns": 1}
    rig.world.change_report(reports[1], spec={"blocks": []})
    del rig.world.projects["team", "p"].reports[reports[2].storage_id]
    rig.world.changed()
    monkeypatch.setattr("mirror.sync.reports.AGAIN", AGAIN * 0)
    assert asked(rig) == {"MirrorRuns": 1, "MirrorViews": 1, "MirrorSpecs": 1}
    assert rig.sql("select title, spec, deleted_at is not null from reports order by 1") == [
        ("report 0", "{}", False),
        ("report 1", '{"blocks":[]}', False),
        ("report 2", "{}", True),
    ]


def test_a_report_that_the_server_cannot_return_keeps_back_no_other(rig):
    rig.scope = Scope(reports=True)
    add(rig, "a", None)
    one, bad, gone = (rig.world.add_report("team", "p", name, {}) for name in ("one", "bad", "gone"))
    rig.sync()
    rig.world.change_report(one, spec={"blocks": [1]})
    rig.world.change_report(bad, spec={"blocks": [2]})
    del rig.world.projects["team", "p"].reports[gone.storage_id]
    rig.world.add_report("team", "p", "new", {})
    rig.sandbox.faults.add("504", None, "MirrorSpecs", about=bad.storage_id)
    rows = "select title, spec, deleted_at is not null from reports order by title"
    known = [("gone", "{}", True), ("new", "{}", False), ("one", '{"blocks":[1]}', False)]
    rig.sync(reconcile_interval=0.0)
    assert rig.sql(rows) == [("bad", "{}", False), *known]
    [(failure,)] = rig.sql("select error from store.listings where kind = 'views'")
    assert failure.startswith("1 of 3 new or changed ones failed, such as 'bad' (")
    rig.sandbox.faults.clear()
    with rig.store() as store, store.transaction() as tx:
        tx.db.run("UPDATE store.listings SET next_try_at = now()")
    rig.sync(reconcile_interval=0.0)
    assert rig.sql(rows) == [("bad", '{"blocks":[2]}', False), *known]
    assert rig.sql("select error from store.listings where kind = 'views'") == [(None,)]


def test_all_of_it_is_forgotten_with_the_project(rig):
    rig.scope = Scope(reports=True)
    rig.world.add_sweep("team", "p", GRID, sweep_id="s1")
    rig.world.add_report("team", "p", "report", {})
    add(rig, "a", "s1")
    rig.sync()
    with rig.store() as store, store.transaction() as tx:
        forget.project(tx, ProjectKey("team", "p"))
        tx.views_outdated = True
    with rig.store() as store:
        store.publish()
    for relation in ("sweeps", "reports", "saved_views", "store.listings"):
        assert rig.sql(f"from {relation}") == [], relation
