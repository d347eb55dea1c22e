"""A server that answers something else, slowly or not: what the command says while it goes on trying, and at the end."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

from tests.daemon.test_daemon import add

LOGIN = "answers MirrorRuns with HTML, not as the W&B API: 'Sign in \N{MIDDLE DOT} Example University'"


def test_html_in_place_of_an_answer_is_reported_at_once_with_the_time_that_it_is_tried(bench):
    add(bench, "one")
    bench.server.faults.add("html", times=2)
    done = bench.here("sync", "team/p")
    warning, summary = done.stderr.splitlines()
    assert warning.startswith(f"warning: {bench.server.url} {LOGIN}; check WANDB_BASE_URL, and whether")
    assert warning.rpartition("; trying again for up to ")[2] in ("3 s", "4 s")
    assert summary.startswith("team/p: 1 run (1 new), ")
    assert (done.exit_code, done.stdout) == (0, "")


def test_a_redirect_says_where_it_leads_and_a_warning_comes_with_quiet_too(bench):
    add(bench, "one")
    bench.server.faults.add("redirect", times=None)
    done = bench.here("-q", "sync", "team/p")
    warning, error = done.stderr.splitlines()
    reported = f"{bench.server.url} redirects MirrorRuns (302) to https://login.example.com/sso; sign in there, "
    assert warning.startswith(f"warning: {reported}")
    assert error.startswith(f"error: {reported}")
    assert done.exit_code == 3


def test_data_on_stdout_stays_clean(bench):
    add(bench, "one")
    bench.server.faults.add("html", times=1)
    done = bench.here("sync", "team/p", "--dry-run", "--json")
    assert json.loads(done.stdout)[0]["new_runs"] == 1
    assert LOGIN in done.stderr


def test_the_line_comes_above_the_progress_bars(bench):
    for index in range(10):
        add(bench, f"run{index}", rows=50)
    bench.server.faults.add("html", times=1, operation="MirrorHistory")
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "mirror.cli", "sync", "team/p"],
        env={**bench.environ, "TERM": "xterm-256color", "COLUMNS": "300"},
        stderr=follower,
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
    text = seen.decode()
    assert text.count("warning: ") == 1
    assert "Sign in \N{MIDDLE DOT} Example University" in text
    assert "trying again for up to" in text


def test_the_daemon_logs_it_and_tells_the_command_that_waits(bench):
    add(bench, "one")
    bench.configure(interval="1h")
    with bench.daemon():
        bench.until(lambda: bench.sql("select count(last_success_at) from projects") == [(1,)])
        add(bench, "two")
        # Of the pass: the daemon may still be asking whom the key belongs to.
        bench.server.faults.add("html", times=1, about='"project":"p"')
        done = bench.here("sync")
        warning, summary = done.stderr.splitlines()
        assert LOGIN in warning
        assert warning.startswith("warning: ")
        assert summary.startswith("team/p: 1 run (1 new), ")
    (line,) = [line for line in bench.log() if LOGIN in line["message"]]
    assert line["level"] == "warning"
    assert "; trying again for up to " in line["message"]


def test_a_403_or_404_among_several_projects_names_the_project(bench):
    for name in ("p", "q", "r"):
        add(bench, "one", project=name)
    bench.server.faults.add("403", times=None, about='"project":"q"')
    bench.server.faults.add("404", times=None, about='"project":"r"')
    done = bench.here("sync", "team/p", "team/q", "team/r")
    assert done.stderr.splitlines()[0].startswith("team/p: 1 run (1 new), ")
    assert done.stderr.splitlines()[1:] == [
        f"error: team/q: {bench.server.url} denies MirrorRuns: permission denied",
        f'error: team/r: {bench.server.url} reports "not found": project not found',
    ]
    dry = bench.here("sync", "team/p", "team/q", "--dry-run", "--csv")
    assert f"error: team/q: {bench.server.url} denies MirrorRuns: permission denied" in dry.stderr


def test_what_stops_all_projects_is_reported_once(bench):
    for name in ("p", "q", "r", "s", "t"):
        add(bench, "one", project=name)
    bench.server.faults.add("403", times=None)
    done = bench.here("sync", "team/p", "team/q", "team/r", "team/s", "team/t")
    assert done.stderr.splitlines() == [
        f"error: team/p, team/q, team/r and 2 more: {bench.server.url} denies MirrorRuns: permission denied"
    ]
    assert done.exit_code == 3
