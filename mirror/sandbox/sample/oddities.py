"""A small world in which every kind of oddity occurs once; most tests use it."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from random import Random
from typing import Any

from mirror.sandbox import instants
from mirror.sandbox.history import STEP
from mirror.sandbox.run import Run
from mirror.sandbox.sample import curves
from mirror.sandbox.sample.clock import START, past
from mirror.sandbox.world import World

SPAN = timedelta(days=2)
"""From the beginning of the oddities to their end."""


def small(seed: int = 0) -> World:
    """Return twelve runs in `my-team/vision` and `my-team/oddities`, under 1,000 rows, the same for each seed."""
    world = World(username="ada", entity="my-team")
    draw = Random(seed)
    _vision(world, draw)
    add(world, "my-team")
    return world


def _begin(world: World, entity: str, project: str, run_id: str, when: datetime, **facts: Any) -> Run:
    with past(world, when):
        return world.add_run(entity, project, run_id=run_id, **facts)


def _log(run: Run, rows: list[dict[str, Any]], seconds: float = 2.0) -> None:
    start = instants.epoch(run.created_at)
    spread = [{**row, "_timestamp": start + seconds * (index + 1)} for index, row in enumerate(rows)]
    with past(run.clock, run.created_at + timedelta(seconds=seconds * (len(rows) + 1))):
        run.log_many(spread)


def _end(run: Run, state: str, minutes: float = 10) -> None:
    with past(run.clock, run.created_at + timedelta(minutes=minutes)):
        run.finish(state)


def _vision(world: World, draw: Random) -> None:
    states = ("finished", "finished", "failed", "running", "finished")
    for index, state in enumerate(states):
        rate = 10 ** draw.uniform(-4.5, -2.5)
        run = _begin(
            world,
            "my-team",
            "vision",
            f"vision{index:02d}",
            START + timedelta(hours=index),
            name=("sunny-sky", "brisk-wind", "deep-river", "still-lake", "warm-stone")[index] + f"-{index + 1}",
            config={
                "lr": rate,
                "batch_size": 32 * (index + 1),
                "model": {"name": "resnet", "depth": (18, 34, 50)[index % 3], "heads": [4, 8]},
                "augment": index % 2 == 0,
                "seed": index,
            },
            tags=["baseline", "gpu"][: index % 3],
            group="warmup" if index < 3 else "main",
            job_type="train",
            notes="The run to beat" if index == 1 else None,
            host=f"node-{index % 2}",
            commit=f"{curves.hash_of('commit', index):040x}"[:40] if index % 2 else None,
            user="ada" if index % 2 else "grace",
        )
        rows: list[dict[str, Any]] = []
        for step in range(100):
            value = curves.loss(draw, step, 100, rate)
            row: dict[str, Any] = {"loss": value, "train/acc": curves.accuracy(value)}
            if step % 10 == 9:
                row["val/acc"] = round(curves.accuracy(value) * 0.97, 6)
            if step == 50:
                row["weights"] = curves.histogram(draw, 1.0)
            rows.append(row)
        _log(run, rows)
        for tick in range(4):
            with past(world, run.created_at + timedelta(seconds=15 * (tick + 1))):
                run.log_system({"system.cpu": 40.0 + tick, "system.gpu.0.gpu": 90.0 - tick, "system.memory": 55.5})
        if state != "running":
            _end(run, state)


def add(world: World, entity: str, begin: datetime = START) -> None:
    """Add the project `oddities`: difficult numbers, names, gaps and types; crashed and empty runs.

    The first run starts a day after `begin`, the last one ends less than SPAN after it.
    """
    day = begin + timedelta(days=1)

    run = _begin(
        world, entity, "oddities", "numbers1", day, name="numbers", config={"big": 2**63 + 1, "exact": 2**53 + 1}
    )
    _log(
        run,
        [
            {"x": 1.5, "count": 2**53 + 1, "diverges": 1e300},
            {"x": math.nan, "count": 2**60 + 1, "diverges": math.inf},
            {"x": -math.inf, "count": 7, "tiny": 5e-324},
            {"x": 0.1 + 0.2, "old_nan": "NaN", "old_inf": "Infinity", "old_ninf": "-Infinity"},
        ],
    )
    _end(run, "finished")

    run = _begin(
        world,
        entity,
        "oddities",
        "names001",
        day + timedelta(minutes=1),
        name='Größe "42" — 模型 🚀',
        tags=["späť", "with space", "emoji 🎯"],
        notes="line one\nline two\twith a tab",
        config={"größe": 1, "learning rate": 0.1, "a.b": "dotted", "学习率": 0.01, 'quo"te': "it's", "slash/key": True},
    )
    _log(
        run,
        [
            {"métrique/précision": 0.5, "a.b": 1, "with space": 2, "🔥": 3.0, "text": "naïve “quotes” \\ back"}
            for _ in range(3)
        ],
    )
    _end(run, "finished")

    run = _begin(world, entity, "oddities", "gaps0001", day + timedelta(minutes=2), name="gaps", config={"every": 1000})
    _log(run, [{STEP: step, "loss": 1.0 / (index + 1)} for index, step in enumerate((0, 5, 1000, 1001, 250_000))])
    _end(run, "finished")

    run = _begin(
        world,
        entity,
        "oddities",
        "types001",
        day + timedelta(minutes=3),
        name="types",
        config={"layers": [64, 32], "none": None},
    )
    _log(
        run,
        [
            {"v": 1, "flag": True, "nested": {"a": {"b": 1.5}, "c": "x"}},
            {"v": "two", "flag": False, "nested": {"a": {"b": 2.5}}, "list": [1, 2.5, "three"]},
            {"v": 3.5, "nothing": None, "empty": {}},
            {"v": [4], "image": curves.image("image", 3, "types001"), "table": curves.table("table", 3, "types001")},
        ],
    )
    _end(run, "finished")

    run = _begin(
        world,
        entity,
        "oddities",
        "crashed1",
        day + timedelta(minutes=4),
        name="crashed",
        config={"lr": 10.0},
        tags=["bad"],
    )
    _log(run, [{"loss": 2.0 * 1.5**step} for step in range(20)] + [{"loss": math.nan}])
    run.set_state("crashed")

    _end(
        _begin(world, entity, "oddities", "empty001", day + timedelta(minutes=5), name="empty", config={}),
        "finished",
        1,
    )
    _end(
        _begin(world, entity, "oddities", "noconfig", day + timedelta(minutes=6), name="no-config", config=None),
        "failed",
        1,
    )
