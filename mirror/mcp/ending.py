"""How a run ended: its state, its last row and heartbeat, its machine, and how other runs of the project fared."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from mirror.mcp.answers import clean, number, plural
from mirror.snapshot import facts

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from mirror.mcp.ask import Run

_HERE = "entity = ? AND project = ? AND run_id = ?"
_LONGEST = 200
_FAILED = "state IN ('failed', 'crashed')"
_MACHINE = {"program": "program", "args": "args", "gpu": "GPU", "gpu_count": "GPUs", "git.commit": "commit"}
_STATES = {
    "finished": "the script ended with exit code 0",
    "failed": "the script ended with an error or another exit code than 0",
    "crashed": "heartbeats stopped without an exit code: the process was killed, or its machine or network was lost",
    "killed": "it was stopped by a user or a sweep",
    "running": "it has not ended; what follows is of the part that is logged",
}


def lines(connection: DuckDBPyConnection, run: Run) -> list[str]:
    """What state a run is in and since when, where it ran, and how its neighbours fared."""
    state, created, heartbeat, duration, rows, deleted = connection.execute(
        f"SELECT state, created_at, heartbeat_at, duration_s, history_rows, deleted_at FROM runs WHERE {_HERE}",
        run.address,
    ).fetchall()[0]
    began = "" if created is None else f", created {created:%Y-%m-%d %H:%M:%S} UTC"
    ran = "" if duration is None else f", ran {timedelta(seconds=round(duration))}"
    code = facts.of_runs(connection, [run.rid]).get(run.rid, {}).get("exitcode")
    found = [f"{run.path} ({run.name}): {state}{began}{ran}; {plural(rows or 0, 'history row')}"]
    if meaning := _STATES.get(state):
        found.append(f"{state}: {meaning}{'' if code in (None, 0) else f'; exit code {code}'}")
    if deleted is not None:
        found.append(f"deleted on the server, seen {deleted:%Y-%m-%d %H:%M} UTC")
    last = connection.execute(
        f"SELECT max(last_step), max(last) FILTER (key = '_timestamp') FROM history_keys WHERE {_HERE}", run.address
    ).fetchall()[0]
    if last[0] is None:
        found.append("it logged no history: it ended before its first log, or logs nothing")
    elif (logged := _moment(last[1])) is not None:
        after = "" if heartbeat is None else f", last heartbeat {_span((heartbeat - logged).total_seconds())}"
        found.append(f"last row: step {last[0]:,} at {logged:%Y-%m-%d %H:%M:%S} UTC{after}")
    if run.rid in facts.without_history(connection, run.project):
        found.append("the server has more history of this run than the mirror: later rows may be missing here")
    return [*found, *_machine(connection, run), *_memory(connection, run)]


def _moment(seconds: float | None) -> datetime | None:
    """The naive UTC time of a timestamp; None for one that no time has."""
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
    except (ValueError, OverflowError, OSError):
        return None


def _machine(connection: DuckDBPyConnection, run: Run) -> list[str]:
    """Where the run ran, and how many runs of its project failed there and in all."""
    host = connection.execute(f"SELECT host FROM runs WHERE {_HERE}", run.address).fetchall()[0][0]
    known = f"SELECT key, value FROM run_metadata WHERE {_HERE} AND key IN (SELECT unnest(?::VARCHAR[]))"
    values = dict(connection.execute(known, [*run.address, list(_MACHINE)]).fetchall())
    parts = [f"host {host}"] if host else []
    parts += [f"{name} {clean(values[key])[:_LONGEST]}" for key, name in _MACHINE.items() if values.get(key)]
    found = [", ".join(parts)] if parts else []
    ended, failed, here, failed_here = connection.execute(
        f"""SELECT count(*), count(*) FILTER ({_FAILED}), count(*) FILTER (host = ?),
            count(*) FILTER (host = ? AND {_FAILED})
        FROM runs WHERE entity = ? AND project = ? AND deleted_at IS NULL AND state NOT IN ('running', 'pending')""",
        [host, host, *run.project],
    ).fetchall()[0]
    on_host = f", {failed_here:,} of {here:,} on this host" if host else ""
    return [*found, f"of the project's runs that ended, {failed:,} of {ended:,} failed or crashed{on_host}"]


def _span(seconds: float) -> str:
    if abs(seconds) < 1:
        return "at that time"
    return f"{timedelta(seconds=round(abs(seconds)))} {'later' if seconds > 0 else 'earlier'}"


def _memory(connection: DuckDBPyConnection, run: Run) -> list[str]:
    """System metrics of memory that came near 100%."""
    rows = connection.execute(
        f"SELECT key, max(value) FROM system_metrics WHERE {_HERE} AND isfinite(value)"
        " AND (key LIKE '%memory_percent' OR key LIKE '%memoryAllocated')"
        " GROUP BY key HAVING max(value) >= 95 ORDER BY key",
        run.address,
    ).fetchall()
    return [f"- memory: {key} reached {number(value)}%" for key, value in rows[:4]]
