"""How the costs of a mirror grow with its runs and with its projects.

    python benchmarks/growth.py [--runs 1000,100000] [--projects 100,1000] [--daemon SECONDS]

- runs: a project with that many mirrored runs of 80 values, all settled. In a new process: opening the store (after a
  first sync its file may be compacted), a pass over nothing new (requests, wall and CPU time), the publish after a run
  changed, `known_runs`, memory.
- projects: that many projects of one run. The first sync of all, opening the store, a pass over nothing new in all of
  them, the publish after it, memory.
- daemon: with the larger number of projects, all polled every 60 s, for this long after the first sync: how often each
  was polled, how many passes are late, and how busy the daemon was.

Times are medians of five where they are repeated. The sample server runs in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from filters import PROJECT, document, record
from msgspec.structs import replace
from sync import HERE, SampleServer, server

from mirror.control import Control
from mirror.remote.client import Server
from mirror.sandbox import World
from mirror.settings.home import Home
from mirror.store import projects, sorting
from mirror.store import runs as stored_runs
from mirror.store.records import ProjectCursor, ProjectKey, RunFacts
from mirror.store.store import Store
from mirror.sync import engine
from mirror.sync.context import Context, Scope, utc_now
from mirror.sync.project import sync_project
from mirror.sync.targets import Target
from mirror.sync.writer import Writer

START = datetime(2025, 1, 1)
BATCH = 2_000
TIMES = 5


def bare_runs(runs: int) -> World:
    """Return `acme/bench` with runs without values: a pass over nothing new asks for none."""
    world = World(username="ada", entity="acme")
    for number in range(runs):
        world.add_run("acme", "bench", run_id=f"r{number:07}", state="finished", created_at=at(number))
    return world


def many_projects(count: int) -> World:
    """Return projects of one finished run."""
    world = World(username="ada", entity="acme")
    for number in range(count):
        world.add_run("acme", f"p{number}", config={"lr": number}, state="finished", created_at=START)
    return world


def at(number: int) -> datetime:
    return START + timedelta(minutes=number)


def home_in(folder: str | Path) -> Home:
    return Home(Path(folder), Path(folder) / "config.toml")


def build(home: Home, runs: int) -> None:
    """Mirror runs with documents, as if they had been pulled; published."""
    rng = random.Random(7)
    with Store_(home) as store:
        for first in range(0, runs, BATCH):
            records = []
            for number in range(first, min(first + BATCH, runs)):
                config, summary = document(rng, number)
                made = record(number, config, summary, "finished", (), at(number))
                records.append(replace(made, server_events=0, server_log_lines=0, facts=RunFacts()))
            with store.transaction() as tx:
                projects.add(tx, PROJECT)
                stored_runs.upsert(tx, records, now=START)
        scope = Scope()
        cursor = ProjectCursor(at(runs), utc_now(), None, scope.filters_text, scope.history_text)
        with store.transaction() as tx:
            projects.set_cursor(tx, PROJECT, cursor)
        store.tend()
        store.publish()


class Store_:  # noqa: N801 - a Store as a context manager
    def __init__(self, home: Home) -> None:
        self._home = home

    def __enter__(self) -> Store:
        self._store = Store.open(self._home)
        return self._store

    def __exit__(self, *_: object) -> None:
        self._store.close()


class Meter:
    """Collects what a child process measured."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    def time(self, name: str, work: Callable[[], Any], times: int = 1) -> Any:
        """Measure the median wall and CPU time of some work, in milliseconds; return what it returned last."""
        walls, cpus, result = [], [], None
        for _ in range(times):
            started, cpu = time.perf_counter(), time.process_time()
            result = work()
            walls.append((time.perf_counter() - started) * 1000)
            cpus.append((time.process_time() - cpu) * 1000)
        self.found[name] = f"{statistics.median(walls):,.0f} ms, {statistics.median(cpus):,.0f} CPU"
        return result

    def memory(self, name: str) -> None:
        """Note the most memory that this process had until now."""
        # Not ru_maxrss, which counts the memory of the process that started this one, too.
        most = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
        self.found[name] = f"{int(most) / 1024:,.0f} MB"


def passes(meter: Meter, store: Store, url: str, key: str, targets: list[Target], times: int) -> None:
    """Measure passes over nothing new, without publishing."""
    writer = Writer(store, 3600)

    async def work() -> None:
        async with Server(url, key) as client:
            context = Context(client, writer, Scope())
            walls, cpus = [], []
            for _ in range(times + 1):
                started, cpu = time.perf_counter(), time.process_time()
                results = await asyncio.gather(*(engine_pass(context, target) for target in targets))
                walls.append((time.perf_counter() - started) * 1000)
                cpus.append((time.process_time() - cpu) * 1000)
                requests = sum(result.requests for result in results)
                errors = [result.error for result in results if result.error]
                changed = sum(result.runs for result in results)
                assert not errors, errors[:3]
            wall, cpu = statistics.median(walls[1:]), statistics.median(cpus[1:])
            meter.found["a pass over nothing new"] = f"{wall:,.0f} ms, {cpu:,.0f} CPU"
            meter.found["its requests"] = f"{requests:,}" + (f", {changed} RUNS PULLED" if changed else "")

    slots = asyncio.Semaphore(engine.PROJECTS_AT_ONCE)

    async def engine_pass(context: Context, target: Target) -> Any:
        async with slots:
            result = await sync_project(context, target.project)
            await context.writer.maintain()
            return result

    asyncio.run(work())
    writer.close()


