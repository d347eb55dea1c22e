"""`mirror sync`, `flush` and `status` without a daemon, and every bad input they meet: one line, an exit code, no loss."""

from __future__ import annotations

import json
import os
import pty
import resource
import subprocess
import sys

import duckdb
import pytest

from mirror.sandbox.run import wrapped
from tests.daemon.test_daemon import add
from tests.sync.rig import spoil


def failure(done):
    """The exit code and the one line of a failed command."""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert done.stdout == ""
    return done.returncode, lines[0]


def test_sync_says_in_one_line_a_project_what_came(bench):
    add(bench, "one")
    add(bench, "two", project="q", rows=1)
    done = bench.mirror("sync", "team/p", "team/q")
    assert done.stdout == ""
    first, second = sorted(done.stderr.splitlines())
    assert first.startswith("team/p: 1 run (1 new), 3 history rows (2 requests, ")
    assert second.startswith("team/q: 1 run (1 new), 1 history row (2 requests, ")
    again = bench.mirror("sync", "team/p")
    assert again.stderr.startswith("team/p: nothing new (1 request, ")
    assert bench.mirror("-q", "sync", "team/p").stderr == ""


def test_progress_bars_show_on_a_terminal(bench):
    for index in range(10):
        add(bench, f"run{index}", rows=50)
    bench.server.faults.add("latency", times=None, seconds=0.3)
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "mirror.cli", "sync", "team/p"],
        env={**bench.environ, "TERM": "xterm-256color"},
        stderr=follower,
        stdout=subprocess.PIPE,
    )
    os.close(follower)
    seen = b""
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        seen += piece
    os.close(leader)
    assert process.wait() == 0
    assert process.stdout.read() == b""
    process.stdout.close()
    assert b"10/10" in seen
    assert b"rows" in seen


def test_an_address_of_a_run_page_is_a_path_too(bench):
    add(bench, "one")
    bench.mirror("sync", "team/p/runs/one")
    assert bench.sql("select run_id from runs") == [("one",)]


def test_flush_without_waiting_only_marks(bench):
    run = add(bench, "one", config={"lr": 1})
    bench.mirror("sync", "team/p")
    run.set_config(wrapped({"lr": 2}))
    done = bench.mirror("flush", "team/p", "--no-wait")
    assert done.stderr.startswith("team/p: marked, but not in the config; ")
    assert bench.sql("select config from runs") == [('{"lr":1}',)]
    assert bench.sql("select count(*) from history where key = 'loss'") == [(3,)]
    bench.mirror("sync", "team/p")
    assert bench.sql("select count(*) from history where key = 'loss'") == [(3,)]


def test_status_of_a_fresh_home_and_of_a_mirror(bench):
    fresh = bench.mirror("status")
    assert "daemon   not running" in fresh.stdout
    assert fresh.stderr == "nothing is mirrored yet; run `mirror sync`\n"
    add(bench, "one")
    bench.mirror("sync", "team/p")
    found = json.loads(bench.mirror("status", "--json").stdout)
    project = found["projects"][0]
    assert {key: project[key] for key in ("project", "runs", "running", "history_rows", "last_error", "set_aside")} == {
        "project": "team/p",
        "runs": 1,
        "running": 0,
        "history_rows": 3,
        "last_error": None,
        "set_aside": 0,
    }
    assert 0 <= project["lag_s"] < 60


def test_no_key(bench):
    code, line = failure(bench.mirror("sync", "team/p", check=False, WANDB_API_KEY=""))
    assert code == 3
    assert "mirror login" in line
    assert "WANDB_API_KEY" in line


def test_a_wrong_key_is_named_by_its_source_and_never_shown(bench):
    code, line = failure(bench.mirror("sync", "team/p", check=False, WANDB_API_KEY="f" * 40))
    said = "does not accept the API key from WANDB_API_KEY; run `mirror login` or set WANDB_API_KEY"
    assert (code, line) == (3, f"error: {bench.server.url} {said}")


def test_an_unknown_project(bench):
    code, line = failure(bench.mirror("sync", "team/none", check=False))
    assert (code, line) == (
        1,
        f"error: team/none is not on {bench.server.url}, or the key may not read it; check the spelling",
    )


