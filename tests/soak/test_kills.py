"""A sync that is killed again and again, on a server that fails, its files damaged, ends where an undisturbed one does."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import duckdb
import pytest

from tests.daemon.conftest import Bench
from tests.local.kit import run_file

KILLS = 100
DAMAGED_EVERY = 10

ALONE = "(project <> 'p' or run_id like 'gone%')"
"""What only the mirror has: runs that were deleted, a project that is not synced any more, local runs without files."""

CONTENT = {
    "runs": "select * exclude (synced_at, updated_at) from runs where {which} order by all",
    "history": "select * from history where {which} order by all",
    "history_keys": "select * from history_keys where {which} order by all",
    "config_values": "select * from config_values where {which} order by all",
    "summary_values": "select * from summary_values where {which} order by all",
    "run_tags": "select * from run_tags where {which} order by all",
}
KEPT = {
    **CONTENT,
    "run_changes": "select * from run_changes where {which} order by all",
    "projects": "select entity, project, runs, history_rows from projects where project <> 'p' order by all",
}


def content(bench: Bench, queries: dict[str, str], which: str) -> dict[str, list[tuple[object, ...]]]:
    """What readers see."""
    return {name: bench.sql(query.format(which=which)) for name, query in queries.items()}


def only_mirrored(bench: Bench, draw: random.Random) -> None:
    """Bring into the mirror what no server and no file has in the end."""
    keys = [f"metric/{number}" for number in range(8)]
    for index in range(8):
        run = bench.world.add_run("team", "p", run_id=f"gone{index}", config={"lr": index}, tags=["lost"])
        run.log_many([{key: draw.random() for key in keys} for _ in range(9000 if index < 2 else 300)])
        if index == 0:
            run.export_history(8999)
        run.finish()
    for index in range(5):
        run = bench.world.add_run("team", "old", run_id=f"old{index}", config={"lr": index})
        run.log_many([{"loss": draw.random()} for _ in range(500)])
        run.finish()
    folder = bench.root / "train"
    for index in range(3):
        run_file(folder, f"local{index}", entity="team", project="local").lines(0, 200).exit()
    bench.mirror("sync", "team/p", "team/old")
    bench.mirror("ingest", str(folder))
    bench.world.run("team", "p", "gone1").edit(notes="changed before the end")
    bench.mirror("sync", "team/p")
    for index in range(8):
        bench.world.delete_run("team", "p", f"gone{index}")
    bench.mirror("sync", "team/p")
    shutil.rmtree(folder)


def flip(path: Path, draw: random.Random) -> None:
    """Change a byte of a file, anywhere in it."""
    if not path.exists() or not path.stat().st_size:
        return
    path.chmod(path.stat().st_mode | 0o200)
    with path.open("r+b") as file:
        place = draw.randrange(path.stat().st_size)
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 0xFF]))


def segment(home: Path, draw: random.Random) -> Path:
    """A segment that is in use and holds nothing that only the mirror has."""
    with duckdb.connect(str(home / "mirror.duckdb"), read_only=True) as connection:
        listed = connection.execute(
            "select s.path from store.segments s where s.retired_at is null and not exists ("
            " from store.segment_runs g join store.run_records r on r.run_id = g.run_id and r.project = s.project"
            " where g.segment_id = s.segment_id and (r.deleted_at is not null or r.rid in"
            " (select rid from store.local_states))) order by 1"
        ).fetchall()
    assert listed, "no segment holds only what the server has"
    return home / "history" / draw.choice(listed)[0]


# Each kind in turn; of a segment what the server has is pulled again by a repair.
DAMAGES = {
    "state flipped": lambda home, draw: flip(home / "state.duckdb", draw),
    "state cut": lambda home, draw: os.truncate(
        home / "state.duckdb", draw.randrange((home / "state.duckdb").stat().st_size)
    ),
    "state missing": lambda home, draw: (home / "state.duckdb").unlink(),
    "log flipped": lambda home, draw: flip(home / "state.duckdb.wal", draw),
    "log missing": lambda home, draw: (home / "state.duckdb.wal").unlink(missing_ok=True),
    "published missing": lambda home, draw: (home / "mirror.duckdb").unlink(),
    "published flipped": lambda home, draw: flip(home / "mirror.duckdb", draw),
    "segment flipped": lambda home, draw: flip(segment(home, draw), draw),
    "segment missing": lambda home, draw: segment(home, draw).unlink(),
}


class Reader(threading.Thread):
    """Opens the published file over and over; what it reads must hang together."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench = bench
        self.opens = 0
        self.faults: list[str] = []
        self.stopped = threading.Event()
        self.paused = False
        self.looking = threading.Lock()

    def run(self) -> None:
        path = str(self.bench.home / "mirror.duckdb")
        while not self.stopped.is_set():
            time.sleep(0.02)
            with self.looking:
                if not self.paused:
                    self.look(path)

    def pause(self, *, paused: bool) -> None:
        """Look away while files are damaged, or look again."""
        with self.looking:
            self.paused = paused

    def look(self, path: str) -> None:
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
@pytest.mark.timeout(3000)
def test_killed_at_random_instants_with_files_damaged_on_a_failing_server_the_end_is_the_same(bench, capsys):
    draw = random.Random(7)
    bench.configure(projects='["team/p"]', text='projects = ["team/p"]\n[store]\ntail_values = "100k"\n')
    only_mirrored(bench, draw)
    alone = content(bench, KEPT, ALONE)
    assert all(alone.values()), {name: len(rows) for name, rows in alone.items()}
    assert len(alone["runs"]) == 8 + 5 + 3
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
    done = []
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
                bench.mirror("flush", "team/p" if kill % 40 == 39 else "team/p/run003", "--no-wait", check=False)
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
            if kill % DAMAGED_EVERY == DAMAGED_EVERY - 2:
                # The next sync meets the damage, and is killed as well.
                reader.pause(paused=True)
                kind = list(DAMAGES)[len(done) % len(DAMAGES)]
                DAMAGES[kind](bench.home, draw)
                done.append(kind)
            if kill % DAMAGED_EVERY == DAMAGED_EVERY - 1:
                # What the failing server did not give is left for the next time.
                bench.mirror("verify", "--repair", "team/p", check=False)
                reader.pause(paused=False)
        growing.finish()
        served = dict(bench.server.faults.counts)
        bench.server.faults.clear()
        bench.mirror("sync", "team/p")
        bench.mirror("verify", "--repair", "team/p", check=False)
        bench.mirror("sync", "team/p")
    finally:
        reader.stopped.set()
        reader.join()
    straight = bench.sql("select count(*), sum(value_count)::bigint from store.segments")
    proof = bench.mirror("verify", "team/p", check=False)
    found = content(bench, CONTENT, f"not {ALONE}")
    lost = {name: len(set(rows) - set(bench.sql(KEPT[name].format(which=ALONE)))) for name, rows in alone.items()}
    kept = content(bench, KEPT, ALONE)
    shutil.move(bench.home, bench.root / "disturbed")
    bench.home.mkdir()
    bench.mirror("sync", "team/p")
    assert bench.sql("select count(*) from store.segments") == [(0,)], "all of it in the tail, for comparison"
    expected = content(bench, CONTENT, f"not {ALONE}")
    differing = {name: len(set(found[name]) ^ set(expected[name])) for name in CONTENT}
    with capsys.disabled():
        print(f"\nkills {KILLS}, faults {served}, reader opens {reader.opens}, differences {sum(differing.values())}")
        print(f"damages {len(done)} ({', '.join(done)}), lost of what only the mirror had {sum(lost.values())}")
        print(f"segments {straight[0][0]}, values in them {straight[0][1]:,}")
    assert reader.faults == []
    assert {name: len(rows) for name, rows in found.items()} == {name: len(rows) for name, rows in expected.items()}
    assert differing == dict.fromkeys(CONTENT, 0)
    assert lost == dict.fromkeys(KEPT, 0)
    assert kept == alone
    assert set(done) == set(DAMAGES)
    assert (proof.returncode, proof.stdout) == (0, "")
    assert reader.opens > 100