def child_runs(folder: str, url: str, key: str) -> Meter:
    """Measure a home with many runs."""
    meter = Meter()
    store = meter.time("opening, after a first sync", lambda: Store.open(home_in(folder)))
    store.close()
    store = meter.time("opening the store", lambda: Store.open(home_in(folder)))
    meter.memory("memory, store opened")
    passes(meter, store, url, key, [Target(PROJECT)], TIMES)
    meter.memory("memory after it")
    one = record(3, {"lr": 0.5}, {"acc": 0.5}, "finished", (), at(3))

    def change() -> None:
        with store.transaction() as tx:
            stored_runs.upsert(tx, [one], now=utc_now())
        store.publish()

    meter.time("the first publish, one run changed", change)
    meter.time("publishing one changed run", change, TIMES)
    meter.time("known_runs, all", lambda: store.read(lambda db: stored_runs.known(db, PROJECT)), TIMES)
    meter.time("known_runs, unsettled", lambda: store.read(lambda db: stored_runs.unsettled(db, PROJECT)), TIMES)
    meter.found["leaves sorted"] = str(not store.read(sorting.is_due))
    meter.memory("memory at the end")
    store.close()
    return meter


def child_projects(folder: str, url: str, key: str) -> Meter:
    """Measure a home with many projects: first their first sync, then all else."""
    meter = Meter()
    config = (Path(folder) / "config.toml").read_text()
    targets = [Target(ProjectKey("acme", f"p{number}")) for number in range(config.count("acme/"))]
    store = Store.open(home_in(folder))
    writer = Writer(store, 3600)

    async def first() -> None:
        async with Server(url, key) as client:
            await engine.sync(Context(client, writer, Scope()), targets)

    meter.time("the first sync, published", lambda: asyncio.run(first()))
    writer.close()
    store.close()
    store = meter.time("opening the store", lambda: Store.open(home_in(folder)))
    passes(meter, store, url, key, targets, 2)
    meter.time("the first publish", store.publish)

    def change() -> None:
        with store.transaction() as tx:
            projects.record_success(tx, targets[0].project, utc_now())
        store.publish()

    meter.time("publishing the end of a pass", change, TIMES)
    meter.memory("memory at the end")
    store.close()
    return meter


def in_child(kind: str, folder: str, at_server: SampleServer) -> dict[str, str]:
    """Measure in a process of its own, so that memory is what the mirror alone takes."""
    done = subprocess.run(
        [sys.executable, __file__, "--child", kind, folder, at_server.url, at_server.key],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": HERE},
    )
    if done.returncode:
        sys.exit(done.stderr)
    measured: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return measured


def print_table(title: str, sizes: list[int], found: list[dict[str, str]]) -> None:
    print(f"\n{title:40}" + "".join(f"{size:>28,}" for size in sizes))
    for name in found[0]:
        print(f"{name:40}" + "".join(f"{one.get(name, ''):>28}" for one in found), flush=True)


def write_config(folder: str, count: int, more: str = "") -> None:
    names = ", ".join(f'"acme/p{number}"' for number in range(count))
    Path(folder, "config.toml").write_text(f"projects = [{names}]\n{more}")


def daemon(folder: str, at_server: SampleServer, count: int, seconds: float) -> None:
    """Run a daemon over many projects that are mirrored already; print whether it keeps its schedule."""
    more = '[sync]\ninterval = "60s"\n[http]\nlisten = ""\n'
    write_config(folder, count, more)
    environ = {**at_server.environ, "MIRROR_HOME": folder}
    process = subprocess.Popen([sys.executable, "-m", "mirror.cli", "-q", "daemon"], env=environ)
    try:
        socket = home_in(folder).socket
        until = time.monotonic() + 600
        polled = 0
        at_server.counts()
        # Each project is polled once at the start.
        while polled < count and time.monotonic() < until:
            time.sleep(0.5)
            polled += at_server.counts()[0]
        cpu, started = cpu_of(process.pid), time.monotonic()
        time.sleep(seconds)
        cpu, took, requests = cpu_of(process.pid) - cpu, time.monotonic() - started, at_server.counts()[0]
        status = Control(socket).status()
        late = [problem["message"] for problem in status["problems"] if problem["kind"] == "schedule"]
        published = status["published"]
        print(
            f"\na daemon with {count:,} projects, each polled every 60 s: {requests:,} requests in {took:.0f} s, "
            f"planned {count * took / 60:,.0f}; late: {', '.join(late) or 'none'}; {cpu / took * 100:.0f}% of a core, "
            f"{published['count']} publications, the last one took {published['last_seconds']} s",
            flush=True,
        )
    finally:
        process.terminate()
        process.wait()


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of a process until now."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Build the data, measure, and print the tables."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--runs", default="1000,100000", help="empty: none")
    options.add_argument("--projects", default="100,1000", help="empty: none")
    options.add_argument("--daemon", type=float, default=120.0, help="seconds; 0: none")
    options.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        kind, folder, url, key = given.child
        print(json.dumps({"runs": child_runs, "projects": child_projects}[kind](folder, url, key).found))
        return
    sizes = [int(text) for text in given.runs.split(",") if text]
    found = []
    for size in sizes:
        folder = tempfile.mkdtemp(prefix="growth-")
        try:
            build(home_in(folder), size)
            with server(f"bare_runs({size})", module="growth") as at_server:
                found.append(in_child("runs", folder, at_server))
        finally:
            shutil.rmtree(folder)
    if found:
        print_table("mirrored runs", sizes, found)
    sizes = [int(text) for text in given.projects.split(",") if text]
    found = []
    for size in sizes:
        folder = tempfile.mkdtemp(prefix="growth-")
        try:
            write_config(folder, size)
            with server(f"many_projects({size})", module="growth") as at_server:
                found.append(in_child("projects", folder, at_server))
                if size == max(sizes):
                    print_table("projects of one run", sizes[: len(found)], found)
                    if given.daemon:
                        daemon(folder, at_server, size, given.daemon)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
