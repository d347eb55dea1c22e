"""How long filters take over 100,000 runs with 80 leaves each: in a warm process, cold, and against the official SDK.

    python benchmarks/filters.py [--runs N] [--repeat N] [--sdk-runs N] [--unsorted] [--skip-json] [--skip-sdk]

Builds a mirror in a temporary folder (two minutes). For each filter it prints the median time of the whole answer -
compile, plan, run, fetch the ids in order - in a warm process with two threads, from the leaf tables and from the JSON
documents; and the median of whole `mirror query` processes, whose lower bound is a Python process that only imports
duckdb and opens the file. Then, over fewer runs on the sample server, it runs the same filters through
`api.runs(filters=...)` of the official SDK.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from mirror.filters import compile as compile_filter
from mirror.settings.home import Home
from mirror.store import projects, sorting
from mirror.store import runs as stored_runs
from mirror.store.records import ProjectKey, RunRecord
from mirror.store.store import Store

PROJECT = ProjectKey("acme", "bench")
BATCH = 2_000

SERVER = """
import random, sys
sys.path.insert(0, sys.argv[2])
from filters import document
from mirror.sandbox import Sandbox, World
world, rng = World(), random.Random(7)
for number in range(int(sys.argv[1])):
    config, summary = document(rng, number)
    world.add_run("acme", "bench", config=config, summary=summary, state=rng.choice(["finished", "crashed"]))
with Sandbox(world) as server:
    print(server.url, server.key, flush=True)
    sys.stdin.read()
"""

SDK = """
import json, statistics, sys, time
import wandb
for text in sys.stdin:
    times = []
    for _ in range(int(sys.argv[1])):
        api = wandb.Api(timeout=120)  # a new one, with an empty cache
        started = time.perf_counter()
        found = len([run.id for run in api.runs("acme/bench", json.loads(text))])
        times.append(time.perf_counter() - started)
    print(json.dumps([statistics.median(times), found]), flush=True)
"""

FILTERS: list[tuple[dict[str, Any], str]] = [
    ({"state": "running", "config.seed": {"$lt": 2000}}, "-created_at"),
    ({"config.lr": {"$gt": 0.099}}, "-created_at"),
    ({"config.lr": {"$gt": 0.01}}, "-created_at"),
    ({"config.optimizer.lr": {"$gt": 0.99}}, "-created_at"),
    ({"config.experiment_name": "exp1"}, "-created_at"),
    ({"$or": [{"config.experiment_name": "exp1"}, {"config.experiment_name": "exp2"}]}, "-created_at"),
    ({"config.experiment_name": {"$in": ["exp1", "exp2", "exp3"]}}, "-created_at"),
    ({"config.model.arch": {"$regex": "^vit"}, "config.seed": {"$lt": 2000}}, "-created_at"),
    ({"config.lora": {"$exists": True}}, "-created_at"),
    ({"config.lora.r": {"$ne": 8}, "config.seed": {"$lt": 2000}}, "-created_at"),
    ({"config.lora": None, "config.seed": {"$lt": 2000}}, "-created_at"),
    ({"config.layers": 512}, "-created_at"),
    ({"summary_metrics.acc": {"$gte": 0.5, "$lt": 0.51}}, "-created_at"),
    ({"summary_metrics.acc": {"$gt": 0.99}, "config.lr": {"$lt": 1e-4}}, "-created_at"),
    ({"$or": [{"summary_metrics.acc": {"$gt": 0.999}}, {"config.lr": {"$gt": 0.0999}}]}, "-created_at"),
    ({"summary_metrics.train/metric_11": {"$gt": 0.99}}, "-summary_metrics.acc"),
    ({"tags": "baseline", "config.seed": {"$lt": 2000}}, "-created_at"),
    ({"tags": {"$nin": ["baseline"]}, "config.seed": {"$lt": 2000}}, "-created_at"),
    ({"created_at": {"$gt": "2025-03-09"}}, "-created_at"),
]


def document(rng: random.Random, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return config and summary of one run: 80 leaves of mixed types; a tenth of the learning rates are text."""
    config: dict[str, Any] = {
        "lr": 10 ** -(rng.random() * 4 + 1) if rng.random() < 0.9 else "1e-3",
        "optimizer": {"name": rng.choice(["adam", "sgd"]), "lr": rng.random(), "betas": [0.9, 0.99], "eps": 1e-8},
        "model": {"layers": rng.randrange(2, 48), "arch": rng.choice(["vit-b", "vit-l", "resnet50"])},
        "seed": number,
        "experiment_name": f"exp{number % 50}",
        "layers": [64, 128, 512] if rng.random() < 0.02 else [64, 128, 256],
    }
    if rng.random() < 0.14:
        config["lora"] = {"r": 8}
    for n in range(30):
        config[f"param_{n}"] = (rng.random(), rng.randrange(100), f"value{rng.randrange(20)}")[n % 3]
    summary = {"acc": rng.random() if rng.random() < 0.97 else float("nan"), "_step": rng.randrange(10_000)}
    summary |= {f"train/metric_{n}": rng.random() for n in range(36)}
    return config, summary


