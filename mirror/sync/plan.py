"""What a pass has to fetch: pure functions of what the mirror holds and what the server says."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from mirror.remote.history import MOST_SAMPLES, Window
from mirror.remote.json_history import KeyGlobs
from mirror.remote.runs import Page, RunHead
from mirror.store.records import KnownRun, ProjectCursor, RunExtras, RunRecord

OVERLAP = timedelta(minutes=2)
"""How far behind the newest change a poll looks again: late writes and clocks of several servers differ by less."""

LIVE_STATES = ("running", "pending", "preempting")
"""States that a run leaves without an edit."""

REQUEST_BYTES = 4 << 20
"""How much history one answer should hold."""

REQUEST_RUNS = 50
"""Most run selections in one document."""

LIST_AGAIN = timedelta(minutes=10)
"""How often the files of a live run are listed."""

FIRST_RETRY = timedelta(minutes=1)
LAST_RETRY = timedelta(hours=6)


def poll_filter(
    cursor: ProjectCursor, live: Iterable[str], scope: Mapping[str, Any], *, by_update: bool = True
) -> dict[str, Any]:
    """The server-side filter for runs that may have changed since the cursor.

    A heartbeat moves with logging and `updatedAt` with edits; a state that the server sets by itself may move neither,
    so runs that were live are asked for by name. `by_update` is off for servers that refuse the key `updatedAt`.
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
    """The server-side filter for runs that began or logged from `since` on."""
    bound = {"$gte": f"{since.isoformat(timespec='seconds')}Z"}
    return both({"$or": [{"heartbeatAt": bound}, {"createdAt": bound}]}, scope)


def leaves_out(cursor: ProjectCursor, since: datetime) -> bool:
    """Whether a pass over runs since then may miss some that an ordinary pass would look at."""
    return cursor.covered_to is None or since > cursor.covered_to - OVERLAP


def both(one: Mapping[str, Any], scope: Mapping[str, Any]) -> dict[str, Any]:
    """Runs that meet both filters."""
    return {"$and": [dict(one), dict(scope)]} if scope else dict(one)


def newest(runs: Iterable[RunHead | RunRecord], so_far: datetime | None) -> datetime | None:
    """The latest change that any of the runs tells of, on the server's clock."""
    times = [time for run in runs for time in (run.created_at, run.heartbeat_at, run.updated_at) if time]
    return max([*times, *([so_far] if so_far else [])], default=None)


def known_to(page: Page[RunHead] | Page[RunRecord]) -> datetime | None:
    """Up to when every change on the server is known that a list tells of, whose first page this is.

    What changes while the following pages are asked for may have been on a page before. So it is the time at which the
    list was begun; from a server that does not tell the time it is the newest change in the first answer.
    """
    return page.asked_at or newest(page.runs, None)


def covered(runs: Iterable[RunHead | RunRecord], begun: datetime | None, so_far: datetime | None) -> datetime | None:
    """The cursor behind a list of changed runs that was begun at a time of the server's clock.

    A run may tell a time to come, of a clock that was wrong, and the mirrored cursor may be such a time.
    """
    latest = newest(runs, so_far)
    # A time of the server's clock has whole seconds; OVERLAP is much more than what is added here.
    return latest if latest is None or begun is None else min(latest, begun + timedelta(seconds=1))


def is_unsure(known: KnownRun, now: datetime | None) -> bool:
    """Whether the run may have changed unseen in the second of the state that is mirrored, which is over by now.

    The server tells times in whole seconds: two edits in one second have the same time, and the answer may have come
    between them. `now` is the server's clock, None where it does not tell. A time to come hides no edit, and a server
    that tells fractions tells every edit from the one before.
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
    """Whether the server tells anything of the run that the mirror does not hold."""
    if known is None or known.deleted or known.local or is_other(head, known):
        return True
    if (head.heartbeat_at, head.updated_at) != (known.heartbeat_at, known.updated_at):
        return True
    # The state or the count of a run may be what cannot be read.
    return not known.flawed and (head.state, head.server_rows) != (known.state, known.server_rows)


@dataclass(frozen=True)
class Decision:
    """What a listing leads to: the runs whose records are pulled, and how many of them the mirror does not have now."""

    pull: list[str]
    added: int


def decide(
    known: Mapping[str, KnownRun], heads: Iterable[RunHead], *, server_now: datetime | None, now: datetime
) -> Decision:
    """Decide from what is mirrored and what the server listed; `server_now` is None where it does not tell its clock.

    The listed runs that differ come first, in their order; then the mirrored ones that may have changed unseen, or
    whose record could not be read and is due to be asked for again.
    """
    listed = {head.run_id: head for head in heads}
    pull = [run_id for run_id, head in listed.items() if is_new(head, known.get(run_id))]
    taken = set(pull)
    again = [
        run.run_id
        for run in known.values()
        if run.run_id not in taken and (is_unsure(run, server_now) or is_flawed(run, now))
    ]
    missing = sum(run_id not in known or known[run_id].deleted for run_id in pull)
    return Decision(pull + again, missing)


def lists_all(
    cursor: ProjectCursor, *, filters: str, interval: float, on_server: int, total: int, now: datetime
) -> bool:
    """Whether every run of the project is listed to find silent edits and deleted runs.

    When the interval since the last such listing has passed, after another filter, and when the mirror takes another
    number of runs to be `on_server` than the `total` that the server counts and no listing could explain.
    """
    at = cursor.reconciled_at
    due = at is not None and (has_passed(at, interval, now) or cursor.filters != filters)
    return due or total not in (on_server, cursor.unexplained_runs)


def gone(known: Mapping[str, KnownRun], listed: Collection[str]) -> list[str]:
    """The mirrored runs that a listing of all runs did not bring; each is asked for by name before it is given up."""
    return [run.run_id for run in known.values() if not run.deleted and not run.local and run.run_id not in listed]


def is_flawed(known: KnownRun, now: datetime) -> bool:
    """Whether the run's record is to be asked for once more since some of it could not be read."""
    return known.flawed and not known.deleted and not waits(known, now)


