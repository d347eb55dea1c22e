"""Whether two versions of the program publish the same file: run it after a change for speed.

    python benchmarks/same.py /path/to/the/other/bin/mirror [--only small,full,odd,sweep,exported]

Both sync the same sample projects into empty homes. Prints how many rows each published relation has, and fails at the
first relation of which one file has rows that the other lacks (`EXCEPT ALL` both ways). Times of this machine's clock,
such as `synced_at`, are left out.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import duckdb

from mirror.sandbox import Sandbox, World, sample
from mirror.store.names import identifier

CLOCKS = {"synced_at", "last_attempt_at", "last_success_at", "first_seen_at", "seen_at", "published_at", "lag_s"}
"""Columns that hold the time of this machine."""


def odd_documents() -> Iterator[dict[str, Any]]:
    """Yield documents that few people log."""
    rng = Random(11)
    for number in range(12):
        yield {"x": math.nan, "y": math.inf, "z": -math.inf, "fine": number / 7}
        yield {"long": 2**63 - 1, "longer": -(2**63), "longest": 10**30 + number, "exact": 2**53 + 1, "n": number}
        yield {"lists": [[1, [2.5, None]], {"a": [True]}], "empty": [], "numbers": [1, 2.0, math.nan], "o": {}}
        yield {"b": 1, "a": {"c": number, "b": "text"}}
        yield {"a": {"b": "text", "c": number}, "b": 1.5}
        # Not {"a.c": 1, "a": {"c": 2}}: which of the two has the column of that name is left open.
        yield {"a.c": 1, "a": {"e": 2}, "a.c.d": 3, "": 4, ".": 5}
        yield {"Lr": number, "lr": number / 3, "LR": "text"}
        yield {"huge": "x" * (100_000 + number), "small": 5e-324, "large": 1.7976931348623157e308, "zero": -0.0}
        yield {"quotes": '"\\\n\t\u0007', "words": "NaN", "unicode": "häß 🎉", "nul": "a\0b", "num\0": 1}
        yield {"rounded": round(rng.random(), number), "power": 10.0 ** rng.randrange(-30, 30), "whole": float(number)}
        yield {f"own/{number}/{place}": place for place in range(5)}
        yield {"mixed": rng.choice([1, 1.5, "text", None, True, [1], {"in": 1}, {}])}
    deep: dict[str, Any] = {"end": 1}
    for _ in range(60):
        deep = {"d": deep}
    for _ in range(6):
        yield deep
    yield {}


def odd() -> World:
    """Return a project whose runs have these as config, as summary, and as both."""
    world = World(username="ada", entity="acme")
    for number, document in enumerate(odd_documents()):
        run = world.add_run("acme", "odd", config=document if number % 3 else {}, summary=document)
        run.finish()
    return world


def worlds() -> dict[str, tuple[World, str]]:
    """Return the sample projects by name, with what to sync of each."""
    from sync import many_runs

    return {
        "small": (sample.small(), ""),
        "full": (sample.full(), ""),
        "odd": (odd(), "acme/odd"),
        "sweep": (many_runs(2500), "acme/bench"),
        "exported": (sample.grid(4, 1500, 6, exported=True), "acme/bench"),
    }


def synced(program: str, server: Sandbox, world: World, path: str, home: Path) -> Path:
    """Sync with one program; return its published file."""
    paths = [path] if path else [f"{entity}/*" for entity in world.entities()]
    environ = {**os.environ, "MIRROR_HOME": str(home), "WANDB_BASE_URL": server.url, "WANDB_API_KEY": server.key}
    # Some sample runs are broken on purpose: then the command fails, in both versions.
    subprocess.run([program, "-q", "sync", *paths], env=environ, check=False, capture_output=True)
    return home / "mirror.duckdb"


def compare(one: Path, other: Path) -> dict[str, int]:
    """Return the number of rows of each relation. Exits if the files differ."""
    counts = {}
    with duckdb.connect() as connection:
        for name, path in (("one", one), ("other", other)):
            connection.execute(f"ATTACH '{path}' AS {name} (READ_ONLY)").fetchall()
        listed = "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE schema_name = 'main' AND "
        columns, columns_of_other = (
            connection.execute(f"{listed} database_name = '{name}' ORDER BY ALL").fetchall()
            for name in ("one", "other")
        )
        if columns != columns_of_other:
            sys.exit(f"other columns: {set(columns) ^ set(columns_of_other)}")
        for relation in dict.fromkeys(table for table, _, _ in columns):
            kept = [identifier(name) for table, name, _ in columns if table == relation and name not in CLOCKS]
            chosen = ", ".join(kept)
            here, there = (f"SELECT {chosen} FROM {name}.main.{identifier(relation)}" for name in ("one", "other"))
            missing = connection.execute(
                f"SELECT 'one', * FROM ({here} EXCEPT ALL {there}) UNION ALL "
                f"SELECT 'other', * FROM ({there} EXCEPT ALL {here}) LIMIT 4"
            ).fetchall()
            if missing:
                sys.exit("\n".join([f"{relation} ({chosen}) differs:", *map(str, missing)]))
            counts[relation] = connection.execute(f"SELECT count(*) FROM ({here})").fetchall()[0][0]
    return counts


def main() -> None:
    """Compare, world by world."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("other", help="the `mirror` command of the other version")
    options.add_argument("--only", default="small,full,odd,sweep,exported")
    given = options.parse_args()
    mine = str(Path(sys.executable).with_name("mirror"))
    for name, (world, path) in worlds().items():
        if name not in given.only.split(","):
            continue
        with Sandbox(world) as server, tempfile.TemporaryDirectory(prefix="same-") as folder:
            files = [
                synced(program, server, world, path, Path(folder, side))
                for side, program in (("mine", mine), ("other", given.other))
            ]
            counts = compare(*files)
            print(f"{name}: the same; " + ", ".join(f"{table} {rows:,}" for table, rows in counts.items()), flush=True)


if __name__ == "__main__":
    main()
