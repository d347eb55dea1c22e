"""A report about the runs of a project, with text, a run set and charts, as the app stores it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from mirror.sandbox.report import Report
from mirror.sandbox.world import World

TITLE = "Learning rates of the vision sweep"

Node = dict[str, Any]


def add(world: World, entity: str, project: str, created_at: datetime) -> Report:
    """Add the report to a project of images."""
    spec = {"version": 5, "blocks": _blocks(entity, project), "width": "readable", "authors": [{"username": "grace"}]}
    return world.add_report(
        entity,
        project,
        TITLE,
        spec,
        description="Which rate the next sweep should start from.",
        user="grace",
        created_at=created_at,
    )


def _blocks(entity: str, project: str) -> list[Node]:
    return [
        {"type": "table-of-contents", "children": [_text("")]},
        _heading("Summary", 1),
        {
            "type": "paragraph",
            "children": [
                _text("Rates near "),
                _text("4e-4", inlineCode=True),
                _text(" reach the lowest loss. Larger ones are "),
                _text("faster at first", italic=True),
                _text(", but diverge; see "),
                {"type": "link", "url": "https://arxiv.org/abs/1506.01186", "children": [_text("Smith, 2015")]},
                _text("."),
            ],
        },
        {
            "type": "callout-block",
            "children": [
                {"type": "callout-line", "children": [_text("Crashed runs are left out", bold=True), _text(".")]}
            ],
        },
        _heading("What was varied", 2),
        _list("the rate, from 1e-5 to 1e-2", "the batch size", "adam or sgd"),
        {
            "type": "latex",
            "block": True,
            "content": r"\theta_{t+1} = \theta_t - \eta \nabla L",
            "children": [_text("")],
        },
        _heading("Results", 1),
        _grid(entity, project),
        _heading("Next steps", 1),
        _list("repeat the five best with three seeds", "train for twice as long", ordered=True),
        {"type": "code-block", "language": "python", "children": [_line("wandb.agent(sweep_id, train, count=50)")]},
    ]


def _grid(entity: str, project: str) -> Node:
    run_set = {
        "id": "best",
        "name": "Finished runs, best first",
        "enabled": True,
        "project": {"name": project, "entityName": entity},
        "filters": {
            "op": "OR",
            "filters": [
                {
                    "op": "AND",
                    "filters": [
                        {"key": {"section": "run", "name": "state"}, "op": "=", "value": "finished", "disabled": False},
                        {"key": {"section": "config", "name": "lr.value"}, "op": ">", "value": 0, "disabled": False},
                    ],
                }
            ],
        },
        "sort": {"keys": [{"key": {"section": "summary", "name": "loss"}, "ascending": True}]},
        "grouping": [],
        "selections": {"root": 1, "bounds": [], "tree": []},
        "runFeed": {
            "version": 2,
            "pageSize": 8,
            "columnVisible": {
                "run:name": False,
                "run:displayName": True,
                "config:lr.value": True,
                "summary:loss": True,
                "config:optimizer.value.name": True,
                "summary:val/acc": True,
                "run:duration": True,
            },
            "columnOrder": [
                *("run:displayName", "config:lr.value", "config:optimizer.value.name"),
                *("summary:loss", "summary:val/acc", "run:duration"),
            ],
        },
    }
    panels = [
        _panel("Run History Line Plot", (0, 0, 24), {"chartTitle": "Loss of the ten best", "metrics": ["loss"]}),
        _panel(
            "Scatter Plot",
            (0, 6, 12),
            {
                "chartTitle": "Loss by rate",
                "xAxis": "config:lr.value",
                "yAxis": "summary:loss",
                "xAxisLogScale": True,
            },
        ),
        _panel(
            "Bar Chart",
            (12, 6, 12),
            {"chartTitle": "Accuracy by optimizer", "metrics": ["val/acc"], "groupBy": "config:optimizer.value.name"},
        ),
    ]
    section = {"name": "Report Panels", "panels": panels, "type": "grid"}
    metadata = {"openRunSet": 0, "runSets": [run_set], "hideRunSets": False, "panelBankSectionConfig": section}
    return {"type": "panel-grid", "children": [_text("")], "metadata": metadata}


def _panel(kind: str, place: tuple[int, int, int], config: Mapping[str, Any]) -> Node:
    x, y, width = place
    return {"viewType": kind, "layout": {"x": x, "y": y, "w": width, "h": 6}, "config": dict(config)}


def _text(text: str, **style: bool) -> Node:
    return {"text": text, **style}


def _line(text: str) -> Node:
    return {"type": "code-line", "language": "python", "children": [_text(text)]}


def _heading(text: str, level: int) -> Node:
    return {"type": "heading", "level": level, "children": [_text(text)]}


def _list(*items: str, ordered: bool = False) -> Node:
    entries: Sequence[Node] = [
        {"type": "list-item", "children": [{"type": "paragraph", "children": [_text(item)]}]} for item in items
    ]
    return {"type": "list", "ordered": ordered, "children": entries}