def is_other(run: RunHead | RunRecord, known: KnownRun | None) -> bool:
    """Whether the mirrored run was deleted on the server and this one made under its id."""
    if known is None or not known.storage_id:
        return False
    if isinstance(run, RunRecord) and run.storage_id != known.storage_id:
        return True
    return None not in (run.created_at, known.created_at) and run.created_at != known.created_at


def shrank(record: RunRecord, known: KnownRun | None) -> bool:
    """Whether the server holds less history than the mirror: the run was rewound, forked or made anew."""
    if known is None or known.last_step is None or known.local or known.ahead:
        return False
    cut = record.server_last_step is not None and record.server_last_step < known.last_step
    return cut or record.server_rows < known.rows


def live(known: Mapping[str, KnownRun]) -> list[str]:
    """The mirrored runs that may change without a trace on the server."""
    return [run.run_id for run in known.values() if run.state in LIVE_STATES and not run.deleted and not run.local]


@dataclass(frozen=True)
class Need:
    """A run whose history is to be pulled: all of it (`whole`), or what follows the mirrored steps.

    A `thorough` pull follows one that did not bring as many lines as the server counts. One that is to `check` only
    looks whether the last mirrored line is still what the server has there.
    """

    run: KnownRun
    whole: bool
    thorough: bool = False
    check: bool = False


def need(run: KnownRun, now: datetime) -> Need | None:
    """What is missing of a run's history, if anything.

    None as well for a run that is set aside until later, and for one of which a local file holds more than the server.
    """
    if run.deleted or run.local or run.ahead or run.flawed or waits(run, now):
        return None
    if run.refresh:
        return Need(run, whole=True)
    if run.server_last_step is None:
        return Need(run, whole=False) if run.server_rows > run.rows else None
    if run.last_step is None or run.last_step < run.server_last_step:
        return Need(run, whole=False)
    return Need(run, whole=True, thorough=True) if miscounts(run) else None


def miscounts(run: KnownRun) -> bool:
    """Whether the mirror holds another number of lines than the server counts, of a run that ended.

    The count of a live run may be ahead of the lines that can be read.
    """
    return run.rows != run.server_rows and run.state not in LIVE_STATES


def went_on(record: RunRecord, known: KnownRun) -> bool:
    """Whether a run that has ended was heard of since the mirrored state, and tells of no other line."""
    same = (record.server_rows, record.server_last_step) == (known.rows, known.last_step)
    return same and record.state not in LIVE_STATES and record.heartbeat_at != known.heartbeat_at


def is_settled(run: KnownRun, now: datetime) -> bool:
    """Whether the mirror holds the history of the run, as far as counts tell."""
    settled = not (run.deleted or run.local or run.ahead or run.flawed or waits(run, now))
    return settled and need(run, now) is None


def has_recovered(run: KnownRun, now: datetime) -> bool:
    """Whether nothing is missing any more of a run that was set aside."""
    return run.error is not None and is_settled(run, now)


def widened(before: str, globs: Sequence[str]) -> bool:
    """Whether these key globs may take keys that those of before, as JSON text, did not take."""
    known = json.loads(before)
    return "*" not in known and not set(globs) <= set(known)


def lacks_keys(
    told: Mapping[str, int | None] | None, mirrored: Mapping[str, int], before: KeyGlobs, now: KeyGlobs
) -> bool:
    """Whether a run logged a key that is wanted now, was not wanted before, and is not mirrored whole.

    `told` is what the server says of the run's keys and their number of values; without it the answer is yes.
    """
    if told is None:
        return True
    return any(
        key in now and key not in before and (count is None or mirrored.get(key, 0) < count)
        for key, count in told.items()
    )


def waits(run: KnownRun | RunExtras, now: datetime) -> bool:
    """Whether the run is set aside until later.

    A time that is further off than any wait was written before a clock was set back: it does not count.
    """
    return run.next_try_at is not None and now < run.next_try_at <= now + LAST_RETRY


