"""A realistic world: sweeps of some hundred runs over three projects of one team."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from random import Random
from typing import Any

from msgspec import Struct

from mirror.sandbox import instants
from mirror.sandbox.history import STEP
from mirror.sandbox.run import Run
from mirror.sandbox.sample import curves, oddities, reports
from mirror.sandbox.sample.clock import START, past
from mirror.sandbox.sweep import Sweep
from mirror.sandbox.world import World

ENTITY = "acme"
PEOPLE = ("ada", "grace", "edsger", "katherine")
HOSTS = ("gpu-a100-01", "gpu-a100-02", "gpu-h100-01", "laptop-münchen")
ADJECTIVES = ("sunny", "brisk", "deep", "still", "warm", "azure", "quiet", "lunar", "noble", "rosy")
NOUNS = ("sky", "wind", "river", "lake", "stone", "field", "comet", "forest", "dawn", "snow")

EVERY = timedelta(minutes=37)
"""The time between the beginnings of two runs of a project, give or take half an hour."""

LONGEST = timedelta(hours=3)
"""No run takes longer."""

Rows = Iterator[dict[str, Any]]


class Kind(Struct, frozen=True):
    """The kind of runs in one project."""

    project: str
    runs: int
    sweeps: int
    seconds: float
    config: Callable[[Random], dict[str, Any]]
    rows: Callable[[Random, str, dict[str, Any]], Rows]


def full(seed: int = 0, *, until: datetime | None = None) -> World:
    """Return some 500 runs in `acme/vision`, `acme/language` and `acme/rl-control`, and a project of oddities.

    The same for each seed. One run of each project is still running; histories of older runs are exported to Parquet.
    The first runs began at START; with `until` (naive UTC), the running ones logged last just then.
    """
    world = World(username="ada", entity=ENTITY)
    for kind in (
        Kind("vision", 240, 3, 31.0, _vision_config, _vision_rows),
        Kind("language", 160, 2, 60.0, _language_config, _language_rows),
        Kind("rl-control", 120, 2, 12.0, _control_config, _control_rows),
    ):
        _project(world, kind, Random(f"{seed}/{kind.project}"), until)
    reports.add(world, ENTITY, "vision", world.projects[ENTITY, "vision"].created_at)
    oddities.add(world, ENTITY, START if until is None else until - oddities.SPAN)
    return world


def _project(world: World, kind: Kind, draw: Random, until: datetime | None) -> None:
    begin = START if until is None else until - EVERY * kind.runs - LONGEST
    with past(world, begin):
        home = world.add_project(ENTITY, kind.project)
    for number in range(kind.sweeps):
        name = f"{kind.project[:4]}swp{number}"
        text = json.dumps(
            {
                "method": "random",
                "metric": {"name": "loss", "goal": "minimize"},
                "parameters": {"lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-2}},
            }
        )
        home.sweeps[name] = Sweep(name, ENTITY, kind.project, begin, text, expected_runs=kind.runs // kind.sweeps)
    sweeps = list(home.sweeps)
    for index in range(kind.runs):
        created = begin + EVERY * index + timedelta(minutes=draw.randrange(30))
        sweep = sweeps[index * len(sweeps) // kind.runs]
        fate = "running" if index == kind.runs - 1 else None
        if fate and until is not None:
            created = until - _age(kind, draw, index, sweep)
        run = _begin(world, kind, draw, created, index, sweep)
        _live(run, kind, draw, fate or _fate(draw))
        if index < kind.runs // 2:
            run.export_history()


def _age(kind: Kind, draw: Random, index: int, sweep: str) -> timedelta:
    """Return how long the running run that would be drawn next has been logging; nothing is drawn."""
    ahead = Random()
    ahead.setstate(draw.getstate())
    run = _begin(World(entity=ENTITY), kind, ahead, START, index, sweep)
    _live(run, kind, ahead, "running")
    return (run.heartbeat_at or run.created_at) - run.created_at


def _fate(draw: Random) -> str:
    return draw.choices(("finished", "crashed", "failed", "killed", "empty"), (88, 4, 4, 2, 2))[0]


def _begin(world: World, kind: Kind, draw: Random, created: datetime, index: int, sweep: str) -> Run:
    swept = draw.random() < 0.9
    config = kind.config(draw) if draw.random() < 0.98 else None
    with past(world, created):
        return world.add_run(
            ENTITY,
            kind.project,
            run_id=f"{curves.hash_of(kind.project, index, sweep):040x}"[-8:],
            name=f"{draw.choice(ADJECTIVES)}-{draw.choice(NOUNS)}-{index + 1}",
            config=config,
            tags=draw.sample(["baseline", "ablation", "gpu", "paper", "nächster Schritt"], draw.randrange(3)),
            group=draw.choice(["warmup", "main", "long"]),
            job_type=draw.choice(["train", "train", "train", "eval"]),
            sweep=sweep if swept else None,
            notes=draw.choice([None, None, "looks good 👍", "retry with a lower rate\nsee the last one"]),
            host=draw.choice(HOSTS),
            commit=f"{curves.hash_of(kind.project, index // 20):040x}"[-40:],
            user=draw.choice(PEOPLE),
            metadata={
                "os": "Linux-6.8.0-x86_64-with-glibc2.39",
                "python": "CPython 3.11.9",
                "program": f"{kind.project}/train.py",
                "args": ["--seed", str(index)],
                "gpu": "NVIDIA A100-SXM4-80GB",
                "gpu_count": draw.choice([1, 4, 8]),
                "cpu_count": 64,
            },
        )


def _live(run: Run, kind: Kind, draw: Random, fate: str) -> None:
    rows: list[dict[str, Any]] = []
    if fate != "empty":
        start = instants.epoch(run.created_at)
        rows = list(curves.timed(kind.rows(draw, run.run_id, run.config), start, kind.seconds, draw))
        if fate in ("crashed", "failed", "killed", "running"):
            rows = rows[: max(1, draw.randrange(len(rows)))]
        if fate == "crashed" and draw.random() < 0.5:
            rows[-1]["loss"] = math.nan
    ended = run.created_at + timedelta(seconds=kind.seconds * (len(rows) + 1))
    with past(run.clock, ended):
        run.log_many(rows)
        for tick in range(min(len(rows) // 8, 12)):
            run.log_system(
                {
                    "system.cpu": round(draw.uniform(10, 90), 2),
                    "system.memory_percent": round(draw.uniform(30, 60), 2),
                    "system.gpu.0.gpu": round(draw.uniform(70, 100), 1),
                    "system.gpu.0.memoryAllocated": round(draw.uniform(50, 98), 1),
                },
                timestamp=instants.epoch(run.created_at) + kind.seconds * 8 * (tick + 1),
            )
        run.write_console(0, [f"{run.created_at.isoformat()} epoch {row['epoch']}" for row in rows if "epoch" in row])
        if fate == "crashed":
            run.set_state("crashed")
        elif fate != "running":
            run.finish("finished" if fate == "empty" else fate)


def _vision_config(draw: Random) -> dict[str, Any]:
    return {
        "lr": 10 ** draw.uniform(-5, -2),
        "batch_size": draw.choice([64, 128, 256, 512]),
        "optimizer": {
            "name": draw.choice(["adam", "sgd"]),
            "betas": [0.9, 0.999],
            "weight_decay": draw.choice([0, 1e-4]),
        },
        "model": {"name": "resnet", "depth": draw.choice([18, 34, 50]), "pretrained": draw.random() < 0.5},
        "dataset": {"name": "imagenet-1k", "augment": {"flip": True, "mixup": round(draw.random(), 3)}},
        "seed": draw.randrange(2**63),
    }


def _vision_rows(draw: Random, run_id: str, config: dict[str, Any]) -> Rows:
    rate = config.get("lr", 1e-3)
    steps = draw.choice([60, 90, 120])
    for step in range(steps):
        value = curves.loss(draw, step, steps, rate)
        row: dict[str, Any] = {"loss": value, "train/acc": curves.accuracy(value), "lr": rate * (1 - step / steps)}
        if step % 10 == 9:
            row |= {"epoch": step // 10, "val/loss": round(value * 1.05, 6), "val/acc": curves.accuracy(value * 1.05)}
        if step == steps - 1:
            row |= {"examples": curves.image("examples", step, run_id), "weights/layer1": curves.histogram(draw, 0.5)}
        yield row


def _language_config(draw: Random) -> dict[str, Any]:
    return {
        "lr": 10 ** draw.uniform(-4.5, -2.5),
        "context": draw.choice([1024, 2048, 4096]),
        "model": {"layers": draw.choice([6, 12, 24]), "dim": draw.choice([384, 768, 1024]), "rope": {"base": 10000.0}},
        "tokenizer": draw.choice(["bpe-32k", "unigram-64k"]),
        "languages": draw.sample(["en", "de", "日本語", "हिन्दी", "português"], 3),
    }


def _language_rows(draw: Random, run_id: str, config: dict[str, Any]) -> Rows:
    rate = config.get("lr", 1e-3)
    tokens = 0
    for index in range(100):
        value = 1.5 + curves.loss(draw, index, 100, rate)
        tokens += 2**46 + draw.randrange(2**20)
        row: dict[str, Any] = {
            STEP: index * 50,
            "loss": value,
            "perplexity": round(math.exp(value), 4),
            "tokens_seen": tokens,
            "grad": {"norm": round(abs(draw.gauss(1, 0.3)), 5), "clipped": draw.random() < 0.1},
        }
        if index % 20 == 19:
            row |= {
                "epoch": index // 20,
                "eval/bleu.de": round(draw.uniform(10, 40), 3),
                "sample": f"Es war einmal … {index}",
            }
        if index == 99:
            row["completions"] = curves.table("completions", index * 50, run_id)
        yield row


def _control_config(draw: Random) -> dict[str, Any]:
    return {
        "lr": 10 ** draw.uniform(-4.5, -2.5),
        "env": draw.choice(["HalfCheetah-v5", "Ant-v5", "Humanoid-v5"]),
        "gamma": draw.choice([0.97, 0.99, 0.995]),
        "horizon": draw.choice([None, 500, 1000]),
        "reward scale": draw.choice([1, 0.1]),
    }


def _control_rows(draw: Random, _run_id: str, config: dict[str, Any]) -> Rows:
    reward = -200.0
    for step in range(150):
        reward += draw.gauss(12, 30) * config.get("gamma", 0.99)
        row: dict[str, Any] = {"episode/reward": round(reward, 3), "episode/length": draw.randrange(10, 1000)}
        if step % 3 == 0:
            row["loss"] = round(abs(draw.gauss(0.5, 0.3)), 6)
        if step % 25 == 24:
            row |= {"epoch": step // 25, "eval/reward": round(reward + draw.gauss(0, 10), 3)}
        if step < 5:
            row["eval/std"] = "NaN" if step < 2 else math.inf
        yield row
