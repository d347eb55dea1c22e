"""How each field of a query is answered from the mirror. A field that is not listed here is read from its source."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from mirror.errors import QueryError
from mirror.serve import console, files, history, runs
from mirror.serve.context import Context, path_of
from mirror.serve.documents import Better, Elsewhere, Field, Resolver
from mirror.serve.history import AHEAD_VALUES
from mirror.serve.pages import connection, cursor, place_of, start_of
from mirror.serve.runs import Listing
from mirror.snapshot import facts
from mirror.wandb_json import loads

if TYPE_CHECKING:
    from mirror.snapshot.series import Series

Arguments = Mapping[str, Any]
Source = Mapping[str, Any]

FRESH = timedelta(days=1)
"""How old what the server told of itself may be before it is asked again. Passes ask it every few hours."""

ASKED_SECONDS = 600.0
"""How long the server is not asked again which steps of one run it has exported."""

LIVE_STATES = frozenset({"running", "pending", "preempting"})

_HEAVY = frozenset({"config", "wandbConfig", "summaryMetrics", "systemMetrics", "historyKeys"})
"""Fields of a run that are read where they are asked for; the others are known of every run that was looked at."""

AHEAD_RUNS = 32
AHEAD_LINES = 2_000
"""How many runs, and how many of their history lines, are read at once for a loop over a list."""

AHEAD_BYTES = 1 << 17
"""Runs of a list in which one has larger documents are read one at a time."""


class Exports(Elsewhere):
    """Which steps of a run the server has exported is to be asked first; then this is answered by the mirror."""

    def __init__(self, version: str, rid: int, last_step: int) -> None:
        super().__init__("which steps are exported")
        self.version, self.rid, self.last_step = version, rid, last_step


def _viewer(_source: Any, context: Context, _field: Field, _arguments: Arguments) -> dict[str, Any] | None:
    """Whoever holds the key: what the server told of them, or at least what the daemon found out when it signed in."""
    told: dict[str, Any] | None = context.server[0].get("viewer", {})
    if told:
        return told
    known = {"username": context.username, "entity": context.entity}
    return {name: value for name, value in known.items() if value is not None}


def _server_info(_source: Any, context: Context, _field: Field, _arguments: Arguments) -> dict[str, Any] | None:
    """What the server told of itself; what is old is asked again while the server can be reached."""
    told, age = context.server
    if "serverInfo" not in told:
        raise Elsewhere("the server has not told of itself yet")
    if age > FRESH and not context.alone:
        raise Better("what the server told of itself is old")
    info: dict[str, Any] | None = told["serverInfo"]
    return info


def _api_keys(user: Source, context: Context, *_: Any) -> Any:
    """Secrets, on older servers: the mirror knows at most that there are none. To the SDK null is "not loaded"."""
    if "apiKeys" in user:
        return user["apiKeys"]
    if context.alone:
        return None
    raise Better("API keys are not mirrored")


def _project(_source: Any, context: Context, _field: Field, arguments: Arguments) -> dict[str, Any]:
    entity, name = arguments.get("entityName") or context.default_entity(), arguments.get("name")
    found = context.projects(entity, name) if entity and name else []
    if not found:
        raise Elsewhere(f"the project {entity}/{name} is not mirrored")
    return found[0]


def _entity(_source: Any, context: Context, _field: Field, arguments: Arguments) -> dict[str, Any]:
    """What any project of the entity told of it."""
    name = arguments.get("name") or context.default_entity()
    found = facts.projects(context.connection, name) if name else []
    if not found:
        raise Elsewhere(f"no project of {name} is mirrored")
    told: dict[str, Any] = next((project["entity"] for project in found if project.get("entity")), {"name": name})
    return told


def _projects(entity: str | None, context: Context, arguments: Arguments) -> dict[str, Any]:
    wanted = entity or context.default_entity()
    found = facts.projects(context.connection, wanted) if wanted else []
    if not found:
        raise Elsewhere(f"no project of {wanted} is mirrored")
    ordered = facts.in_order(found, arguments.get("order"))
    if ordered is None:
        raise Elsewhere(f"projects of {wanted} in the order {arguments.get('order')}")
    start = start_of(arguments)
    end = start + max(len(ordered) if arguments.get("first") is None else arguments["first"], 0)
    edges = [{"node": node, "cursor": cursor("projects", place)} for place, node in enumerate(ordered, start=1)]
    return connection(edges[start:end], start, more=end < len(ordered))


def _entity_name(project: Source, *_: Any) -> str:
    name: str = project["key"].entity
    return name


def _listing(project: Source, context: Context, arguments: Arguments) -> Listing:
    return context.listings.find(
        context.ask,
        context.version,
        project["key"],
        arguments.get("filters"),
        arguments.get("order"),
        [name for name in arguments.get("names") or () if name is not None],
    )


def _run_count(project: Source, context: Context, _field: Field, arguments: Arguments) -> int:
    return len(_listing(project, context, arguments).rids)


def _runs(project: Source, context: Context, asked: Field, arguments: Arguments) -> dict[str, Any]:
    start = 0
    listing: Listing | None = None
    if arguments.get("after"):
        name, start = place_of(arguments["after"])
        listing = context.listings.kept(name)
    if listing is None:
        listing = _listing(project, context, arguments)
    first = arguments.get("first")
    end = start + min(runs.MOST_RUNS if first is None else max(first, 0), runs.MOST_RUNS)
    rids = listing.rids[start:end].tolist()
    fields = asked.names("edges", "node")
    found: dict[int, dict[str, Any]] = {}
    for block in range(start // runs.BLOCK, -(-min(end, len(listing.rids)) // runs.BLOCK)):
        found |= _block(project, context, listing, block)
    rows = runs.with_documents(context.connection, [found[rid] for rid in rids if rid in found], fields)
    _describe(context, project, rows, fields)
    places = {rid: place for place, rid in enumerate(rids, start=start + 1)}
    edges = [{"node": row, "cursor": cursor(listing.name, places[row["rid"]])} for row in rows]
    return connection(edges, start, more=end < len(listing.rids), total=len(listing.rids))


def _block(project: Source, context: Context, listing: Listing, block: int) -> dict[int, dict[str, Any]]:
    """Runs of a list by their number, without their documents. Each may be asked for by its name next."""

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


def _run(project: Source, context: Context, asked: Field, arguments: Arguments) -> dict[str, Any]:
    fields = asked.names()
    # Page after page of one history is asked for by the run's name; the run is looked up once a snapshot.
    find = partial(runs.row_of, context.connection, project, arguments["name"])
    light = context.remembered(("run", project["key"], arguments["name"]), find)
    if light is None:
        raise Elsewhere(f"the run {project['key']}/{arguments['name']} is not mirrored")
    if not fields & _HEAVY:
        return light
    ahead, version = context.listings.ahead, context.version
    following = _following(context, "run", light, lambda some: len(some) <= AHEAD_RUNS)
    found = ahead.peek(version, (light["rid"], fields))
    if found is None:
        rows = runs.with_documents(context.connection, following, fields)
        _describe(context, project, rows, fields)
        if not rows:
            raise Elsewhere(f"the run {project['key']}/{arguments['name']} is not mirrored")
        for row in rows:
            described = context.described.get(row["rid"])
            if runs.weight(row, described) > AHEAD_BYTES:
                context.listings.walks.stop(light)
            else:
                ahead.keep(version, (row["rid"], fields), (row, described))
        found = rows[0], context.described.get(light["rid"])
    row, described = found
    context.described[light["rid"]] = described
    return dict(row)


def _following(context: Context, what: str, run: Source, fits: Callable[[Sequence[Source]], bool]) -> Sequence[Source]:
    """This run, and those behind it in the list that is being walked through."""
    if "place" not in run:
        return [run]
    listing, place = run["place"]
    block = context.listings.blocks.peek(context.version, (listing, place // runs.BLOCK)) or {}
    return context.listings.walks.next(what, run, block.values(), fits)


def _describe(context: Context, project: Source, rows: list[dict[str, Any]], fields: frozenset[str]) -> None:
    """What is known of the logged keys and the system metrics of these runs, in one go for all of them."""
    if not rows or not fields & {"historyKeys", "systemMetrics"}:
        return
    told = facts.heavy(context.connection, [row["rid"] for row in rows])
    if "historyKeys" in fields:
        by_number = {row["rid"]: row for row in rows}
        context.described |= history.described(context.connection, project["key"], by_number, told)
    if "systemMetrics" in fields:
        for row in rows:
            metrics = told.get(row["rid"], (None, None))[0]
            if metrics is not None:
                row["systemMetrics"] = None if metrics == "null" else metrics
        # A run that the server does not know is described by what was read from its file.
        local = [row for row in rows if row["rid"] not in told and "systemMetrics" in row]
        if local:
            latest = history.latest_events(context.connection, project["key"], [row["name"] for row in local])
            for row in local:
                row["systemMetrics"] = latest.get(row["name"])


def _logged(run: Source, context: Context) -> history.Logged:
    find = partial(history.logged, context.connection, run["rid"], run["historyLineCount"], run["last_step"])
    return context.remembered(("logged", run["rid"]), find)


def _history(run: Source, context: Context, _field: Field, arguments: Arguments) -> list[str]:
    wanted = history.Window(arguments.get("minStep"), arguments.get("maxStep"), arguments.get("samples"))
    logged = _logged(run, context)
    limit = arguments.get("maxKeyLimit")
    if limit is not None and 0 <= limit < len(logged.counts):
        raise Elsewhere(f"the {len(logged.counts)} keys of {'/'.join(path_of(run))} with maxKeyLimit {limit}")
    found = _of_stretch(run, context, logged, wanted)
    if found is None:
        found = _whole(run, context, wanted)
    if found is None:
        found = history.window(context.source, logged, wanted)
    exported_to = _exported_to(run, context) if context.scans and wanted.low is not None else None
    return history.lines(context.connection, logged, found, exported_to)


def _exported_to(run: Source, context: Context) -> int | None:
    """The last step of which official clients read an exported file; None where all of them are live."""
    learned: tuple[int | None, float] | None = context.listings.exported.peek(context.version, run["rid"])
    if learned is not None and learned[0] is not None:
        return learned[0]
    return context.remembered(("export", run["rid"]), lambda: (facts.exported_to(context.connection, run["rid"]),))[0]


def _whole(run: Source, context: Context, wanted: history.Window) -> list[Series] | None:
    """All rows of a short run, read with those of the short runs behind it where a list is being walked through."""
    lines = run["historyLineCount"]
    bounded = wanted.low is not None or wanted.high is not None
    if bounded or lines > AHEAD_LINES or (wanted.samples is not None and wanted.samples < lines):
        return None
    ahead, version = context.listings.ahead, context.version
    following = _following(
        context, "history", run, lambda some: sum(one["historyLineCount"] for one in some) <= AHEAD_LINES
    )
    found: list[Series] | None = ahead.peek(version, ("history", run["rid"]))
    if found is None:
        read = history.whole_runs(context.source, [one["rid"] for one in following])
        for one in following:
            ahead.keep(version, ("history", one["rid"]), read.get(one["rid"], []))
        found = read.get(run["rid"], [])
    return found


def _of_stretch(run: Source, context: Context, logged: history.Logged, wanted: history.Window) -> list[Series] | None:
    """A page of all rows between two steps, which is one of many: more is read at once, and kept for the next ones."""
    low, high = wanted.low, wanted.high
    if low is None or high is None or wanted.most is not None or logged.values_between(low, high) > AHEAD_VALUES:
        return None
    key = (run["rid"],)
    find = partial(history.stretch, context.source, logged, low, high)
    found = context.listings.stretches.get(context.version, key, find).cut(low, high)
    if found is None:
        made = find()
        context.listings.stretches.keep(context.version, key, made)
        found = made.cut(low, high)
    return found


def _events(run: Source, context: Context, _field: Field, arguments: Arguments) -> list[str]:
    if not facts.events_held(context.connection, run["rid"]):
        raise Elsewhere(f"system metrics of {'/'.join(path_of(run))} are not mirrored (sync.system_metrics)")
    return history.events(context.source, run["project"]["key"], run["name"], run["rid"], arguments.get("samples"))


def _sampled(run: Source, context: Context, _field: Field, arguments: Arguments) -> list[Any]:
    logged = _logged(run, context)
    return [history.sampled(context.source, logged, *_spec(text)) for text in arguments["specs"]]


def _spec(text: str) -> tuple[list[str], history.Window]:
    """The keys and the window of one request for sampled rows; its last step is inclusive."""
    try:
        spec = loads(text)
        low, high = spec.get("minStep"), spec.get("maxStep")
        window = history.Window(
            None if low is None else int(low), None if high is None else int(high) + 1, int(spec.get("samples", 500))
        )
        return [str(key) for key in spec["keys"]], window
    except (ValueError, TypeError, KeyError, AttributeError):
        raise QueryError(f'{text[:80]!r} is no history spec, such as {{"keys": ["_step", "loss"]}}') from None


def _first_step(run: Source, context: Context, *_: Any) -> dict[str, Any]:
    """No exported files: clients keep them by the run's name and never ask again, so that they would miss what is new.

    Everything counts as live, from the first step on, and is asked for page by page.
    """
    if context.scans and not context.alone and _may_be_exported(run, context):
        raise Exports(context.version, run["rid"], run["last_step"])
    first = history.first_step(context.connection, run["rid"])
    return {"parquetUrls": [], "liveData": [] if first is None else [{"_step": first}]}


def _may_be_exported(run: Source, context: Context) -> bool:
    """Whether the server may have exported since the last pass what it tells otherwise then: nested values."""
    exported_to = _exported_to(run, context)
    learned: tuple[int | None, float] | None = context.listings.exported.peek(context.version, run["rid"])
    asked = learned is not None and time.monotonic() - learned[1] < ASKED_SECONDS
    if asked or run["state"] in LIVE_STATES or (exported_to is not None and exported_to >= run["last_step"]):
        return False
    return any("." in key for key in _logged(run, context).counts)


def _summary(run: Source, _context: Context, _field: Field, arguments: Arguments) -> str:
    if arguments.get("packVersion") and '"histogram"' in (run["summary"] or ""):
        raise Elsewhere("a summary whose histograms are packed")
    return runs.summary_text(run, arguments.get("keys"))


def _stopped(run: Source, context: Context, *_: Any) -> Any:
    """Whether somebody has asked the run to stop: its process asks for this, and must not be told what was once so."""
    if run["state"] in LIVE_STATES and not context.alone:
        raise Better(f"whether {'/'.join(path_of(run))} is to stop")
    return _told(run, "stopped")


def _told(source: Source, name: str) -> Any:
    if name not in source:
        raise Elsewhere(f"{name} is not mirrored here")
    return source[name]


def _read_only(source: Source, context: Context, *_: Any) -> bool:
    return context.read_only or bool(_told(source, "readOnly"))


RESOLVERS: dict[str, dict[str, Resolver]] = {
    "Query": {
        "viewer": _viewer,
        "serverInfo": _server_info,
        "project": _project,
        "model": _project,
        "models": lambda _, context, __, arguments: _projects(arguments.get("entityName"), context, arguments),
        "projects": lambda _, context, __, arguments: _projects(arguments.get("entityName"), context, arguments),
        "entity": _entity,
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
    },
    "Run": {
        "readOnly": _read_only,
        "stopped": _stopped,
        "sweep": lambda run, *_: {"name": run["sweepName"]} if run["sweepName"] else None,
        "config": lambda run, _, __, arguments: runs.config_text(run, arguments.get("keys")),
        "wandbConfig": lambda run, _, __, arguments: runs.meta_text(run, arguments.get("keys")),
        "summaryMetrics": _summary,
        "historyKeys": lambda run, context, *_: context.described.get(run["rid"]),
        "history": _history,
        "events": _events,
        "sampledHistory": _sampled,
        "parquetHistory": _first_step,
        "logLines": console.page,
        "fileCount": files.count,
        "files": files.page,
    },
    "File": {"url": files.url},
}
