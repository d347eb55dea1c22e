"""The daemon as its user meets it: it follows what happens, obeys its config, and ends cleanly."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest


def add(bench, run_id, project="p", state="finished", rows=3, **fields):
    run = bench.world.add_run("team", project, run_id=run_id, state=state, **fields)
    for step in range(rows):
        run.log({"loss": 1.0 / (step + 1)}, step=step)
    run.set_state(state)
    return run


def test_a_running_run_is_followed_and_its_end_is_seen(bench):
    run = add(bench, "live", state="running")
    bench.configure(interval="1h")
    with bench.daemon():
        bench.until(lambda: bench.sql("select history_rows from runs") == [(3,)])
        run.log({"loss": 0.1}, step=3)
        bench.until(lambda: bench.sql("select history_rows, state from runs") == [(4, "running")])
        run.finish()
        bench.until(lambda: bench.sql("select state from runs") == [("finished",)])


def test_commands_act_through_the_daemon(bench):
    add(bench, "one")
    bench.configure(interval="1h")
    with bench.daemon() as daemon:
        bench.until(lambda: bench.sql("select count(*) from runs") == [(1,)])
        add(bench, "two")
        done = bench.mirror("sync")
        assert done.stderr.startswith("team/p: 1 run (1 new), 3 history rows (")
        assert bench.sql("select count(*) from runs") == [(2,)]
        done = bench.mirror("flush", "team/p/one")
        assert done.stderr.startswith("team/p: 1 run, 3 history rows (")
        found = json.loads(bench.mirror("status", "--json").stdout)
        assert (found["daemon"]["running"], found["daemon"]["pid"]) == (True, daemon.pid)
        assert found["server"] == {
            "base_url": bench.server.url,
            "credential": "WANDB_API_KEY",
            "credential_error": None,
        }
        assert bench.server.key not in json.dumps(found)


def test_a_changed_config_is_applied_and_an_invalid_one_is_reported_and_ignored(bench):
    add(bench, "one", project="p")
    add(bench, "two", project="q")
    bench.configure('["team/p"]', interval="1h")
    with bench.daemon():
        bench.until(lambda: bench.sql("select project from runs") == [("p",)])
        bench.configure(text='projects = ["team/p", "team/q"]\n[sync]\nintervall = "1h"\n')

        bench.until(lambda: "intervall" in (bench.home / "mirror.log").read_text())
        assert bench.sql("select project from runs") == [("p",)]
        bench.configure('["team/p", "team/q"]', interval="1h")
        bench.until(lambda: sorted(bench.sql("select project from runs")) == [("p",), ("q",)])


def test_a_new_project_that_fits_a_pattern_is_picked_up(bench):
    add(bench, "one", project="p")
    bench.configure('["team/*"]', interval="400ms")
    with bench.daemon():
        bench.until(lambda: bench.sql("select project from runs") == [("p",)])
        add(bench, "two", project="q")
        bench.until(lambda: sorted(bench.sql("select project from runs")) == [("p",), ("q",)])


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_it_within_seconds_with_everything_committed(bench, name):
    for index in range(30):
        add(bench, f"run{index:02}", rows=20)
    bench.server.faults.add("latency", times=None, seconds=0.2)
    bench.configure(interval="1h")
    with bench.daemon() as daemon:
        time.sleep(0.3)
        started = time.monotonic()
        daemon.send_signal(getattr(signal, name))
        assert daemon.wait(10) == 0
        assert time.monotonic() - started < 5
    assert not (bench.home / "mirror.sock").exists()
    bench.server.faults.clear()
    bench.mirror("sync")
    assert bench.sql("select count(*), sum(history_rows) from runs") == [(30, 600)]


def test_a_second_daemon_on_the_same_home_names_the_first_and_ends_with_2(bench):
    bench.configure(interval="1h")
    add(bench, "one")
    with bench.daemon() as daemon:
        second = bench.mirror("daemon", check=False)
        assert second.returncode == 2
        assert str(daemon.pid) in second.stderr
        assert second.stderr.strip().splitlines()[-1].startswith("error: ")


def test_a_daemon_that_was_killed_leaves_a_home_that_the_next_one_takes_over(bench):
    add(bench, "one")
    bench.configure(interval="1h")
    with bench.daemon(ends_with=-signal.SIGKILL) as daemon:
        bench.until(lambda: bench.sql("select count(*) from runs") == [(1,)])
        os.kill(daemon.pid, signal.SIGKILL)
        daemon.wait()
        add(bench, "two")
        assert bench.mirror("sync").returncode == 0
    with bench.daemon():
        assert sorted(bench.sql("select run_id from runs")) == [("one",), ("two",)]


def test_a_home_of_any_length_has_a_daemon(bench):
    bench.home.rmdir()
    bench.home = bench.root / "a folder" / ("x" * 150)
    bench.home.mkdir(parents=True)
    bench.environ["MIRROR_HOME"] = str(bench.home)
    add(bench, "one")
    bench.configure(interval="1h")
    with bench.daemon() as daemon:
        bench.until(lambda: bench.sql("select count(*) from runs") == [(1,)])
        add(bench, "two")
        assert bench.mirror("sync").stderr.startswith("team/p: 1 run (1 new), 3 history rows (")
        assert json.loads(bench.mirror("status", "--json").stdout)["daemon"]["pid"] == daemon.pid
        assert (bench.home / "mirror.sock").stat().st_mode & 0o777 == 0o600
        assert bench.mirror("daemon", "--stop").stderr == "the daemon has stopped\n"
        daemon.wait(15)
    assert not (bench.home / "mirror.sock").exists()


def test_passes_go_on_when_the_server_comes_back(bench):
    add(bench, "one")
    bench.configure(interval="500ms")
    with bench.daemon():
        bench.until(lambda: bench.sql("select count(*) from runs") == [(1,)])
        bench.server.faults.add("500", times=3)
        add(bench, "two")
        bench.until(lambda: bench.sql("select count(*) from runs") == [(2,)], 30)


def test_a_wrong_key_ends_it_at_once_with_3(bench):
    bench.configure()
    done = bench.mirror("daemon", check=False, WANDB_API_KEY="0" * 40)
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == (
        f"error: {bench.server.url} does not accept the API key from WANDB_API_KEY;"
        " run `mirror login` or set WANDB_API_KEY"
    )
    assert "0" * 40 not in done.stderr


def test_without_projects_it_says_what_to_do(bench):
    bench.configure("[]")
    done = bench.mirror("daemon", check=False)
    assert done.returncode == 2
    assert "names no projects" in done.stderr
