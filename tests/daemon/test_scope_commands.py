"""`mirror sync --since` and `--dry-run`, with and without a daemon, and a daemon's patterns over entities."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from mirror.sandbox.errors import Refused
from mirror.sandbox.resolvers import RESOLVERS
from tests.daemon.test_daemon import add
from tests.daemon.test_sync_command import failure


def old(bench, run_id, days, project="p"):
    """A run that ended that many days ago."""
    at = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=days)
    bench.world.now = lambda: at
    run = bench.world.add_run("team", project, run_id=run_id, state="running")
    for step in range(3):
        run.log({"loss": 1.0}, step=step)
    run.finish()
    bench.world.now = lambda: datetime.now(UTC).replace(tzinfo=None)
    return run


def preview(bench, *arguments, **options):
    return json.loads(bench.mirror("sync", "--dry-run", "--json", *arguments, **options).stdout)


def test_a_sync_since_says_how_many_runs_are_left_and_the_next_one_takes_them(bench):
    old(bench, "old", 60)
    old(bench, "new", 3)
    done = bench.mirror("sync", "--since", "2w", "team/p")
    assert done.stderr.startswith("team/p: 1 run (1 new), 3 history rows (")
    assert done.stderr.endswith("; 1 older run left to a sync without --since\n")
    assert bench.sql("select run_id from runs") == [("new",)]
    day = (datetime.now(UTC) - timedelta(days=30)).date().isoformat()
    assert bench.mirror("sync", "--since", day, "team/p").stderr.startswith("team/p: nothing new (")
    assert bench.mirror("sync", "team/p").stderr.startswith("team/p: 1 run (1 new), 3 history rows (")
    assert bench.sql("select run_id, history_rows from runs order by 1") == [("new", 3), ("old", 3)]


def test_a_daemon_takes_a_bound_too(bench):
    bench.configure('["team/q"]', interval="1h")
    old(bench, "one", 1, project="q")
    old(bench, "old", 60)
    old(bench, "new", 3)
    with bench.daemon():
        done = bench.mirror("sync", "--since", "30d", "team/p")
        assert done.stderr.endswith("; 1 older run left to a sync without --since\n")
        assert bench.sql("select run_id from runs where project = 'p'") == [("new",)]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--since", "soon"], '--since must be a duration such as "12h", "30d" or "4w", or a day such as "2026-10-01"'),
        (["--since", "0d"], "--since must be a duration"),
        (["--since", "2026-13-01"], "--since must be a time such as"),
        (["--since", "2999-01-01"], "--since must be in the past"),
        (["--since", "1d", "team/p/run"], "--since selects runs of a project, but team/p/run is a run"),
        (["--json"], "--json, --csv and -o go with --dry-run"),
        (["--dry-run", "--format", "xml"], 'unknown format "xml"'),
    ],
)
def test_what_makes_no_sense_is_one_line_and_exit_code_2(bench, arguments, reason):
    bench.configure()
    code, line = failure(bench.mirror("sync", *arguments, check=False))
    assert code == 2
    assert reason in line


def test_a_dry_run_reports_what_a_sync_then_pulls_and_writes_nothing(bench):
    old(bench, "first", 60)
    old(bench, "second", 3)
    reported = preview(bench, "team/p")
    assert [{**row, "estimated_bytes": row["estimated_bytes"] > 0} for row in reported] == [
        {
            "project": "team/p",
            "new_runs": 2,
            "changed_runs": 0,
            "deleted_runs": 0,
            "history_rows": 6,
            "estimated_bytes": True,
            "estimated_requests": 2,
            "files": 0,
            "file_bytes": 0,
        }
    ]
    assert preview(bench, "team/p", "--since", "30d")[0]["new_runs"] == 1
    assert list(bench.home.iterdir()) == []
    assert set(bench.server.requests) == {"MirrorRuns"}
    done = bench.mirror("sync", "team/p")
    assert done.stderr.startswith("team/p: 2 runs (2 new), 6 history rows (2 requests, ")
    before = (bench.home / "mirror.duckdb").read_bytes()
    nothing = preview(bench, "team/p")[0]
    assert [nothing[key] for key in list(nothing)[1:]] == [0, 0, 0, 0, 0, 1, 0, 0]
    bench.world.run("team", "p", "second").log({"loss": 0.5}, step=3)
    bench.world.delete_run("team", "p", "first")
    add(bench, "third", rows=5)
    reported = preview(bench, "team/p")[0]
    assert [reported[key] for key in list(reported)[1:5]] == [1, 1, 1, 6]
    assert (bench.home / "mirror.duckdb").read_bytes() == before
    done = bench.mirror("sync", "team/p")
    assert done.stderr.startswith("team/p: 2 runs (1 new), 6 history rows, 1 run deleted on the server (")


def test_a_dry_run_works_beside_a_daemon_and_says_that_these_are_estimates(bench):
    bench.configure(interval="1h")
    add(bench, "one")
    with bench.daemon():
        bench.until(lambda: bench.sql("select history_rows from runs") == [(3,)])
        add(bench, "two")
        done = bench.mirror("sync", "--dry-run", "--format", "tsv")
        header, row = done.stdout.splitlines()
        assert header.split("\t")[-4:] == ["estimated_bytes", "estimated_requests", "files", "file_bytes"]
        assert row.split("\t")[:5] == ["team/p", "1", "0", "0", "3"]
        assert done.stderr.startswith("dry run: nothing was pulled; a sync would pull about 0.0 MB uncompressed in ")


def test_a_dry_run_tells_of_what_wider_globs_would_bring(bench):
    add(bench, "one", rows=3).log({"loss": 1.0, "acc": 0.5}, step=3)
    bench.configure(text='projects = ["team/p"]\n[sync]\nhistory = ["loss"]\n')
    bench.mirror("sync")
    assert preview(bench)[0]["history_rows"] == 0
    bench.configure(text='projects = ["team/p"]\n[sync]\nhistory = ["loss", "a*"]\n')
    assert preview(bench)[0]["history_rows"] == 4
    assert bench.mirror("sync").stderr.startswith("team/p: 0 runs, 4 history rows (")


def test_a_dry_run_of_a_run_and_of_what_is_not_there(bench):
    add(bench, "one")
    assert preview(bench, "team/p/one")[0]["history_rows"] == 3
    done = bench.mirror("sync", "--dry-run", "--json", "team/none", "team/p/nope", check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout) == []
    assert [line.split(" ")[1:4] for line in sorted(done.stderr.splitlines())] == [
        ["no", "run", "nope"],
        ["team/none", "is", "not"],
    ]


def test_an_entity_that_cannot_be_listed_does_not_stop_the_others(bench, monkeypatch):
    models = RESOLVERS["Query"]["models"]

    def refusing(source, context, arguments):
        if arguments.get("entityName") == "broken":
            raise Refused("permission denied", 403)
        return models(source, context, arguments)

    monkeypatch.setitem(RESOLVERS["Query"], "models", refusing)
    add(bench, "one")
    done = bench.mirror("sync", "broken/*", "team/*", check=False)
    assert done.returncode == 3
    first, second = sorted(done.stderr.splitlines())
    assert first == f"error: broken/*: {bench.server.url} denies MirrorProjects: permission denied"
    assert second.startswith("team/p: 1 run (1 new), 3 history rows (")
    bench.configure('["broken/*", "team/*"]', interval="400ms")
    with bench.daemon():
        add(bench, "two", project="q")
        bench.until(lambda: sorted(bench.sql("select project from runs")) == [("p",), ("q",)])
        assert json.loads(bench.mirror("status", "--json").stdout)["daemon"]["error"] == first.removeprefix("error: ")


def test_what_stands_in_for_a_silent_server_is_no_difference(bench):
    """Host and commit of the metadata file, and counts of a console that went on after the run's end."""
    run = add(bench, "one", metadata={"host": "node-7", "git": {"commit": "f00"}})
    bench.configure(text='projects = ["team/p"]\n[sync]\nmetadata = true\nconsole = true\n')
    bench.mirror("sync")
    assert bench.sql("select host, git_commit from runs") == [("node-7", "f00")]
    run.write_console(0, ["late"])
    assert bench.mirror("verify", check=False).returncode == 0
