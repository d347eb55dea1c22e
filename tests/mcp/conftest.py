"""A mirror of runs with repeats and troubles, synced once from the sample server, and its tools on the command line."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path

import pytest

from mirror.sandbox import Sandbox, World
from mirror.settings.home import Home
from tests.conftest import InProcess

CONFIG = """projects = ["team/*"]
[sync]
console = true
system_metrics = true
"""
TRACEBACK = [
    "Traceback (most recent call last):",
    '  File "train.py", line 12, in <module>',
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
]
ACCURACIES = {"a0": 0.80, "a1": 0.82, "a2": 0.81, "b0": 0.90, "b1": 0.91, "b2": 0.92}


def world():
    made = World()
    for name, accuracy in ACCURACIES.items():
        config = {"lr": 0.1 if name[0] == "a" else 0.01, "seed": int(name[1]), "opt": {"name": "adam"}}
        run = made.add_run(
            "team", "seeds", run_id=name, name=f"run {name}", config=config, commit=name[0] * 40, host=f"node-{name[0]}"
        )
        run.log_many({"loss": 2.0 - 0.01 * step - accuracy, "epoch": step // 10} for step in range(40))
        run.set_summary({"acc": accuracy, "loss": 1.61 - accuracy})
        run.finish()
    _troubled(made)
    return made


def _troubled(made):
    oom = made.add_run("team", "trouble", run_id="oom", name="out of memory", config={"lr": 1.0})
    oom.log_many({"loss": math.nan if step >= 18 else 1.0 - 0.01 * step} for step in range(20))
    oom.log_system({"system.gpu.0.memoryAllocated": 99.5})
    oom.write_console(0, ["epoch 1", "epoch 2", *TRACEBACK])
    oom.finish("failed")
    diverging = made.add_run("team", "trouble", run_id="diverging", name="rate too high")
    diverging.log_many({"loss": 2.0 - 0.02 * step if step < 50 else 1.0 + 0.05 * (step - 50)} for step in range(100))
    diverging.write_console(0, [f"step {step}" for step in range(100)])
    diverging.set_state("crashed")
    fitted = made.add_run("team", "trouble", run_id="overfitted", name="overfitted")
    fitted.log_many({"val/loss": value, "note": "text"} for value in (1.0, 0.7, 0.5, 0.4, 0.42, 0.45, 0.5, 0.55))
    fitted.finish()
    stalled = made.add_run("team", "trouble", run_id="stalled", name="stalled")
    for step in [*range(30), *range(130, 160)]:
        late = 7200.0 if step >= 130 else 0.0
        loss = max(1.0 - 0.05 * step, 0.5) + (step % 3) * 0.001
        stalled.log({"loss": 20.0 if step == 140 else loss}, step=step, timestamp=1.7e9 + 10.0 * step + late)
    stalled.finish()
    made.add_run("team", "trouble", run_id="empty", name="empty").finish("failed")


@pytest.fixture(scope="session")
def mirrored(tmp_path_factory):
    """The home of the mirror."""
    folder = tmp_path_factory.mktemp("agents")
    with pytest.MonkeyPatch.context() as patch, Sandbox(world()) as server:
        for name in list(os.environ):
            if name.startswith(("WANDB_", "MIRROR_", "XDG_")):
                patch.delenv(name)
        patch.setenv("HOME", str(folder))
        patch.setenv("MIRROR_HOME", str(folder / "mirror"))
        patch.setenv("WANDB_BASE_URL", server.url)
        patch.setenv("WANDB_API_KEY", server.key)
        home = Home.find(os.environ)
        home.data.mkdir()
        home.config.write_text(CONFIG)
        done = InProcess()("sync")
        assert done.exit_code == 0, done.stderr
    return home


FRESH = re.compile(r"\n\[mirror: as of \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, \d+ (?:s|min) ago(.*); complete\]$")


class Tools:
    """Answers of tools without their last line, which says how fresh they are."""

    def __init__(self, cli):
        self._cli = cli

    def __call__(self, tool, **arguments):
        text = self.whole(tool, **arguments)
        assert FRESH.search(text), text
        return FRESH.sub("", text)

    def whole(self, tool, **arguments):
        done = self._cli("mcp", tool, json.dumps(arguments))
        assert done.exit_code == 0, done.stderr
        return done.stdout.rstrip("\n")

    def refused(self, tool, **arguments):
        done = self._cli("mcp", tool, json.dumps(arguments))
        assert done.exit_code != 0, done.stdout
        assert done.stdout == ""
        return done.stderr.removeprefix("error: ").rstrip("\n")


@pytest.fixture
def tools(cli, mirrored, monkeypatch) -> Tools:
    monkeypatch.setenv("MIRROR_HOME", str(Path(mirrored.data)))
    return Tools(cli)
