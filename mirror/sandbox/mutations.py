"""How each mutation changes the world."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from mirror.sandbox import jsontext
from mirror.sandbox.context import Context
from mirror.sandbox.documents import Resolver
from mirror.sandbox.errors import Refused
from mirror.sandbox.run import Run
from mirror.sandbox.world import new_run_id

Input = Mapping[str, Any]

_LABELS = {
    "displayName": "display_name",
    "groupName": "group",
    "jobType": "job_type",
    "sweep": "sweep",
    "notes": "notes",
    "description": "description",
    "host": "host",
    "commit": "commit",
}
_MOVES = {
    "pending": {"running", "failed", "crashed", "preempted"},
    "failed": {"pending", "running"},
}


def _upsert_bucket(context: Context, given: Input) -> dict[str, Any]:
    """Find the run by storage id or by name, make it when there is none, and write the fields that are not null."""
    run, inserted = _found_or_made(context, given)
    for field, label in _LABELS.items():
        if given.get(field) is not None:
            setattr(run.labels, label, given[field])
    if given.get("tags") is not None:
        run.tags = list(given["tags"])
    if given.get("config") is not None:
        run.set_config(_document(given["config"], "config"))
    if given.get("summaryMetrics") is not None:
        run.set_summary(_document(given["summaryMetrics"], "summaryMetrics"))
    if given.get("state") is not None:
        run.state = given["state"]
    # The process of a run says its host; everybody else edits.
    run.touch(heartbeat=inserted or given.get("host") is not None)
    return {"bucket": run, "inserted": inserted}


def _found_or_made(context: Context, given: Input) -> tuple[Run, bool]:
    world = context.world
    if given.get("id"):
        return context.needed_run(given["id"]), False
    entity = given.get("entityName") or world.entity
    project = given.get("modelName") or "uncategorized"
    name = given.get("name") or new_run_id()
    found = world.find(entity, project, name)
    if found is None:
        return world.add_run(entity, project, run_id=name, config={}), True
    if found.state not in ("running", "pending"):
        found.state = "running"
        found.exitcode = None
    return found, False


def _document(text: str, field: str) -> dict[str, Any]:
    try:
        value = jsontext.read(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Refused(f"{field} is not a JSON object", 400)
    return value


def _upsert_model(context: Context, given: Input) -> dict[str, Any]:
    entity = given.get("entityName") or context.world.entity
    before = context.world.find_project(entity, given.get("name"))
    project = context.world.add_project(entity, given.get("name") or "uncategorized")
    if given.get("description") is not None:
        project.description = given["description"]
    return {"project": project, "model": project, "inserted": before is None}


def _delete_run(context: Context, given: Input) -> dict[str, Any]:
    run = context.needed_run(given["id"])
    context.world.delete_run(run.project.entity, run.project.name, run.run_id)
    return {"clientMutationId": given.get("clientMutationId")}


def _stop_run(context: Context, given: Input) -> dict[str, Any]:
    run = context.needed_run(given["id"])
    run.stop_requested = run.state == "running"
    return {"success": run.stop_requested}


def _rewind_run(context: Context, given: Input) -> dict[str, Any]:
    if given["metricName"] != "_step":
        raise Refused("a run can only be rewound to a _step", 400)
    run = context.run_at(given)
    run.rewind(int(given["metricValue"]))
    return {"rewoundRun": run}


def _update_run_state(context: Context, given: Input) -> dict[str, Any]:
    run = context.needed_run(given["id"])
    if run.state not in _MOVES.get(given["state"], ()):
        raise Refused(f"a {run.state} run cannot become {given['state']}", 400)
    run.set_state(given["state"])
    return {"success": True}


def _create_run_files(context: Context, given: Input) -> dict[str, Any]:
    run = context.run_at(given)
    files = [
        {"name": name, "uploadUrl": context.signed("PUT", f"/storage/files/{run.path}/{name}")}
        for name in given["files"]
    ]
    return {"runID": run.storage_id, "uploadHeaders": [], "files": files}


def _mark_uploaded(context: Context, given: Input) -> dict[str, Any]:
    run = context.run_at(given)
    return {"success": all(name in run.files for name in given["files"])}


def _delete_files(context: Context, given: Input) -> dict[str, Any]:
    for text in given["files"]:
        try:
            _, _, path, name = base64.b64decode(text, validate=True).decode().split(":", 3)
        except (binascii.Error, ValueError):
            raise Refused(f"file not found: {text}", 404) from None
        run = context.world.find(*path.split("/", 2))
        if run is None or name not in run.files:
            raise Refused(f"file not found: {text}", 404)
        if given.get("projectId") not in (None, run.project.number):
            raise Refused(f"project {given['projectId']} has no file {text}", 404)
        del run.files[name]
    context.world.changed()
    return {"success": True}


MUTATIONS: dict[str, Resolver] = {
    "upsertBucket": lambda _, context, arguments: _upsert_bucket(context, arguments["input"]),
    "upsertModel": lambda _, context, arguments: _upsert_model(context, arguments["input"]),
    "deleteRun": lambda _, context, arguments: _delete_run(context, arguments["input"]),
    "stopRun": lambda _, context, arguments: _stop_run(context, arguments["input"]),
    "rewindRun": lambda _, context, arguments: _rewind_run(context, arguments["input"]),
    "updateRunState": lambda _, context, arguments: _update_run_state(context, arguments["input"]),
    "createRunFiles": lambda _, context, arguments: _create_run_files(context, arguments["input"]),
    "markRunFilesUploaded": lambda _, context, arguments: _mark_uploaded(context, arguments["input"]),
    "deleteFiles": lambda _, context, arguments: _delete_files(context, arguments["input"]),
}
