"""Compares a run's record on the server with its row in the mirror."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from mirror.protocol import LIVE_STATES
from mirror.store.checks import parsed
from mirror.store.leaves import LeafColumns
from mirror.store.records import KnownRun, RunRecord
from mirror.store.runs import OWN_COLUMNS
from mirror.sync import plan
from mirror.verify.findings import Finding, Level

LONGEST = 80
"""Values are shown with at most this many characters."""

_DOCUMENTS = ("config", "summary")
_SILENT = "edited on the server without moving a timestamp, or changed in the file"


def moved_on(record: RunRecord, known: KnownRun) -> str | None:
    """How the run changed on the server since it was last pulled; None if it did not."""
    if plan.shrank(record, known) and _later(record.updated_at, known.updated_at):
        return "the run was rewound after the last pass; run `mirror sync`"
    if _later(record.heartbeat_at, known.heartbeat_at):
        return "the run continued after the last pass; run `mirror sync`"
    if _later(record.updated_at, known.updated_at):
        return "the run was edited after the last pass; run `mirror sync`"
    if known.state in LIVE_STATES:
        if record.state != known.state:
            return "the run ended after the last pass; run `mirror sync`"
        # Heartbeats are whole seconds, and rows may follow one within its second.
        if record.server_rows > known.server_rows:
            return "the run continued after the last pass; run `mirror sync`"
    return None


def _later(there: datetime | None, here: datetime | None) -> bool:
    return there is not None and (here is None or there > here)


def behind(record: RunRecord, known: KnownRun, cause: str) -> Finding:
    """The finding that the run changed on the server since the last pass."""
    mirror = f"{known.state}, {known.rows:,} rows, heartbeat {_time(known.heartbeat_at)}"
    server = f"{record.state}, {record.server_rows:,} rows, heartbeat {_time(record.heartbeat_at)}"
    return Finding(Level.BEHIND, record.run_id, "run", mirror, server, cause)


def _time(moment: datetime | None) -> str:
    return f"{moment.isoformat(sep=' ', timespec='seconds')}" if moment else "none"


_COUNTS = ("server_events", "server_log_lines")
"""Counts that show a pass whether there is more to pull; they can change without any change of the run."""

_FROM_METADATA = ("host", "git_commit")
"""Fields that are read from the run's metadata file if the server returns none."""


def fields(run_id: str, row: dict[str, Any], expected: dict[str, Any]) -> Iterator[Finding]:
    """A finding for each field and each config and summary value of the mirrored row that differs from the server's."""
    for name, server in expected.items():
        mirror = row[name]
        if name in OWN_COLUMNS or name in _COUNTS or mirror == server or (name in _FROM_METADATA and not server):
            continue
        if name not in _DOCUMENTS:
            yield Finding(Level.DIFFERS, run_id, name, shown(mirror), shown(server), _SILENT, flush=(run_id,))
            continue
        here, there = _leaves(mirror), _leaves(server)
        if here is None or there is None:
            yield Finding(Level.DIFFERS, run_id, name, shown(mirror), shown(server), _SILENT, flush=(run_id,))
            continue
        for key in [*here, *(key for key in there if key not in here)]:
            if here.get(key) != there.get(key):
                ours, theirs = [shown(leaves[key][1]) if key in leaves else "no value" for leaves in (here, there)]
                yield Finding(Level.DIFFERS, run_id, f"{name}.{key}", ours, theirs, _SILENT, flush=(run_id,))


def _leaves(text: str | None) -> dict[str, tuple[str, str | None]] | None:
    """Kind and text of each leaf of a document, by dotted path; None if the text is not a JSON object."""
    document = parsed(text)
    if document is None:
        return None
    found = LeafColumns()
    found.add(0, "", document)
    each = zip(found.keys, found.kinds, found.texts, found.elements, strict=True)
    return {
        key: (kind, text if kind != "string" else json.dumps(text, ensure_ascii=False))
        for key, kind, text, element in each
        if element is None and (kind != "object" or text is not None)
    }


def while_live(findings: Iterable[Finding], known: KnownRun) -> Iterator[Finding]:
    """The findings, with those about what a live run writes between two heartbeats turned to BEHIND."""
    for finding in findings:
        moving = finding.field.startswith("summary.") or finding.field in ("duration_s", "server_last_step")
        if moving and known.state in LIVE_STATES:
            cause = "a live run keeps writing it; the pass after its next heartbeat pulls it"
            yield replace(finding, level=Level.BEHIND, cause=cause, flush=())
        else:
            yield finding


def shown(value: Any) -> str:
    """A value in one line."""
    text = "null" if value is None else str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
