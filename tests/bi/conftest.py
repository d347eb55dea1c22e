"""A published file beside a daemon that goes on publishing, as a dashboard finds it."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from mirror.sandbox import Sandbox, World
from tests.bi.plain import plain
from tests.daemon.conftest import Bench

CONFIG = """projects = ["team/still", "team/live"]
[sync]
interval = "1h"
live_interval = "300ms"
system_metrics = true
[store]
tail_values = "100"
[publish]
min_interval = "200ms"
"""

# Of each relation what does not change while the daemon works.
QUERIES = {
    relation: f"SELECT * FROM {relation} WHERE project = 'still'"
    for relation in (
        "runs",
        "run_tags",
        "config_values",
        "summary_values",
        "history",
        "system_metrics",
        "history_keys",
        "run_changes",
    )
} | {
    "projects": "SELECT entity, project, runs, running, history_rows, last_success_at, last_error "
    "FROM projects WHERE project = 'still'",
    "wide": 'SELECT * FROM "team/still"',
}


@dataclass(frozen=True)
class Published:
    """The file, and what the queries over it return by DuckDB itself: columns with their types, and sorted rows."""

    file: Path
    expected: dict[str, dict[str, Any]]

    def answers(self, relation: str) -> list[list[Any]]:
        rows: list[list[Any]] = self.expected[relation]["rows"]
        return rows


@pytest.fixture(scope="module")
def published() -> Iterator[Published]:
    root = Path(tempfile.mkdtemp(prefix="m"))
    ended = threading.Event()
    try:
        with Sandbox(World()) as server:
            bench = Bench(root, server)
            bench.configure(text=CONFIG)
            fill(bench.world)
            live = bench.world.add_run("team", "live", run_id="live")

            def train() -> None:
                step = 0
                while not ended.wait(0.1):
                    live.log({"loss": 1 / (step + 1)}, step=step)
                    step += 1

            training = threading.Thread(target=train)
            with bench.daemon():
                training.start()
                try:
                    bench.until(
                        lambda: bench.sql("select count(*) from projects where last_success_at is not null") == [(2,)]
                    )
                    bench.world.run("team", "still", "a").edit(display_name="renamed")
                    bench.mirror("sync", "team/still")
                    file = root / "home" / "mirror.duckdb"
                    yield Published(file, expected(file))
                    before = bench.sql("select history_rows from runs where run_id = 'live'")
                    time.sleep(0.1)
                    bench.until(lambda: bench.sql("select history_rows from runs where run_id = 'live'") > before)
                finally:
                    ended.set()
                    training.join()
    finally:
        shutil.rmtree(root)


def fill(world: World) -> None:
    """Three runs with everything that has a column, and values that tools stumble over."""
    config = {"lr": 0.1, "layers": 12, "opt": "adam", "amp": True, "model": {"depth": 2}, "sizes": [1, 2], "none": None}
    for place, run_id in enumerate("abc"):
        run = world.add_run(
            "team",
            "still",
            run_id=run_id,
            config={**config, "lr": 0.1 / (place + 1)},
            tags=["base", "é"] if place else [],
            group="g",
            job_type="train",
            sweep="s1",
            notes='said "hi"\n日本',
            host="box",
            commit="0123abcd",
        )
        for step in range(60):
            run.log({"loss": 1 / (step + 1 + place), "big": 2**60 + step}, step=step)
        run.log({"loss": float("nan"), "best": float("inf"), "note": "début"}, step=60)
        run.log_system({"system.cpu": 40.0, "system.gpu.0.gpu": 90.0})
        run.set_summary({"loss": 0.5 + place, "val/acc": 0.9, "bad": float("nan")})
        run.finish()


def expected(file: Path) -> dict[str, dict[str, Any]]:
    """What DuckDB says; every relation holds something."""
    found = {}
    with duckdb.connect(str(file), read_only=True) as connection:
        for relation, query in QUERIES.items():
            described = {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE {query}").fetchall()}
            rows = plain(connection.execute(query).fetchall())
            assert rows, relation
            assert set(described.values()) <= {"VARCHAR", "BIGINT", "DOUBLE", "BOOLEAN", "TIMESTAMP"}
            found[relation] = {"columns": described, "rows": rows}
        assert connection.execute("select count(*) from store.segments").fetchone() > (0,)
    return found