def build(home: Home, runs: int) -> None:
    """Write the runs as a first sync does, in pages, and publish."""
    rng = random.Random(7)
    start = datetime(2025, 1, 1)
    store = Store.open(home)
    for first in range(0, runs, BATCH):
        records = []
        for number in range(first, min(first + BATCH, runs)):
            config, summary = document(rng, number)
            state = rng.choice(["finished", "crashed", "running"])
            tags = ("baseline",) if rng.random() < 0.3 else ()
            records.append(record(number, config, summary, state, tags, start + timedelta(minutes=number)))
        with store.transaction() as tx:
            projects.add(tx, PROJECT)
            stored_runs.upsert(tx, records, now=start)
    store.tend()
    store.publish()
    store.close()


def record(
    number: int, config: dict[str, Any], summary: dict[str, Any], state: str, tags: tuple[str, ...], at: datetime
) -> RunRecord:
    """Return a run with these documents."""
    empty: dict[str, Any] = dict.fromkeys(
        ["group_name", "job_type", "sweep", "notes", "description", "git_commit", "host"]
    )
    return RunRecord(
        entity=PROJECT.entity,
        project=PROJECT.project,
        run_id=f"r{number:07}",
        storage_id=f"s{number}",
        name=f"run {number}",
        state=state,
        created_at=at,
        heartbeat_at=at,
        updated_at=at,
        duration_s=60.0,
        username="ada",
        tags=tags,
        url="",
        config=config,
        summary=summary,
        **empty,
    )


def milliseconds(
    con: duckdb.DuckDBPyConnection, query: dict[str, Any], order: str, form: Any, repeat: int
) -> tuple[float, int]:
    """Return the median time of a whole answer, and how many runs it has."""
    times, found = [], 0
    for _ in range(repeat + 1):
        begin = time.perf_counter()
        compiled = compile_filter(query, order, form=form)
        found = len(con.execute(compiled.sql, list(compiled.params)).fetchall())
        times.append((time.perf_counter() - begin) * 1000)
    return statistics.median(times[1:]), found


def cold(home: Home, query: dict[str, Any], repeat: int) -> float:
    """Return the median time of a whole `mirror query` process, in milliseconds."""
    command = [str(Path(sys.executable).with_name("mirror")), "query", "--filter", json.dumps(query), "--limit", "50"]
    environ = installed() | {"MIRROR_HOME": str(home.data)}

    def once() -> None:
        subprocess.run(command, env=environ, check=True, capture_output=True)

    once()
    return median(once, repeat)


def floor(home: Home, repeat: int) -> float:
    """Return the median time of a process that only opens the file, in milliseconds."""
    code = f"import duckdb; duckdb.connect({str(home.published)!r}, read_only=True).close()"

    def once() -> None:
        subprocess.run([sys.executable, "-c", code], env=installed(), check=True)

    once()
    return median(once, repeat)


def installed() -> dict[str, str]:
    """Return an environment in which compiled modules are cached, as those of installed programs are."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def median(work: Callable[[], Any], repeat: int) -> float:
    times = []
    for _ in range(repeat):
        begin = time.perf_counter()
        work()
        times.append((time.perf_counter() - begin) * 1000)
    return statistics.median(times)


@contextmanager
def sample_server(runs: int) -> Iterator[dict[str, str]]:
    """Start a sample server with the same kind of runs in its own process; yields an environment that points at it."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(runs), str(Path(__file__).parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        url, key = process.stdout.readline().split()
        yield installed() | {"WANDB_BASE_URL": url, "WANDB_API_KEY": key, "WANDB_SILENT": "true"}
    finally:
        process.terminate()
        process.wait()


