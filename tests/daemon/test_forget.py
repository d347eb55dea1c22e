"""`mirror forget` removes from the mirror what is named, and `mirror flush` pulls everything again only when asked to."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

from tests.daemon.test_daemon import add
from tests.daemon.test_sync_command import failure
from tests.local.kit import run_file


def on_a_terminal(bench, *arguments, answer):
    """The exit code of a command on a terminal, and what it showed there; `answer` is typed at once."""
    leader, follower = pty.openpty()
    os.write(leader, answer)
    process = subprocess.Popen(
        [sys.executable, "-m", "mirror.cli", *arguments], env=bench.environ, stdin=follower, stderr=follower
    )
    os.close(follower)
    seen = b""
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:  # the other end is closed
            break
        seen += piece
    os.close(leader)
    return process.wait(), seen.decode().replace("\r\n", "\n")


def test_a_project_and_a_run_are_removed_and_the_server_keeps_them(bench):
    for project in ("p", "q"):
        add(bench, "one", project=project)
        add(bench, "two", project=project)
    bench.configure()
    bench.mirror("sync", "team/p", "team/q")
    bench.server.reset_counts()

    code, line = failure(bench.mirror("forget", "team/q", check=False))
    assert (code, line) == (
        2,
        "error: nothing was removed: give --yes to remove without a question, or --dry-run to look first",
    )
    looked = bench.mirror("forget", "team/q", "team/p/one", "--dry-run", "--json")
    again = f"team/p/one is selected by `projects` in {bench.home}/config.toml, so the next pass mirrors it again\n"
    assert json.loads(looked.stdout) == [
        {"path": "team/q", "runs": 2, "history_rows": 6, "only_here": 0, "comes_again": ""},
        {"path": "team/p/one", "runs": 1, "history_rows": 3, "only_here": 0, "comes_again": "projects"},
    ]
    assert looked.stderr == f"dry run: nothing was removed\n{again}"
    assert bench.sql("select count(*) from runs") == [(4,)]

    done = bench.mirror("forget", "team/q", "team/p/one", "--yes")
    assert (done.stdout, done.stderr) == (
        "",
        "removed team/q (2 runs, 6 history rows), team/p/one (1 run, 3 history rows); the server was not touched\n"
        + again,
    )
    assert bench.sql("select project, run_id from runs") == [("p", "two")]
    assert bench.sql("select distinct project, run_id from history") == [("p", "two")]
    assert bench.sql("select project from projects") == [("p",)]
    assert not bench.server.requests

    bench.mirror("sync")
    assert bench.sql("select project, run_id, history_rows from runs order by all") == [
        ("p", "one", 3),
        ("p", "two", 3),
    ]
    for arguments, message in (
        (["forget", "team/q", "--yes"], "nothing is mirrored of team/q; `mirror status` lists projects"),
        (["forget", "team/p/three", "--yes"], "no run three of team/p is mirrored; nothing was removed"),
        (
            ["forget", "team/p*", "--yes"],
            "team/p*: name each project to remove, without wildcards; `mirror status` lists",
        ),
        (["forget", "team/p", "--json"], "--format, --json, --csv and -o go with --dry-run"),
        (["forget", "nothing", "--yes"], "'nothing' is not a path; use entity/project or entity/project/run_id"),
    ):
        code, line = failure(bench.mirror(*arguments, check=False))
        assert (code, line.startswith(f"error: {message}")) == (2, True), line
    code, shown = on_a_terminal(bench, "forget", "team/p", answer=b"n\n")
    assert code == 1
    assert "Remove team/p (2 runs, 6 history rows) from the mirror? [y/N]:" in shown
    assert shown.endswith("nothing was changed\n")
    assert bench.sql("select count(*) from runs") == [(2,)]


def test_the_daemon_removes_what_it_mirrors_from_files(bench):
    folder = bench.root / "train"
    file = run_file(folder)
    for step in range(3):
        file.log(step, loss=1.0)
    file.exit()
    dirs = f'projects = []\n[local]\ndirs = ["{folder}"]\n[publish]\nmin_interval = "200ms"\n[http]\nlisten = ""\n'
    bench.configure(text=dirs)
    with bench.daemon():
        bench.until(lambda: bench.sql("select count(*) from runs") == [(1,)])
        [(entity, project)] = bench.sql("select entity, project from runs")
        path = f"{entity}/{project}/r1"
        looked = json.loads(bench.mirror("forget", path, "--dry-run", "--json").stdout)
        assert looked == [{"path": path, "runs": 1, "history_rows": 3, "only_here": 1, "comes_again": "local.dirs"}]
        bench.configure(text=dirs.replace(f'"{folder}"', f'"{bench.root}/none"'))
        bench.mirror("daemon", "--reload")
        bench.mirror("forget", f"{entity}/{project}", "--yes")
        assert bench.sql("select (select count(*) from projects), (select count(*) from local_runs)") == [(0, 0)]
        assert failure(bench.mirror("forget", path, "--yes", check=False))[0] == 2
        # Its files are not touched, and can be read again.
        bench.mirror("ingest", str(folder))
        assert bench.sql("select run_id, history_rows from runs") == [("r1", 3)]


def test_flush_of_everything_is_asked_for(bench):
    add(bench, "one")
    add(bench, "two", project="q")
    bench.configure()
    bench.mirror("sync", "team/p", "team/q")
    code, line = failure(bench.mirror("flush", check=False))
    assert (code, line) == (
        2,
        "error: nothing was flushed: name a PATH, or give --all for every project in the config",
    )
    assert failure(bench.mirror("flush", "team/p", "--all", check=False))[0] == 2
    code, shown = on_a_terminal(bench, "flush", answer=b"n\n")
    question = "Pull everything of team/p again? It takes as long as the first sync did. [y/N]:"
    assert (code, question in shown, shown.endswith("nothing was changed\n")) == (1, True, True)
    assert bench.mirror("flush", "--all").stderr.startswith("team/p: 1 run, 3 history rows (")


def test_flush_says_what_pulls_again(bench):
    add(bench, "one")
    add(bench, "two", project="q")
    bench.configure()
    bench.mirror("sync", "team/p", "team/q")
    done = bench.mirror("flush", "team/p", "team/q", "--no-wait")
    assert done.stderr.splitlines() == [
        "marked; `mirror sync` or a daemon pulls it again, until then readers see the old values",
        "team/q: marked, but not in the config; `mirror sync team/q` pulls it again",
    ]
    done = bench.mirror("flush", "team/p/unknown", "--no-wait")
    assert done.stderr == (
        "nothing is mirrored of it, so there is nothing to pull again; `mirror sync PATH` pulls it\n"
    )
