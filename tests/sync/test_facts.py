"""What the server tells of projects, runs and itself is kept as it is reported, at no more than one request a pass."""

from __future__ import annotations

import json

import duckdb
import pytest

from tests.sync.rig import rig as make_rig


def project(rig):
    [(text,)] = rig.sql("select facts from store.project_records")
    return json.loads(text) if text else None


def server(rig):
    [(base_url, text)] = rig.sql("select base_url, facts from store.server_facts")
    assert base_url == rig.sandbox.url
    return json.loads(text)


def add(rig, run_id="one", **what):
    run = rig.world.add_run("team", "p", run_id=run_id, config={}, **what)
    run.log({"loss": 1.0, "deep": {"x": 1}})
    run.log_system({"system.cpu": 5})
    run.finish()
    return run


def test_facts_are_kept(rig):
    add(rig, user="bob-builder")
    rig.sync()
    reported = project(rig)
    assert reported["internalId"] == rig.world.projects["team", "p"].internal_id
    assert (reported["totalRuns"], reported["user"]["username"], reported["entity"]["name"]) == (1, "ada", "team")
    assert server(rig)["viewer"]["defaultEntity"] == {"id": "RW50aXR5OnYxOnRlYW0=", "name": "team"}
    names = [feature["name"] for feature in server(rig)["serverInfo"]["features"]]
    assert names[:3] == ["MARK_RUN_FILES_UPLOADED", "FILESTREAM_GZIP", "SWEEPS_QUERY_FILTERING"]
    [(facts, metrics, keys)] = rig.sql("select facts, system_metrics, keys from store.run_facts")
    assert json.loads(facts)["user"]["name"] == "Bob Builder"
    assert (json.loads(facts)["projectId"], json.loads(facts)["exitcode"]) == (1000, 0)
    assert json.loads(metrics) == {"system.cpu": 5}
    assert json.loads(keys)["monotonic"] == ["loss", "deep.x", "_step", "_timestamp", "_runtime"]


def test_what_changed_comes_with_the_one_request_of_a_pass(rig):
    add(rig)
    rig.sync()
    rig.world.projects["team", "p"].description = "About p"
    rig.sandbox.reset_counts()
    rig.sync()
    assert dict(rig.sandbox.requests) == {"MirrorRuns": 1}
    assert project(rig)["description"] == "About p"


def test_facts_of_a_project_without_runs_are_kept_too(rig):
    rig.world.add_project("team", "p")
    assert rig.sync()["team/p"].error is None
    assert project(rig)["createdAt"] is not None


LACKING = {
    "project_activity": lambda rig: {"updatedAt", "lastActive", "totalRuns"} - project(rig).keys(),
    "run_control": lambda rig: (
        {"stopped", "exitcode"} - json.loads(rig.sql("select facts from store.run_facts")[0][0]).keys()
    ),
    "default_entity": lambda rig: {"defaultEntity"} - server(rig)["viewer"].keys(),
    "server_info": lambda rig: {"serverInfo"} - server(rig).keys(),
    "server_features": lambda rig: {"features"} - server(rig)["serverInfo"].keys(),
}


@pytest.mark.parametrize("feature", LACKING)
def test_an_older_server_tells_what_it_has(tmp_path, feature):
    with make_rig(tmp_path / "home", features={feature: False}) as rig:
        add(rig)
        result = rig.sync()["team/p"]
        assert (result.error, result.rows) == (None, 1)
        assert project(rig)["internalId"] is not None
        assert server(rig)["viewer"]["username"] == "ada"
        lacking = LACKING[feature](rig)
        assert lacking


def test_keys_are_secrets_and_never_kept(rig, monkeypatch):
    """On older servers the name of a key is the key."""
    from mirror.sandbox import resolvers

    tell = resolvers._user
    keys = {"edges": [{"node": {"id": "QXBp", "name": "0" * 40, "description": None}}]}
    monkeypatch.setattr(resolvers, "_user", lambda *asked: tell(*asked) | {"apiKeys": keys})
    add(rig)
    rig.sync()
    assert "apiKeys" not in project(rig)["user"].keys() | server(rig)["viewer"].keys()
    assert b"0" * 40 not in rig.home.published.read_bytes()


def test_a_mirror_of_an_older_program_is_completed_by_the_next_pass(rig):
    for index in range(3):
        add(rig, f"run{index}", user=f"user-{index}")
    rig.sync()
    rig.world.delete_run("team", "p", "run2")
    with duckdb.connect(str(rig.home.state)) as state:
        state.execute("update store.project_records set facts = null")
        for table in ("server_facts", "run_facts", "run_exports"):
            state.execute(f"delete from store.{table}")
    rig.sync(reconcile_interval=1e9)
    assert project(rig)["internalId"] is not None
    assert server(rig)["viewer"]["username"] == "ada"
    reported = dict(
        rig.sql(
            "select run_id, f.facts from store.run_facts as f join store.run_records as r using (rid) order by run_id"
        )
    )
    assert {run_id: json.loads(text).get("user", {}).get("name") for run_id, text in reported.items()} == {
        "run0": "User 0",
        "run1": "User 1",
    }
    rig.sandbox.reset_counts()
    rig.sync()
    assert dict(rig.sandbox.requests) == {"MirrorRuns": 1}


def test_exports_of_nested_histories_are_known(rig):
    """Of runs that this pass took, and of all when every run is listed."""
    early, late = add(rig, "early"), add(rig, "late")
    early.export_history()
    exported = "select run_id, exported_to from store.run_exports join store.run_records using (rid) order by run_id"
    rig.sync()
    assert rig.sql(exported) == [("early", 0)]
    late.export_history()
    rig.sync()
    assert rig.sql(exported) == [("early", 0)]
    rig.sync(reconcile_interval=0)
    assert rig.sql(exported) == [("early", 0), ("late", 0)]
