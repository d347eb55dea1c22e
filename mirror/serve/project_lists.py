"""The sweeps, reports and saved views of a project, as the server returned them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from mirror.errors import QueryError
from mirror.serve.context import Context, project_of
from mirror.serve.documents import Field, NotServed, ServerKnowsBetter
from mirror.serve.pages import connection, cursor, start_of
from mirror.serve.touched import LISTS
from mirror.snapshot import projects, reports
from mirror.snapshot import sweeps as mirrored
from mirror.wandb_json import UNREADABLE, loads

Arguments = Mapping[str, Any]
Source = Mapping[str, Any]

_VIEW_TYPES = ("runs", "project-view")

SETTLED = timedelta(minutes=1)
"""After a change through this endpoint, a pass that ends so much later has begun after the change."""


def total_sweeps(project: Source, context: Context, _field: Field, _arguments: Arguments) -> int:
    """Return how many sweeps the project has."""
    return len(_sweeps(project, context))


def _check_fresh(project: Source, context: Context) -> None:
    """Have the server asked for what was changed through this endpoint, until a pass has begun after that.

    Times of passes are those of their ends; none takes longer than SETTLED in a project where one changes sweeps.
    """
    touched = context.touched((LISTS, *project["key"]))
    if touched is None or context.without_server:
        return
    success = projects.last_successes(context.connection).get(project["key"])
    if success is None or success < touched + SETTLED:
        raise ServerKnowsBetter(f"sweeps and reports of {project['key']} were just changed")


def sweeps(project: Source, context: Context, _field: Field, arguments: Arguments) -> dict[str, Any]:
    """Return a page of the project's sweeps. With a filter, the server is asked."""
    filters = arguments.get("filters")
    if not isinstance(filters, str | None):
        raise QueryError("filters is not JSON text; send it as a string")
    try:
        filtered = bool(loads(filters or "{}"))
    except UNREADABLE:
        raise QueryError("filters is not JSON") from None
    if filtered:
        raise NotServed("sweeps by a filter")
    return _page(_sweeps(project, context), "sweeps", arguments)


def sweep(project: Source, context: Context, _field: Field, arguments: Arguments) -> dict[str, Any]:
    """Return one sweep."""
    _check_fresh(project, context)
    name = arguments["sweepName"]
    find = context.remembered
    found = find(("sweep", project["key"], name), lambda: mirrored.one(context.connection, project["key"], name))
    if found is None:
        raise NotServed(f"the sweep {project['key']}/{name} is not mirrored")
    return found


def sweep_of_run(run: Source, context: Context, field: Field, _arguments: Arguments) -> dict[str, Any] | None:
    """Return the sweep of a run; its name is known even if the sweep is not mirrored."""
    name = run["sweepName"]
    if not name:
        return None
    if field.names() <= {"name"}:
        return {"name": name}
    return mirrored.one(context.connection, project_of(run), name) or {"name": name}


def views(project: Source, context: Context, _field: Field, arguments: Arguments) -> dict[str, Any]:
    """Return a page of the project's reports, or of its saved views by `viewType`; by name or user if asked."""
    kind, name, user = arguments.get("viewType") or "runs", arguments.get("viewName"), arguments.get("userName")
    key = project["key"]
    _check_fresh(project, context)
    if kind not in _VIEW_TYPES or not reports.are_listed(context.connection, key):
        raise NotServed(f"the views of type {kind} of {key} are not mirrored")
    found = [
        view
        for view in reports.views(context.connection, key, kind)
        if name in (None, view.get("name")) and user in (None, (view.get("user") or {}).get("username"))
    ]
    return _page(found, kind, arguments)


def _sweeps(project: Source, context: Context) -> list[dict[str, Any]]:
    key = project["key"]
    _check_fresh(project, context)
    found = context.remembered(("sweeps", key), lambda: mirrored.listed(context.connection, key))
    if found is None:
        raise NotServed(f"the sweeps of {key} are not mirrored yet")
    return found


def _page(nodes: Sequence[Mapping[str, Any]], name: str, arguments: Arguments) -> dict[str, Any]:
    start = start_of(arguments)
    end = start + max(len(nodes) if arguments.get("first") is None else arguments["first"], 0)
    edges = [{"node": node, "cursor": cursor(name, place)} for place, node in enumerate(nodes, start=1)]
    return connection(edges[start:end], start, more=end < len(nodes))
