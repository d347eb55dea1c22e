"""The fields of a run that show its history, answered only where the mirror has all of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mirror.errors import QueryError
from mirror.metrics import STEP
from mirror.protocol import LIVE_STATES
from mirror.remote.json_history import KeyGlobs
from mirror.serve import history
from mirror.serve.context import Context, path_of
from mirror.serve.documents import Field, NotServed, ServerKnowsBetter, TooMuch
from mirror.snapshot import facts, history_keys, windows
from mirror.snapshot.windows import Logged, Window
from mirror.wandb_json import loads

if TYPE_CHECKING:
    from mirror.snapshot.series import Series

Arguments = Mapping[str, Any]
Source = Mapping[str, Any]

ASKED_SECONDS = 600.0
"""How long the server is not asked again which steps of a run it has exported."""

MOST_VALUES = 10_000_000
"""The most history values in one answer; its text takes some 50 bytes per value, and its objects as much again."""

AHEAD_LINES = 2_000
"""How many history lines of several runs are read together during a loop over a list."""

ANY_VERSION = ""
"""The version key for what the server reported about exports: a scan continues although the snapshot changes."""

_LAST_STEP = 2**63 - 1


class ExportsUnknown(NotServed):
    """The server must first be asked which steps of the run it has exported; then the mirror can answer."""

    def __init__(self, rid: int, last_step: int) -> None:
        super().__init__("it is not known which steps are exported")
        self.rid, self.last_step = rid, last_step


def _logged(run: Source, context: Context) -> Logged:
    def find() -> Logged:
        return Logged(run["rid"], run["rows"], run["last_step"], history_keys.counts(context.connection, run["rid"]))

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
        if left_out := next((key for key in wanted if key != STEP and key not in mirrored), None):
            raise NotServed(f"the key {left_out} of {'/'.join(path_of(run))} is not mirrored (sync.history)")


def _server_keys(run: Source, context: Context) -> list[str]:
    """Return all keys that the run ever logged, as the server returned them."""
    text = facts.heavy(context.connection, [run["rid"]]).get(run["rid"], (None, None))[1]
    if text is None:
        raise NotServed(f"the keys of {'/'.join(path_of(run))} are not mirrored")
    entry = loads(text)
    return [*entry["monotonic"], *entry["falling"], *entry["others"]]


def rows(run: Source, context: Context, _field: Field, arguments: Arguments) -> list[str]:
    """Return `history`: rows as JSON texts, between two steps or evenly spaced."""
    _require_history(run, context)
    low, high = _step(arguments, "minStep"), _step(arguments, "maxStep")
    wanted = Window(low, high, arguments.get("samples"))
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
        found = windows.window(context.source, logged, wanted)
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


def _whole(run: Source, context: Context, wanted: Window) -> list[Series] | None:
    """Return all rows of a short run, read together with the next short runs of a list if a client loops over it."""
    lines = run["rows"]
    bounded = wanted.low is not None or wanted.high is not None
    if bounded or lines > AHEAD_LINES or (wanted.samples is not None and wanted.samples < lines):
        return None
    ahead, version = context.listings.ahead, context.version
    following = context.listings.following(version, "history", run, lambda one: int(one["rows"]), AHEAD_LINES)
    found: list[Series] | None = ahead.peek(version, ("history", run["rid"]))
    if found is None:
        read = windows.whole_runs(context.source, [one["rid"] for one in following])
        for one in following:
            ahead.keep(version, ("history", one["rid"]), read.get(one["rid"], []))
        found = read.get(run["rid"], [])
    return found


def _from_stretch(run: Source, context: Context, logged: Logged, wanted: Window) -> list[Series] | None:
    """Return a page of all rows between two steps; more rows are read at once, and kept for the next pages."""
    low, high = wanted.low, wanted.high
    if (
        low is None
        or high is None
        or wanted.most is not None
        or logged.extent.values_between(low, high) > windows.AHEAD_VALUES
    ):
        return None
    key = (run["rid"],)
    find = partial(windows.stretch, context.source, logged, low, high)
    found = context.listings.stretches.get(context.version, key, find).cut(low, high)
    if found is None:
        stretch = find()
        context.listings.stretches.keep(context.version, key, stretch)
        found = stretch.cut(low, high)
    return found


def events(run: Source, context: Context, _field: Field, arguments: Arguments) -> list[str]:
    """Return `events`: rows of system metrics as JSON texts."""
    if not facts.events_held(context.connection, run["rid"], complete=True):
        raise NotServed(f"system metrics of {'/'.join(path_of(run))} are not mirrored (sync.system_metrics)")
    return history.events(context.source, run["project"]["key"], run["name"], run["rid"], arguments.get("samples"))


def sampled(run: Source, context: Context, _field: Field, arguments: Arguments) -> list[Any]:
    """Return `sampledHistory`: for each spec, rows that have all of its keys."""
    logged = _logged(run, context)
    specs = [_spec(text) for text in arguments["specs"]]
    for keys, _ in specs:
        _require_history(run, context, keys)
    return [history.sampled(context.source, logged, keys, wanted) for keys, wanted in specs]


def _spec(text: str) -> tuple[list[str], Window]:
    """Return the keys and the window of one spec for sampled rows; the last step of a spec is inclusive."""
    try:
        spec = loads(text)
        low, high = spec.get("minStep"), spec.get("maxStep")
        window = Window(
            None if low is None else _within(int(low)),
            None if high is None else _within(int(high) + 1),
            int(spec.get("samples", 500)),
        )
        return [str(key) for key in spec["keys"]], window
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise QueryError(
            f'{text[:80]!r} is not a history spec; send one such as {{"keys": ["_step", "loss"]}}'
        ) from None


def exported(run: Source, context: Context, *_: Any) -> dict[str, Any]:
    """Return no exported files: clients cache them by the run's name for ever, and would miss all later rows.

    All steps are reported as live, so clients request them page by page.
    """
    _require_history(run, context)
    if context.scans and not context.without_server and _may_be_exported(run, context):
        raise ExportsUnknown(run["rid"], run["last_step"])
    first = history_keys.first_step(context.connection, run["rid"])
    return {"parquetUrls": [], "liveData": [] if first is None else [{STEP: first}]}


def _may_be_exported(run: Source, context: Context) -> bool:
    """Return True if the server may have exported nested values since the last pass; it returns them dotted then."""
    exported_to = _exported_to(run, context)
    learned: tuple[int | None, float] | None = context.listings.exported.peek(ANY_VERSION, run["rid"])
    recently_asked = learned is not None and time.monotonic() - learned[1] < ASKED_SECONDS
    if recently_asked or run["state"] in LIVE_STATES or (exported_to is not None and exported_to >= run["last_step"]):
        return False
    return any("." in key for key in _logged(run, context).counts)


def keys(run: Source, context: Context, *_: Any) -> Any:
    """Return `historyKeys`, which are read for all runs of a request together."""
    _require_history(run, context)
    return run["described"]