def has_passed(since: datetime, seconds: float, now: datetime) -> bool:
    """Whether so many seconds have passed; also where `since` is yet to come, as after a clock was set back."""
    return not 0 <= (now - since).total_seconds() < seconds


def events_due(run: RunExtras, now: datetime, changed: Collection[str]) -> bool:
    """Whether the run's system metrics are to be taken, all of them: W&B samples them, so that none can be added.

    For a live run only when there are a twentieth more, or taking them would cost more with every pass.
    """
    if waits(run, now):
        return False
    if run.server_events is None:
        return run.events is None or run.run_id in changed
    held = run.events or 0
    grown = run.server_events - held
    return bool(grown) and (run.state not in LIVE_STATES or grown < 0 or grown * 20 >= held)


def console_due(run: RunExtras, now: datetime, changed: Collection[str]) -> bool:
    """Whether the console has more, or its last lines may have changed since they were taken from the live run."""
    if waits(run, now):
        return False
    if run.log_live and run.state not in LIVE_STATES:
        return True
    if run.server_log_lines is None:
        return run.log_lines is None or run.run_id in changed
    return run.server_log_lines != (run.log_lines or 0)


def file_due(run: RunExtras, now: datetime) -> bool:
    """Whether the run's metadata file is to be asked for: once, and again at the end of a run that had none yet."""
    if waits(run, now):
        return False
    return run.file is None or (run.file == "not yet" and run.state not in LIVE_STATES)


def list_due(run: RunExtras, now: datetime) -> bool:
    """Whether the list of the run's files is to be taken; of a live run, which changes all the time, now and then."""
    if waits(run, now):
        return False
    return (
        run.listed_at is None
        or run.state not in LIVE_STATES
        or has_passed(run.listed_at, LIST_AGAIN.total_seconds(), now)
    )


def retry_at(attempts: int, now: datetime) -> datetime:
    """When a run that failed `attempts` times before is tried again."""
    wait: timedelta = FIRST_RETRY * 4 ** min(attempts, 10)
    return now + min(LAST_RETRY, wait)


@dataclass(frozen=True)
class Span:
    """Steps of one run that are to be fetched, `first` to `last` inclusive, and how many lines they should hold."""

    run_id: str
    first: int
    last: int
    rows: int

    @property
    def steps(self) -> int:
        """How many steps there are, with a line or without."""
        return self.last - self.first + 1


LAST_STEP = 2**62
"""Where a run is taken to end whose last step the server does not tell."""

SPARSE = 100
"""Steps a line from which on the lines may be anywhere: those of a clock all lie at the end of what is asked for."""

FEWEST_SAMPLES = 100


class RowSize:
    """The learned size of a history line in bytes."""

    def __init__(self) -> None:
        self.bytes = 400.0

    def learn(self, rows: int, size: int) -> None:
        """Take note of an answer of `size` bytes that held `rows` lines."""
        if rows:
            self.bytes += 0.3 * (size / rows - self.bytes)

    @property
    def room(self) -> float:
        """How many lines one answer should hold."""
        return max(1.0, REQUEST_BYTES / self.bytes)


def is_uneven(span: Span, size: RowSize) -> bool:
    """Whether windows of equal steps might hold none of the lines, or all of them."""
    return span.rows > size.room and span.steps > SPARSE * span.rows


def cut(span: Span, steps: Sequence[int], pieces: int) -> list[Span]:
    """The span in pieces that hold about as many lines each, told by steps of some of its lines."""
    places = sorted({steps[len(steps) * piece // pieces] for piece in range(1, pieces)})
    ends = [place - 1 for place in places if span.first < place <= span.last] + [span.last]
    rows = -(-span.rows // len(ends))
    return [
        Span(span.run_id, first, last, rows)
        for first, last in zip([span.first, *(end + 1 for end in ends)], ends, strict=False)
    ]


def requests(spans: Sequence[Span], size: RowSize) -> Iterator[list[Window]]:
    """Cut spans into windows and gather them into requests of about REQUEST_BYTES each, in order.

    Reads `size` anew for each request, so that what earlier answers taught is used.
    """
    batch: list[Window] = []
    room = 0.0
    for span in spans:
        first = span.first
        while first <= span.last:
            if not batch:
                room = size.room
            window, rows = _window(span, first, room)
            batch.append(window)
            room -= rows
            first = window.end
            if room < 1 or len(batch) >= REQUEST_RUNS:
                yield batch
                batch = []
    if batch:
        yield batch


def _window(span: Span, first: int, room: float) -> tuple[Window, float]:
    """The window that begins at `first`, and how many lines it should hold: not more than there is room for."""
    wanted = max(1, int(min(room, span.rows)))
    # The numbers of a span of nanoseconds are too large for floats.
    end = min(span.last + 1, first + span.steps * wanted // span.rows + 1)
    rows = (end - first) * span.rows / span.steps
    if end - first <= MOST_SAMPLES:
        return Window(span.run_id, first, end), rows
    return Window(span.run_id, first, end, max(FEWEST_SAMPLES, 4 * wanted)), rows
