"""The Python API over the mirror against the official SDK, both in warm processes, from one sample server.

Listing: a filter over 5,000 runs, and id and name of each; the snapshot is open. Documents: also one config and one
summary value of each run (the SDK with lazy=False, which requests them in the same pages). History: every row of 100
runs, as dictionaries and as tables. Prints medians and ratios.
Usage: python benchmarks/api.py [--repeat 5] [--sdk-repeat 3]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from sync import server

PATH = "acme/bench"

TIMED = """
import gc, json, sys, time
def median(work, repeat):
    times = []
    for _ in range(repeat):
        gc.collect()
        started = time.perf_counter()
        count = work()
        times.append(time.perf_counter() - started)
    times.sort()
    return {"count": count, "seconds": times[len(times) // 2]}
asked = 0
def wanted():
    # A new filter each time, since both sides cache the answers to earlier ones.
    global asked
    asked += 1
    return {"config.lr": {"$gt": -asked}}
path, repeat = sys.argv[1], int(sys.argv[2])
"""

SDK_RUNS = """
import wandb
api = wandb.Api(timeout=120)
def listing():
    return len([(run.id, run.name) for run in api.runs(path, wanted())])
def documents():
    runs = api.runs(path, wanted(), lazy=False)
    return len([(run.config["lr"], run.summary["loss"]) for run in runs])
print(json.dumps({"listing": median(listing, repeat), "documents": median(documents, repeat)}))
"""

MIRROR_RUNS = """
import mirror
api = mirror.Api()
def listing():
    return len([(run.id, run.name) for run in api.runs(path, wanted())])
def documents():
    return len([(run.config["lr"], run.summary["loss"]) for run in api.runs(path, wanted())])
listing()
print(json.dumps({"listing": median(listing, repeat), "documents": median(documents, repeat)}))
"""

SDK_HISTORY = """
import wandb
def rows():
    return sum(1 for run in wandb.Api(timeout=120).runs(path, per_page=1000) for row in run.scan_history())
print(json.dumps({"rows": median(rows, repeat)}))
"""

MIRROR_HISTORY = """
import mirror
api = mirror.Api()
def rows():
    api.refresh()
    return sum(1 for run in api.runs(path) for row in run.scan_history())
def frames():
    api.refresh()
    return sum(len(run.history(samples=None)) for run in api.runs(path))
def polars():
    api.refresh()
    return api.runs(path).histories(samples=None, format="polars").height
def arrow():
    api.refresh()
    return api.runs(path).histories(samples=None, format="arrow").num_rows
for work in (rows, frames, polars, arrow):
    work()
works = {"rows": rows, "pandas": frames, "polars": polars, "arrow": arrow}
print(json.dumps({name: median(work, repeat) for name, work in works.items()}))
"""

IMPORTING = "import time; started = time.perf_counter(); import mirror; print(time.perf_counter() - started)"


def measure(script: str, environ: dict[str, str], repeat: int) -> dict[str, dict[str, float]]:
    """Run one script in its own process and home folder, and return its figures."""
    folder = tempfile.mkdtemp(prefix="api-bench-")
    own = dict.fromkeys(("HOME", "WANDB_DIR", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR"), folder)
    try:
        command = [sys.executable, "-c", TIMED + script, PATH, str(repeat)]
        done = subprocess.run(command, env={**environ, **own}, check=True, capture_output=True, text=True, cwd=folder)
        found: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
        return found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def compare(size: tuple[int, int, int], scripts: tuple[str, str], repeat: int, sdk_repeat: int) -> list[str]:
    """Mirror the sample project, time both sides over it, and return one line per figure."""
    home = Path(tempfile.mkdtemp(prefix="mirror-bench-"))
    try:
        with server(f"grid({', '.join(map(str, size))}, True)") as given:
            environ = {**given.environ, "MIRROR_HOME": str(home)}
            subprocess.run([Path(sys.executable).with_name("mirror"), "-q", "sync", PATH], env=environ, check=True)
            ours = measure(scripts[0], environ, repeat)
            theirs = measure(scripts[1], environ, sdk_repeat)
    finally:
        shutil.rmtree(home)
    lines = []
    for name, figure in ours.items():
        other = theirs.get(name, theirs[next(iter(theirs))])
        if figure["count"] != other["count"]:
            raise SystemExit(f"{name}: {figure['count']:,} here, {other['count']:,} with the SDK")
        ratio = other["seconds"] / figure["seconds"]
        lines.append(f"{name:12}{figure['seconds']:10.4f}{other['seconds']:10.3f}{ratio:10.0f}")
    return lines


def main() -> None:
    """Measure and print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--repeat", type=int, default=5)
    options.add_argument("--sdk-repeat", type=int, default=3)
    options.add_argument("--small", action="store_true", help="a tenth of the data, to try the script")
    given = options.parse_args()
    part = 10 if given.small else 1
    imports = [float(subprocess.check_output([sys.executable, "-c", IMPORTING])) for _ in range(given.repeat)]
    runs = compare((5000 // part, 3, 5), (MIRROR_RUNS, SDK_RUNS), given.repeat, given.sdk_repeat)
    history = compare((100 // part, 2000, 20), (MIRROR_HISTORY, SDK_HISTORY), given.repeat, given.sdk_repeat)
    print(f"import mirror: {statistics.median(imports) * 1000:.0f} ms; {os.cpu_count()} cores")
    print(f"{'':12}{'mirror s':>10}{'SDK s':>10}{'ratio':>10}")
    titles = (f"{5000 // part:,} runs that match a filter", f"{200_000 // part:,} history rows of {100 // part} runs")
    for title, lines in zip(titles, (runs, history), strict=True):
        print("\n".join([title, *lines]))


if __name__ == "__main__":
    main()
