"""A daemon follows the folders of `[local] dirs`, and does the work of `mirror ingest`."""

from __future__ import annotations

import json
import os
import time

from tests.daemon.conftest import bench as bench  # noqa: PLC0414 - the fixture
from tests.local.kit import now, run_file
from tests.local.test_client import offline

CONFIG = """projects = ["team/p"]
[sync]
interval = "1h"
[publish]
min_interval = "200ms"
[local]
dirs = {dirs}
"""

LIVE = """
import time, wandb
run = wandb.init(project="live", id="r1")
for step in range(100_000):
    run.log({"loss": step, "text": "x" * 500})
    time.sleep(0.01)
"""


def configure(bench, *folders):
    bench.configure(text=CONFIG.format(dirs=json.dumps([str(folder) for folder in folders])))


def known(bench):
    return bench.sql("select run_id, state, history_rows from runs order by run_id")


def test_rows_of_a_live_offline_run_arrive_while_it_runs(bench):
    folder = bench.root / "train"
    folder.mkdir()
    configure(bench, folder)
    with bench.daemon():
        process = offline(folder, LIVE)
        try:
            seen = []
            for _ in range(3):
                bench.until(lambda: (now := known(bench)) and now[0][2] > (seen[-1] if seen else 0))
                [(run_id, state, rows)] = known(bench)
                assert (run_id, state) == ("r1", "running")
                seen.append(rows)
            assert process.poll() is None
        finally:
            process.terminate()
            process.communicate()


def test_growth_is_seen_at_once(bench):
    """Four times over, a look at everything each 30 seconds would need two minutes; this is far sooner on a busy machine too."""
    folder = bench.root / "train"
    file = run_file(folder, start=now()).lines(0, 3)
    configure(bench, folder)
    with bench.daemon():
        bench.until(lambda: known(bench) == [("r1", "running", 3)])
        waits = []
        for step in range(3, 7):
            started = time.monotonic()
            file.lines(step, step + 1)
            bench.until(lambda step=step: known(bench) == [("r1", "running", step + 1)], seconds=40)
            waits.append(time.monotonic() - started)
        assert sum(waits) < 60
        file.exit()
        bench.until(lambda: known(bench) == [("r1", "finished", 7)])


def test_new_folders_and_a_changed_config_are_followed(bench):
    first, second = bench.root / "a", bench.root / "b"
    first.mkdir()
    configure(bench, first)
    with bench.daemon():
        bench.until(lambda: known(bench) == [])
        # Written before the new folder is watched, and seen before all is looked at again, which is after 30 s.
        run_file(first / "deep" / "wandb", "r1", start=now()).lines(0, 2)
        bench.until(lambda: known(bench) == [("r1", "running", 2)], seconds=20)
        run_file(second, "r2", start=now()).lines(0, 1)
        configure(bench, first, second)
        bench.until(lambda: known(bench) == [("r1", "running", 2), ("r2", "running", 1)])
        status = json.loads(bench.mirror("status", "--json").stdout)
        assert status["daemon"]["local"] == {"dirs": [str(first), str(second)], "error": None}


def test_the_command_acts_through_the_daemon(bench):
    configure(bench)
    folder = bench.root / "elsewhere"
    run_file(folder, start=now()).lines(0, 4).exit()
    with bench.daemon():
        done = bench.mirror("ingest", str(folder))
        assert done.stderr.startswith("local/p/r1: 4 history rows, finished (")
        assert known(bench) == [("r1", "finished", 4)]
        found = json.loads(bench.mirror("ingest", str(folder), "--json").stdout)
        assert [result["outcome"] for result in found["results"]] == ["nothing new"]
        refused = bench.mirror("ingest", str(folder / "no"), check=False)
        assert (refused.returncode, "does not exist" in refused.stderr) == (2, True)


def test_a_bad_file_is_reported_in_the_log_and_the_daemon_goes_on(bench):
    folder = bench.root / "train"
    (folder / "x").mkdir(parents=True)
    (folder / "x" / "run-x.wandb").write_bytes(b"something else")
    os.mkfifo(folder / "x" / "fifo.wandb")
    run_file(folder, start=now()).lines(0, 1)
    configure(bench, folder, bench.root / "missing")
    with bench.daemon():
        bench.until(lambda: known(bench) == [("r1", "running", 1)])
        log = (bench.home / "mirror.log").read_text()
        assert "run-x.wandb cannot be read: it is not a .wandb file" in log
        assert "fifo.wandb cannot be read: it is not a regular file" in log
        assert "missing not found" in log


def test_a_value_that_no_reader_accepts_is_reported_once(bench):
    folder = bench.root / "train"
    file = run_file(folder, start=now()).summary(bad="{").lines(0, 1)
    configure(bench, folder)
    with bench.daemon():
        bench.until(lambda: known(bench) == [("r1", "running", 1)])
        file.lines(1, 2)
        bench.until(lambda: known(bench) == [("r1", "running", 2)])
        log = (bench.home / "mirror.log").read_text()
        assert log.count("summary bad: it is not JSON") == 1


def test_local_runs_alone_need_no_account(bench):
    """Neither key nor project; both can come later."""
    folder = bench.root / "train"
    run_file(folder, start=now()).lines(0, 2)
    alone = CONFIG.replace('projects = ["team/p"]', "").format(dirs=json.dumps([str(folder)]))
    bench.configure(text=alone)
    key = bench.environ.pop("WANDB_API_KEY")
    with bench.daemon():
        bench.until(lambda: known(bench) == [("r1", "running", 2)])
        assert not bench.server.requests
        refused = bench.mirror("sync", check=False)
        assert (refused.returncode, "nothing to sync" in refused.stderr) == (2, True)
        assert bench.mirror("status").returncode == 0
        bench.configure('["team/p"]')
        bench.until(lambda: json.loads(bench.here("status", "--json").stdout)["daemon"]["config_error"])
        bench.configure(text=alone)
        bench.until(lambda: not json.loads(bench.here("status", "--json").stdout)["daemon"]["config_error"])
        run_file(folder, "r2", start=now()).lines(0, 1)
        bench.until(lambda: known(bench) == [("r1", "running", 2), ("r2", "running", 1)])
        host = bench.server.url.removeprefix("http://")
        (bench.root / ".netrc").write_text(f"machine {host} login user password {key}\n")
        (bench.root / ".netrc").chmod(0o600)
        bench.world.add_run("team", "p", run_id="there").finish()
        bench.configure('["team/p"]')
        bench.until(lambda: ("there", "finished", 0) in known(bench))
