"""A sync that is killed again and again, on a server that fails, ends where an undisturbed one does."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import threading
import time

import duckdb
import pytest

from tests.daemon.conftest import Bench

KILLS = 100

CONTENT = {
    "runs": "select * exclude (synced_at, updated_at) from runs order by all",
    "history": "select * from history order by all",
    "history_keys": "select * from history_keys order by all",
    "config_values": "select * from config_values order by all",
    "summary_values": "select * from summary_values order by all",
    "run_tags": "select * from run_tags order by all",
}


class Reader(threading.Thread):
    """Opens the published file over and over; what it reads must hang together."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench = bench
        self.opens = 0
        self.faults: list[str] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        path = str(self.bench.home / "mirror.duckdb")
        while not self.stopped.is_set():
            time.sleep(0.02)
            try:
                with duckdb.connect(path, read_only=True) as connection:
                    wrong = connection.execute(
                        "select r.run_id, r.history_rows, count(distinct h.step) from runs r join history h"
                        " using (entity, project, run_id) where h.key = '_timestamp' group by all"
                        " having r.history_rows <> count(distinct h.step)"
                    ).fetchall()
                    self.opens += 1
                    self.faults += [str(row) for row in wrong]
            except duckdb.Error as error:
                if (self.bench.home / "mirror.duckdb").exists():
                    self.faults.append(str(error))


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_killed_at_random_instants_on_a_failing_server_the_end_is_the_same(bench, capsys):
    draw = random.Random(7)
    runs = [bench.world.add_run("team", "p", run_id=f"run{index:03}", config={"lr": index}) for index in range(150)]
    for run in runs:
        run.log_many([{"loss": draw.random(), "acc": draw.random(), "note": f"n{step}"} for step in range(400)])
        run.finish()
    # Long runs come from exported files, and go straight into segments.
    long = [bench.world.add_run("team", "p", run_id=f"long{index}") for index in range(6)]
    for index, run in enumerate(long):
        keys = [f"metric/{number}" for number in range(8)]
        run.log_many([{key: draw.random() for key in keys} for _ in range(9000)])
        run.export_history(8999 if index % 2 else 7000)
        run.finish()
    growing = bench.world.add_run("team", "p", run_id="growing")
    bench.configure(projects='["team/p"]', text='projects = ["team/p"]\n[store]\ntail_values = "100k"\n')
    for kind in ("500", "reset", "truncated", "graphql", "expired"):
        bench.server.faults.add(kind, times=None, probability=0.03)
    bench.server.faults.add("429", times=None, probability=0.03, retry_after=0.05)
    reader = Reader(bench)
    reader.start()
    try:
        for kill in range(KILLS):
            growing.log_many([{"loss": draw.random()} for _ in range(50)])
            if kill % 10 == 9:
                runs[kill].edit(notes=f"seen {kill}", tags=["edited"])
            if kill % 20 == 19:
                runs[kill].rewind(100)
                bench.mirror("flush", "team/p/run003", "--no-wait", check=False)
            process = subprocess.Popen(
                [sys.executable, "-m", "mirror.cli", "sync", "team/p"],
                env=bench.environ,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            # Every fifth has time for a commit of the long runs.
            time.sleep(draw.uniform(0.3, 8.0 if kill % 5 == 4 else 2.5))
            process.kill()
            process.wait()
        growing.finish()
        served = dict(bench.server.faults.counts)
        bench.server.faults.clear()
        bench.mirror("sync", "team/p")
        bench.mirror("sync", "team/p")
    finally:
        reader.stopped.set()
        reader.join()
    straight = bench.sql("select count(*), sum(value_count)::bigint from store.segments")
    found = {name: bench.sql(query) for name, query in CONTENT.items()}
    shutil.move(bench.home, bench.root / "disturbed")
    bench.home.mkdir()
    bench.mirror("sync", "team/p")
    assert bench.sql("select count(*) from store.segments") == [(0,)], "all of it in the tail, for comparison"
    expected = {name: bench.sql(query) for name, query in CONTENT.items()}
    differing = {name: len(set(found[name]) ^ set(expected[name])) for name in CONTENT}
    with capsys.disabled():
        print(f"\nkills {KILLS}, faults {served}, reader opens {reader.opens}, differences {sum(differing.values())}")
        print(f"segments {straight[0][0]}, values in them {straight[0][1]:,}")
    assert reader.faults == []
    assert {name: len(rows) for name, rows in found.items()} == {name: len(rows) for name, rows in expected.items()}
    assert differing == dict.fromkeys(CONTENT, 0)
    assert reader.opens > 100
