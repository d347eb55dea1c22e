"""Compares runs in local files with the server's, project by project."""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from mirror.errors import MirrorError
from mirror.protocol import ENDED_STATES, LIVE_STATES
from mirror.remote import runs as remote
from mirror.remote.client import NotFound, Server
from mirror.remote.page_size import MOST_RUNS, PageSize
from mirror.rescue import summary
from mirror.rescue.findings import Comparison, Difference, Look
from mirror.rescue.gather import Gathered
from mirror.store import local
from mirror.store import reader as store
from mirror.store.checks import parsed
from mirror.store.records import KnownRun, ProjectKey, RunRecord
from mirror.store.runs import expected
from mirror.sync import request_windows
from mirror.sync.context import PassResult, Progress
from mirror.verify import history, runs
from mirror.verify.findings import Finding, Level, Verdict
from mirror.wandb_json import loads


async def compare(
    server: Server, files: Gathered, project: ProjectKey, run_ids: Sequence[str], progress: Progress
) -> Comparison:
    """Compare some runs of a project. Errors are reported in the verdict, not raised."""
    started = time.monotonic()
    requests = server.count_requests()
    verdict = Verdict(project, deep=True)
    one = _Comparison(server, files, project, progress, verdict)
    looks: list[Look] = []
    try:
        looks = await one.run(run_ids)
    except MirrorError as error:
        verdict.error, verdict.exit_code = str(error), error.exit_code
    verdict.requests = requests.total()
    verdict.seconds = time.monotonic() - started
    progress.finished(PassResult(project))
    return Comparison(verdict, looks)


class _Comparison:
    """The steps of one project's comparison, and their shared state."""

    def __init__(
        self, server: Server, files: Gathered, project: ProjectKey, progress: Progress, verdict: Verdict
    ) -> None:
        self.server = server
        self.files = files
        self.reader = files.reader
        self.project = project
        self.progress = progress
        self.verdict = verdict
        self.found: dict[str, list[Finding]] = {}

    async def run(self, run_ids: Sequence[str]) -> list[Look]:
        """Run all steps; return the runs that the server has."""
        mirrored = await asyncio.to_thread(store.mirrored, self.reader, self.project)
        known = {} if mirrored is None else mirrored.known
        self.progress.runs_expected(self.project, len(run_ids))
        looks: list[Look] = []
        for start in range(0, len(run_ids), MOST_RUNS):
            names = run_ids[start : start + MOST_RUNS]
            records, missing = await self._records(names)
            for run_id in names:
                if run_id not in records:
                    self._lost(known[run_id], missing)
            looks += [
                Look(self.project, known[name], self._paths(name), records[name]) for name in names if name in records
            ]
            self.progress.runs_done(self.project, len(names))
        await self._histories([look for look in looks if not look.record.flaw])
        for start in range(0, len(looks), MOST_RUNS):
            part = looks[start : start + MOST_RUNS]
            rows = await asyncio.to_thread(store.rows, self.reader, self.project, [one.known.run_id for one in part])
            for look in part:
                await asyncio.to_thread(self._settle, look, rows[look.known.run_id])
        self._count([known[run_id].rid for run_id in run_ids])
        self.verdict.runs += len(run_ids)
        self.verdict.rows += sum(known[run_id].rows for run_id in run_ids)
        for run_id in sorted(self.found):
            self.verdict.findings += self.found[run_id]
        return looks

    def _paths(self, run_id: str) -> list[Path]:
        return self.files.paths[self.project, run_id]

    async def _records(self, names: Sequence[str]) -> tuple[dict[str, RunRecord], str]:
        """The server's records of these runs, and a text for missing ones: which of project and run does not exist."""
        by_name = {"name": {"$in": list(names)}}
        found: dict[str, RunRecord] = {}
        pages = remote.records(self.server, self.project, scope=by_name, filters=by_name, size=PageSize())
        try:
            async with aclosing(pages):
                async for page in pages:
                    found.update({record.run_id: record for record in page.runs})
        except NotFound:
            return {}, "no such project, or the key may not read it"
        return found, "no such run"

    def _lost(self, known: KnownRun, missing: str) -> None:
        cause = f"`{_sync_command(self._paths(known.run_id))}` uploads it, unless it was deleted there"
        file = f"a {known.state} run of {_some(known.rows, 'row')}"
        self._note(Level.DIFFERS, known.run_id, "run", file, missing, cause)

    def _note(self, level: Level, run_id: str, field: str, file: str, server: str, cause: str) -> None:
        self.found.setdefault(run_id, []).append(Difference(level, run_id, field, file, server, cause))

    async def _histories(self, looks: Sequence[Look]) -> None:
        spans = [
            request_windows.Span(look.known.run_id, 0, last, max(look.known.rows, look.record.server_rows, 1))
            for look in looks
            if (last := _end(look)) >= 0
        ]
        self.progress.rows_expected(self.project, sum(span.rows for span in spans))
        found = await history.compare(
            self.server,
            self.reader,
            self.project,
            spans,
            ("*",),
            lambda rows: self.progress.rows_done(self.project, rows),
            ordered=False,
        )
        for look in looks:
            look.compared = found.get(look.known.run_id, look.compared)
            self.verdict.compared += look.compared.values

    def _count(self, rids: Sequence[int]) -> None:
        for counts in store.key_counts(self.reader, rids).values():
            self.verdict.keys += len(counts)
            self.verdict.values += sum(counts.values())

    def _settle(self, look: Look, row: dict[str, Any]) -> None:
        """Turn the comparison of one run into findings, and decide what may be sent."""
        run_id, record, compared = look.known.run_id, look.record, look.compared
        if record.flaw or compared.error or compared.gone:
            why = record.flaw or compared.error or "it was deleted just now"
            look.refused = f"{why}"
            self._note(
                Level.DIFFERS,
                run_id,
                "run",
                f"a run of {_some(look.known.rows, 'row')}",
                "a run that cannot be read",
                f"{why}",
            )
            return
        look.tail = compared.extra.get("end")
        look.refused = _refusal(look)
        reading = local.reading(self.reader, self.project, run_id)
        look.exit_code = int((reading and loads(reading).get("exit_code")) or 0)
        last = -1 if compared.last is None else compared.last
        file = parsed(row["summary"]) or {}
        look.summary = summary.lost(self.reader, self.project, record, file, last)
        findings = [*_of_rows(look), *_of_values(look), *_of_summary(look, row)]
        if (
            record.state in ENDED_STATES
            and look.known.state in ("finished", "failed")
            and look.known.state != record.state
        ):
            cause = "the server did not receive how it ended; the state is left unchanged"
            findings.append(Difference(Level.NOTE, run_id, "state", look.known.state, record.state, cause))
        self.found.setdefault(run_id, []).extend(findings)


