"""Resolvers: how fields of a query are answered from the mirror. Fields without one are read from their source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from mirror.errors import QueryError
from mirror.protocol import LIVE_STATES
from mirror.serve import artifacts, console, edits, files, history_fields, project_lists, runs
from mirror.serve.context import Context, path_of
from mirror.serve.documents import Field, NotPulled, NotServed, Resolver, ServerKnowsBetter
from mirror.serve.pages import connection, cursor, read_cursor, start_of
from mirror.serve.runs import Listing
from mirror.snapshot import facts, projects
from mirror.snapshot.described import described, latest_events
from mirror.wandb_json import loads

Arguments = Mapping[str, Any]
Source = Mapping[str, Any]

FRESH = timedelta(days=1)
"""How old server information may be before the server is asked again. Passes ask it every few hours."""

_HEAVY = frozenset({"config", "wandbConfig", "summaryMetrics", "systemMetrics", "historyKeys"})
"""Fields of a run that are read only on request; the others are read with every run."""

AHEAD_RUNS = 32
"""How many runs are read together during a loop over a list."""

AHEAD_BYTES = 1 << 17
"""If a run of a list has larger documents than this, the runs are read one at a time."""

_FROM_FACTS = frozenset({"projectId", "readOnly", "stopped", "exitcode", "systemMetrics", "user", "runInfo"})
_FROM_HISTORY = frozenset({"historyKeys", "history", "sampledHistory", "parquetHistory"})
"""Fields of a run that come from its stored server facts, and from its history."""


_READER: Mapping[str, Any] = {
    "id": "VXNlcjow",
    "name": "a token of the mirror",
    "username": "token",
    "email": None,
    "admin": False,
    "flags": "{}",
    "defaultEntity": None,
    "deletedAt": None,
    "apiKeys": {"edges": []},
    "teams": {"edges": []},
}
"""Who asks with a token of the mirror: not the owner of the key, and no user of the server."""


def _viewer(_source: Any, context: Context, _field: Field, _arguments: Arguments) -> dict[str, Any] | None:
    """Return the owner of the key: as the server returned it, or else what the daemon learned when it signed in."""
    if context.of_token:
        return {**_READER, "entity": context.default_entity()}
    viewer: dict[str, Any] | None = context.server[0].get("viewer", {})
    if viewer and context.username in (None, viewer.get("username")):
        return viewer
    known = {"username": context.username, "entity": context.entity}
    return {name: value for name, value in known.items() if value is not None}


def _server_info(_source: Any, context: Context, _field: Field, _arguments: Arguments) -> dict[str, Any] | None:
    """Return the stored server information; if it is old, the server is asked again while it can be reached."""
    server, age = context.server
    if "serverInfo" not in server:
        raise NotServed("the server information is not mirrored yet")
    if age > FRESH and not context.without_server:
        raise ServerKnowsBetter("the mirrored server information is old")
    info: dict[str, Any] | None = server["serverInfo"]
    return info


def _api_keys(user: Source, context: Context, *_: Any) -> Any:
    """Return `apiKeys`: secrets on older servers, so the mirror only knows if there are none. Null is "not loaded"."""
    if "apiKeys" in user:
        return user["apiKeys"]
    if context.without_server:
        return None
    raise ServerKnowsBetter("API keys are not mirrored")


def _project(_source: Any, context: Context, _field: Field, arguments: Arguments) -> dict[str, Any]:
    entity, name = arguments.get("entityName") or context.default_entity(), arguments.get("name")
    found = context.projects(entity, name) if entity and name else []
    if not found:
        raise NotServed(f"the project {entity}/{name} is not mirrored")
    return found[0]


def _entity(_source: Any, context: Context, _field: Field, arguments: Arguments) -> dict[str, Any]:
    """Return the entity as any of its projects has it."""
    name = arguments.get("name") or context.default_entity()
    found = facts.projects(context.connection, name) if name else []
    if not found:
        raise NotServed(f"no project of {name} is mirrored")
    entity: dict[str, Any] = next((project["entity"] for project in found if project.get("entity")), {"name": name})
    return entity


def _projects(entity: str | None, context: Context, arguments: Arguments) -> dict[str, Any]:
    wanted = entity or context.default_entity()
    if wanted and context.unpulled([wanted]) and not (context.without_server or context.waited):
        raise NotPulled([wanted])
    found = facts.projects(context.connection, wanted) if wanted else []
    if not found:
        raise NotServed(f"no project of {wanted} is mirrored")
    ordered = facts.in_order(found, arguments.get("order"))
    if ordered is None:
        raise NotServed(f"projects of {wanted} in the order {arguments.get('order')}")
    start = start_of(arguments)
    end = start + max(len(ordered) if arguments.get("first") is None else arguments["first"], 0)
    edges = [{"node": node, "cursor": cursor("projects", place)} for place, node in enumerate(ordered, start=1)]
    return connection(edges[start:end], start, more=end < len(ordered))


def _entity_name(project: Source, *_: Any) -> str:
    name: str = project["key"].entity
    return name


def _listing(project: Source, context: Context, arguments: Arguments) -> Listing:
    if not project["listed"]:
        raise NotServed(f"not all runs of {project['key']} are mirrored yet")
    _check_edits(project, context)
    _needs_text(arguments, "filters")
    return context.listings.find(
        context.ask,
        context.version,
        project["key"],
        arguments.get("filters"),
        arguments.get("order"),
        [name for name in arguments.get("names") or () if name is not None],
    )


def _check_edits(project: Source, context: Context) -> None:
    """Have edits through this endpoint waited for. If they are not pulled then, the server has a better list.

    It has none where `sync.filters` selects runs: its list would have the others, too.
    """
    key = project["key"]
    if context.without_server or not context.unpulled(key):
        return
    if not context.waited:
        raise NotPulled(key)
    if not loads(projects.limits(context.connection)[key][0]):
        raise _edited(key)


def _edited(path: Sequence[str]) -> ServerKnowsBetter:
    return ServerKnowsBetter(f"{'/'.join(path)} was just changed", edits.ANSWER_SECONDS)


def _run_count(project: Source, context: Context, _field: Field, arguments: Arguments) -> int:
    return len(_listing(project, context, arguments).rids)


def _runs(project: Source, context: Context, field: Field, arguments: Arguments) -> dict[str, Any]:
    start = 0
    listing: Listing | None = None
    if arguments.get("after"):
        name, start = read_cursor(arguments["after"])
        listing = context.listings.kept(name)
    if listing is None:
        listing = _listing(project, context, arguments)
    first = arguments.get("first")
    end = start + min(runs.MOST_RUNS if first is None else max(first, 0), runs.MOST_RUNS)
    rids = listing.rids[start:end].tolist()
    fields = field.names("edges", "node")
    if not arguments.get("after") and end < len(listing.rids):
        _require_all(project, context, listing, fields)
    found: dict[int, dict[str, Any]] = {}
    for block in range(start // runs.BLOCK, -(-min(end, len(listing.rids)) // runs.BLOCK)):
        found |= _block(project, context, listing, block)
    rows = runs.with_documents(context.connection, [found[rid] for rid in rids if rid in found], fields)
    _describe(context, project, rows, fields)
    places = {rid: place for place, rid in enumerate(rids, start=start + 1)}
    edges = [{"node": row, "cursor": cursor(listing.name, places[row["rid"]])} for row in rows]
    return connection(edges, start, more=end < len(listing.rids), total=len(listing.rids))


def _require_all(project: Source, context: Context, listing: Listing, fields: frozenset[str]) -> None:
    """Raise NotServed if a later page of the list would, because the server cannot continue a list of the mirror."""
    connection, key = context.connection, project["key"]
    lacking: set[int] = set()
    unread = context.remembered(("unread", key), lambda: facts.unread(connection, key))
    lacking.update(rid for rid, columns in unread.items() if runs.unreadable(columns) & fields)
    if fields & _FROM_FACTS:
        lacking.update(context.remembered(("no facts", key), lambda: facts.without_facts(connection, key)))
    if fields & _FROM_HISTORY:
        find = partial(facts.without_history, connection, key)
        lacking.update(context.remembered(("no history", key), find))
    if lacking and not lacking.isdisjoint(listing.rids):
        raise NotServed(f"a requested field is not mirrored for all runs of {key}")


def _block(project: Source, context: Context, listing: Listing, block: int) -> dict[int, dict[str, Any]]:
    """Return a block of a list by `rid`, without documents, and cache each run by name: it may be requested next."""

    def find() -> dict[int, dict[str, Any]]:
        rids = listing.rids[block * runs.BLOCK : (block + 1) * runs.BLOCK].tolist()
        rows = runs.rows_of(context.connection, project, rids)
        for place, row in enumerate(rows):
            row["place"] = listing.name, block * runs.BLOCK + place
            if row["deleted_at"] is not None:
                continue
            context.listings.facts.keep(context.version, ("run", project["key"], row["name"]), row)
        return {row["rid"]: row for row in rows}

    return context.listings.blocks.get(context.version, (listing.name, block), find)


def _run(project: Source, context: Context, field: Field, arguments: Arguments) -> dict[str, Any]:
    fields = field.names()
    path = (*project["key"], arguments["name"])
    if context.unpulled(path) and not context.without_server:
        raise _edited(path)
    # Each page of a history is requested by the run's name; the run is looked up once per snapshot.
    find = partial(runs.row_of, context.connection, project, arguments["name"])
    light = context.remembered(("run", project["key"], arguments["name"]), find)
    if light is None:
        raise NotServed(f"the run {project['key']}/{arguments['name']} is not mirrored")
    if not fields & _HEAVY:
        return light
    ahead, version = context.listings.ahead, context.version
    following = context.listings.following(version, "run", light, lambda _: 1, AHEAD_RUNS)
    found = ahead.peek(version, (light["rid"], fields))
    if found is None:
        rows = runs.with_documents(context.connection, following, fields)
        _describe(context, project, rows, fields)
        if not rows:
            raise NotServed(f"the run {project['key']}/{arguments['name']} is not mirrored")
        for row in rows:
            if runs.weight(row, row.get("described")) > AHEAD_BYTES:
                context.listings.read_alone(light)
            else:
                ahead.keep(version, (row["rid"], fields), row)
        found = rows[0]
    return dict(found)


def _describe(context: Context, project: Source, rows: list[dict[str, Any]], fields: frozenset[str]) -> None:
    """Add the requested `historyKeys` and `systemMetrics` to these runs, read for all of them together."""
    if not rows or not fields & {"historyKeys", "systemMetrics"}:
        return
    stored = facts.heavy(context.connection, [row["rid"] for row in rows])
    if "historyKeys" in fields:
        by_number = {row["rid"]: row for row in rows}
        entries = described(context.connection, project["key"], by_number, stored)
        for row in rows:
            row["described"] = entries.get(row["rid"])
    if "systemMetrics" in fields:
        for row in rows:
            metrics = stored.get(row["rid"], (None, None))[0]
            if metrics is not None:
                row["systemMetrics"] = None if metrics == "null" else metrics
        # The metrics of a run that the server does not know were read from its file.
        local = [row for row in rows if row["rid"] not in stored and "systemMetrics" in row]
        if local:
            latest = latest_events(context.connection, project["key"], [row["name"] for row in local])
            for row in local:
                row["systemMetrics"] = latest.get(row["name"])


def _needs_text(arguments: Arguments, name: str) -> None:
    if not isinstance(arguments.get(name), str | None):
        raise QueryError(f"{name} is not JSON text; send it as a string")


def _readable(name: str, resolve: Resolver) -> Resolver:
    """Wrap a resolver: raise NotServed if the values that the field needs could not be read."""

    def answer(run: Any, context: Context, field: Field, arguments: Arguments) -> Any:
        if name in run["unreadable"]:
            raise NotServed(f"{name} of {'/'.join(path_of(run))} could not be read")
        return resolve(run, context, field, arguments)

    return answer


def _summary(run: Source, _context: Context, _field: Field, arguments: Arguments) -> str | None:
    text = runs.summary_text(run, arguments.get("keys"))
    if arguments.get("packVersion") and '"histogram"' in (text or ""):
        raise NotServed("packed histograms in a summary")
    return text


def _stopped(run: Source, context: Context, *_: Any) -> Any:
    """Return whether a user has stopped the run: its process polls this, so the answer must not be outdated."""
    if run["state"] in LIVE_STATES and not context.without_server:
        raise ServerKnowsBetter(f"the stop request of {'/'.join(path_of(run))}")
    return _stored_field(run, "stopped")


def _stored_field(source: Source, name: str) -> Any:
    if name not in source:
        raise NotServed(f"{name} is not mirrored here")
    return source[name]


def _read_only(source: Source, context: Context, *_: Any) -> bool:
    return context.read_only or bool(_stored_field(source, "readOnly"))


RESOLVERS: dict[str, dict[str, Resolver]] = {
    "Query": {
        "viewer": _viewer,
        "serverInfo": _server_info,
        "project": _project,
        "model": _project,
        "models": lambda _, context, __, arguments: _projects(arguments.get("entityName"), context, arguments),
        "projects": lambda _, context, __, arguments: _projects(arguments.get("entityName"), context, arguments),
        "entity": _entity,
        **artifacts.QUERY,
    },
    "Entity": {
        "projects": lambda entity, context, _, arguments: _projects(entity["name"], context, arguments),
    },
    "User": {"apiKeys": _api_keys},
    "Project": {
        "name": lambda project, *_: project["key"].project,
        "entityName": _entity_name,
        "readOnly": _read_only,
        "run": _run,
        "bucket": _run,
        "runCount": _run_count,
        "runs": _runs,
        "buckets": _runs,
        **artifacts.PROJECT,
        "totalSweeps": project_lists.total_sweeps,
        "sweep": project_lists.sweep,
        "sweeps": project_lists.sweeps,
        "allViews": project_lists.views,
    },
    "Run": {
        "readOnly": _read_only,
        "stopped": _stopped,
        "sweep": project_lists.sweep_of_run,
        "config": _readable("config", lambda run, _, __, arguments: runs.config_text(run, arguments.get("keys"))),
        "wandbConfig": _readable(
            "wandbConfig", lambda run, _, __, arguments: runs.meta_text(run, arguments.get("keys"))
        ),
        "summaryMetrics": _readable("summaryMetrics", _summary),
        "historyKeys": history_fields.keys,
        "history": history_fields.rows,
        "events": history_fields.events,
        "sampledHistory": history_fields.sampled,
        "parquetHistory": history_fields.exported,
        "logLines": console.page,
        "fileCount": files.count,
        "files": files.page,
        **artifacts.RUN,
    },
    "File": {"url": files.url},
    **artifacts.RESOLVERS,
}
