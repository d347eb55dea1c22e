"""Decides what a pass has to fetch: pure functions of the mirror's state and the server's answers."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from mirror.protocol import LIVE_STATES
from mirror.remote.json_history import KeyGlobs
from mirror.remote.run_records import RunHead
from mirror.remote.runs import Page
from mirror.store import retries
from mirror.store.records import KnownRun, ProjectCursor, RunExtras, RunRecord

OVERLAP = timedelta(minutes=2)
"""A poll starts this long before the newest change: late writes and the clocks of several servers differ by less."""

LIST_AGAIN = timedelta(minutes=10)
"""How often the files and artifacts of a live run are listed."""


def poll_filter(
    cursor: ProjectCursor, live: Iterable[str], scope: Mapping[str, Any], *, by_update: bool = True
) -> dict[str, Any]:
    """Return the server-side filter for runs that may have changed since the cursor.

    Logging moves the heartbeat, and edits move `updatedAt`; a state that the server sets by itself may move neither, so
    runs that were live are selected by name. `by_update` is off for servers that refuse the key `updatedAt`.
    """
    assert cursor.covered_to is not None
    since = {"$gte": f"{(cursor.covered_to - OVERLAP).isoformat(timespec='seconds')}Z"}
    parts: list[dict[str, Any]] = [{"heartbeatAt": since}, {"createdAt": since}]
    if by_update:
        parts.append({"updatedAt": since})
    parts.append({"state": {"$in": list(LIVE_STATES)}})
    if names := sorted(live):
        parts.append({"name": {"$in": names}})
    return both({"$or": parts}, scope)


def recent_filter(since: datetime, scope: Mapping[str, Any]) -> dict[str, Any]:
    """Return the server-side filter for runs that started or logged since `since`."""
    bound = {"$gte": f"{since.isoformat(timespec='seconds')}Z"}
    return both({"$or": [{"heartbeatAt": bound}, {"createdAt": bound}]}, scope)


def leaves_out(cursor: ProjectCursor, since: datetime) -> bool:
    """Return True if a pass over runs since then may miss some that an ordinary pass would check."""
    return cursor.covered_to is None or since > cursor.covered_to - OVERLAP


def both(one: Mapping[str, Any], scope: Mapping[str, Any]) -> dict[str, Any]:
    """Return the filter for runs that match both filters."""
    return {"$and": [dict(one), dict(scope)]} if scope else dict(one)


def newest(runs: Iterable[RunHead | RunRecord], so_far: datetime | None) -> datetime | None:
    """Return the latest change of any of the runs, or `so_far` if that is later, on the server's clock."""
    times = [time for run in runs for time in (run.created_at, run.heartbeat_at, run.updated_at) if time]
    return max([*times, *([so_far] if so_far else [])], default=None)


def known_to(page: Page[RunHead] | Page[RunRecord]) -> datetime | None:
    """Return the time until which a list contains every change on the server; `page` is its first page.

    A run that changes while later pages are requested may have been on an earlier page. So this is the time of the
    first request; for a server that does not report its time it is the newest change in the first answer.
    """
    return page.asked_at or newest(page.runs, None)


def covered(runs: Iterable[RunHead | RunRecord], started: datetime | None, so_far: datetime | None) -> datetime | None:
    """Return the cursor after a list of changed runs that was started at a time of the server's clock.

    A run may have a future time, from a clock that was wrong, and so may the stored cursor.
    """
    latest = newest(runs, so_far)
    # A time of the server's clock has whole seconds; the second added here is much less than OVERLAP.
    return latest if latest is None or started is None else min(latest, started + timedelta(seconds=1))


def is_unsure(known: KnownRun, now: datetime | None) -> bool:
    """Return True if the run may have changed unnoticed in the second of its mirrored state, and that second is over.

    The server reports times in whole seconds: two edits in one second have the same time, and the answer may have been
    made between them. `now` is the server's clock, None if it does not report it. A future time hides no edit, and with
    fractions of seconds each edit has its own time.
    """
    if known.asked_at is None or known.deleted or known.local:
        return False
    recent = [
        time
        for time in (known.heartbeat_at, known.updated_at)
        if time is not None and not time.microsecond and known.asked_at <= time <= known.asked_at + OVERLAP
    ]
    return bool(recent) and (now is None or now > max(recent))


