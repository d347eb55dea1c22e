"""How each field of a query is answered from the mirror. A field that is not listed here is read from its source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from mirror.errors import QueryError
from mirror.query import files
from mirror.query.paths import Project
from mirror.query.series import HistorySource, segmented
from mirror.remote.lenient import loads
from mirror.serve import history, runs
from mirror.serve.documents import Elsewhere, Field, Resolver
from mirror.serve.history import AHEAD_VALUES
from mirror.serve.runs import Ask, Listing, Listings

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from mirror.query.series import Series

Arguments = Mapping[str, Any]
Source = Mapping[str, Any]


T = TypeVar("T")

_HEAVY = frozenset({"config", "wandbConfig", "summaryMetrics", "systemMetrics", "historyKeys"})
"""Fields of a run that are read where they are asked for; the others are known of every run that was looked at."""

AHEAD_RUNS = 32
AHEAD_LINES = 2_000
"""How many runs, and how many of their history lines, are read at once for a loop over a list."""

AHEAD_BYTES = 1 << 17
"""Runs of a list in which one has larger documents are read one at a time."""


@dataclass
class Context:
    """One request: the snapshot that it reads, and what several requests share."""

    connection: DuckDBPyConnection
    version: str
    listings: Listings
    ask: Ask
    entity: str | None
    username: str | None
    read_only: bool = False
    base_url: str = ""
    described: dict[int, dict[str, Any]] = field(default_factory=dict)

    def remembered(self, key: tuple[Any, ...], find: Callable[[], T]) -> T:
        """What an earlier request found in the same snapshot, or is found now."""
        return self.listings.facts.get(self.version, key, find)

    @property
    def source(self) -> HistorySource:
        """Where histories are read."""
        return HistorySource(self.connection, self.remembered(("segmented",), lambda: segmented(self.connection)))

    def has_events(self, project: Project) -> bool:
        """Whether system metrics are mirrored of the project."""
        return self.remembered(("events", project), lambda: history.has_events(self.connection, project))


def _default_entity(context: Context) -> str | None:
    """The entity of the settings, else that of the most mirrored projects."""
    if context.entity:
        return context.entity
    found = context.connection.execute(
        "SELECT entity FROM store.projects GROUP BY entity ORDER BY count(*) DESC, entity LIMIT 1"
    ).fetchall()
    return found[0][0] if found else None


def _viewer(_source: Any, context: Context, _field: Field, _arguments: Arguments) -> dict[str, Any]:
    """Whoever holds the key, as far as the mirror knows."""
    entity = _default_entity(context)
    user = _user(context.username or entity) or {"id": "mirror"}
    found = context.connection.execute("SELECT DISTINCT entity FROM store.projects ORDER BY entity").fetchall()
    teams = {"edges": [{"node": team} for (team,) in found]}
    return {**user, "entity": entity, "flags": "{}", "admin": False, "apiKeys": {"edges": []}, "teams": teams}


def _user(name: str | None) -> dict[str, Any] | None:
    return None if name is None else {"id": name, "name": name, "username": name}


def _project(_source: Any, context: Context, _field: Field, arguments: Arguments) -> dict[str, Any]:
    entity, name = arguments.get("entityName") or _default_entity(context), arguments.get("name")
    found: list[dict[str, Any]] = []
    if entity and name:
        found = context.remembered(("project", entity, name), lambda: runs.projects(context.connection, entity, name))
    if not found:
        raise Elsewhere(f"the project {entity}/{name} is not mirrored")
    return found[0]


def _projects(entity: str | None, context: Context, arguments: Arguments) -> dict[str, Any]:
    wanted = entity or _default_entity(context)
    found = runs.projects(context.connection, wanted) if wanted else []
    if not found:
        raise Elsewhere(f"no project of {wanted} is mirrored")
    if (arguments.get("order") or "-").startswith("+"):
        found.reverse()
    start = runs.place_of(arguments["after"])[1] if arguments.get("after") else 0
    end = start + max(arguments.get("first") or len(found), 0)
    edges = [{"node": node, "cursor": runs.cursor("projects", place)} for place, node in enumerate(found, start=1)]
    return _connection(edges[start:end], more=end < len(found))


def _connection(edges: list[dict[str, Any]], *, more: bool) -> dict[str, Any]:
    end = edges[-1]["cursor"] if edges else None
    return {"edges": edges, "pageInfo": {"endCursor": end, "hasNextPage": more}}


def _listing(project: Source, context: Context, arguments: Arguments) -> Listing:
    return context.listings.find(
        context.ask, context.version, project["key"], arguments.get("filters"), arguments.get("order")
    )


def _run_count(project: Source, context: Context, _field: Field, arguments: Arguments) -> int:
    return len(_listing(project, context, arguments).rids)


def _runs(project: Source, context: Context, asked: Field, arguments: Arguments) -> dict[str, Any]:
    start = 0
    listing: Listing | None = None
    if arguments.get("after"):
        name, start = runs.place_of(arguments["after"])
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
    edges = [{"node": row, "cursor": runs.cursor(listing.name, places[row["rid"]])} for row in rows]
    return _connection(edges, more=end < len(listing.rids))


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
    """What is known of the logged keys of these runs, in one go for all of them."""
    if "historyKeys" in fields:
        names = {row["rid"]: row["name"] for row in rows}
        context.described |= history.described(context.connection, project["key"], names)
    if "systemMetrics" in fields and rows and context.has_events(project["key"]):
        latest = history.latest_events(context.connection, project["key"], [row["name"] for row in rows])
        for row in rows:
            row["systemMetrics"] = latest.get(row["name"])


def _logged(run: Source, context: Context) -> history.Logged:
    find = partial(history.logged, context.connection, run["rid"], run["historyLineCount"], run["last_step"])
    return context.remembered(("logged", run["rid"]), find)


def _history(run: Source, context: Context, _field: Field, arguments: Arguments) -> list[str]:
    wanted = history.Window(arguments.get("minStep"), arguments.get("maxStep"), arguments.get("samples"))
    logged = _logged(run, context)
    found = _of_stretch(run, context, logged, wanted)
    if found is None:
        found = _whole(run, context, wanted)
    if found is None:
        found = history.window(context.source, logged, wanted)
    return history.lines(context.connection, logged, found)


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
    if not context.has_events(run["project"]["key"]):
        raise Elsewhere(f"system metrics of {run['project']['key']} are not mirrored (sync.system_metrics)")
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
    first = history.first_step(context.connection, run["rid"])
    return {"parquetUrls": [], "liveData": [] if first is None else [{"_step": first}]}


def _file_count(run: Source, context: Context, *_: Any) -> int:
    found = files.count(context.connection, run["rid"])
    if found is None:
        raise Elsewhere(f"the files of {run['project']['key']}/{run['name']} are not mirrored (sync.files)")
    return found


def _files(run: Source, context: Context, _field: Field, arguments: Arguments) -> dict[str, Any]:
    _file_count(run, context)
    start = runs.place_of(arguments["after"])[1] if arguments.get("after") else 0
    first = arguments.get("first")
    most = min(runs.MOST_RUNS if first is None else max(first, 0), runs.MOST_RUNS)
    asked = files.Asked(arguments.get("names") or (), arguments.get("pattern"))
    found, more = files.page(context.connection, run["rid"], asked, most, start)
    folder = f"{context.base_url}/files/{quote('/'.join([*run['project']['key'], run['name']]))}"
    for node in found:
        # Signed addresses would have expired; these lead to the server by way of the mirror, with the key.
        node["url"] = node["directUrl"] = f"{folder}/{quote(node['name'])}"
    edges = [{"node": node, "cursor": runs.cursor("files", place)} for place, node in enumerate(found, start=start + 1)]
    return _connection(edges, more=more)


def _file_url(file: Source, _context: Context, _field: Field, arguments: Arguments) -> Any:
    if arguments.get("upload"):
        raise Elsewhere("files are uploaded to the server")
    return file["url"]


RESOLVERS: dict[str, dict[str, Resolver]] = {
    "Query": {
        "viewer": _viewer,
        "serverInfo": lambda *_: {"features": [], "latestLocalVersionInfo": None, "cliVersionInfo": None},
        "project": _project,
        "model": _project,
        "models": lambda _, context, __, arguments: _projects(arguments.get("entityName"), context, arguments),
        "entity": lambda _, context, __, arguments: arguments.get("name") or _default_entity(context),
    },
    "Entity": {
        "id": lambda name, *_: name,
        "name": lambda name, *_: name,
        "projects": lambda name, context, _, arguments: _projects(name, context, arguments),
    },
    "Project": {
        "id": lambda project, *_: runs.own_id("Project", "v1", project["key"].project, project["key"].entity),
        "internalId": lambda project, *_: str(project["number"]),
        "name": lambda project, *_: project["key"].project,
        "entityName": lambda project, *_: project["key"].entity,
        "entity": lambda project, *_: project["key"].entity,
        "createdAt": lambda project, context, *_: runs.since(context.connection, project["key"]),
        "isBenchmark": lambda *_: False,
        "user": lambda *_: None,
        "readOnly": lambda _, context, *__: context.read_only,
        "run": _run,
        "runCount": _run_count,
        "runs": _runs,
    },
    "Run": {
        "readOnly": lambda _, context, *__: context.read_only,
        "config": lambda run, _, __, arguments: runs.config_text(run, arguments.get("keys")),
        "wandbConfig": lambda run, _, __, arguments: runs.meta_text(run, arguments.get("keys")),
        "summaryMetrics": lambda run, _, __, arguments: runs.summary_text(run, arguments.get("keys")),
        "historyKeys": lambda run, context, *_: context.described.get(run["rid"]),
        "user": lambda run, *_: _user(run["username"]),
        "history": _history,
        "events": _events,
        "sampledHistory": _sampled,
        "parquetHistory": _first_step,
        "fileCount": _file_count,
        "files": _files,
    },
    "File": {"url": _file_url},
}