def test_a_path_that_is_none(bench):
    code, line = failure(bench.mirror("sync", "just-a-name", check=False))
    assert code == 2
    assert "just-a-name" in line


def test_nothing_configured_and_nothing_named(bench):
    code, line = failure(bench.mirror("sync", check=False))
    assert code == 2
    assert "mirror init" in line


def test_a_server_out_of_reach_leaves_the_mirror_as_it_was(bench):
    add(bench, "one")
    bench.mirror("sync", "team/p")
    # Port 9 of the loopback interface is closed; the client gives up after some tries.
    done = bench.mirror("sync", "team/p", check=False, WANDB_BASE_URL="http://127.0.0.1:9")
    warning, error = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (3, "")
    assert warning.startswith("warning: cannot reach http://127.0.0.1:9 (")
    assert "; trying again for up to " in warning
    assert error.startswith("error: cannot reach http://127.0.0.1:9 (")
    assert bench.sql("select run_id, history_rows from runs") == [("one", 3)]


def test_a_config_with_a_typo_names_file_line_and_key(bench):
    bench.configure(text='projects = ["team/p"]\n\n[sync]\nintervall = "5m"\n')
    code, line = failure(bench.mirror("sync", check=False))
    assert code == 2
    for part in ("config.toml", "4", "intervall", "interval"):
        assert part in line


def test_a_store_from_a_newer_version_is_not_changed(bench):
    add(bench, "one")
    bench.mirror("sync", "team/p")
    state = bench.home / "state.duckdb"
    with duckdb.connect(str(state)) as connection:
        connection.execute("insert into store.migrations select 9999, 'future', now()::timestamp")
    before = state.read_bytes()
    code, line = failure(bench.mirror("sync", "team/p", check=False))
    assert code == 1
    assert "newer" in line
    assert state.read_bytes() == before


def test_a_corrupt_store_is_named_and_rebuilt_from_what_was_published(bench):
    add(bench, "one")
    bench.mirror("sync", "team/p")
    add(bench, "two")
    state = bench.home / "state.duckdb"
    state.write_bytes(b"\0" * 20_000)
    reported, done = bench.mirror("sync", "team/p").stderr.splitlines()
    assert reported.startswith(f"warning: {state} is damaged (")
    assert ": rebuilt from mirror.duckdb of 20" in reported
    assert done.startswith("team/p: 1 run (1 new), 3 history rows (")
    assert sorted(bench.sql("select run_id from runs")) == [("one",), ("two",)]


def test_a_full_disk_loses_nothing(bench):
    """A limit on the size of files stands in for a disk that is full."""
    add(bench, "one")
    bench.mirror("sync", "team/p")
    run = bench.world.add_run("team", "p", run_id="big", state="running")
    run.log_many([{"loss": step * 0.123456789, "noise": (step * 7919 % 10_007) / 3.0} for step in range(100_000)])
    run.finish()
    limit = (bench.home / "state.duckdb").stat().st_size + 200_000
    done = subprocess.run(
        [sys.executable, "-m", "mirror.cli", "sync", "team/p"],
        env=bench.environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    code, line = failure(done)
    assert code == 1
    assert line.startswith("error: ")
    assert bench.sql("select history_rows from runs where run_id = 'one'") == [(3,)]
    bench.mirror("sync", "team/p")
    assert bench.sql("select run_id, history_rows from runs order by 1") == [("big", 100_000), ("one", 3)]
    assert bench.sql("select count(*), count(distinct step) from history where run_id = 'big' and key = 'loss'") == [
        (100_000, 100_000)
    ]


def test_some_failed_runs_end_with_1_and_keep_the_others(bench):
    add(bench, "good")
    spoil(add(bench, "bad"))
    done = bench.mirror("sync", "team/p", check=False)
    assert done.returncode == 1
    assert "team/p/bad failed, will be retried: " in done.stderr
    assert bench.sql("select run_id, history_rows from runs order by 1") == [("bad", 0), ("good", 3)]


@pytest.mark.parametrize("path", ["", "a", "a/b/c/d", "*/p", "a*/b/run"])
def test_paths_that_mean_nothing_are_usage_errors(bench, path):
    done = bench.mirror("sync", path, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