def is_new(head: RunHead, known: KnownRun | None) -> bool:
    """Return True if the server's head differs from what is mirrored of the run."""
    if known is None or known.deleted or known.local or is_other(head, known):
        return True
    if has_new_time(head, known):
        return True
    # In a flawed record the state or the count may be what cannot be read.
    return not known.flawed and (head.state, head.server_rows) != (known.state, known.server_rows)


def has_new_time(run: RunHead | RunRecord, known: KnownRun | None) -> bool:
    """Return True if the run is new, or has another time of a change than what is mirrored of it."""
    return known is None or (run.heartbeat_at, run.updated_at) != (known.heartbeat_at, known.updated_at)


class Decision(Struct, frozen=True):
    """The runs whose records are pulled after a listing, and the number of them that the mirror does not have now."""

    pull: list[str]
    added: int


def decide(
    known: Mapping[str, KnownRun], heads: Iterable[RunHead], *, server_now: datetime | None, now: datetime
) -> Decision:
    """Decide which records to pull. `server_now` is None if the server does not report its clock.

    The listed runs that differ come first, in their order; then the mirrored ones that may have changed unnoticed, or
    whose record could not be read and is due for a retry.
    """
    listed = {head.run_id: head for head in heads}
    pull = [run_id for run_id, head in listed.items() if is_new(head, known.get(run_id))]
    listed_changes = set(pull)
    again = [
        run.run_id
        for run in known.values()
        if run.run_id not in listed_changes and (is_unsure(run, server_now) or is_flawed(run, now))
    ]
    missing = sum(run_id not in known or known[run_id].deleted for run_id in pull)
    return Decision(pull + again, missing)


def lists_all(
    cursor: ProjectCursor, *, filters: str, interval: float, on_server: int, total: int, now: datetime
) -> bool:
    """Return True if every run of the project must be listed, to find silent edits and deleted runs.

    True when the interval since the last such listing has passed, when the filter has changed, and when the mirror's
    number of runs `on_server` differs from the `total` that the server counts, unless a listing already failed to
    explain that total.
    """
    at = cursor.reconciled_at
    due = at is not None and (has_passed(at, interval, now) or cursor.filters != filters)
    return due or total not in (on_server, cursor.unexplained_runs)


def gone(known: Mapping[str, KnownRun], listed: Collection[str]) -> list[str]:
    """Return the mirrored runs missing from a listing of all runs; each must be checked by name before deletion."""
    return [run.run_id for run in known.values() if not run.deleted and not run.local and run.run_id not in listed]


def is_flawed(known: KnownRun, now: datetime) -> bool:
    """Return True if the run's record is due for a retry because some of it could not be read."""
    return known.flawed and not known.deleted and not waits(known, now)


def is_other(run: RunHead | RunRecord, known: KnownRun | None) -> bool:
    """Return True if the mirrored run was deleted on the server and this one was created with the same id."""
    if known is None or not known.storage_id:
        return False
    if isinstance(run, RunRecord) and run.storage_id != known.storage_id:
        return True
    return None not in (run.created_at, known.created_at) and run.created_at != known.created_at


def shrank(record: RunRecord, known: KnownRun | None) -> bool:
    """Return True if the server has less history than the mirror: the run was rewound, forked or created again."""
    if known is None or known.last_step is None or known.local or known.ahead:
        return False
    cut = record.server_last_step is not None and record.server_last_step < known.last_step
    return cut or record.server_rows < known.rows


def live(known: Mapping[str, KnownRun]) -> list[str]:
    """Return the mirrored runs that may change on the server without a new time."""
    return [run.run_id for run in known.values() if run.state in LIVE_STATES and not run.deleted and not run.local]


class Need(Struct, frozen=True):
    """A run whose history is to be pulled: all of it (`whole`), or what follows the mirrored steps.

    A `thorough` pull follows one that did not return as many lines as the server counts. A `check` only compares the
    last mirrored line with the server's.
    """

    run: KnownRun
    whole: bool
    thorough: bool = False
    check: bool = False


def need(run: KnownRun, now: datetime) -> Need | None:
    """Return what is missing of a run's history; None if nothing is.

    None as well for a run that failed and waits for its retry, and for one whose local file holds more than the server.
    """
    if run.deleted or run.local or run.ahead or run.flawed or waits(run, now):
        return None
    if run.refresh:
        return Need(run, whole=True)
    if run.server_last_step is None:
        return Need(run, whole=False) if run.server_rows > run.rows else None
    if run.last_step is None or run.last_step < run.server_last_step:
        return Need(run, whole=False)
    if miscounts(run):
        return Need(run, whole=True, thorough=True)
    return Need(run, whole=False, check=True) if run.doubted else None


