"""Run sets: which of the mirror's runs they select, and what their tables show."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct, field

from mirror.errors import MirrorError
from mirror.filters.run_sets import path_of, to_filter, to_order
from mirror.plot.read import value_at
from mirror.snapshot.paths import Project
from mirror.snapshot.runs import Page
from mirror.snapshot.snapshot import Address, Snapshot
from mirror.wandb_json import dumps

ROWS = 10
_MOST_ROWS = 100

FACTS = {
    "name": "run_id",
    "displayName": "name",
    "state": "state",
    "tags": "tags",
    "createdAt": "created_at",
    "heartbeatAt": "heartbeat_at",
    "duration": "duration_s",
    "username": "username",
    "userName": "username",
    "sweep": "sweep",
    "group": "group_name",
    "jobType": "job_type",
    "notes": "notes",
    "host": "host",
    "commit": "git_commit",
}
"""Fields of a run by the app's names, and the mirror's column of each."""

_TITLES = {"displayName": "name", "name": "run", "createdAt": "created", "duration": "seconds", "username": "user"}
_USUAL = ("run:displayName", "run:state", "run:createdAt", "run:duration")


class RunTable(Struct, frozen=True):
    """The first rows of a run set, as text, and how many runs it has."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    total: int


class RunSet(Struct, frozen=True):
    """The runs of a run set, in its order. `problem` is why there are none; `notes` what was left out."""

    name: str
    project: Project
    runs: Sequence[Address] = ()
    shown: Sequence[Address] = ()
    """Those that its panels draw."""
    groups: Sequence[str] = ()
    condition: str = ""
    table: RunTable | None = None
    problem: str = ""
    notes: Sequence[str] = field(default_factory=tuple)


def resolve(snapshot: Snapshot, home: Project, node: Mapping[str, Any]) -> RunSet:
    """Return the runs that a run set of a report in the project `home` selects."""
    name = node.get("name") if isinstance(node.get("name"), str) else "Run set"
    assert isinstance(name, str)
    given = node.get("project")
    given = given if isinstance(given, Mapping) else {}
    project = Project(str(given.get("entityName") or home.entity), str(given.get("name") or home.project))
    if project not in snapshot.projects:
        return RunSet(name, project, problem=f"{project} is not mirrored")
    try:
        conditions = _conditions(node)
        order = to_order(node.get("sort")) or "-createdAt"
        notes = []
        try:
            runs, _ = snapshot.matching(project, conditions, order, deleted=False)
        except MirrorError:
            # A summary key may stand in the section of a run's own fields; the app ignores such an order, too.
            notes.append(f"its order {order[1:]} is not known: the newest runs are first")
            runs, _ = snapshot.matching(project, conditions, "-createdAt", deleted=False)
        groups = [_group(key) for key in node.get("grouping") or ()]
    except MirrorError as error:
        return RunSet(name, project, problem=f"{error}")
    shown = _selected(runs, node.get("selections"))
    feed = node.get("runFeed")
    feed = feed if isinstance(feed, Mapping) else {}
    listed = shown if feed.get("onlyShowSelected") else runs
    table = _table(snapshot, listed, feed)
    return RunSet(name, project, runs, shown, groups, dumps(conditions) if conditions else "", table, "", notes)


def _conditions(node: Mapping[str, Any]) -> dict[str, Any]:
    now = datetime.now(UTC).replace(tzinfo=None)
    parts = [to_filter(node.get("filters"), now)]
    search = node.get("search")
    if isinstance(search, Mapping) and isinstance(text := search.get("query"), str) and text:
        parts.append({"displayName": {"$regex": text if search.get("isRegex") else re.escape(text), "$options": "i"}})
    found = [part for part in parts if part]
    return {"$and": found} if len(found) > 1 else found[0] if found else {}


def _group(key: Any) -> str:
    """Return what `--group-by` calls a key of a run set's grouping."""
    return group_field(path_of(key))


def group_field(path: str) -> str:
    """Return what `--group-by` calls a field of the API."""
    section, _, rest = path.partition(".")
    if section == "config" and rest:
        return f"config.{without_value(rest)}"
    if section == "summary_metrics" and rest:
        return f"summary.{rest}"
    return {"username": "user", "jobType": "job_type"}.get(path, path)


def without_value(name: str) -> str:
    """Return a config key without the `value` that the app writes after its first part."""
    first, *rest = name.split(".")
    return ".".join([first, *(rest[1:] if rest[:1] == ["value"] else rest)])


def _selected(runs: Sequence[Address], selections: Any) -> list[Address]:
    """Return the runs that panels draw: all but those of the tree, or with root 0 only those."""
    selections = selections if isinstance(selections, Mapping) else {}
    tree = selections.get("tree")
    names = {name for name in tree if isinstance(name, str)} if isinstance(tree, list) else set()
    if not names:
        return list(runs)
    only = selections.get("root") == 0
    return [run for run in runs if (run.run_id in names) == only]


def value_of(page: Page, run: Address, column: str) -> Any:
    """Return what a run has in a column, such as `config:lr.value`, `summary:loss` or `run:state`; None if nothing."""
    section, _, name = column.partition(":")
    if section == "config":
        return value_at(page.document(run.rid, "config"), without_value(name))
    if section in ("summary", "summary_metrics"):
        return value_at(page.document(run.rid, "summary"), name)
    if section == "run" and name in FACTS:
        return page.fact(run.rid, FACTS[name])
    return None


def title_of(column: str) -> str:
    """Return the heading of a column."""
    section, _, name = column.partition(":")
    if section == "config":
        return without_value(name)
    return _TITLES.get(name, name) if section == "run" else name


def _table(snapshot: Snapshot, runs: Sequence[Address], feed: Mapping[str, Any]) -> RunTable:
    visible, order = feed.get("columnVisible"), feed.get("columnOrder")
    pinned = feed.get("columnPinned")
    chosen = [name for name, shown in visible.items() if shown is True] if isinstance(visible, Mapping) else []
    chosen += [name for name, shown in pinned.items() if shown is True] if isinstance(pinned, Mapping) else []
    hidden = {name for name, shown in visible.items() if shown is False} if isinstance(visible, Mapping) else set()
    placed = [name for name in order if name in chosen] if isinstance(order, list) else []
    columns = [name for name in dict.fromkeys([*placed, *chosen]) if isinstance(name, str)]
    if not columns:
        columns = [name for name in _USUAL if name not in hidden]
    elif "run:displayName" not in columns:
        columns.insert(0, "run:displayName")
    size = feed.get("pageSize")
    most = min(max(size, 1), _MOST_ROWS) if isinstance(size, int) and not isinstance(size, bool) else ROWS
    page = Page(snapshot, [run.rid for run in runs[:most]])
    rows = [[shown(value_of(page, run, column)) for column in columns] for run in runs[:most]]
    return RunTable([title_of(column) for column in columns], rows, len(runs))


def shown(value: Any) -> str:
    """Return a value as the text of a cell."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return value if isinstance(value, str) else dumps(value)
