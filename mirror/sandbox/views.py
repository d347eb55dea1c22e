"""Reports and saved views as the API lists, writes and deletes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mirror.sandbox import instants, jsontext
from mirror.sandbox.context import Context
from mirror.sandbox.documents import Resolver
from mirror.sandbox.errors import Refused
from mirror.sandbox.listing import connection
from mirror.sandbox.report import REPORT, Report
from mirror.sandbox.run import Project

Input = Mapping[str, Any]


def listed(project: Project, _context: Context, arguments: Input) -> dict[str, Any]:
    """Return the views of one type, newest first, as the app lists them; by name or user if asked."""
    kind, name, user = arguments.get("viewType") or REPORT, arguments.get("viewName"), arguments.get("userName")
    found = [
        report
        for report in project.reports.values()
        if report.kind == kind and name in (None, report.name) and user in (None, report.user)
    ]
    found.sort(key=lambda report: report.updated_at, reverse=True)
    return connection(found, arguments.get("after"), arguments.get("first"))


def _upsert_view(context: Context, given: Input) -> dict[str, Any]:
    world = context.world
    try:
        jsontext.read(given.get("spec") or "{}")
    except ValueError:
        raise Refused("spec is not JSON", 400) from None
    names = {"displayName": "title", "description": "description", "name": "name", "spec": "spec"}
    changes = {name: given[field] for field, name in names.items() if given.get(field) is not None}
    if given.get("id"):
        report = _needed(context, given["id"])
        return {"view": world.change_report(report, **changes), "inserted": False}
    entity, project = given.get("entityName") or world.entity, given.get("projectName") or "uncategorized"
    title, spec = changes.pop("title", "Untitled Report"), changes.pop("spec", "{}")
    kind = given.get("type") or REPORT
    return {"view": world.add_report(entity, project, title, spec, kind=kind, **changes), "inserted": True}


def _delete_view(context: Context, given: Input) -> dict[str, Any]:
    report = _needed(context, given["id"])
    del context.world.projects[report.entity, report.project].reports[report.storage_id]
    context.world.changed()
    return {"success": True, "pendingDrafts": None}


def _needed(context: Context, storage_id: str) -> Report:
    report = context.world.find_report(storage_id)
    if report is None:
        raise Refused(f"view not found: {storage_id}", 404)
    return report


VIEWS: dict[str, Resolver] = {
    "upsertView": lambda _, context, arguments: _upsert_view(context, arguments["input"]),
    "deleteView": lambda _, context, arguments: _delete_view(context, arguments["input"]),
}

VIEW: dict[str, Resolver] = {
    "id": lambda report, _, __: report.storage_id,
    "type": lambda report, _, __: report.kind,
    "name": lambda report, _, __: report.name,
    "displayName": lambda report, _, __: report.title,
    "description": lambda report, _, __: report.description,
    "spec": lambda report, _, __: report.spec,
    "project": lambda report, context, __: context.world.find_project(report.entity, report.project),
    "createdAt": lambda report, _, __: instants.text(report.created_at),
    "updatedAt": lambda report, _, __: instants.text(report.updated_at),
}
