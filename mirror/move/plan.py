"""What an export of runs will write, and what of the runs it cannot hold: counted before anything is written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from mirror.move.chosen import Chosen
from mirror.move.records import LIVE_ON
from mirror.snapshot import facts, whole_runs
from mirror.snapshot.paths import Project
from mirror.snapshot.whole_runs import WholeRun

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_NAMED = 3
"""How many examples a sentence names."""


class Plan(Struct):
    """Counts of what is exported; `deleted` runs are left out. The sets and lists hold paths of runs."""

    projects: int = 0
    deleted: int = 0
    runs: int = 0
    rows: int = 0
    values: int = 0
    console: int = 0
    files: int = 0
    bytes: int = 0
    without_content: int = 0
    states: Counter[str] = field(default_factory=Counter)
    sweeps: set[str] = field(default_factory=set)
    in_sweeps: int = 0
    incomplete: list[str] = field(default_factory=list)
    no_console: int = 0
    no_events: int = 0
    no_files: int = 0
    with_empty: int = 0
    old_definitions: int = 0
    globs: dict[str, Project] = field(default_factory=dict)

    def exported(self) -> str:
        """Return a line with what is exported."""
        of = f" of {self.projects} projects" if self.projects > 1 else ""
        parts = [f"{some(self.rows, 'history row')} ({some(self.values, 'value')})"]
        parts += [some(self.console, "console line")] if self.console else []
        parts += [f"{some(self.files, 'file')} ({self.bytes / 1e6:,.1f} MB)"] if self.files else []
        return f"{some(self.runs, 'run')}{of}: {', '.join(parts)}"

    def missing(self) -> Iterator[str]:
        """Yield a sentence for each thing that is not in the mirror, with the setting that mirrors it."""
        if self.deleted:
            yield f"left out: {some(self.deleted, 'run')} that the server deleted; name a run to export it"
        if self.incomplete:
            more = f" and {len(self.incomplete) - _NAMED:,} more" if len(self.incomplete) > _NAMED else ""
            named = ", ".join(self.incomplete[:_NAMED])
            yield f"not all history is mirrored of {named}{more}: `mirror sync` pulls the rest"
        for globs, project in self.globs.items():
            yield f"only the history keys {globs} of {project} are mirrored: sync.history in the config selects them"
        if self.no_files:
            what = some(self.no_files, "run")
            yield f'the files of {what} are not mirrored: set sync.files = "content", then `mirror sync`'
        if self.without_content:
            what = some(self.without_content, "file")
            yield f'the content of {what} is not mirrored: set sync.files = "content", then `mirror sync`'
        if self.no_console:
            what = some(self.no_console, "run")
            yield f"the console of {what} is not mirrored: set sync.console = true, then `mirror sync`"
        if self.no_events:
            what = some(self.no_events, "run")
            yield f"the system metrics of {what} are not mirrored: set sync.system_metrics = true, then `mirror sync`"

    def wandb_limits(self, *, keep_sweeps: bool) -> Iterator[str]:
        """Yield a sentence for each thing that `wandb sync` does not carry."""
        yield (
            "new on the server: author, times of creation and last heartbeat, times and labels of console lines; "
            "startedAt in wandb-metadata.json, _timestamp and _runtime keep the old times"
        )
        yield "not exported: artifacts, reports, sweeps themselves"
        if live := sum(self.states[state] for state in LIVE_ON):
            yield (
                f"{some(live, 'run')} that did not end ({self._names(LIVE_ON)}): shown as running, "
                "until the server marks them as crashed or preempted, some minutes after the upload"
            )
        if killed := self.states["killed"]:
            yield f"{some(killed, 'run')} in state killed: becomes failed"
        if self.in_sweeps and not keep_sweeps:
            yield (
                f"{some(self.in_sweeps, 'run')} of {some(len(self.sweeps), 'sweep')}: the sweep becomes a tag, as in "
                f"sweep:{min(self.sweeps)}, since servers refuse runs of sweeps that they do not have; "
                "--keep-sweeps keeps it"
            )
        if self.with_empty:
            what = some(self.with_empty, "run")
            yield f"empty objects in config or summary of {what}: the client does not upload them"
        if self.old_definitions:
            what = some(self.old_definitions, "run")
            yield f"summaries best and copy of define_metric in {what}: clients of today drop them"

    def _names(self, states: Sequence[str]) -> str:
        return ", ".join(f"{self.states[state]:,} {state}" for state in states if self.states[state])


def make(connection: DuckDBPyConnection, chosen: Chosen) -> Plan:
    """Count what is exported of the chosen runs."""
    plan = Plan(projects=len(chosen.rids), deleted=chosen.deleted)
    for page in chosen.pages(connection):
        plan.console += sum(whole_runs.console_sizes(connection, [one.rid for one in page]).values())
        held, size, missing = whole_runs.file_sizes(connection, page)
        plan.files += held
        plan.bytes += size
        plan.without_content += missing
        for one in page:
            _count(plan, one)
    for project in chosen.rids:
        for known in facts.projects(connection, project.entity, project.project):
            globs = json.loads(known["globs"]) if known["globs"] else ["*"]
            if isinstance(globs, list) and "*" not in globs:
                plan.globs.setdefault(", ".join(map(str, globs)), project)
    return plan


def _count(plan: Plan, one: WholeRun) -> None:
    plan.runs += 1
    plan.rows += one.history_rows
    plan.values += one.history_values
    plan.states[one.state] += 1
    if one.sweep:
        plan.in_sweeps += 1
        plan.sweeps.add(one.sweep)
    if one.server_rows is not None and one.history_rows < one.server_rows:
        plan.incomplete.append(f"{one.path} ({one.history_rows:,} of {one.server_rows:,} rows)")
    plan.no_console += not one.console
    plan.no_events += not one.events
    plan.no_files += not one.files
    plan.with_empty += _has_empty(one.config) or _has_empty(one.summary)
    listed = one.config_meta.get("m")
    definitions = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    plan.old_definitions += any(
        isinstance(flags := entry.get("7"), list) and not {4, 7}.isdisjoint(flags) for entry in definitions
    )


def _has_empty(document: dict[str, Any]) -> bool:
    """Return True if any object in a document, but not in its lists, is empty."""
    level = [document]
    while level:
        level = [value for inner in level for value in inner.values() if isinstance(value, dict)]
        if any(not value for value in level):
            return True
    return False


def some(count: int, noun: str) -> str:
    """Return a number of things in words."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
