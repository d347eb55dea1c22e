"""What there is to read: runs of every kind that the facts are about, sweeps, and projects without either."""

from __future__ import annotations

from datetime import datetime

from mirror.sandbox import World
from mirror.sandbox.sweep import Sweep

NOON = datetime(2026, 3, 1, 12)

WAYS = ("server", "endpoint", "mirror")
"""The official client on the server, the official client on the mirror's endpoint, and the mirror's Python API."""

GRID = "name: a grid\nmethod: grid\nmetric: {name: loss, goal: minimize}\nparameters: {lr: {values: [1, 2, 3]}}\n"
NAMELESS = "method: random\nparameters: {lr: {min: 0, max: 1}}\n"
WAITING = "name: as configured\nmethod: bayes\nmetric: {name: acc, goal: maximize}\nparameters: {lr: {values: [1]}}\n"


def readable() -> World:
    """For scripts that change nothing."""
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
        run = made.add_run("team", "p", run_id=name, created_at=NOON)
        rows = zip((0.5, 0.75, 0.9), (1.0, 0.5, 0.1), strict=True)
        run.log_many({"acc": acc, "loss": loss, "_timestamp": 1.77e9} for acc, loss in rows)
        run.finish()
        if exported is not None:
            run.export_history(exported)
    made.add_run("team", "p", run_id="long", created_at=NOON).log_many({"acc": step} for step in range(10))
    made.add_run("team", "p", run_id="gaps", created_at=NOON).log_many(
        {"_step": step, "acc": step} for step in (2, 3, 45)
    )
    for run_id in ("long", "gaps"):
        made.run("team", "p", run_id).finish()
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
        run = made.add_run("team", "swept", run_id=f"s{number}", sweep="grid0", created_at=NOON)
        run.log({"loss": 3.0 - number, "acc": number})
        run.finish()
    for number in range(2):
        run = made.add_run(
            "team", "swept", run_id=f"n{number}", sweep="nameless", created_at=NOON.replace(hour=13 + number)
        )
        run.log({"loss": 1.0})
        run.finish()
    sweeps["grid0"] = Sweep("grid0", "team", "swept", NOON, GRID, method="grid", expected_runs=3)
    sweeps["nameless"] = Sweep("nameless", "team", "swept", NOON, NAMELESS, state="RUNNING")
    sweeps["waiting"] = Sweep(
        *("waiting", "team", "swept", NOON, WAITING), method="bayes", state="PENDING", display_name="as renamed"
    )
    blocks = [{"type": "paragraph", "children": [{"text": "first"}]}]
    section = {
        "runSets": [
            {
                "filters": {
                    "op": "OR",
                    "filters": [
                        {
                            "op": "AND",
                            "filters": [
                                {"key": {"section": "run", "name": "name"}, "op": "IN", "value": ["run1", "run2"]}
                            ],
                        }
                    ],
                },
                "sort": {"key": {"section": "run", "name": "createdAt"}, "ascending": True},
                "selections": {"root": 0, "tree": ["run1"]},
            }
        ]
    }
    made.add_report("team", "p", "Which: rate?", {"blocks": blocks}, name="one", description="d", created_at=NOON)
    old = {"panelGroups": [section]}
    made.add_report("team", "p", "Old", old, name="two", created_at=NOON.replace(hour=13), user="grace")
    return made


def changeable() -> World:
    """A project for each way, all of them the same."""
    made = World(username="ada", entity="team")
    for way in WAYS:
        home = ("team", f"by-{way}")
        for run_id in ("edited", "saved", "untouched", "summed", "trimmed", "doomed", "doomed too", "retried", "lost"):
            run = made.add_run(
                *home,
                run_id=run_id,
                name="as begun",
                config={"foo": "not bar", "gone": 1},
                notes="before",
                tags=["old"],
            )
            run.log({"acc": 1, "loss": 0})
            run.set_summary({"acc": 1, "loss": 0})
            run.finish("crashed" if run_id == "lost" else "finished")
        for run_id in ("live", "stopped"):
            made.add_run(*home, run_id=run_id, config={})
        made.add_run(*home, run_id="swept", config={}, sweep="sw1")
        for run_id in ("filed", "shrinking", "shrink0", "shrink1", "climbing"):
            run = made.add_run(*home, run_id=run_id, config={})
            if run_id != "climbing":
                run.add_file("old.txt", "as it was")
            if run_id != "shrinking":
                run.finish()
        made.projects[home].sweeps["sw1"] = Sweep("sw1", *home, NOON, GRID, method="grid")
    return made


OLD = {"SWEEPS_QUERY_FILTERING": False, "SWEEPS_LOCAL_SCHEDULER": False, "UPDATE_RUN_STATE": False}
"""What a server of an older version lacks."""


def on_old_server() -> World:
    made = World(username="ada", entity="team")
    made.add_run("team", "p", run_id="run0", config={}).finish()
    made.projects["team", "p"].sweeps["sw1"] = Sweep("sw1", "team", "p", NOON, GRID, method="grid")
    return made
