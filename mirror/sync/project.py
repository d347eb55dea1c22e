"""One pass over one project: list the changed runs, pull their records, then what is missing of their history."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from difflib import get_close_matches

from msgspec.structs import replace

from mirror.errors import MirrorError
from mirror.protocol import LIVE_STATES
from mirror.remote.about import About
from mirror.remote.client import NotFound
from mirror.remote.errors import NoProject
from mirror.remote.run_records import RunHead
from mirror.store import artifacts as stored_artifacts
from mirror.store import console as stored_console
from mirror.store import history_cursors, projects, refresh
from mirror.store import runs as stored_runs
from mirror.store.records import KnownRun, ProjectKey
from mirror.store.transaction import Transaction
from mirror.sync import artifacts, console_and_files, facts, history, key_scope, plan, reports, sweeps
from mirror.sync import heads as listing
from mirror.sync.context import Context, PassResult, utc_now
from mirror.sync.early import EarlyRecords
from mirror.sync.flaws import unexpected
from mirror.sync.heads import Listed
from mirror.sync.records import Records

log = logging.getLogger("mirror.sync")


async def sync_project(
    context: Context,
    project: ProjectKey,
    *,
    run_ids: Sequence[str] = (),
    afresh: bool = False,
    since: datetime | None = None,
) -> PassResult:
    """Bring one project, or some of its runs, up to date. A failure is returned in the result, never raised.

    With `afresh`, everything is pulled again, whether it seems changed or not; readers see the old values until the new
    ones are complete. With `since`, runs that neither started nor logged since then are left for a later pass without
    it: this pass does not move the cursor, and does not count as a success of the whole project.
    """
    started = time.monotonic()
    requests = context.server.count_requests(str(project))
    one_pass = _Pass(context, project)
    whole = not run_ids
    try:
        if afresh:
            await forget(context, project, run_ids)
        await one_pass.begin()
        if run_ids:
            await one_pass.pull_named(run_ids)
        elif since is not None and plan.leaves_out(one_pass.records.cursor, since):
            whole = False
            await one_pass.pull_recent(since)
        else:
            await one_pass.pull_changed(afresh=afresh)
        await one_pass.store_facts()
        await one_pass.pull_the_rest()
    except MirrorError as error:
        if isinstance(error, NoProject):
            mirrored = await context.writer.read(projects.everything)
            error = error.among([*map(str, mirrored), *context.configured])
        one_pass.result.error = str(error)
        one_pass.result.failure = error
        one_pass.result.exit_code = error.exit_code
    except Exception as error:
        # The passes over other projects must go on.
        log.exception("the pass over %s ended with an unexpected error", project)
        one_pass.result.error = unexpected(project, error)
        one_pass.result.exit_code = MirrorError.exit_code
    result = one_pass.result
    result.requests = requests.total() + one_pass.early_requests.total()
    result.seconds = time.monotonic() - started
    await one_pass.end(whole=whole)
    context.progress.finished(result)
    return result


async def forget(context: Context, project: ProjectKey, run_ids: Sequence[str] = ()) -> bool:
    """Mark everything that is mirrored of the project, or of these runs, to be pulled again by the next pass.

    Returns True if anything is mirrored of it. Readers see the old values until then. The mark survives the end of the
    process.
    """

    def write(tx: Transaction) -> None:
        wanted = [
            run.run_id
            for run in known.values()
            if not (run.deleted or run.local or run.ahead) and (not run_ids or run.run_id in run_ids)
        ]
        refresh.request(tx, project, wanted)
        if not run_ids:
            projects.pull_again(tx, project)
            stored_artifacts.request(tx, project)

    known, number = await context.writer.read(lambda db: (stored_runs.known(db, project), projects.find(db, project)))
    if number is None or (run_ids and not known.keys() & set(run_ids)):
        return False
    await context.writer.write(write)
    return True


class _Pass:
    """The steps of one pass and what they share."""

    def __init__(self, context: Context, project: ProjectKey) -> None:
        self.context = context
        self.project = project
        self.result = PassResult(project)
        self.records = Records(context, project, self.result)
        self.among: set[str] | None = None
        self.seen: set[str] | None = None
        self.about: About | None = None
        self.early_requests: Counter[str] = Counter()
        self.listed_all = False
        self.on_server = 0
        self.unsettled: dict[str, KnownRun] = {}
        self.unchanged = False

    async def begin(self) -> None:
        """Read the mirror's state. A project is added to the store only once the server has shown that it exists."""
        early = self.context.early.pop(self.project, None)
        self.about = await facts.due(self.context, self.project) if early is None else early.about
        self.unsettled, (self.records.mirrored, self.on_server), self.records.cursor = await self.context.writer.read(
            lambda db: (
                stored_runs.unsettled(db, self.project),
                stored_runs.count(db, self.project),
                projects.cursor(db, self.project),
            )
        )
        self.records.known = dict(self.unsettled)
        if early is not None:
            await self._use(early)
        app = self.context.server.app_url
        if await self.context.writer.read(lambda db: db.cached.app_urls.get(self.project)) != app:
            await self.context.writer.write(lambda tx: stored_runs.set_app_url(tx, self.project, app))
        # While no history is mirrored, the existing one still has the old globs.
        if self.context.scope.history and self.records.cursor.history != self.context.scope.history_text:
            former, self.records.cursor = (
                self.records.cursor,
                replace(self.records.cursor, history=self.context.scope.history_text),
            )
            if self.records.mirrored:
                await self._apply_globs(former.history)

    async def _use(self, early: EarlyRecords) -> None:
        """Use the records that were requested before the store was open, if this pass is to request the same."""
        self.early_requests = early.requests
        if self.records.mirrored or self.records.cursor.covered_to is not None:
            await early.close()
            self.about = await facts.due(self.context, self.project)
        else:
            self.records.early, self.records.size = early, early.size
            self.context.sizes[self.project] = early.size

    async def _apply_globs(self, former: str | None) -> None:
        """Mark the runs whose history lacks keys of the new globs to be pulled again, and store the new globs."""
        again = []
        if former is not None and plan.widened(former, self.context.scope.history):
            writer = self.context.writer
            await self.records.read_known()
            again = await key_scope.lacking(
                self.context.server,
                self.project,
                self.records.known,
                (former, self.context.scope.history),
                lambda names: writer.read(lambda db: stored_runs.key_rows(db, self.project, names)),
            )

        def write(tx: Transaction) -> None:
            refresh.request_history(tx, self.project, again)
            projects.set_cursor(tx, self.project, self.records.cursor)

        await self.context.writer.write(write)
        if again:
            await self.records.read_known()

    async def pull_changed(self, *, afresh: bool) -> None:
        """Find the changed runs and pull their records; the cursor moves with the last of them."""
        covered_to = self.records.cursor.covered_to
        everything = covered_to is None
        if everything and (afresh or not self.records.mirrored):
            total = await self.records.pull_matching(self.records.scope, self.about)
        else:
            listed = await listing.changed(
                self.context.server,
                self.project,
                self.records.cursor,
                self.records.known,
                self.records.scope,
                self.about,
            )
            total = listed.total
            self.seen = {head.run_id for head in listed.runs}
            await self.records.look_up(self.seen)
            covered_to = plan.covered(listed.runs, listed.known_to, covered_to)
            if wanted := plan.decide(self.records.known, listed.runs, server_now=listed.asked_at, now=utc_now()).pull:
                await self.records.pull_by_name(wanted, covered_to)
            else:
                # What was read at the start is still true, and reading it again is a fifth of a pass over nothing new.
                self.unchanged = not self.records.reread
                if covered_to != self.records.cursor.covered_to:
                    await self.records.move_cursor(covered_to)
        await self._reconcile_if_due(total)

    async def pull_recent(self, since: datetime) -> None:
        """Pull the changed ones of the runs that started or logged since; the cursor stays, nothing is reconciled."""
        listed = await self._heads(plan.recent_filter(since, self.records.scope))
        self.among = {head.run_id for head in listed.runs}
        await self.records.look_up(self.among)
        self.result.older = max(listed.total - len(listed.runs), 0)
        if wanted := self._new(listed.runs):
            await self.records.pull_by_name(wanted, None)

    def _new(self, heads: Iterable[RunHead]) -> list[str]:
        return [head.run_id for head in heads if plan.is_new(head, self.records.known.get(head.run_id))]

    async def _heads(self, filters: dict[str, object]) -> Listed:
        return await listing.heads(self.context.server, self.project, scope=self.records.scope, filters=filters)

    async def pull_named(self, run_ids: Sequence[str]) -> None:
        """Pull only these runs, regardless of the config's filter; the project's cursor does not move."""
        self.among = set(run_ids)
        await self.records.look_up(self.among)
        self.context.progress.runs_expected(self.project, len(run_ids))
        records = await self.records.all_of({}, {"name": {"$in": list(run_ids)}}, self.about)
        await self.records.upsert(records, None)
        if self.context.scope.files:
            # Also of live runs, whose lists wait for their turn otherwise: files may be why the run was named.
            named = list(self.among)
            await self.context.writer.write(lambda tx: stored_console.forget_lists(tx, self.project, named))
        missing = set(run_ids) - {record.run_id for record in records}
        mirrored = sorted(
            run_id for run_id in missing & self.records.known.keys() if not self.records.known[run_id].local
        )
        if mirrored:
            await self.records.mark_deleted(mirrored)
        if unknown := sorted(missing - self.records.known.keys()):
            where = self.context.server.base_url
            known = await self.context.writer.read(lambda db: stored_runs.known(db, self.project))
            near = get_close_matches(unknown[0], known, n=1)
            hint = f"did you mean {near[0]}?" if near else "the last part of a path is a run id"
            raise NotFound(f"no run {', '.join(unknown)} in {self.project} on {where}; {hint}")

    async def _reconcile_if_due(self, total: int) -> None:
        """List all runs if that is due: by time, after a change of the filter, or if the server's count differs."""
        scope = self.context.scope
        if plan.lists_all(
            self.records.cursor,
            filters=scope.filters_text,
            interval=scope.reconcile_interval,
            on_server=self.on_server if self.unchanged else await self._on_server(),
            total=total,
            now=utc_now(),
        ):
            await self._reconcile()
        elif self.records.cursor.reconciled_at is None:
            await self._reconciled(None)

    async def _on_server(self) -> int:
        """Return how many mirrored runs should exist on the server."""
        return (await self.context.writer.read(lambda db: stored_runs.count(db, self.project)))[1]

    async def _reconcile(self) -> None:
        """List every run: pull those with silent edits, mark the deleted ones."""
        self.listed_all, self.unchanged = True, False
        await self.records.read_known()
        listed = await self._heads(self.records.scope)
        ids = self.seen = {head.run_id for head in listed.runs}
        suspects = plan.gone(self.records.known, ids)
        wanted = self._new(listed.runs)
        # A listing that changes while it is paged may miss a run, so each is checked by name before it is deleted.
        if suspects:
            present = await listing.present(self.context.server, self.project, suspects, self.records.scope)
            wanted += sorted(present)
            if gone := [run_id for run_id in suspects if run_id not in present]:
                await self.records.mark_deleted(gone)
        if wanted:
            await self.records.pull_by_name(wanted, self.records.cursor.covered_to)
        await self._reconciled(None if await self._on_server() == listed.total else listed.total)

    async def _reconciled(self, unexplained_runs: int | None) -> None:
        cursor = replace(
            self.records.cursor,
            reconciled_at=utc_now(),
            unexplained_runs=unexplained_runs,
            filters=self.context.scope.filters_text,
        )

        def write(tx: Transaction) -> None:
            projects.set_cursor(tx, self.project, cursor)

        await self.context.writer.write(write)
        self.records.cursor = cursor

    async def store_facts(self) -> None:
        """Store the facts of project and server that came with the runs, and pull those that an older version lacks."""
        assert self.about is not None
        await facts.keep(self.context, self.project, self.about)
        await facts.complete(self.context, self.project)
        await sweeps.pull(self.context, self.project, self.about, self.records.changed, listed_all=self.listed_all)
        await reports.pull(self.context, self.project, listed_all=self.listed_all)

    async def pull_the_rest(self) -> None:
        """Pull what is missing of the history, console, files and system metrics of the runs of this pass."""
        now = utc_now()
        among = self.among
        selected = (
            self.unsettled
            if self.unchanged
            else await self.context.writer.read(
                lambda db: (
                    stored_runs.unsettled(db, self.project)
                    if among is None
                    else stored_runs.known(db, self.project, among)
                )
            )
        )
        runs = list(selected.values())
        # A live run that a new filter excludes must not make the daemon poll as if it were still mirrored.
        self.result.live = sum(
            run.state in LIVE_STATES
            and not run.deleted
            and not run.local
            and (self.seen is None or run.run_id in self.seen)
            for run in runs
        )
        if recovered := [run.run_id for run in runs if plan.has_recovered(run, now)]:
            await self.context.writer.write(lambda tx: history_cursors.forget_failures(tx, self.project, recovered))
        if self.context.scope.history:
            needs = [need for run in runs if (need := plan.need(run, now))]
            if needs:
                await history.pull(self.context, self.project, needs, self.result)
        for run in runs:
            if run.error and run.run_id not in self.result.failed and run.next_try_at and plan.waits(run, now):
                self.result.failed[run.run_id] = f"{run.error} (next try at {run.next_try_at:%Y-%m-%d %H:%M} UTC)"
        if self.context.scope.history:
            await facts.find_exports(
                self.context, self.project, None if self.listed_all else sorted(self.records.changed)
            )
        await console_and_files.pull(
            self.context, self.project, changed=self.records.changed, among=among, result=self.result
        )
        await artifacts.pull(self.context, self.project, among=among, began=now, result=self.result)

    async def end(self, *, whole: bool) -> None:
        """Record the outcome of a pass over a `whole` project, if the store knows the project."""
        result, now = self.result, utc_now()
        error = result.error
        if not whole:
            return

        def write(tx: Transaction) -> None:
            if error is None:
                projects.record_success(tx, self.project, now)
            else:
                projects.record_failure(tx, self.project, error, now)

        try:
            known = await self.context.writer.read(lambda db: projects.find(db, self.project))
            if known is not None:
                await self.context.writer.write(write)
        except MirrorError as problem:
            if result.error is None:
                result.error, result.exit_code = str(problem), problem.exit_code
        except Exception as problem:
            log.exception("the outcome of the pass over %s could not be recorded", self.project)
            if result.error is None:
                result.error, result.exit_code = unexpected(self.project, problem), MirrorError.exit_code
