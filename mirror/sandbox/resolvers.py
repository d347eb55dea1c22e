"""Resolvers: how each field of a query is answered. Types without resolvers are read from plain mappings."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import orjson

from mirror.sandbox import agents, artifact_fields, artifact_mutations, console, instants, jsontext, views
from mirror.sandbox.context import Context
from mirror.sandbox.documents import Resolver
from mirror.sandbox.errors import Refused
from mirror.sandbox.files import StoredFile, like
from mirror.sandbox.history import STEP
from mirror.sandbox.listing import connection
from mirror.sandbox.mutations import MUTATIONS
from mirror.sandbox.run import Project, Run, unwrapped
from mirror.sandbox.schema import SERVER_FEATURES
from mirror.sandbox.sweep import Sweep, fits
from mirror.sandbox.world import World

Arguments = Mapping[str, Any]


def _storage_id(kind: str, *parts: str) -> str:
    return base64.b64encode(":".join((kind, "v1", *parts)).encode()).decode()


def _user(world: World, username: str | None = None) -> dict[str, Any]:
    name = username or world.username
    return {
        "id": _storage_id("User", name),
        "name": " ".join(part.capitalize() for part in name.replace("_", "-").split("-")),
        "username": name,
        "email": f"{name}@example.com",
        "photoUrl": None,
        "admin": False,
        "flags": "{}",
        "entity": world.entity,
        "defaultEntity": world.entity,
        "deletedAt": None,
        "apiKeys": {"edges": []},
        "teams": {"edges": [{"node": entity} for entity in world.entities()]},
    }


_PROJECT_ORDERS: dict[str, Callable[[Project], Any]] = {
    **dict.fromkeys(("createdAt", "created_at"), lambda project: project.created_at),
    **dict.fromkeys(("lastActive", "last_active"), lambda project: project.last_active),
    "name": lambda project: project.name,
}


def _projects(context: Context, entity: str | None, arguments: Arguments) -> dict[str, Any]:
    wanted = entity or context.world.entity
    found = [project for project in context.world.projects.values() if project.entity == wanted]
    order = arguments.get("order") or "-createdAt"
    column = _PROJECT_ORDERS.get(order.lstrip("+-"))
    if column is None:
        raise Refused(f"invalid order: {order}", 400)
    found.sort(key=column, reverse=order.startswith("-"))
    return connection(found, arguments.get("after"), arguments.get("first"))


def _server_info(_source: Any, context: Context, _arguments: Arguments) -> dict[str, Any]:
    names = [name for name in SERVER_FEATURES if context.features.get(name, True)]
    return {
        "cliVersionInfo": {"max_cli_version": "99.0.0", "min_cli_version": "0.10.0"},
        "latestLocalVersionInfo": None,
        "features": [{"name": name, "isEnabled": True} for name in names],
    }


def _run_connection(project: Project, context: Context, arguments: Arguments) -> dict[str, Any]:
    runs = context.listing.runs(project, arguments.get("filters"), arguments.get("order"))
    if arguments.get("names"):
        runs = [run for run in runs if run.run_id in arguments["names"]]
    return connection(runs, arguments.get("after"), arguments.get("first"))


def _bucket(project: Project, _context: Context, arguments: Arguments) -> Run | None:
    run = project.runs.get(arguments["name"])
    if run is None and not arguments.get("missingOk"):
        raise Refused(f"run {arguments['name']} not found", 404)
    return run


def _config(run: Run, _context: Context, arguments: Arguments) -> str | None:
    keys = arguments.get("keys")
    if keys is None or run.config_document is None:
        return run.config_text
    return jsontext.write({key: value for key, value in run.config_document.items() if key in keys})


def _wandb_config(run: Run, _context: Context, arguments: Arguments) -> str | None:
    value = unwrapped((run.config_document or {}).get("_wandb"))
    if not isinstance(value, dict):
        return None
    keys = arguments.get("keys")
    return jsontext.write(value if keys is None else {key: item for key, item in value.items() if key in keys})


def _summary(run: Run, _context: Context, arguments: Arguments) -> str:
    keys = arguments.get("keys")
    if keys is None:
        return run.summary_text
    return jsontext.write({key: value for key, value in run.summary_document.items() if key in keys})


def _system_metrics(run: Run, _context: Context, _arguments: Arguments) -> str | None:
    latest: dict[str, Any] = {}
    for line in run.events.lines[-4:]:
        with suppress(ValueError, RecursionError):
            latest.update(jsontext.read(line))
    return jsontext.write({key: value for key, value in latest.items() if not key.startswith("_")}) if latest else None


def _tail(lines: Sequence[str]) -> str:
    return orjson.dumps(list(lines[-1:])).decode()


def _history(run: Run, _context: Context, arguments: Arguments) -> list[str]:
    return run.history.page(arguments.get("minStep"), arguments.get("maxStep"), arguments.get("samples"))


def _events(run: Run, _context: Context, arguments: Arguments) -> list[str]:
    return run.events.page(None, None, arguments.get("samples"))


def _sampled(run: Run, _context: Context, arguments: Arguments) -> list[Any]:
    answers = []
    for text in arguments["specs"]:
        try:
            spec = jsontext.read(text)
            keys = list(dict.fromkeys(spec["keys"]))
            low, high, samples = spec.get("minStep"), spec.get("maxStep"), int(spec.get("samples", 500))
        except (ValueError, TypeError, KeyError):
            raise Refused(f"invalid history spec: {text[:80]}", 400) from None
        answers.append(run.history.sampled(keys, low, high, samples))
    return answers


def _parquet(run: Run, context: Context, arguments: Arguments) -> dict[str, Any]:
    paths = [f"/storage/parquet/{run.path}/{index}" for index in range(len(run.exports))]
    # As on the server, the order of the files is not that of the steps, and differs between runs.
    paths.sort(key=lambda path: zlib.crc32(path.encode()))
    steps = run.live_steps()
    live: list[Any] = [{STEP: step} for step in steps]
    keys = arguments["liveKeys"]
    if steps and keys != [STEP]:
        live = run.history.sampled(keys, min(steps), None, len(run.history))
    return {"parquetUrls": [context.signed("GET", path) for path in paths], "liveData": live}


def _run_info(run: Run, _context: Context, _arguments: Arguments) -> dict[str, Any] | None:
    facts = run.metadata()
    if not facts:
        return None
    renamed = {"gpuCount": facts.get("gpu_count"), "cpuCount": facts.get("cpu_count")}
    return {**facts, **renamed, "git": facts.get("git") or None}


def _log_lines(run: Run, context: Context, arguments: Arguments) -> dict[str, Any]:
    return console.answer(run, arguments, context.console_bytes)


def _files(run: Run, context: Context, arguments: Arguments) -> dict[str, Any]:
    names, pattern = arguments.get("names"), arguments.get("pattern")
    found = sorted(run.files.values(), key=lambda file: file.name)
    if names:
        found = [file for file in found if file.name in names]
    elif pattern:
        matcher = like(pattern)
        found = [file for file in found if matcher.fullmatch(file.name)]
    return connection([file_node(context, run, file) for file in found], arguments.get("after"), arguments.get("first"))


def file_node(context: Context, run: Run, file: StoredFile) -> dict[str, Any]:
    """Return a file as the API returns it."""
    return {
        "id": _storage_id("File", run.path, file.name),
        "name": file.name,
        "url": context.file_url(run, file.name),
        "directUrl": context.signed("GET", f"/storage/files/{run.path}/{file.name}"),
        "uploadUrl": context.signed("PUT", f"/storage/files/{run.path}/{file.name}"),
        "sizeBytes": len(file.content),
        "mimetype": file.mimetype,
        "updatedAt": instants.text(file.updated_at),
        "md5": file.md5,
    }


def _file_url(file: Mapping[str, Any], _context: Context, arguments: Arguments) -> str:
    url: str = file["uploadUrl" if arguments.get("upload") else "url"]
    return url


def _sweep_runs(sweep: Sweep, context: Context) -> list[Run]:
    return [run for run in context.world.runs(sweep.entity, sweep.project) if run.labels.sweep == sweep.name]


def _sweeps(project: Project, _context: Context, arguments: Arguments) -> dict[str, Any]:
    wanted = jsontext.read(arguments.get("filters") or "{}")
    found = [sweep for sweep in project.sweeps.values() if fits(sweep, wanted)]
    return connection(found, arguments.get("after"), arguments.get("first"))


def _prior_runs(sweep: Sweep, context: Context, _arguments: Arguments) -> dict[str, Any]:
    runs = [run for run in context.world.runs(sweep.entity, sweep.project) if run.run_id in sweep.prior_runs]
    return connection(runs, None, None)


def _best_loss(sweep: Sweep, context: Context, _arguments: Arguments) -> float | None:
    key, largest = sweep.metric
    values = [run.summary_document.get(key) for run in _sweep_runs(sweep, context)]
    numbers = [value for value in values if isinstance(value, int | float) and value == value]  # noqa: PLR0124
    return (max if largest else min)(numbers, default=None)


def _organization(context: Context, entity: str) -> dict[str, Any] | None:
    return {"name": entity, "orgEntity": entity} if entity in context.world.entities() else None


RESOLVERS: dict[str, dict[str, Resolver]] = {
    "Query": {
        "viewer": lambda _, context, __: _user(context.world),
        "serverInfo": _server_info,
        "project": lambda _, context, arguments: context.project(arguments),
        "model": lambda _, context, arguments: context.project(arguments),
        "models": lambda _, context, arguments: _projects(context, arguments.get("entityName"), arguments),
        "projects": lambda _, context, arguments: _projects(context, arguments.get("entityName"), arguments),
        "entity": lambda _, context, arguments: (
            name if (name := arguments.get("name") or context.world.entity) in context.world.entities() else None
        ),
        "organization": lambda _, context, arguments: _organization(context, arguments["name"]),
        **artifact_fields.QUERY,
        "view": lambda _, context, arguments: context.world.find_report(arguments["id"]),
    },
    "Mutation": {**MUTATIONS, **artifact_mutations.MUTATIONS},
    "Entity": {
        "id": lambda name, _, __: _storage_id("Entity", name),
        "name": lambda name, _, __: name,
        "organization": lambda name, context, __: _organization(context, name),
        "projects": lambda name, context, arguments: _projects(context, name, arguments),
    },
    "Organization": {
        "featureFlags": lambda _, __, ___: [],
    },
    "Project": {
        "id": lambda project, _, __: project.storage_id,
        "internalId": lambda project, _, __: project.internal_id,
        "name": lambda project, _, __: project.name,
        "entityName": lambda project, _, __: project.entity,
        "entity": lambda project, _, __: project.entity,
        "createdAt": lambda project, _, __: instants.text(project.created_at),
        "updatedAt": lambda project, _, __: instants.text(project.last_active),
        "lastActive": lambda project, _, __: instants.text(project.last_active),
        "totalRuns": lambda project, _, __: len(project.runs),
        "isBenchmark": lambda _, __, ___: False,
        "readOnly": lambda _, __, ___: False,
        "description": lambda project, _, __: project.description,
        "access": lambda _, __, ___: "USER_WRITE",
        "views": lambda _, __, ___: None,
        "user": lambda _, context, __: _user(context.world),
        "run": lambda project, _, arguments: project.runs.get(arguments["name"]),
        "bucket": _bucket,
        "runCount": lambda project, context, arguments: context.listing.count(project, arguments.get("filters")),
        "runs": _run_connection,
        "buckets": _run_connection,
        "totalSweeps": lambda project, _, __: len(project.sweeps),
        "sweep": lambda project, _, arguments: project.sweeps.get(arguments["sweepName"]),
        "sweeps": _sweeps,
        **artifact_fields.PROJECT,
        "allViews": views.listed,
    },
    "Run": {
        "id": lambda run, _, __: run.storage_id,
        "name": lambda run, _, __: run.run_id,
        "displayName": lambda run, _, __: run.labels.display_name,
        "projectId": lambda run, _, __: run.project.number,
        "project": lambda run, _, __: run.project,
        "state": lambda run, _, __: run.state,
        "stopped": lambda run, _, __: run.stop_requested,
        "shouldStop": lambda run, _, __: run.stop_requested,
        "failed": lambda run, _, __: run.state == "failed",
        "running": lambda run, _, __: run.state == "running",
        "exitcode": lambda run, _, __: run.exitcode,
        "tags": lambda run, _, __: run.tags,
        "group": lambda run, _, __: run.labels.group,
        "jobType": lambda run, _, __: run.labels.job_type,
        "sweepName": lambda run, _, __: run.labels.sweep,
        "sweep": lambda run, _, __: run.project.sweeps.get(run.labels.sweep or ""),
        "notes": lambda run, _, __: run.labels.notes,
        "description": lambda run, _, __: run.labels.description,
        "commit": lambda run, _, __: run.labels.commit,
        "readOnly": lambda _, __, ___: False,
        "host": lambda run, _, __: run.labels.host,
        "createdAt": lambda run, _, __: instants.text(run.created_at),
        "heartbeatAt": lambda run, _, __: instants.text(run.heartbeat_at),
        "updatedAt": lambda run, _, __: instants.text(run.updated_at),
        "computeSeconds": lambda run, _, __: int(
            ((run.heartbeat_at or run.created_at) - run.created_at).total_seconds()
        ),
        "config": _config,
        "wandbConfig": _wandb_config,
        "summaryMetrics": _summary,
        "systemMetrics": _system_metrics,
        "historyKeys": lambda run, _, __: run.history.describe(),
        "historyLineCount": lambda run, _, __: len(run.history),
        "eventsLineCount": lambda run, _, __: len(run.events),
        "logLineCount": lambda run, _, __: len(run.console),
        "historyTail": lambda run, _, __: _tail(run.history.lines),
        "eventsTail": lambda run, _, __: _tail(run.events.lines),
        "fileCount": lambda run, _, __: len(run.files),
        "user": lambda run, context, __: _user(context.world, run.labels.user),
        "runInfo": _run_info,
        "history": _history,
        "events": _events,
        "sampledHistory": _sampled,
        "parquetHistory": _parquet,
        "logLines": _log_lines,
        "files": _files,
        **artifact_fields.RUN,
    },
    "File": {"url": _file_url},
    **artifact_fields.RESOLVERS,
    "Sweep": {
        "id": lambda sweep, _, __: sweep.storage_id,
        "name": lambda sweep, _, __: sweep.name,
        "displayName": lambda sweep, _, __: sweep.display_name,
        "method": lambda sweep, _, __: sweep.method,
        "state": lambda sweep, _, __: sweep.state,
        "description": lambda sweep, _, __: sweep.description,
        "bestLoss": _best_loss,
        "config": lambda sweep, _, __: sweep.config,
        "createdAt": lambda sweep, _, __: instants.text(sweep.created_at),
        "updatedAt": lambda sweep, _, __: instants.text(sweep.updated_at or sweep.created_at),
        "runCount": lambda sweep, context, __: len(_sweep_runs(sweep, context)),
        "runCountExpected": lambda sweep, _, __: sweep.expected_runs,
        "heartbeatAt": lambda sweep, _, __: instants.text(sweep.updated_at or sweep.created_at),
        "earlyStopJobRunning": lambda _, __, ___: False,
        "controller": lambda _, __, ___: None,
        "scheduler": lambda _, __, ___: None,
        "project": lambda sweep, context, __: context.world.find_project(sweep.entity, sweep.project),
        "runs": lambda sweep, context, __: connection(_sweep_runs(sweep, context), None, None),
        "priorRuns": _prior_runs,
        "agents": lambda sweep, context, _: connection(agents.of_sweep(context, sweep), None, None),
        "agent": agents.find,
    },
    "Agent": agents.AGENT,
    "View": {**views.VIEW, "user": lambda report, context, __: _user(context.world, report.user)},
}


def _spoilable(name: str, resolve: Resolver) -> Resolver:
    def answer(run: Run, context: Context, arguments: Arguments) -> Any:
        return run.spoilt[name] if name in run.spoilt else resolve(run, context, arguments)

    return answer


RESOLVERS["Run"] = {name: _spoilable(name, resolve) for name, resolve in RESOLVERS["Run"].items()}
