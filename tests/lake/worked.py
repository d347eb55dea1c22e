"""A mirror with segments, a tail and an edit, its lake, and what DuckDB answers on the mirror to five example queries."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import duckdb

from mirror.lake.export import export
from mirror.lake.target import find
from mirror.settings.home import Home
from mirror.store import sqlfiles
from tests.store.kit import curve, opened, run, write

EXAMPLES = ("best_runs", "edits_after_the_end", "group_means", "loss_curves", "run_states_by_day")


def mirrored(root: Path) -> Home:
    reported: dict[str, Any] = {"summary": {"val/acc": 0.9}, "config": {"lr": 0.1, "optimizer.name": "adam"}}
    with opened(root, tail_values=100) as store:
        runs = [run("a", **reported), run("b", **reported), run("c", state="failed", config={"optimizer.name": "sgd"})]
        write(store, *runs, history=[curve(run_id, range(80)) for run_id in "abc"])
        store.seal()
        write(store, run("a", **{**reported, "summary": {"val/acc": 0.8}}), history=[curve("a", range(80, 90))])
        store.publish()
        return store.home


def exported(root: Path, address: str) -> Home:
    home = mirrored(root)
    export(home, None, find(address))
    return home


def answers(home: Home) -> dict[str, list[list[object]]]:
    """Of DuckDB on the mirror; none is empty."""
    with duckdb.connect(str(home.published), read_only=True) as connection:
        found = {name: connection.execute(text).fetchall() for name, text in questions().items()}
    assert all(found.values())
    return {name: approximate(rows) for name, rows in found.items()}


def questions() -> dict[str, str]:
    examples = sqlfiles.read("examples")
    return {name: examples[name] for name in EXAMPLES}


def portable(question: str, division: str) -> str:
    """The same without what only DuckDB has; `division` is how a dialect rounds the quotient of 0 and 1 down."""
    text = re.sub(r"isfinite\(([\w.]+)\)", r"abs(\1) <= 1.7976931348623157e308", question).rstrip().rstrip(";")
    text = re.sub(r"(\([^()]*\) \* 100) // (\([^()]*\))", lambda found: division.format(*found.groups()), text)
    day = "date_trunc('day', created_at)"
    return text.replace(f"{day}::TIMESTAMP", day).replace("GROUP BY ALL", f"GROUP BY entity, project, {day}, state")


def approximate(rows: Any) -> list[list[object]]:
    """Rows in an order of their own, with twelve digits of a number, since sums depend on their order."""
    found = [[_plain(value) for value in row] for row in rows]
    return sorted(found, key=repr)


def _plain(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.12g}"
    return value if isinstance(value, int | None) else str(value)
