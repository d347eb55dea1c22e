"""What there is to read: runs of every kind that the facts are about, sweeps, and projects without either."""

from __future__ import annotations

from datetime import datetime

from mirror.sandbox import World
from mirror.sandbox.sweep import Sweep

NOON = datetime(2026, 3, 1, 12)

GRID = "name: a grid\nmethod: grid\nmetric: {name: loss, goal: minimize}\nparameters: {lr: {values: [1, 2, 3]}}\n"
NAMELESS = "method: random\nparameters: {lr: {min: 0, max: 1}}\n"
WAITING = "name: as configured\nmethod: bayes\nmetric: {name: acc, goal: maximize}\nparameters: {lr: {values: [1]}}\n"


def world() -> World:
    made = World(username="ada", entity="team")
    for index in range(4):
        run = made.add_run(
            *("team", "p"),
            run_id=f"run{index}",
            name=f"name {index}",
            config={"epochs": 10, "model": {"depth": index}},
            tags=["baseline"],
            group="A",
            job_type="test",
            notes="as noted",
            description="as described",
            host="node1",
            commit="c0ffee",
            user="grace",
            metadata={"os": "Linux", "program": "train.py"},
            created_at=NOON,
        )
        run.log_many(
            {"acc": (step + index) / 10, "loss": 1.5 - step / 4, "_timestamp": 1.77e9 + step} for step in range(3)
        )
        run.log({"late": 0.25}, timestamp=1.77e9 + 9)
        run.set_summary({"acc": 100, "loss": 0, "a": {"b": {"c": 0.9}}, "_step": 3})
        run.finish()
    first = made.run("team", "p", "run0")
    made.run("team", "p", "run1").set_summary({"acc": 100, "a": {"b": 1}})
    for cpu in (0.0, 10.0, 20.0):
        first.log_system({"system.cpu": cpu}, timestamp=1.77e9 + cpu)
    first.finish()
    for name, content in (("a.json", "{}"), ("media/ü %.png", "as drawn"), ("notes.txt", "n" * 2000)):
        first.add_file(name, content)
    first.write_console(
        0,
        [
            "2026-01-02T03:04:05.678901 first",
            "ERROR 2026-01-02T03:04:06.12Z [rank-1] second",
            "without a time",
            "2026-01-02T03:04:07Z fourth",
            "2026-01-02T03:04:08.678901234Z fifth",
        ],
    )
    for name, exported in (("scanned", None), ("exported", 2), ("partly", 1)):
        run = made.add_run("team", "p", run_id=name)
        rows = zip((0.5, 0.75, 0.9), (1.0, 0.5, 0.1), strict=True)
        run.log_many({"acc": acc, "loss": loss, "_timestamp": 1.77e9} for acc, loss in rows)
        run.finish()
        if exported is not None:
            run.export_history(exported)
    made.add_run("team", "p", run_id="long").log_many({"acc": step} for step in range(10))
    made.add_run("team", "p", run_id="gaps").log_many({"_step": step, "acc": step} for step in (2, 3, 45))
    for run_id in ("plain", "control", "empty"):
        made.add_run("team", "odd", run_id=run_id, created_at=NOON).finish()
    made.run("team", "odd", "plain").spoilt = {"config": '{"test": "test"}', "summaryMetrics": '{"test": "test"}'}
    made.run("team", "odd", "control").spoilt = {
        "config": '{"test": {"value": "test\ttest"}}',
        **dict.fromkeys(("summaryMetrics", "systemMetrics"), '{"test": "test\ttest"}'),
    }
    made.add_run("team", "My Project", run_id="spaced").finish()
    made.add_run("lab", "p", run_id="other").finish()
    made.add_project("team", "hollow", created_at=NOON)
    sweeps = made.add_project("team", "swept", created_at=NOON).sweeps
    for number in range(3):
        run = made.add_run("team", "swept", run_id=f"s{number}", sweep="grid0" if number else "grid0", created_at=NOON)
        run.log({"loss": 3.0 - number, "acc": number})
        run.finish()
    run = made.add_run("team", "swept", run_id="n0", sweep="nameless")
    run.log({"loss": 1.0})
    run.finish()
    sweeps["grid0"] = Sweep("grid0", "team", "swept", NOON, GRID, method="grid", expected_runs=3)
    sweeps["nameless"] = Sweep("nameless", "team", "swept", NOON, NAMELESS, state="RUNNING")
    sweeps["waiting"] = Sweep(
        *("waiting", "team", "swept", NOON, WAITING), method="bayes", state="PENDING", display_name="as renamed"
    )
    return made
