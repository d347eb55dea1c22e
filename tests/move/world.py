"""A project to move: one run of each kind that matters, and what a mirror holds of it."""

from __future__ import annotations

from datetime import datetime

from mirror.sandbox import World
from mirror.sandbox.sweep import Sweep

NOON = datetime(2026, 3, 1, 12)
SECONDS = 1_772_366_400.0
LONG_ID = "an-id:with*signs-" + "x" * 110

WANDB = {
    "t": {"4": "3.11.9", "5": "0.21.0"},
    "cli_version": "0.21.0",
    "python_version": "3.11.9",
    "e": {"w1": {"os": "Linux", "startedAt": "2026-03-01T12:00:00Z"}},
    "m": [
        {"1": "epoch", "6": [3], "7": []},
        {"1": "val\\.acc", "5": 1, "6": [3], "7": [1, 2]},
        {"2": "val/*", "5": 1, "6": [1], "7": []},
        {"1": "score", "6": [2, 3], "7": [3, 5, 8], "8": 2},
    ],
}
CONFIG = {"lr": 0.1, "one": 1.0, "none": None, "big": 2**60, "nan": float("nan"), "net": {"layers": [1, {"a": []}]}}
SUMMARY = {
    "_step": 700,
    "_runtime": 70.5,
    "_wandb": {"runtime": 71},
    "loss": 42,
    "n": {"a": 1, "b": {"c": 1.0, "d.e": 1}},
    "best": {"y": float("nan"), "up": float("inf")},
    "words": ["ü", "\u2028", {"x": "\t"}],
    "image": {"_type": "image-file", "path": "media/images/i.png", "width": 6, "height": 4},
}
ROWS = [
    *({"_step": at, "loss": 1 / (at + 1), "count": at, "epoch": at // 3, "val/acc": at / 7} for at in range(9)),
    {"_step": 500, "n": {"a": 1, "b": {"c": 1.0, "d.e": 1}}, "flag": True, "word": 'te"xt', "none": None},
    {"_step": 501, "odd": float("nan"), "up": float("inf"), "down": -float("inf"), "list": [1, {"a": None}]},
    {"_step": 600, "huge": 2**62 + 1, "low": -(2**53) - 1, "tiny": 5e-324, "key with.dots and/slashes": 1, "ü\n": -0.5},
    {
        "_step": 700,
        "image": SUMMARY["image"],
        "hist": {"_type": "histogram", "values": [1, 2], "bins": [0, 1, 2]},
    },
]
CONSOLE = [
    "2026-03-01T12:00:01.500000 first",
    "ERROR 2026-03-01T12:00:02.250000 a warning",
    "2026-03-01T12:00:03.000000 ",
    "ERROR 2026-03-01T12:00:04.000000 again",
    "2026-03-01T12:00:05.000000 \x1b[31mred\x1b[0m\r50%",
    "without a time",
    "2026-03-01T12:00:06.000000 " + "w" * 5000,
]
FILES = {"requirements.txt": "numpy\n", "media/images/i.png": "\x89PNG", "a/ü b.bin": "\0\1"}


def made() -> World:
    """The world whose project team/p is moved."""
    world = World(username="ada", entity="team")
    full = world.add_run(
        *("team", "p"),
        run_id="full",
        name="a name, ü",
        config=CONFIG,
        wandb_config=WANDB,
        tags=["x", "y,z"],
        group="g",
        job_type="train",
        notes="some\nnotes",
        host="node1",
        commit="c0ffee",
        created_at=NOON,
        metadata={"os": "Linux", "program": "train.py", "args": ["--lr", "1"], "startedAt": "2026-03-01T12:00:00Z"},
    )
    full.log_many({"_timestamp": SECONDS + row["_step"] / 10, "_runtime": row["_step"] / 10, **row} for row in ROWS)
    full.set_summary(SUMMARY)
    for at, cpu in ((0.25, 1.5), (15.125, 99.0)):
        full.log_system({"system.cpu": cpu, "system.gpu.0.gpu": 7}, timestamp=SECONDS + at)
    full.write_console(0, CONSOLE)
    for name, content in FILES.items():
        full.add_file(name, content)
    full.finish()
    world.add_project("team", "p").sweeps["sw1"] = Sweep("sw1", "team", "p", NOON, "method: grid\n")
    for state in ("failed", "killed", "crashed", "preempted", "running"):
        run = world.add_run("team", "p", run_id=state, config={"state": state}, created_at=NOON)
        run.log({"loss": 1.5}, timestamp=SECONDS)
        if state != "running":
            run.finish(state)
    world.add_run("team", "p", run_id="swept", config={}, sweep="sw1", created_at=NOON).finish()
    world.add_run("team", "p", run_id=LONG_ID, config={}, created_at=NOON).finish()
    gone = world.add_run("team", "p", run_id="gone", config={}, created_at=NOON)
    gone.log({"loss": 0.5}, timestamp=SECONDS)
    gone.finish()
    return world