def beside_the_sdk(folder: Path, runs: int, repeat: int) -> None:
    """Print the times of the same filters with the official SDK and with a mirror of the same server."""
    home = Home(folder, folder / "config.toml")
    own = dict.fromkeys(("HOME", "WANDB_DIR", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR"), str(folder))
    queries = [query for query, _ in FILTERS if "tags" not in query]
    with sample_server(runs) as environ:
        command = [str(Path(sys.executable).with_name("mirror")), "-q", "sync", str(PROJECT)]
        subprocess.run(command, env={**environ, "MIRROR_HOME": str(folder)}, check=True)
        lines = "".join(json.dumps(query) + "\n" for query in queries)
        sdk = subprocess.run(
            [sys.executable, "-c", SDK, str(repeat)],
            env={**environ, **own},
            input=lines,
            capture_output=True,
            check=True,
            text=True,
            cwd=folder,
        )
    print(f"{runs:,} runs on the sample server, ids of all runs that match")
    print(f"{'mirror ms':>10} {'SDK ms':>10} {'ratio':>7} {'runs':>8}  filter")
    with duckdb.connect(str(home.published), read_only=True, config={"threads": 2}) as con:
        for query, line in zip(queries, sdk.stdout.splitlines(), strict=True):
            seconds, found = json.loads(line)
            mirror, same = milliseconds(con, query, "-created_at", "leaves", repeat)
            if same != found:
                raise SystemExit(f"{query}: {same} runs by the mirror, {found} by the SDK")
            ratio = f"{seconds * 1000 / mirror:.0f}x"
            print(f"{mirror:10.1f} {seconds * 1000:10.1f} {ratio:>7} {found:8,}  {json.dumps(query)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--sdk-runs", type=int, default=5_000)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--unsorted", action="store_true", help="store the leaves in the order of arrival")
    parser.add_argument("--skip-json", action="store_true", help="do not measure the JSON form")
    parser.add_argument("--skip-sdk", action="store_true", help="do not measure the SDK")
    options = parser.parse_args()
    if options.unsorted:
        sorting.FEWEST = sys.maxsize
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder), Path(folder) / "config.toml")
        begin = time.perf_counter()
        build(home, options.runs)
        built = time.perf_counter() - begin
        size = home.published.stat().st_size / 1e6
        con = duckdb.connect(str(home.published), read_only=True, config={"threads": 2})
        [(count,)] = con.execute("SELECT count(*) FROM store.leaves").fetchall()
        print(f"DuckDB {duckdb.__version__}, {options.runs:,} runs, {count:,} leaf rows, {size:.0f} MB, {built:.0f} s")
        print(f"{'leaves ms':>10} {'json ms':>10} {'ratio':>7} {'cold ms':>8} {'runs':>8}  filter, order")
        slowest = slowest_cold = 0.0
        for query, order in FILTERS:
            leaves, found = milliseconds(con, query, order, "leaves", options.repeat)
            slowest = max(slowest, leaves)
            json_ms, ratio = "-", "-"
            if not options.skip_json:
                documents, same = milliseconds(con, query, order, "json", 3)
                if same != found:
                    raise SystemExit(f"{query}: {found} runs by the leaves, {same} by the documents")
                json_ms, ratio = f"{documents:.1f}", f"{documents / leaves:.0f}x"
            whole = cold(home, query, 5)
            slowest_cold = max(slowest_cold, whole)
            text = f"{json.dumps(query)} {order}"
            print(f"{leaves:10.1f} {json_ms:>10} {ratio:>7} {whole:8.0f} {found:8,}  {text}", flush=True)
        print(f"slowest: {slowest:.1f} ms from the leaf tables, {slowest_cold:.0f} ms as a whole process")
        print(f"a process that only imports duckdb and opens the file: {floor(home, 9):.0f} ms")
        con.close()
    if not options.skip_sdk:
        with tempfile.TemporaryDirectory() as folder:
            beside_the_sdk(Path(folder), options.sdk_runs, 5)


if __name__ == "__main__":
    main()