def _sync_command(paths: Sequence[Path]) -> str:
    """The official client's command to upload these files; by default it skips uploaded files and online runs."""
    options = []
    if not all(path.parent.name.startswith("offline-") for path in paths):
        options.append("--include-online")
    if any(path.with_suffix(".wandb.synced").exists() for path in paths):
        options.append("--include-synced")
    return shlex.join(["wandb", "sync", *options, *(str(path.parent) for path in paths)])


def _is_live(look: Look) -> bool:
    """Return True if the run is still live, so that what one side lacks may still arrive."""
    return look.record.state not in ENDED_STATES and look.known.state in LIVE_STATES


NO_VALUE = "no value"
MOST_VALUES = 3
"""Up to this many lost values of a summary, and as many older ones, are reported one by one."""

_ON_THE_WAY = "the run is live, and has yet to write or send it"
_MISSING = {
    "start": "from an earlier start whose file was not given, or from another process",
    "middle": "damaged in the file, or from another process",
    "end": "the file ends before them: the run was killed, or continued elsewhere",
}


def _refusal(look: Look) -> str | None:
    """Why nothing may be sent to the server; None if it may."""
    record, known, compared = look.record, look.known, look.compared
    if record.state not in ENDED_STATES:
        return f"the run is {record.state} on the server"
    if known.state in LIVE_STATES:
        return "its own process may still send: it runs here, or its file was written less than five minutes ago"
    if any(kind == "changed" for _, kind in compared.differ):
        return "rows that both have differ, so they may be from two runs"
    if "middle" in compared.missing:
        return "the server has rows between the file's, so another process may have written them"
    if compared.lines != record.server_rows:
        return (
            f"the server counts {record.server_rows:,} rows and returns {compared.lines:,}, so it is uncertain "
            "where to add more of them; try again later"
        )
    return None


