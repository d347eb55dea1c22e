"""How each mutation changes the world."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from mirror.sandbox import jsontext
from mirror.sandbox.agents import AGENTS, needed_sweep
from mirror.sandbox.context import Context
from mirror.sandbox.documents import Resolver
from mirror.sandbox.errors import Refused
from mirror.sandbox.history import STEP
from mirror.sandbox.run import Run
from mirror.sandbox.sweep import Sweep, search
from mirror.sandbox.views import VIEWS
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
    """Find the run by storage id or by name, create it if there is none, and write the fields that are not null."""
    if given.get("sweep") and not _has_sweep(context, given):
        raise Refused(f"sweep {given['sweep']} not found", 404)
    run, inserted = _find_or_create(context, given)
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
    # Only the process of a run sends its host; any other request is an edit.
    run.touch(heartbeat=inserted or given.get("host") is not None)
    return {"bucket": run, "inserted": inserted}


def _has_sweep(context: Context, given: Input) -> bool:
    """Return True if the sweep of a run is in the run's project."""
    if given.get("id"):
        project = context.needed_run(given["id"]).project
        return given["sweep"] in project.sweeps or given["sweep"] == context.needed_run(given["id"]).labels.sweep
    found = context.world.find_project(given.get("entityName") or context.world.entity, given.get("modelName"))
    return found is not None and given["sweep"] in found.sweeps


def _find_or_create(context: Context, given: Input) -> tuple[Run, bool]:
    world = context.world
    if given.get("id"):
        run = context.needed_run(given["id"])
        return (_resumed(run) if given.get("host") is not None else run), False
    entity = given.get("entityName") or world.entity
    project = given.get("modelName") or "uncategorized"
    name = given.get("name") or new_run_id()
    found = world.find(entity, project, name)
    if found is None:
        return world.add_run(entity, project, run_id=name, config={}), True
    return _resumed(found), False


def _resumed(run: Run) -> Run:
    """Have a run that has ended run again."""
    if run.state not in ("running", "pending"):
        run.state = "running"
        run.exitcode = None
    return run


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
    if given.get("deleteArtifacts"):
        for artifact in run.outputs:
            context.world.artifacts.delete(artifact)
    context.world.delete_run(run.project.entity, run.project.name, run.run_id)
    return {"clientMutationId": given.get("clientMutationId")}


def _stop_run(context: Context, given: Input) -> dict[str, Any]:
    run = context.needed_run(given["id"])
    run.stop_requested = run.state == "running"
    return {"success": run.stop_requested}


def _rewind_run(context: Context, given: Input) -> dict[str, Any]:
    if given["metricName"] != STEP:
        raise Refused("a run can only be rewound to a _step", 400)
    run = context.run_at(given)
    run.rewind(int(given["metricValue"]))
    return {"rewoundRun": run}


def _update_run_state(context: Context, given: Input) -> dict[str, Any]:
    run = context.needed_run(given["id"])
    if run.labels.sweep or run.state not in _MOVES.get(given["state"], ()):
        raise Refused(f"invalid state transition: {run.state} to {given['state']}", 400)
    run.set_state(given["state"])
    return {"success": True}


def _upsert_sweep(context: Context, given: Input) -> dict[str, Any]:
    """Create a sweep, which waits for agents, or change the one with this `id`; null keeps a value."""
    world = context.world
    if given.get("id"):
        sweep = needed_sweep(context, given["id"])
        project = world.add_project(sweep.entity, sweep.project)
    else:
        project = world.add_project(
            given.get("entityName") or world.entity, given.get("projectName") or "uncategorized"
        )
        sweep = Sweep(new_run_id(), project.entity, project.name, world.moment(), "", state="PENDING")
    changes = {
        name: given[field]
        for field, name in (("state", "state"), ("displayName", "display_name"), ("description", "description"))
        if given.get(field) is not None
    }
    if given.get("config") is not None or not sweep.config:
        method, expected = search(given.get("config"))
        changes |= {"config": given["config"], "method": method, "expected_runs": expected}
    if given.get("priorRunsFilters") is not None:
        runs = context.listing.runs(project, given["priorRunsFilters"], None)
        changes["prior_runs"] = tuple(run.run_id for run in runs)
    return {"sweep": world.change_sweep(sweep, **changes), "configValidationWarnings": []}


def _enqueue_sweep_run(context: Context, given: Input) -> dict[str, Any]:
    """Create a run of the sweep that waits for an agent."""
    sweep = needed_sweep(context, given["id"])
    run = context.world.add_run(
        sweep.entity, sweep.project, name=given.get("displayName"), sweep=sweep.name, state="pending"
    )
    run.set_config(_document(given["config"], "config"))
    return {"id": run.storage_id, "runQueueItemId": None}


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
    "upsertSweep": lambda _, context, arguments: _upsert_sweep(context, arguments["input"]),
    "enqueueSweepRun": lambda _, context, arguments: _enqueue_sweep_run(context, arguments["input"]),
    "createRunFiles": lambda _, context, arguments: _create_run_files(context, arguments["input"]),
    "markRunFilesUploaded": lambda _, context, arguments: _mark_uploaded(context, arguments["input"]),
    **AGENTS,
    **VIEWS,
    "deleteFiles": lambda _, context, arguments: _delete_files(context, arguments["input"]),
}