def miscounts(run: KnownRun) -> bool:
    """Return True if the mirror has another number of lines than the server counts, for a run that has ended.

    The count of a live run may be ahead of the lines that can be read.
    """
    return run.rows != run.server_rows and run.state not in LIVE_STATES


def went_on(record: RunRecord, known: KnownRun | None) -> bool:
    """Return True if a run has a new heartbeat, but the same line count and last step as mirrored.

    It may have been rewound and logged up to the same step again, while it was live as well.
    """
    if known is None or known.local or known.ahead:
        return False
    same = (record.server_rows, record.server_last_step) == (known.rows, known.last_step)
    return same and record.heartbeat_at != known.heartbeat_at


def is_settled(run: KnownRun, now: datetime) -> bool:
    """Return True if the mirror's history of the run is complete according to the counts."""
    settled = not (run.deleted or run.local or run.ahead or run.flawed or waits(run, now))
    return settled and need(run, now) is None


def has_recovered(run: KnownRun, now: datetime) -> bool:
    """Return True if a run that had failed is complete now."""
    return run.error is not None and is_settled(run, now)


def widened(before: str, globs: Sequence[str]) -> bool:
    """Return True if these key globs may select keys that the earlier ones, as JSON text, did not select."""
    known = json.loads(before)
    return "*" not in known and not set(globs) <= set(known)


def lacks_keys(
    on_server: Mapping[str, int | None] | None, mirrored: Mapping[str, int], before: KeyGlobs, now: KeyGlobs
) -> bool:
    """Return True if a run logged a key that is selected now, was not before, and is not completely mirrored.

    `on_server` and `mirrored` are the numbers of values by key. If the server does not list the keys (`on_server` is
    None), the result is True.
    """
    if on_server is None:
        return True
    return any(
        key in now and key not in before and (count is None or mirrored.get(key, 0) < count)
        for key, count in on_server.items()
    )


def waits(run: KnownRun | RunExtras, now: datetime) -> bool:
    """Return True if the run failed and its retry is not due yet."""
    return retries.waits(run.next_try_at, now)


def has_passed(since: datetime, seconds: float, now: datetime) -> bool:
    """Return True if this many seconds have passed, or if `since` is in the future, as after a clock was set back."""
    return not 0 <= (now - since).total_seconds() < seconds


def events_due(run: RunExtras, now: datetime, changed: Collection[str]) -> bool:
    """Return True if the run's system metrics are to be pulled, always all of them, since W&B samples them.

    For a live run only once there are 5% more, as otherwise the cost would grow with every pass.
    """
    if waits(run, now):
        return False
    if run.server_events is None:
        return run.events is None or run.run_id in changed
    mirrored = run.events or 0
    grown = run.server_events - mirrored
    return bool(grown) and (run.state not in LIVE_STATES or grown < 0 or grown * 20 >= mirrored)


def console_due(run: RunExtras, now: datetime, changed: Collection[str]) -> bool:
    """Return True if the console has more lines, or if its last ones were pulled while the run was live."""
    if waits(run, now):
        return False
    if run.log_live and run.state not in LIVE_STATES:
        return True
    if run.server_log_lines is None:
        return run.log_lines is None or run.run_id in changed
    return run.server_log_lines != (run.log_lines or 0)


def metadata_file_due(run: RunExtras, now: datetime) -> bool:
    """Return True if the run's metadata file is due: once, and again at the end of a run that had none until then."""
    if waits(run, now):
        return False
    return run.file is None or (run.file == "not yet" and run.state not in LIVE_STATES)


def file_list_due(run: RunExtras, now: datetime) -> bool:
    """Return True if the list of the run's files is due; for a live run, which keeps changing, every LIST_AGAIN."""
    return _list_due(run, run.listed_at, now)


def uses_due(run: RunExtras, now: datetime) -> bool:
    """Return True if the artifacts that the run used and logged are due; for a live run every LIST_AGAIN."""
    return _list_due(run, run.artifacts_at, now)


def _list_due(run: RunExtras, pulled_at: datetime | None, now: datetime) -> bool:
    if waits(run, now):
        return False
    again = LIST_AGAIN.total_seconds()
    return pulled_at is None or run.state not in LIVE_STATES or has_passed(pulled_at, again, now)
