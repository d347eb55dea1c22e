"""`mirror verify` beside a running daemon, while runs go on."""

from __future__ import annotations

import json

from mirror.sandbox.sample import keep_logging
from tests.daemon.conftest import bench as daemonic

bench = daemonic


def test_a_run_that_trains_is_never_a_difference_and_damage_is_repaired_through_the_daemon(bench):
    bench.configure(interval="300ms")
    run = bench.world.add_run("team", "p", run_id="done", state="running", config={"lr": 0.1})
    run.log_many([{"loss": 1 / (step + 1)} for step in range(200)])
    run.finish()
    live = bench.world.add_run("team", "p", run_id="live", state="running")
    with bench.daemon(), keep_logging(live, every=0.01):
        bench.until(lambda: bench.sql("select count(*) from runs") == [(2,)])
        for _ in range(2):
            done = bench.mirror("verify", "--deep", "--json")
            (project,) = json.loads(done.stdout)["projects"]
            assert (project["differences"], project["runs"]) == ([], 2)
        run.labels.notes = "changed"
        run.history.lines[30] = run.history.lines[30].replace('"loss"', '"lost"')
        found = bench.mirror("verify", "--deep", check=False)
        assert found.returncode == 1
        assert "differs: team/p/done notes: mirror has null, the server has changed (" in found.stdout
        assert "differs: team/p/done history.lost: mirror has no value at step 30, the server has 0.03" in found.stdout
        repaired = bench.mirror("verify", "--deep", "--repair")
        assert "repaired team/p/done: pulled again" in repaired.stderr
        assert ", 0 after it" in repaired.stderr
        assert bench.sql("select notes from runs where run_id = 'done'") == [("changed",)]
        assert bench.sql("select step from history where key = 'lost'") == [(30,)]


def test_the_daemon_mends_what_disagrees_within_the_store(bench):
    bench.configure(interval="1h")
    run = bench.world.add_run("team", "p", run_id="done", state="running", config={"lr": 0.1})
    run.log_many([{"loss": 1 / (step + 1)} for step in range(20)])
    run.finish()
    bench.mirror("sync", "team/p")
    import duckdb

    with duckdb.connect(str(bench.home / "state.duckdb")) as connection:
        connection.execute("update store.leaf_rows set number = 3, text = '3'")
        connection.execute("delete from store.leaf_keys")
    with bench.daemon():
        found = bench.mirror("verify", check=False)
        assert found.returncode == 1
        assert "differs: team/p/done config.lr: mirror has 3, should be 0.1 in the JSON document (" in found.stdout
        repaired = bench.mirror("verify", "--repair")
        assert 'repaired team/p: rebuilt the wide relation "team/p"' in repaired.stderr
        assert bench.sql('select "config.lr" from "team/p"') == [(0.1,)]
        assert bench.sql("select number from config_values where key = 'lr'") == [(0.1,)]