def _of_rows(look: Look) -> Iterator[Finding]:
    compared, run_id, live = look.compared, look.known.run_id, _is_live(look)
    for place, rows in sorted(compared.missing.items()):
        level, cause = (Level.BEHIND, _ON_THE_WAY) if live and place == "end" else (Level.DIFFERS, _MISSING[place])
        yield Difference(level, run_id, "history rows", f"none of them, {_WHERE[place]}", f"{rows}", cause)
    for place, rows in sorted(compared.extra.items()):
        level = Level.DIFFERS
        if place != "end" and not live and look.record.server_rows > compared.lines:
            cause = "not returned by the server, which counts more rows than it returns: some may be duplicates"
        elif place != "end":
            cause = f"lost there; they cannot be sent, since it only accepts rows after its last step, {compared.last}"
        elif live:
            level, cause = Level.BEHIND, _ON_THE_WAY
        else:
            cause = f"lost there; {_offer(look)}"
        yield Difference(level, run_id, "history rows", f"{rows}", f"none of them, {_WHERE[place]}", cause)
    counted = look.record.server_rows
    if counted > compared.lines and not live:
        server = f"{_some(compared.lines, 'row')} and counts {counted:,}"
        cause = "its count is wrong, or it has some steps twice, as after `wandb sync` of a file that it already had"
        yield Difference(Level.NOTE, run_id, "history rows", f"{look.known.rows:,}", server, cause)


_WHERE = {"start": "at the start", "middle": "in the middle", "end": "at the end"}


def _of_values(look: Look) -> Iterator[Finding]:
    causes = {
        "missing": "damaged in the file, or from another process",
        "extra": "lost there; nothing can be added to a row that the server has",
        "changed": "changed on the server, or the rows of two processes",
    }
    for (key, kind), values in sorted(look.compared.differ.items()):
        at = f"at step {values.first}" + (f", the first of {values.values:,}" if values.values > 1 else "")
        file, server = runs.shown(values.mirror), runs.shown(values.server)
        yield Difference(Level.DIFFERS, look.known.run_id, f"history.{key}", f"{file} {at}", server, causes[kind])


def _of_summary(look: Look, row: dict[str, Any]) -> Iterator[Finding]:
    """The differences of the summary. If many values are to be sent, they are one finding."""
    run_id = look.known.run_id
    theirs = expected([look.record])[run_id]["summary"]
    differing = [
        found
        for found in runs.fields(run_id, {"summary": row["summary"]}, {"summary": theirs})
        # Not W&B's own count of the run's duration, which the server keeps updating until the run's end.
        if not found.field.startswith("summary._wandb") or found.expected == NO_VALUE
    ]
    for what, server in (("lost", "none of them"), ("older", "older values")):
        alike = [found for found in differing if _is_sent(look, found) and what == _what(found)]
        if len(alike) > MOST_VALUES:
            differing = [found for found in differing if found not in alike]
            names = ", ".join(found.field.removeprefix("summary.") for found in alike[:MOST_VALUES])
            level, cause = Level.DIFFERS, f"{what} there; {_offer(look)}"
            if _is_live(look):
                level, cause = Level.BEHIND, _ON_THE_WAY
            yield Difference(level, run_id, "summary", f"{len(alike):,} values ({names}, ...)", server, cause)
    for found in differing:
        level = Level.DIFFERS
        if _is_live(look):
            level, cause = Level.BEHIND, _ON_THE_WAY
        elif _is_sent(look, found):
            cause = f"{_what(found)} there; {_offer(look)}"
        elif found.mirror == NO_VALUE:
            cause = "not in the file"
        elif found.expected == NO_VALUE:
            cause = "lost or deleted there, where the run was edited since; it is not sent"
        else:
            cause = "there it is as new as in the file, newer or edited; it is left unchanged"
        yield Difference(level, run_id, found.field, found.mirror, found.expected, cause)


def _what(found: Finding) -> str:
    """What the server's value of a summary value to send is: lost or older."""
    return "lost" if found.expected == NO_VALUE else "older"


def _is_sent(look: Look, found: Finding) -> bool:
    """Return True if a value of the summary is among those to send."""
    key = found.field.removeprefix("summary.")
    return any(key == name or key.startswith(f"{name}.") for name in look.summary)


def _offer(look: Look) -> str:
    return "`--upload` sends what is missing" if look.refused is None else f"not sent: {look.refused}"


def _end(look: Look) -> int:
    """The last step to compare; -1 if neither side has rows."""
    ends = [-1 if step is None else step for step in (look.known.last_step, look.record.server_last_step)]
    return max(ends) if look.known.rows or look.record.server_rows else -1


def _some(count: int, one: str) -> str:
    return f"{count:,} {one}{'' if count == 1 else 's'}"
