"""Resolvers: how fields of a query are answered from the mirror. Fields without one are read from their source."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from mirror.errors import QueryError
from mirror.remote.json_history import KeyGlobs
from mirror.serve import console, files, history, runs
from mirror.serve.context import Context, path_of
from mirror.serve.documents import Field, NotServed, Resolver, ServerKnowsBetter, TooMuch
from mirror.serve.history import AHEAD_VALUES
from mirror.serve.pages import connection, cursor, read_cursor, start_of
from mirror.serve.runs import Listing
from mirror.snapshot import facts
from mirror.states import LIVE_STATES
from mirror.wandb_json import loads

if TYPE_CHECKING:
    from mirror.snapshot.series import Series

Arguments = Mapping[str, Any]
Source = Mapping[str, Any]

FRESH = timedelta(days=1)
"""How old server information may be before the server is asked again. Passes ask it every few hours."""

ASKED_SECONDS = 600.0
"""How long the server is not asked again which steps of a run it has exported."""

MOST_VALUES = 10_000_000
"""The most history values in one answer; its text takes some 50 bytes per value, and its objects as much again."""

_LAST_STEP = 2**63 - 1

_HEAVY = frozenset({"config", "wandbConfig", "summaryMetrics", "systemMetrics", "historyKeys"})
"""Fields of a run that are read only on request; the others are read with every run."""

AHEAD_RUNS = 32
AHEAD_LINES = 2_000
"""How many runs, and how many of their history lines, are read together during a loop over a list."""

AHEAD_BYTES = 1 << 17
"""If a run of a list has larger documents than this, the runs are read one at a time."""


ANY_VERSION = ""
"""The version key for what the server reported about exports: a scan continues although the snapshot changes."""

_FROM_FACTS = frozenset({"projectId", "readOnly", "stopped", "exitcode", "systemMetrics", "user", "runInfo"})
_FROM_HISTORY = frozenset({"historyKeys", "history", "sampledHistory", "parquetHistory"})
"""Fields of a run that come from its stored server facts, and from its history."""


class ExportsUnknown(NotServed):
    """The server must first be asked which steps of the run it has exported; then the mirror can answer."""

    def __init__(self, rid: int, last_step: int) -> None:
        super().__init__("it is not known which steps are exported")
        self.rid, self.last_step = rid, last_step


def _viewer(_source: Any, context: Context, _field: Field, _arguments: Arguments) -> dict[str, Any] | None:
    """Return the owner of the key: as the server returned it, or else what the daemon learned when it signed in."""
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
    _needs_text(arguments, "filters")
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
        find = partial(facts.without_history, connection, key, sorted(LIVE_STATES))
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
    # Each page of a history is requested by the run's name; the run is looked up once per snapshot.
    find = partial(runs.row_of, context.connection, project, arguments["name"])
    light = context.remembered(("run", project["key"], arguments["name"]), find)
    if light is None:
        raise NotServed(f"the run {project['key']}/{arguments['name']} is not mirrored")
    if not fields & _HEAVY:
        return light
    ahead, version = context.listings.ahead, context.version
    following = _following(context, "run", light, lambda some: len(some) <= AHEAD_RUNS)
    found = ahead.peek(version, (light["rid"], fields))
    if found is None:
        rows = runs.with_documents(context.connection, following, fields)
        _describe(context, project, rows, fields)
        if not rows:
            raise NotServed(f"the run {project['key']}/{arguments['name']} is not mirrored")
        for row in rows:
            if runs.weight(row, row.get("described")) > AHEAD_BYTES:
                context.listings.walks.stop(light)
            else:
                ahead.keep(version, (row["rid"], fields), row)
        found = rows[0]
    return dict(found)


def _following(context: Context, what: str, run: Source, fits: Callable[[Sequence[Source]], bool]) -> Sequence[Source]:
    """Return this run, and if a client loops over its list, the next runs of the list."""
    if "place" not in run:
        return [run]
    listing, place = run["place"]
    block = context.listings.blocks.peek(context.version, (listing, place // runs.BLOCK)) or {}
    return context.listings.walks.next(what, run, block.values(), fits)


def _describe(context: Context, project: Source, rows: list[dict[str, Any]], fields: frozenset[str]) -> None:
    """Add the requested `historyKeys` and `systemMetrics` to these runs, read for all of them together."""
    if not rows or not fields & {"historyKeys", "systemMetrics"}:
        return
    stored = facts.heavy(context.connection, [row["rid"] for row in rows])
    if "historyKeys" in fields:
        by_number = {row["rid"]: row for row in rows}
        described = history.described(context.connection, project["key"], by_number, stored)
        for row in rows:
            row["described"] = described.get(row["rid"])
    if "systemMetrics" in fields:
        for row in rows:
            metrics = stored.get(row["rid"], (None, None))[0]
            if metrics is not None:
                row["systemMetrics"] = None if metrics == "null" else metrics
        # The metrics of a run that the server does not know were read from its file.
        local = [row for row in rows if row["rid"] not in stored and "systemMetrics" in row]
        if local:
            latest = history.latest_events(context.connection, project["key"], [row["name"] for row in local])
            for row in local:
                row["systemMetrics"] = latest.get(row["name"])


def _logged(run: Source, context: Context) -> history.Logged:
    find = partial(history.logged, context.connection, run["rid"], run["rows"], run["last_step"])
    return context.remembered(("logged", run["rid"]), find)


def _require_history(run: Source, context: Context, keys: Sequence[str] | None = None) -> None:
    """Raise NotServed if the mirror lacks history rows of the run, or some of `keys`, by default of all its keys.

    Raises ServerKnowsBetter for a live run, which always has more than is mirrored: what is mirrored can be returned.
    """
    if run["local"]:
        return
    held, reported = run["rows"], run["server_rows"] or 0
    if held < reported:
        missing = f"{held:,} of the {reported:,} history rows of {'/'.join(path_of(run))} are mirrored"
        if held == 0 or run["state"] not in LIVE_STATES:
            raise NotServed(missing)
        if run["last_step"] < (run["server_last_step"] or 0) and not context.without_server:
            raise ServerKnowsBetter(missing)
    globs = run["project"]["globs"]
    if globs and (mirrored := KeyGlobs(loads(globs))).everything is False:
        wanted = _server_keys(run, context) if keys is None else keys
        if left_out := next((key for key in wanted if key != "_step" and key not in mirrored), None):
            raise NotServed(f"the key {left_out} of {'/'.join(path_of(run))} is not mirrored (sync.history)")


def _server_keys(run: Source, context: Context) -> list[str]:
    """Return all keys that the run ever logged, as the server returned them."""
    text = facts.heavy(context.connection, [run["rid"]]).get(run["rid"], (None, None))[1]
    if text is None:
        raise NotServed(f"the keys of {'/'.join(path_of(run))} are not mirrored")
    entry = loads(text)
    return [*entry["monotonic"], *entry["falling"], *entry["others"]]


def _history(run: Source, context: Context, _field: Field, arguments: Arguments) -> list[str]:
    _require_history(run, context)
    low, high = _step(arguments, "minStep"), _step(arguments, "maxStep")
    wanted = history.Window(low, high, arguments.get("samples"))
    logged = _logged(run, context)
    if logged.values_of(wanted) > MOST_VALUES:
        raise TooMuch(
            f"{logged.values_of(wanted):,} values of {'/'.join(path_of(run))} are too many at once; "
            "request fewer samples, some of the keys, or single pages, as scan_history does"
        )
    limit = arguments.get("maxKeyLimit")
    if limit is not None and 0 <= limit < len(logged.counts):
        raise NotServed(f"the {len(logged.counts)} keys of {'/'.join(path_of(run))} with maxKeyLimit {limit}")
    found = _from_stretch(run, context, logged, wanted)
    if found is None:
        found = _whole(run, context, wanted)
    if found is None:
        found = history.window(context.source, logged, wanted)
    exported_to = _exported_to(run, context) if context.scans and wanted.low is not None else None
    return history.lines(context.connection, logged, found, exported_to)


def _step(arguments: Arguments, name: str) -> int | None:
    """Return a step argument, which may be a number or, as 64-bit integers may be, its text."""
    step = arguments.get(name)
    try:
        if step is None:
            return None
        if isinstance(step, int | str) and not isinstance(step, bool):
            return _within(int(step))
    except ValueError:
        pass
    raise QueryError(f"{name} is {str(step)[:40]!r}; give a whole number")


def _within(step: int) -> int:
    """Return the step, limited to the allowed range."""
    return min(max(step, -_LAST_STEP), _LAST_STEP)


def _exported_to(run: Source, context: Context) -> int | None:
    """Return the last step that official clients read from exported files; None if all steps are live."""
    learned: tuple[int | None, float] | None = context.listings.exported.peek(ANY_VERSION, run["rid"])
    if learned is not None and learned[0] is not None:
        return learned[0]
    return context.remembered(("export", run["rid"]), lambda: (facts.exported_to(context.connection, run["rid"]),))[0]


def _whole(run: Source, context: Context, wanted: history.Window) -> list[Series] | None:
    """Return all rows of a short run, read together with the next short runs of a list if a client loops over it."""
    lines = run["rows"]
    bounded = wanted.low is not None or wanted.high is not None
    if bounded or lines > AHEAD_LINES or (wanted.samples is not None and wanted.samples < lines):
        return None
    ahead, version = context.listings.ahead, context.version
    following = _following(context, "history", run, lambda some: sum(one["rows"] for one in some) <= AHEAD_LINES)
    found: list[Series] | None = ahead.peek(version, ("history", run["rid"]))
    if found is None:
        read = history.whole_runs(context.source, [one["rid"] for one in following])
        for one in following:
            ahead.keep(version, ("history", one["rid"]), read.get(one["rid"], []))
        found = read.get(run["rid"], [])
    return found


def _from_stretch(run: Source, context: Context, logged: history.Logged, wanted: history.Window) -> list[Series] | None:
    """Return a page of all rows between two steps; more rows are read at once, and kept for the next pages."""
    low, high = wanted.low, wanted.high
    if low is None or high is None or wanted.most is not None or logged.values_between(low, high) > AHEAD_VALUES:
        return None
    key = (run["rid"],)
    find = partial(history.stretch, context.source, logged, low, high)
    found = context.listings.stretches.get(context.version, key, find).cut(low, high)
    if found is None:
        stretch = find()
        context.listings.stretches.keep(context.version, key, stretch)
        found = stretch.cut(low, high)
    return found


def _events(run: Source, context: Context, _field: Field, arguments: Arguments) -> list[str]:
    if not facts.events_held(context.connection, run["rid"], sorted(LIVE_STATES)):
        raise NotServed(f"system metrics of {'/'.join(path_of(run))} are not mirrored (sync.system_metrics)")
    return history.events(context.source, run["project"]["key"], run["name"], run["rid"], arguments.get("samples"))


def _sampled(run: Source, context: Context, _field: Field, arguments: Arguments) -> list[Any]:
    logged = _logged(run, context)
    specs = [_spec(text) for text in arguments["specs"]]
    for keys, _ in specs:
        _require_history(run, context, keys)
    return [history.sampled(context.source, logged, keys, wanted) for keys, wanted in specs]


def _spec(text: str) -> tuple[list[str], history.Window]:
    """Return the keys and the window of one spec for sampled rows; the last step of a spec is inclusive."""
    try:
        spec = loads(text)
        low, high = spec.get("minStep"), spec.get("maxStep")
        window = history.Window(
            None if low is None else _within(int(low)),
            None if high is None else _within(int(high) + 1),
            int(spec.get("samples", 500)),
        )
        return [str(key) for key in spec["keys"]], window
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise QueryError(
            f'{text[:80]!r} is not a history spec; send one such as {{"keys": ["_step", "loss"]}}'
        ) from None


def _parquet_history(run: Source, context: Context, *_: Any) -> dict[str, Any]:
    """Return no exported files: clients cache them by the run's name for ever, and would miss all later rows.

    All steps are reported as live, so clients request them page by page.
    """
    _require_history(run, context)
    if context.scans and not context.without_server and _may_be_exported(run, context):
        raise ExportsUnknown(run["rid"], run["last_step"])
    first = history.first_step(context.connection, run["rid"])
    return {"parquetUrls": [], "liveData": [] if first is None else [{"_step": first}]}


def _may_be_exported(run: Source, context: Context) -> bool:
    """Return True if the server may have exported nested values since the last pass; it returns them dotted then."""
    exported_to = _exported_to(run, context)
    learned: tuple[int | None, float] | None = context.listings.exported.peek(ANY_VERSION, run["rid"])
    recently_asked = learned is not None and time.monotonic() - learned[1] < ASKED_SECONDS
    if recently_asked or run["state"] in LIVE_STATES or (exported_to is not None and exported_to >= run["last_step"]):
        return False
    return any("." in key for key in _logged(run, context).counts)


def _history_keys(run: Source, context: Context, *_: Any) -> Any:
    _require_history(run, context)
    return run["described"]


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
        "config": _readable("config", lambda run, _, __, arguments: runs.config_text(run, arguments.get("keys"))),
        "wandbConfig": _readable(
            "wandbConfig", lambda run, _, __, arguments: runs.meta_text(run, arguments.get("keys"))
        ),
        "summaryMetrics": _readable("summaryMetrics", _summary),
        "historyKeys": _history_keys,
        "history": _history,
        "events": _events,
        "sampledHistory": _sampled,
        "parquetHistory": _parquet_history,
        "logLines": console.page,
        "fileCount": files.count,
        "files": files.page,
    },
    "File": {"url": files.url},
}
