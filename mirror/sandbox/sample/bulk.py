"""A bulk project for benchmarks, built as text without a dictionary per row."""

from __future__ import annotations

import math
from collections import Counter
from datetime import timedelta
from random import Random

from mirror.sandbox import instants
from mirror.sandbox.history import STEP, KeyStats
from mirror.sandbox.run import Run
from mirror.sandbox.sample.clock import START, past
from mirror.sandbox.world import World


def grid(runs: int = 500, steps: int = 2000, metrics: int = 20, *, exported: bool = False, seed: int = 0) -> World:
    """Return `acme/bench`: finished runs with a row of `metrics` values at every step, different in every run.

    With `exported` their histories are exported to Parquet files, as on the server some hours after the end of a run.
    """
    world = World(username="ada", entity="acme")
    draw = Random(seed)
    names = ["loss", "val/loss", *(f"layer/{index:02d}/grad_norm" for index in range(metrics - 2))][:metrics]
    # Noise is generated once, and each series reads it from a different offset: generating it takes most of the time.
    noise = [draw.gauss(0, 1) for _ in range(steps + 4096)]
    fall = [math.exp(-3 * step / max(steps, 1)) for step in range(steps)]
    for index in range(runs):
        created = START + timedelta(minutes=index)
        with past(world, created):
            run = world.add_run(
                "acme",
                "bench",
                run_id=f"bench{index:05d}",
                name=f"bench-{index}",
                config={
                    "lr": round(10 ** draw.uniform(-5, -1), 8),
                    "index": index,
                    "batch_size": 2 ** draw.randrange(4, 9),
                },
            )
        with past(world, created + timedelta(seconds=steps)):
            _fill(run, names, steps, noise, fall, draw)
            if exported:
                run.export_history()
            run.finish()
    return world


def _fill(run: Run, names: list[str], steps: int, noise: list[float], fall: list[float], draw: Random) -> None:
    start = instants.epoch(run.created_at)
    columns = []
    for _ in names:
        offset = draw.randrange(4096)
        high, low, spread = draw.uniform(1, 5), draw.uniform(0.1, 1), draw.uniform(0.01, 0.1)
        columns.append(
            [
                high * down + low + spread * jitter
                for down, jitter in zip(fall, noise[offset : offset + steps], strict=True)
            ]
        )
    values = "".join(f'"{name}":%.9g,' for name in names)
    template = "{" + values.replace("%%", "%") + '"_step":%d,"_runtime":%d,"_timestamp":%.1f}'
    numbers = range(steps)
    stamps = [start + step + 1 for step in numbers]
    lines = list(map(template.__mod__, zip(*columns, numbers, range(1, steps + 1), stamps, strict=True)))
    keys = {
        name: KeyStats(Counter(number=steps), False, column[-1]) for name, column in zip(names, columns, strict=True)
    }
    keys |= {
        STEP: KeyStats(Counter(number=steps), True, steps - 1),
        "_runtime": KeyStats(Counter(number=steps), True, steps),
        "_timestamp": KeyStats(Counter(number=steps), True, stamps[-1]),
    }
    run.history.load(numbers, lines, keys)
    run.set_summary(run.history.last_row())
