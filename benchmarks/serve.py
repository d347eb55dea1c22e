"""How long the unmodified SDK takes to read from the mirror, and from a server 30 ms away.

    python benchmarks/serve.py [--runs N] [--steps N] [--repeat N] [--latency SECONDS] [--only WORD]

A daemon on this machine mirrors a project of a sample server and serves it. The same scripts then read from the sample
server, whose answers are delayed by the latency, and from the daemon. Prints medians in seconds, of scripts that import
the SDK beforehand and start with empty caches; and the SDK's own time, which no server can reduce: the same script with
all answers of the daemon ready in memory. `--only` selects the scripts whose names contain a word.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from mirror.control import Control
from mirror.sandbox import Sandbox, World

EXPORT = """[
    (run.name, run.config, run.summary._json_dict, run.history(pandas=False)) for run in api.runs('acme/bench')[:100]
]"""
"""A script that reads everything of each run, one after the other, with the default arguments."""

SCRIPTS = {
    "export of 100 runs": " ".join(EXPORT.split()),
    "list runs, 50 a page": "[run.id for run in api.runs('acme/bench')]",
    "config and summary of all runs": (
        "[(run.config, run.summary._json_dict) for run in api.runs('acme/bench', lazy=False)]"
    ),
    "the same, 500 a page": (
        "[(run.config, run.summary._json_dict) for run in api.runs('acme/bench', per_page=500, lazy=False)]"
    ),
    "filter and order": (
        "[run.id for run in api.runs('acme/bench', {'config.lr': {'$lt': 0.5}}, order='-summary_metrics.loss')]"
    ),
    "a run by its name": "api.run('acme/bench/long').config",
    "history of 500 samples": "api.run('acme/bench/long').history(pandas=False)",
    "history of two keys": "api.run('acme/bench/long').history(keys=['loss', 'metric/1'], pandas=False, samples=10000)",
    "scan of a whole history": "list(api.run('acme/bench/long').scan_history(use_cache=False))",
    "histories of 20 short runs": "[run.history(pandas=False) for run in api.runs('acme/bench')[:20]]",
}

DRIVER = """
import json, sys, time
import wandb
for line in sys.stdin:
    api = wandb.Api(timeout=120)
    started = time.perf_counter()
    value = eval(line)
    print(json.dumps([time.perf_counter() - started, len(value)]), flush=True)
"""


def world(runs: int, steps: int) -> World:
    """Return a world of short runs with large configs, and a long run with 20 metrics."""
    sample_world = World(username="bench", entity="acme")
    for number in range(runs):
        config = {"lr": number / runs, **{f"option_{index}": index * number for index in range(40)}}
        run = sample_world.add_run("acme", "bench", config=config)
        run.log_many({"loss": 1 / (step + 1), "acc": step / 50} for step in range(50))
        run.finish()
    long = sample_world.add_run("acme", "bench", run_id="long")
    long.log_many(
        {"loss": 1 / (step + 1), **{f"metric/{index}": math.sin(step * index) for index in range(19)}}
        for step in range(steps)
    )
    long.finish()
    return sample_world


@contextmanager
def daemon(root: Path, server: Sandbox, runs: int, rows: int) -> Iterator[str]:
    """Start a daemon, wait until it has mirrored the project, and yield its address."""
    (root / "config.toml").write_text('projects = ["acme/bench"]\n[http]\nlisten = "127.0.0.1:0"\n')
    environ = {**os.environ, "MIRROR_HOME": str(root), "WANDB_BASE_URL": server.url, "WANDB_API_KEY": server.key}
    process = subprocess.Popen([sys.executable, "-m", "mirror.cli", "-q", "daemon"], env=environ)
    try:
        while True:
            time.sleep(0.2)
            try:
                with duckdb.connect(str(root / "mirror.duckdb"), read_only=True) as connection:
                    found = connection.execute("SELECT count(*), sum(history_rows) FROM runs").fetchall()
            except duckdb.Error:
                continue
            if found == [(runs, rows)]:
                break
        yield Control(root / "mirror.sock").status()["http"]["url"]
    finally:
        process.terminate()
        process.wait()


def measured(url: str, key: str, folder: Path, script: str, repeat: int) -> tuple[float, int]:
    """Return the median seconds of a script, and how many items it read."""
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("WANDB_")},
        "WANDB_BASE_URL": url,
        "WANDB_API_KEY": key,
        "WANDB_CACHE_DIR": str(folder),
        "WANDB_DIR": str(folder),
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",
    }
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=f"{script}\n" * repeat,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    return statistics.median(seconds for seconds, _ in answers), answers[0][1]


def main() -> None:
    """Create the data, measure both sides, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--latency", type=float, default=0.03)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="m") as name, Sandbox(world(given.runs, given.steps)) as server:
        root = Path(name)
        rows = given.runs * 50 + given.steps
        with daemon(root, server, given.runs + 1, rows) as url, replay(url) as ready:
            server.faults.add("latency", None, seconds=given.latency)
            print(f"{given.runs} runs of 50 rows, one of {given.steps:,}; {given.latency * 1000:.0f} ms a request")
            print(f"{'':34}{'server':>9}{'mirror':>9}{'ratio':>9}{'SDK alone':>11}{'at most':>9}")
            totals = [0.0, 0.0, 0.0]
            for label, script in SCRIPTS.items():
                if given.only not in label:
                    continue
                there, count = measured(server.url, server.key, root, script, given.repeat)
                here, same = measured(url, server.key, root, script, given.repeat)
                measured(ready, server.key, root, script, 1)
                alone, _ = measured(ready, server.key, root, script, given.repeat)
                assert count == same, (label, count, same)
                totals = [total + one for total, one in zip(totals, (there, here, alone), strict=True)]
                show(label, there, here, alone)
            show("all together", *totals)


def show(label: str, there: float, here: float, alone: float) -> None:
    """Print one line of the table."""
    print(f"{label:34}{there:9.3f}{here:9.3f}{there / here:9.1f}{alone:11.3f}{there / alone:9.1f}", flush=True)


@contextmanager
def replay(url: str) -> Iterator[str]:
    """Start a server that replays the answers of `url`, and yield its address."""
    command = [sys.executable, str(Path(__file__).with_name("replay.py")), url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
