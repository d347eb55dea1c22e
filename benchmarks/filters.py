"""How long filters take over 100,000 runs with 80 leaves each, from the leaf tables and from the JSON documents.

    python benchmarks/filters.py [--runs N] [--repeat N] [--unsorted] [--skip-json]

Builds a database in a temporary folder (about a minute), then prints the median of the whole answer - compile, plan,
run, fetch the ids in order - in a warm process with two threads, for both forms and with their ratio.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pyarrow as pa

from mirror.filters import compile as compile_filter
from mirror.store.leaves import LeafColumns

MIGRATION = Path(__file__).parents[1] / "sql" / "migrations" / "0001_initial.sql"
BATCH = 2_000

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
    """Config and summary of one run: 80 leaves, of mixed kinds, a tenth of the learning rates text."""
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


def build(path: Path, runs: int, *, ordered: bool) -> None:
    """Write the tables as the store does: leaves in batches of runs, then, if `ordered`, sorted by key once."""
    rng = random.Random(7)
    con = duckdb.connect()
    con.execute(f"ATTACH '{path}' AS mirror (STORAGE_VERSION 'v1.4.0')").fetchall()
    con.execute("USE mirror").fetchall()
    con.execute("CREATE SCHEMA IF NOT EXISTS store").fetchall()
    con.execute(MIGRATION.read_text()).fetchall()
    start = datetime(2025, 1, 1)
    leaves = LeafColumns()
    for first in range(0, runs, BATCH):
        rows, tags = [], []
        for rid in range(first, min(first + BATCH, runs)):
            config, summary = document(rng, rid)
            leaves.add(rid, "config", config)
            leaves.add(rid, "summary", summary)
            texts = orjson.dumps(config).decode(), orjson.dumps(summary).decode()
            state = rng.choice(["finished", "crashed", "running"])
            rows.append((rid, f"r{rid:07}", state, start + timedelta(minutes=rid), *texts))
            if rng.random() < 0.3:
                tags.append((rid, 0, "baseline"))
        names = ["rid", "run_id", "state", "created_at", "config", "summary"]
        insert(con, "store.runs", dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
        insert(
            con,
            "store.run_tags",
            dict(zip(["rid", "position", "tag"], map(list, zip(*tags, strict=True)), strict=True)),
        )
        insert(con, "store.leaves", leaves.table())
        leaves.clear()
    if ordered:
        con.execute("CREATE TABLE store.sorted AS SELECT * FROM store.leaves ORDER BY doc, key, rid").fetchall()
        con.execute("DROP TABLE store.leaves").fetchall()
        con.execute("ALTER TABLE store.sorted RENAME TO leaves").fetchall()
    con.execute("CHECKPOINT mirror").fetchall()
    con.close()


def insert(con: duckdb.DuckDBPyConnection, table: str, columns: Any) -> None:
    batch = columns if isinstance(columns, pa.Table) else pa.table(columns)
    con.register("batch", batch)
    con.execute(f"INSERT INTO {table} BY NAME SELECT * FROM batch").fetchall()
    con.unregister("batch")


def milliseconds(
    con: duckdb.DuckDBPyConnection, query: dict[str, Any], order: str, form: Any, repeat: int
) -> tuple[float, int]:
    """The median time of a whole answer, and how many runs it has."""
    times, found = [], 0
    for _ in range(repeat + 1):
        begin = time.perf_counter()
        compiled = compile_filter(query, order, form=form)
        found = len(con.execute(compiled.sql, list(compiled.params)).fetchall())
        times.append((time.perf_counter() - begin) * 1000)
    return statistics.median(times[1:]), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--unsorted", action="store_true", help="leave the leaves in the order in which runs came")
    parser.add_argument("--skip-json", action="store_true", help="measure the leaf form alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "filters.duckdb"
        begin = time.perf_counter()
        build(path, options.runs, ordered=not options.unsorted)
        size = path.stat().st_size / 1e6
        con = duckdb.connect(str(path), read_only=True, config={"threads": 2})
        [(count,)] = con.execute("SELECT count(*) FROM store.leaves").fetchall()
        built = time.perf_counter() - begin
        print(f"DuckDB {duckdb.__version__}, {options.runs:,} runs, {count:,} leaf rows, {size:.0f} MB, {built:.0f} s")
        print(f"{'leaves ms':>10} {'json ms':>10} {'ratio':>7} {'runs':>8}  filter, order")
        slowest = 0.0
        for query, order in FILTERS:
            leaves, found = milliseconds(con, query, order, "leaves", options.repeat)
            slowest = max(slowest, leaves)
            json_ms, ratio = "-", "-"
            if not options.skip_json:
                documents, same = milliseconds(con, query, order, "json", 3)
                if same != found:
                    raise SystemExit(f"{query}: {found} runs by the leaves, {same} by the documents")
                json_ms, ratio = f"{documents:.1f}", f"{documents / leaves:.0f}x"
            print(f"{leaves:10.1f} {json_ms:>10} {ratio:>7} {found:8,}  {orjson.dumps(query).decode()} {order}")
        print(f"slowest from the leaf tables: {slowest:.1f} ms")
        con.close()


if __name__ == "__main__":
    main()
