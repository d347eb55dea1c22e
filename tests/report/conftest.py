"""A mirror of a few runs and reports, made once for all tests of the room."""

from __future__ import annotations

import json
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mirror.sandbox import Sandbox, World
from mirror.settings.home import Home
from mirror.sync.context import Scope
from tests.sync.rig import Rig

NOON = datetime(2026, 3, 1, 12)
WORKSPACES = json.loads((Path(__file__).parent / "workspaces.json").read_text())
"""The spec of a report that wandb-workspaces 0.4.13 saved, with every kind of block that it knows."""

HOSTILE = "<script>alert(1)</script>"


def text(value: str, **style: Any) -> dict[str, Any]:
    return {"text": value, **style}


def paragraph(*children: Any) -> dict[str, Any]:
    return {"type": "paragraph", "children": list(children)}


def run_set(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "enabled": True, "sort": {"keys": []}, **more}


def panel(kind: str, **config: Any) -> dict[str, Any]:
    return {"viewType": kind, "config": config}


def grid(sets: list[Any], panels: list[Any], **more: Any) -> dict[str, Any]:
    section = {"panels": panels}
    return {"type": "panel-grid", "metadata": {"runSets": sets, "panelBankSectionConfig": section, **more}}


def hostile() -> dict[str, Any]:
    """A spec whose author wants scripts to run in every place where text is."""
    everywhere = f'"><img src=x onerror=alert(1)>{HOSTILE}'
    return {
        "version": 5,
        "blocks": [
            {"type": "table-of-contents"},
            {"type": "heading", "level": 1, "children": [text(everywhere)]},
            paragraph(
                text(everywhere, bold=True),
                {"type": "link", "url": "javascript:alert(1)", "children": [text("script")]},
                {"type": "link", "url": f'https://x.test/"onmouseover="{HOSTILE}', "children": [text("quoted")]},
                {"type": "latex", "content": everywhere},
            ),
            {"type": "markdown-block", "content": f"{everywhere}\n\n[a](javascript:alert(1)) [c](javascript&#58;alert(1)) ![b](https://x.test/i.png)"},
            {"type": "code-block", "language": everywhere, "children": [{"type": "code-line", "children": [text(everywhere)]}]},
            {"type": "image", "url": "data:text/html,<script>alert(1)</script>", "children": [text(everywhere)]},
            {"type": "image", "url": "https://x.test/i.png", "children": [text("a picture")]},
            {"type": everywhere},
            grid(
                [run_set(everywhere, filters={"op": "AND", "filters": [
                    {"key": {"section": "config", "name": everywhere}, "op": everywhere, "value": 1}
                ]}), run_set("all", runFeed={"columnVisible": {f"config:{everywhere}": True}})],
                [panel(everywhere), panel("Run History Line Plot", chartTitle=everywhere, metrics=["loss", everywhere])],
            ),
        ],
    }  # fmt: skip


def damaged() -> dict[str, Any]:
    """A spec in which everything has the wrong type somewhere."""
    deep: dict[str, Any] = {"type": "list", "children": []}
    for _ in range(60):
        deep = {"type": "list", "children": [{"type": "list-item", "children": [paragraph(text("x")), deep]}]}
    return {
        "blocks": [
            None,
            {"type": "heading", "children": "none", "level": "high"},
            {"type": "list", "children": None},
            {"type": "panel-grid"},
            {"type": "gallery", "links": [None, {"type": "report", "id": "abc"}]},
            grid(
                [
                    run_set("elsewhere", project={"name": "other", "entityName": "team"}),
                    run_set("strange", filters={"op": "AND", "filters": [
                        {"key": {"section": "config", "name": "lr"}, "op": "~", "value": 1}
                    ]}),
                    run_set("off", enabled=False),
                    run_set("good", selections={"root": 0, "tree": ["r0", 7]}, runFeed={"pageSize": "all"}),
                ],
                [
                    panel("Run History Line Plot", metrics=["lost"], xAxis="_step"),
                    panel("Run History Line Plot", metrics="loss"),
                    panel("Run History Line Plot", metrics=["loss"], useMetricRegex=True, metricRegex="("),
                    panel("Scatter Plot", xAxis="config:lr"),
                    panel("Bar Chart", metrics=["nothing"]),
                    panel(
                        *("Run History Line Plot",),
                        metrics=["lost"], useMetricRegex=True, metricRegex="^lo.*s$", limit=-3,
                        xAxisMin=9, xAxisMax=-9, yAxisMin=float("inf"), yLogScale=True, smoothingWeight=7,
                    ),
                    panel("Vega2"),
                    None,
                ],
            ),
            deep,
        ]
    }  # fmt: skip


@pytest.fixture(scope="session")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with team/p: six runs of two rates, and reports of every kind."""
    world = World(username="ada", entity="team")
    world.now = lambda: NOON
    for index in range(6):
        run = world.add_run(
            *("team", "p"),
            run_id=f"r{index}",
            name=f"run {index}",
            config={"lr": [0.1, 0.01][index % 2], "optimizer": {"name": "adam" if index < 4 else "sgd"}},
            tags=["base"] if index == 0 else [],
            created_at=NOON - timedelta(hours=index),
        )
        run.log_many({"loss": (index + 1) / (step + 1), "acc": step / 10} for step in range(5))
        run.finish()
    world.add_report("team", "p", "Which rate is best?", WORKSPACES, description="The short answer first.")
    world.add_report("team", "p", HOSTILE, hostile(), description=HOSTILE, user=HOSTILE)
    world.add_report("team", "p", "Damaged", damaged())
    world.add_report("team", "p", "Broken", "{")
    world.add_report("team", "p", "Old", {"version": 2, "panelGroups": {}, "section": {}})
    root = tmp_path_factory.mktemp("reports") / "mirror"
    with Sandbox(world) as server:
        rig = Rig(root, server, Scope(reports=True))
        assert rig.sync()["team/p"].error is None
    return rig.home


@pytest.fixture
def report(mirrored: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Any) -> Any:
    """`mirror report` over this mirror, in a folder of its own."""
    monkeypatch.setenv("MIRROR_HOME", str(mirrored.data))
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    return lambda *arguments: cli("report", *arguments)
