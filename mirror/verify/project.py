"""Verifies one project: checks the published file for consistency, then compares it with the server, run by run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from msgspec.structs import replace

from mirror.errors import MirrorError
from mirror.metrics import STEP
from mirror.remote import runs as remote
from mirror.remote.client import NotFound, Server
from mirror.remote.errors import NoProject
from mirror.remote.json_history import KeyGlobs
from mirror.remote.page_size import MOST_RUNS, PageSize
from mirror.store import checks, contents, projects, segment_checks
from mirror.store import reader as store
from mirror.store.blobs import Blobs
from mirror.store.damage import Damage
from mirror.store.reader import Mirrored, Reader
from mirror.store.records import KnownRun, RunRecord
from mirror.store.runs import expected
from mirror.sync import heads, plan, request_windows
from mirror.sync.context import PassResult, Progress, Scope, utc_now
from mirror.sync.targets import Target
from mirror.verify import console, events, history, runs
from mirror.verify.findings import Finding, Level, Verdict, of_damage
from mirror.verify.history import Compared
from mirror.verify.look import Look

Result = TypeVar("Result")

DISAGREES = "the server's own counts disagree with the rows it returns, all of which are mirrored"
"""The one note about a run that is compared completely."""


async def verify_project(
    server: Server, reader: Reader, scope: Scope, target: Target, progress: Progress, *, deep: bool
) -> Verdict:
    """Compare one project, or some of its runs. Errors are reported in the verdict, not raised."""
    started = time.monotonic()
    requests = server.count_requests()
    one = _Verification(server, reader, scope, target, progress, deep=deep)
    try:
        await one.run()
    except MirrorError as error:
        if isinstance(error, NoProject):
            error = error.among(map(str, projects.everything(reader)))
        one.verdict.error, one.verdict.exit_code = str(error), error.exit_code
    verdict = one.verdict
    verdict.requests = requests.total()
    verdict.seconds = time.monotonic() - started
    progress.finished(PassResult(target.project))
    return verdict


class _Verification:
    """The steps of one project's verification, and their shared state."""

    def __init__(
        self, server: Server, reader: Reader, scope: Scope, target: Target, progress: Progress, *, deep: bool
    ) -> None:
        self.server = server
        self.reader = reader
        self.scope = scope
        self.filters = {"name": {"$in": list(target.run_ids)}} if target.run_ids else dict(scope.filters)
        self.project = target.project
        self.run_ids = target.run_ids
        self.deep = deep
        self.progress = progress
        self.keys = KeyGlobs(scope.history)
        self.verdict = Verdict(target.project, deep)
        self.mirrored = Mirrored()
        self.damaged: dict[str, list[Damage]] = {}
        self.of_run: dict[str, list[Finding]] = {}
        self.looks: dict[str, Look] = {}

    async def run(self) -> None:
        """Run all steps, and collect the findings in the verdict."""
        mirrored = await self._read(lambda reader: store.mirrored(reader, self.project))
        if mirrored is None:
            cause = "it was never mirrored; run `mirror sync`"
            self._note(Level.DIFFERS, None, "project", "nothing", f"{await self._count():,} runs", cause)
            return
        self.mirrored = mirrored
        await self._check_file()
        listed = await self._listed()
        await self._check_unlisted(listed, self.mirrored.known)
        await self._compare_histories(list(self.looks.values()))
        await self._compare_changed()
        for run_id in sorted(self.of_run):
            self.verdict.findings += self.of_run[run_id]

    async def _read(self, look: Callable[[Reader], Result]) -> Result:
        return await asyncio.to_thread(look, self.reader)

    def _note(self, level: Level, run_id: str | None, field: str, mirror: str, server: str, cause: str) -> None:
        """Add a finding. A run that differs must be pulled again."""
        flush = (run_id,) if run_id and level is Level.DIFFERS else ()
        finding = Finding(
            level,
            run_id,
            field,
            mirror,
            server,
            cause,
            flush=flush,
            proven=level is not Level.NOTE or cause == DISAGREES,
        )
        if run_id is None:
            self.verdict.findings.append(finding)
        else:
            self.of_run.setdefault(run_id, []).append(finding)

    async def _check_file(self) -> None:
        """Compare what the file stores in two places with each other."""
        damage, values, keys = await self._read(self._damage_in_file)
        self.verdict.values += values
        self.verdict.keys += keys
        for one in damage:
            if one.run_id is None:
                self.verdict.findings.append(of_damage(one))
            else:
                self.damaged.setdefault(one.run_id, []).append(one)
        for run_id, found in self.damaged.items():
            # For a run that is stored twice, all its values look duplicated: report only the run.
            duplicates = [one for one in found if one.field == "run"]
            self.damaged[run_id] = duplicates or found
            self.of_run[run_id] = [of_damage(one) for one in self.damaged[run_id]]

    def _damage_in_file(self, reader: Reader) -> tuple[list[Damage], int, int]:
        folder = reader.home.history
        names = list(self.run_ids or self.mirrored.known)
        names = [run_id for run_id in names if run_id in self.mirrored.known]
        broken = segment_checks.segment_damage(reader, folder, self.project)
        checks.lay_history(reader, folder, broken)
        damage = list(broken.values())
        if not self.run_ids:
            blobs = Blobs(reader.home.blobs)
            damage += contents.damage(reader, blobs, self.project, deep=self.verdict.deep).values()
        values = keys = 0
        for counted in checks.history(reader, self.project, names):
            values += counted.values
            keys += counted.keys
            damage += counted.damage
        for _, found in checks.documents(reader, self.project, names):
            damage += found
        damage += checks.tags(reader, self.project) + checks.cursors(reader, self.project)
        damage += checks.wide_relation(reader, self.project) + checks.owners(reader)
        if self.run_ids:
            wanted = set(self.run_ids)
            damage = [one for one in damage if one.run_id in wanted or wanted & set(one.lost)]
        return damage, values, keys

    async def _count(self) -> int:
        """How many runs the server has. Raises NotFound if it does not have the project."""
        pages = remote.heads(self.server, self.project, scope=self.filters, filters=self.filters)
        async with aclosing(pages):
            return (await anext(pages)).total

    async def _listed(self) -> dict[str, RunRecord]:
        """Compare every record that the server lists, page by page; return the records without their documents."""
        listed: dict[str, RunRecord] = {}
        reported = False
        async with aclosing(
            remote.records(self.server, self.project, scope=self.filters, filters=self.filters, size=PageSize())
        ) as pages:
            async for page in pages:
                if not reported:
                    self.progress.runs_expected(self.project, page.total)
                    reported = True
                new = [record for record in page.runs if record.run_id not in listed]
                await self._compare_records(new)
                listed.update({record.run_id: _slim(record) for record in new})
                self.progress.runs_done(self.project, len(new))
        return listed

    async def _compare_records(self, records: Sequence[RunRecord]) -> None:
        """Compare records with the rows of the mirror, and note in `looks` which histories to compare."""
        known = self.mirrored.known
        mirrored = [record for record in records if record.run_id in known]
        rows = await self._read(lambda reader: store.rows(reader, self.project, [r.run_id for r in records]))
        counts = await self._read(
            lambda reader: store.key_counts(reader, [known[record.run_id].rid for record in mirrored])
        )
        served = expected(mirrored)
        for record in records:
            run_id = record.run_id
            self.verdict.runs += 1
            if run_id not in known:
                if run_id not in rows:
                    self._missing(record)
                continue
            run = known[run_id]
            if run.local:
                cause = "read from a local file, and on the server since; run `mirror sync`"
                self._note(Level.BEHIND, run_id, "run", "the file's run", "a separate run", cause)
                continue
            if run.deleted:
                cause = "marked by mistake, or the run was created again; --repair pulls it again"
                self._note(Level.DIFFERS, run_id, "deleted_at", f"{rows[run_id]['deleted_at']}", "the run", cause)
                continue
            if record.flaw:
                self._note(
                    Level.DIFFERS, run_id, "record", "an older record", "a record that cannot be read", record.flaw
                )
                continue
            moved = runs.moved_on(record, run)
            if moved is None and run_id not in self.damaged and _pending(run):
                moved = "the pass that pulls its history has not ended; run `mirror sync`"
            if moved:
                self.of_run.setdefault(run_id, []).append(runs.behind(record, run, moved))
            else:
                differing = runs.fields(run_id, rows[run_id], served[run_id])
                self.of_run.setdefault(run_id, []).extend(runs.while_live(differing, run))
            if run.ahead:
                cause = "a local file has more history than the server; its history is not compared"
                mirror, server = f"{run.rows:,} rows", f"{record.server_rows:,} rows"
                self._note(Level.NOTE, run_id, "history", mirror, server, cause)
                continue
            suspicions = tuple(self._suspicions(record, run, counts[run.rid], moved))
            self.looks[run_id] = Look(_slim(record), run, moved, suspicions)

    def _missing(self, record: RunRecord) -> None:
        """Note a run that the mirror lacks: new since the last pass, or never pulled."""
        covered, run_id = self.mirrored.cursor.covered_to, record.run_id
        newest = plan.newest([record], None)
        if covered is None or (newest is not None and newest > covered):
            cause = "new on the server after the last pass; run `mirror sync`"
            self._note(
                Level.BEHIND, run_id, "run", "no such run", f"{record.state}, created {record.created_at}", cause
            )
            return
        cause = "no pass pulled it, or it was lost from the file"
        server = f"{record.state}, {record.server_rows:,} rows, created {record.created_at}"
        self._note(Level.DIFFERS, run_id, "run", "no such run", server, cause)

    def _suspicions(self, record: RunRecord, run: KnownRun, counts: dict[str, int], moved: str | None) -> Iterable[str]:
        """Reasons why the run's history must be read, as texts for a note."""
        if not self.scope.history:
            return
        if run.run_id in self.damaged or run.error:
            yield "the mirror is inconsistent"
        served = record.server_keys
        if moved:
            if served is not None and any(count > served.get(key, count) for key, count in counts.items()):
                yield "the mirror counts more values than the server"
            return
        if run.rows != record.server_rows:
            yield f"the server counts {record.server_rows:,} history rows"
        last = record.server_last_step
        if last is not None and run.last_step != last:
            yield f"the server's last step is {last}"
        if served is None:
            return
        for key in sorted(served.keys() | counts.keys()):
            # Servers differ in whether they list their own keys: _step, _runtime, _timestamp.
            if key == STEP or key not in self.keys or (key.startswith("_") and key not in served):
                continue
            if served.get(key, 0) != counts.get(key, 0):
                yield f"the server counts {served.get(key, 0):,} values of {key}"

    async def _check_unlisted(self, listed: dict[str, RunRecord], known: Mapping[str, KnownRun]) -> None:
        """Request mirrored runs that the server did not list by name, and note those that are gone."""
        names = [name for name in (self.run_ids or known) if name not in listed]
        alone = {name for name in names if name in known and (known[name].deleted or known[name].local)}
        self.verdict.alone = frozenset(alone)
        suspects = [name for name in names if name in known and name not in alone]
        if unknown := [name for name in names if name not in known]:
            where = self.server.base_url
            raise NotFound(f"no run {', '.join(unknown)} in {self.project}, neither in the mirror nor on {where}")
        for start in range(0, len(suspects), MOST_RUNS):
            asked = suspects[start : start + MOST_RUNS]
            by_name = {"name": {"$in": asked}}
            present: set[str] = set()
            both = plan.both(by_name, self.filters)
            found = remote.records(self.server, self.project, scope=both, filters=both, size=PageSize())
            async with aclosing(found) as pages:
                async for page in pages:
                    await self._compare_records(page.runs)
                    present.update(record.run_id for record in page.runs)
            outside: set[str] = set()
            if self.scope.filters and len(present) < len(asked):
                listed_by_name = await heads.heads(self.server, self.project, scope=by_name, filters=by_name)
                outside.update(head.run_id for head in listed_by_name.runs)
            for name in asked:
                if name in present:
                    continue
                if name in outside:
                    cause = "it was mirrored under another filter, and is not updated any more"
                    self._note(Level.NOTE, name, "run", "the run", "the run, outside of sync.filters", cause)
                else:
                    cause = "deleted on the server; `mirror sync` marks it at the next full listing"
                    self._note(Level.DIFFERS, name, "run", f"a {known[name].state} run", "no such run", cause)

    async def _compare_histories(self, looks: Sequence[Look]) -> None:
        """Read the history of all or of suspicious runs again, and turn the differences into findings."""
        looks = [look for look in looks if self.scope.history]
        wanted = [look for look in looks if self.deep or look.suspicions]
        # A history that was truncated on the server cannot be compared with what was mirrored before.
        wanted = [look for look in wanted if not (look.moved and plan.shrank(look.record, look.known))]
        spans = [
            request_windows.Span(look.known.run_id, 0, last, look.rows) for look in wanted if (last := look.end) >= 0
        ]
        self.verdict.rows += sum(look.known.rows for look in looks)
        self.progress.rows_expected(self.project, sum(span.rows for span in spans))
        found = await history.compare(
            self.server,
            self.reader,
            self.project,
            spans,
            self.scope.history,
            lambda rows: self.progress.rows_done(self.project, rows),
        )
        self.verdict.compared += sum(compared.values for compared in found.values())
        for look in wanted:
            self._settle(look, found.get(look.known.run_id, Compared()))
        if self.deep and self.scope.system_metrics:
            names = [look.known.run_id for look in looks if not look.moved]
            async with aclosing(events.compare(self.server, self.reader, self.project, names)) as findings:
                async for run_id, finding in findings:
                    self.of_run.setdefault(run_id, []).append(finding)
        if self.deep and self.scope.console:
            names = [look.known.run_id for look in looks if not look.moved]
            async with aclosing(console.compare(self.server, self.reader, self.project, names)) as findings:
                async for run_id, finding in findings:
                    self.of_run.setdefault(run_id, []).append(finding)

    def _settle(self, look: Look, compared: Compared) -> None:
        """Turn the comparison of one run's history into findings."""
        run_id, run = look.known.run_id, look.known
        damaged = self.damaged.get(run_id, [])
        if compared.gone:
            self._note(Level.BEHIND, run_id, "run", f"a {run.state} run", "no such run", "deleted just now")
            return
        if compared.error:
            cause = f"failed, will be retried: {run.error}" if run.error else "the server's answer cannot be read"
            self._note(Level.DIFFERS, run_id, "history", f"{run.rows:,} rows", f"an error: {compared.error}", cause)
            return
        before = len(self.of_run.get(run_id, []))
        for finding in look.findings(compared, lost=bool(damaged)):
            self.of_run.setdefault(run_id, []).append(finding)
        if compared.missing or compared.extra or compared.differ:
            self._drop_explained(run_id, compared)
            return
        reported = {one.field for one in damaged}
        if not look.moved:
            if run.rows != compared.lines and "history_rows" not in reported:
                cause = "the count of rows was changed in the file, or a pass went wrong"
                self._note(Level.DIFFERS, run_id, "history_rows", f"{run.rows:,}", f"{compared.lines:,}", cause)
            last = look.record.server_last_step
            if last is not None and run.last_step != last and "last_step" not in reported:
                cause = "the cursor of the history was changed: a pass would pull rows twice or miss some"
                self._note(Level.DIFFERS, run_id, "last_step", f"{run.last_step}", f"{last}", cause)
        if look.suspicions and not damaged and len(self.of_run.get(run_id, [])) == before and not look.moved:
            server = "; ".join(look.suspicions[:3])
            self._note(
                Level.NOTE, run_id, "history", f"{compared.lines:,} rows, each equal to the server's", server, DISAGREES
            )

    def _drop_explained(self, run_id: str, compared: Compared) -> None:
        """Remove findings on counts within the file that missing rows or values already explain."""
        keys = {f"history.{key}" for key, _ in compared.differ}
        whole = bool(compared.missing or compared.extra)

        def explained(finding: Finding) -> bool:
            count = finding.by == "mirror" and "history_keys" in finding.expected
            return count and (whole or any(finding.field.startswith(key) for key in keys))

        self.of_run[run_id] = [finding for finding in self.of_run[run_id] if not explained(finding)]

    async def _compare_changed(self) -> None:
        """Compare runs again that changed on the server during the comparison."""
        names = [
            run_id
            for run_id, found in self.of_run.items()
            if run_id in self.looks and any(one.level is Level.DIFFERS and one.by == "server" for one in found)
        ]
        changed: list[RunRecord] = []
        for start in range(0, len(names), MOST_RUNS):
            by_name = {"name": {"$in": names[start : start + MOST_RUNS]}}
            found = remote.records(self.server, self.project, scope=by_name, filters=by_name, size=PageSize())
            async with aclosing(found) as pages:
                async for page in pages:
                    looks = self.looks
                    changed += [one for one in page.runs if _head(one) != _head(looks[one.run_id].record)]
        for record in changed:
            self.of_run[record.run_id] = [of_damage(one) for one in self.damaged.get(record.run_id, [])]
            del self.looks[record.run_id]
        if changed:
            self.verdict.runs -= len(changed)
            self.verdict.rows -= sum(self.mirrored.known[record.run_id].rows for record in changed)
            await self._compare_records(changed)
            await self._compare_histories([self.looks[r.run_id] for r in changed if r.run_id in self.looks])


def _pending(run: KnownRun) -> bool:
    """Return True if some history was never pulled yet; a gap in what was pulled does not count."""
    if run.error or plan.need(run, utc_now()) is None:
        return False
    return run.refresh or run.last_step is None or run.last_step != run.server_last_step


def _slim(record: RunRecord) -> RunRecord:
    """The record without its documents, to save memory."""
    return replace(record, config={}, config_meta=None, summary={})


def _head(record: RunRecord) -> tuple[Any, ...]:
    return record.state, record.heartbeat_at, record.updated_at, record.server_rows
