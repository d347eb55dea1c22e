"""One pass over one project: list what changed, take it, pull what is missing of its history."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime

from mirror.errors import MirrorError
from mirror.remote import columns
from mirror.remote import history as remote_history
from mirror.remote import runs as remote
from mirror.remote.client import FeatureMissing, NotFound
from mirror.remote.runs import PageSize, RunHead
from mirror.store.records import KnownRun, ProjectCursor, ProjectKey, RunRecord
from mirror.store.writes import Writes
from mirror.sync import history, plan
from mirror.sync.context import Context, PassResult, utc_now


async def sync_project(
    context: Context, project: ProjectKey, *, run_ids: Sequence[str] = (), afresh: bool = False
) -> PassResult:
    """Bring one project, or some of its runs, up to date. Never raises for what went wrong on the server's side.

    With `afresh`, everything that was asked for is taken again, whether it seems changed or not; readers see the old
    values until the new ones are whole.
    """
    started = time.monotonic()
    requests = context.server.count_requests(str(project))
    one_pass = _Pass(context, project)
    try:
        if afresh:
            await forget(context, project, run_ids)
        await one_pass.begin()
        if run_ids:
            await one_pass.take_named(run_ids)
        else:
            await one_pass.take_changed(afresh=afresh)
        await one_pass.pull_history(run_ids)
    except MirrorError as error:
        one_pass.result.error = str(error)
        one_pass.result.exit_code = error.exit_code
    result = one_pass.result
    result.requests = requests.total()
    result.seconds = time.monotonic() - started
    await one_pass.end(whole=not run_ids)
    context.progress.finished(result)
    return result


async def forget(context: Context, project: ProjectKey, run_ids: Sequence[str] = ()) -> None:
    """Have everything that is mirrored of the project, or of these runs, pulled again by the next pass.

    Readers see the old values until then. A process that is killed after this goes on with it the next time.
    """

    def write(tx: Writes) -> None:
        wanted = [
            run.run_id
            for run in known.values()
            if not (run.deleted or run.local or run.ahead) and (not run_ids or run.run_id in run_ids)
        ]
        tx.request_refresh(project, wanted)
        if not run_ids:
            tx.set_cursor(project, ProjectCursor())

    known = await context.writer.read(lambda store: store.known_runs(project))
    if known:
        await context.writer.write(write)


class _Pass:
    """The steps of one pass and what they share."""

    def __init__(self, context: Context, project: ProjectKey) -> None:
        self.context = context
        self.project = project
        self.scope = dict(context.scope.filters)
        self.result = PassResult(project)
        self.size = PageSize()
        self.known: dict[str, KnownRun] = {}
        self.cursor = ProjectCursor()
        self.changed: set[str] = set()

    async def begin(self) -> None:
        """Read what the mirror holds. A project enters the store once the server has shown that it exists."""
        self.known, self.cursor = await self.context.writer.read(
            lambda store: (store.known_runs(self.project), store.cursor(self.project))
        )

    async def take_changed(self, *, afresh: bool) -> None:
        """Find the runs that changed and take their records; the cursor moves with the last of them."""
        covered_to = self.cursor.covered_to
        everything = covered_to is None
        if everything and (afresh or not self.known):
            total = await self._take(self.scope, last=None)
        else:
            listed, total = await self._list(everything=everything)
            covered_to = plan.newest(listed, covered_to)
            wanted = [head.run_id for head in listed if plan.is_new(head, self.known.get(head.run_id))]
            if wanted:
                await self._take_by_name(wanted, covered_to)
            elif covered_to != self.cursor.covered_to:
                await self._move_cursor(covered_to)
        await self._reconcile_if_due(total)

    async def _list(self, *, everything: bool) -> tuple[list[RunHead], int]:
        if everything:
            return await self._heads(self.scope)
        live = plan.live(self.known)
        lacks = self.context.server.lacks
        if "updatedAt filter" not in lacks:
            try:
                return await self._heads(plan.poll_filter(self.cursor, live, self.scope))
            except FeatureMissing:
                lacks.add("updatedAt filter")
        return await self._heads(plan.poll_filter(self.cursor, live, self.scope, by_update=False))

    async def _heads(self, filters: dict[str, object]) -> tuple[list[RunHead], int]:
        found: dict[str, RunHead] = {}
        total = 0
        async for page in remote.heads(self.context.server, self.project, scope=self.scope, filters=filters):
            found.update({head.run_id: head for head in page.runs})
            total = page.total
        return list(found.values()), total

    async def _take(self, filters: dict[str, object], *, last: datetime | None) -> int:
        """Take every record that matches, page by page; the cursor is committed with the last page."""
        held: list[RunRecord] | None = None
        total = 0
        expected = 0
        async for page in remote.records(
            self.context.server, self.project, scope=self.scope, filters=filters, size=self.size
        ):
            if not expected:
                expected = page.total
                self.context.progress.runs_expected(self.project, expected)
            if held is not None:
                await self._upsert(held, None)
            held = page.runs
            total = page.total
            last = plan.newest(page.runs, last)
        await self._upsert(held or [], last)
        return total

    async def _take_by_name(self, wanted: Sequence[str], covered_to: datetime | None) -> None:
        """Take the records of these runs; the cursor is committed with the last of them."""
        self.context.progress.runs_expected(self.project, len(wanted))
        start = 0
        while start < len(wanted):
            names = list(wanted[start : start + self.size.runs])
            filters = plan.both({"name": {"$in": names}}, self.scope)
            found: list[RunRecord] = []
            async for page in remote.records(
                self.context.server, self.project, scope=self.scope, filters=filters, size=self.size
            ):
                found += page.runs
            start += len(names)
            await self._upsert(found, covered_to if start >= len(wanted) else None)

    async def take_named(self, run_ids: Sequence[str]) -> None:
        """Take just these runs, whatever the config's filter says; the project's cursor stays where it is."""
        self.context.progress.runs_expected(self.project, len(run_ids))
        found: list[RunRecord] = []
        async for page in remote.records(
            self.context.server,
            self.project,
            scope={},
            filters={"name": {"$in": list(run_ids)}},
            size=self.size,
        ):
            found += page.runs
        await self._upsert(found, None)
        missing = set(run_ids) - {record.run_id for record in found}
        mirrored = sorted(run_id for run_id in missing & self.known.keys() if not self.known[run_id].local)
        if mirrored:
            await self._mark_deleted(mirrored)
        if unknown := sorted(missing - self.known.keys()):
            where = self.context.server.base_url
            raise NotFound(
                f"no run {', '.join(unknown)} in {self.project} on {where}; the last part of a path is a run id"
            )

    async def _upsert(self, records: Sequence[RunRecord], covered_to: datetime | None) -> None:
        """Commit records, and the cursor that covers them."""
        now = utc_now()

        def write(tx: Writes) -> None:
            tx.add_project(self.project)
            tx.upsert_runs(records, now=now)
            tx.adopt_local(self.project, records)
            shrunk = [record.run_id for record in records if plan.shrank(record, self.known.get(record.run_id))]
            if shrunk:
                tx.request_refresh(self.project, shrunk)
            if covered_to is not None:
                tx.set_cursor(self.project, self._cursor(covered_to))

        await self.context.writer.write(write)
        if covered_to is not None:
            self.cursor = self._cursor(covered_to)
        self.changed.update(record.run_id for record in records)
        self.result.runs += len(records)
        self.result.new_runs += sum(record.run_id not in self.known for record in records)
        self.context.progress.runs_done(self.project, len(records))

    def _cursor(self, covered_to: datetime | None) -> ProjectCursor:
        return ProjectCursor(covered_to, self.cursor.reconciled_at, self.cursor.unexplained_runs)

    async def _move_cursor(self, covered_to: datetime | None) -> None:
        cursor = self._cursor(covered_to)
        await self.context.writer.write(lambda tx: tx.set_cursor(self.project, cursor))
        self.cursor = cursor

    async def _reconcile_if_due(self, total: int) -> None:
        """A full listing when its time has come, or at once when the server counts other runs than the mirror."""
        if self.changed:
            await self._read_known()
        at = self.cursor.reconciled_at
        due = at is not None and (utc_now() - at).total_seconds() >= self.context.scope.reconcile_interval
        if due or (self._mirrored() != total and total != self.cursor.unexplained_runs):
            await self._reconcile()
        elif at is None:
            await self._reconciled(None)

    async def _read_known(self) -> None:
        self.known = await self.context.writer.read(lambda store: store.known_runs(self.project))

    def _mirrored(self) -> int:
        return sum(not run.deleted and not run.local for run in self.known.values())

    async def _reconcile(self) -> None:
        """List every run: take those with silent edits, mark those that are gone."""
        listed, total = await self._heads(self.scope)
        ids = {head.run_id for head in listed}
        suspects = [
            run.run_id for run in self.known.values() if not run.deleted and not run.local and run.run_id not in ids
        ]
        wanted = [head.run_id for head in listed if plan.is_new(head, self.known.get(head.run_id))]
        # A listing that changes while it is paged may miss a run, so each is asked for by name before it is given up.
        if suspects:
            present: set[str] = set()
            for start in range(0, len(suspects), remote.MOST_RUNS):
                names = suspects[start : start + remote.MOST_RUNS]
                # Without the scope: a run that the config's filter no longer takes in is not gone.
                found, _ = await self._heads({"name": {"$in": names}})
                present.update(head.run_id for head in found)
            wanted += sorted(present)
            if gone := [run_id for run_id in suspects if run_id not in present]:
                await self._mark_deleted(gone)
        if wanted:
            await self._take_by_name(wanted, self.cursor.covered_to)
        await self._read_known()
        await self._reconciled(None if self._mirrored() == total else total)

    async def _reconciled(self, unexplained_runs: int | None) -> None:
        cursor = ProjectCursor(self.cursor.covered_to, utc_now(), unexplained_runs)

        def write(tx: Writes) -> None:
            tx.add_project(self.project)
            tx.set_cursor(self.project, cursor)

        await self.context.writer.write(write)
        self.cursor = cursor

    async def _mark_deleted(self, run_ids: Sequence[str]) -> None:
        now = utc_now()
        await self.context.writer.write(lambda tx: tx.mark_deleted(self.project, run_ids, at=now))
        self.result.deleted += len(run_ids)

    async def pull_history(self, run_ids: Sequence[str]) -> None:
        """Pull what is missing of the history of the runs in scope, and their system metrics when asked for."""
        if self.changed or run_ids:
            await self._read_known()
        now = utc_now()
        wanted = set(run_ids)
        in_scope = [run for run in self.known.values() if not wanted or run.run_id in wanted]
        self.result.live = sum(run.state in plan.LIVE_STATES and not run.deleted and not run.local for run in in_scope)
        if self.context.scope.history:
            needs = [need for run in in_scope if (need := plan.need(run, now))]
            if needs:
                await history.pull(self.context, self.project, needs, self.result)
        for run in in_scope:
            if run.error and run.run_id not in self.result.failed and run.next_try_at and run.next_try_at > now:
                self.result.failed[run.run_id] = f"{run.error} (next try at {run.next_try_at:%Y-%m-%d %H:%M} UTC)"
        if self.context.scope.system_metrics and self.changed:
            await self._pull_events(sorted(self.changed & {run.run_id for run in in_scope}))

    async def _pull_events(self, run_ids: Sequence[str]) -> None:
        for start in range(0, len(run_ids), plan.REQUEST_RUNS):
            names = run_ids[start : start + plan.REQUEST_RUNS]
            found = await remote_history.fetch_events(self.context.server, self.project, names)
            pages = [columns.parse_events(run_id, texts) for run_id, texts in found.items() if texts]

            def write(tx: Writes, pages: Sequence[object] = tuple(pages)) -> None:
                for page in pages:
                    tx.replace_system_metrics(self.project, page)  # type: ignore[arg-type]

            await self.context.writer.write(write)

    async def end(self, *, whole: bool) -> None:
        """Record how a pass over a whole project ended, for a project that the store knows."""
        result, now = self.result, utc_now()
        error = result.error
        if not whole:
            return

        def write(tx: Writes) -> None:
            if error is None:
                tx.record_success(self.project, now)
            else:
                tx.record_failure(self.project, error, now)

        try:
            known = await self.context.writer.read(lambda store: self.project in store.projects())
            if known:
                await self.context.writer.write(write)
        except MirrorError as problem:
            if result.error is None:
                result.error, result.exit_code = str(problem), problem.exit_code
