"""What one transaction can write: rows and the cursors that cover them, always together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from mirror.store import (
    console,
    facts,
    history,
    local,
    metadata,
    projects,
    repair,
    rids,
    runs,
    segments,
    staging,
    views,
)
from mirror.store.bulk import Straight
from mirror.store.database import Database
from mirror.store.records import (
    ConsolePage,
    HistoryPage,
    LocalFile,
    LocalRun,
    ProjectCursor,
    ProjectKey,
    RunExtras,
    RunFacts,
    RunFile,
    RunRecord,
)


class Writes:
    """The verbs of an open transaction; all of it is committed, or nothing. Made by `Store.transaction`."""

    def __init__(self, db: Database, folder: Path, tail_values: int) -> None:
        self._db = db
        self._tail_values = tail_values
        self.written: set[ProjectKey] = set()
        self._folder = folder
        self._forgotten: dict[int, int] = {}
        self._views_changed = False

    def finish(self) -> None:
        """Bring the views in line with what was written; the last thing before the commit."""
        if self._views_changed:
            views.recreate(self._db, self._folder)

    def _straight(self, to_come: int = 0) -> Straight:
        return Straight(self._folder, self._tail_values, to_come)

    def add_project(self, project: ProjectKey) -> None:
        """Let the project be in the store, even while it has no runs."""
        if projects.find(self._db, project) is None:
            projects.add(self._db, project)
            self.written.add(project)

    def upsert_runs(self, records: Sequence[RunRecord], *, now: datetime) -> None:
        """Write runs with their documents and tags in place of what was mirrored of them.

        What changed in runs that were mirrored before is recorded, but for the summaries of live runs. A run that was
        marked as deleted is there again.
        """
        runs.upsert(self._db, records, now)
        self.written |= {ProjectKey(record.entity, record.project) for record in records}

    def settle_records(self, project: ProjectKey, run_ids: Sequence[str]) -> None:
        """Note that what is mirrored of these runs' records is all that the server gives of them."""
        runs.settle(self._db, project, run_ids)

    def lead_to(self, project: ProjectKey, app_url: str) -> None:
        """Have the addresses of all runs of the project lead to the app there."""
        runs.lead_to(self._db, project, app_url)

    def mark_deleted(self, project: ProjectKey, run_ids: Sequence[str], *, at: datetime) -> None:
        """Note that the server no longer has these runs; everything mirrored of them stays."""
        runs.mark_deleted(self._db, project, run_ids, at)

    def append_history(self, project: ProjectKey, pages: Sequence[HistoryPage], *, to_come: int = 0) -> None:
        """Add the lines behind each run's last mirrored step; lines that are there already are left out.

        `to_come` is how many values are expected to follow: many of a history that outgrows the tail go straight into
        a segment. Earlier failures of these runs are forgotten. Raises StoreError for a run whose record was never
        written.
        """
        straight = self._straight(to_come)
        self._forgotten |= history.append(self._db, project, pages, straight)
        self._views_changed |= straight.taken

    def stage_history(self, project: ProjectKey, pages: Sequence[HistoryPage], *, to_come: int = 0) -> None:
        """Gather lines that readers do not see until `swap_history`, behind what is gathered of each run already.

        `to_come` is how many values are expected to follow, as for `append_history`.
        """
        staging.stage(self._db, project, pages, self._straight(to_come))

    def staged(self, project: ProjectKey, run_id: str) -> tuple[int, int | None]:
        """How many lines of the run are gathered, and up to which step."""
        cursor = staging.staged(self._db, history.find(self._db, project, [run_id])[run_id].rid)
        return cursor.rows, cursor.last_step

    def swap_history(self, project: ProjectKey, run_id: str, *, rows: int, last_step: int | None) -> None:
        """Put what is gathered of the run in place of its whole mirrored history, and forget earlier failures."""
        attempts, changed = staging.swap(self._db, project, run_id, rows, last_step, self._straight())
        self._forgotten |= attempts
        self._views_changed |= changed

    def cut_history(self, project: ProjectKey, run_id: str, *, last_step: int) -> None:
        """Drop what is mirrored of the run's history behind a step. Raises StoreError where a segment is damaged."""
        if last_step >= 0:
            segments.check_run(self._db, self._folder, project, run_id)
        self._views_changed |= staging.cut(self._db, project, run_id, last_step, self._straight())

    def request_refresh(self, project: ProjectKey, run_ids: Sequence[str]) -> None:
        """Have these runs pulled again as a whole, from the start and at once, even if they were set aside.

        Also what else is mirrored of them: system metrics, console, metadata file, list of files.
        """
        console.forget(self._db, rids.find(self._db, project, run_ids).values())
        self.refresh_history(project, run_ids)

    def refresh_history(self, project: ProjectKey, run_ids: Sequence[str]) -> None:
        """Have the history of these runs pulled again from the start and at once, even if they were set aside."""
        cursors = history.find(self._db, project, run_ids).values()
        staging.drop(self._db, [cursor.rid for cursor in cursors])
        for cursor in cursors:
            cursor.refresh, cursor.next_try_at = True, None
        history.save(self._db, cursors)

    def set_aside(self, project: ProjectKey, run_id: str, *, error: str, next_try_at: datetime) -> None:
        """Note that the run's history could not be had, and when to try again.

        Counts one attempt more, also on top of those that a write in this transaction has just forgotten.
        """
        cursor = history.find(self._db, project, [run_id])[run_id]
        cursor.attempts = self._forgotten.pop(cursor.rid, cursor.attempts) + 1
        cursor.error, cursor.next_try_at = error, next_try_at
        history.save(self._db, [cursor])

    def forget_failures(self, project: ProjectKey, run_ids: Sequence[str]) -> None:
        """Note that nothing is wrong with these runs any more."""
        cursors = list(history.find(self._db, project, run_ids).values())
        for cursor in cursors:
            cursor.succeeded()
        history.save(self._db, cursors)

    def replace_system_metrics(self, project: ProjectKey, page: HistoryPage) -> None:
        """Put the page in place of all that is mirrored of its run's system metrics."""
        history.replace_system_metrics(self._db, project, page)

    def append_system_metrics(self, project: ProjectKey, page: HistoryPage) -> None:
        """Add the page to what is mirrored of its run's system metrics."""
        history.append_system_metrics(self._db, project, page)

    def local_runs(self, project: ProjectKey, run_ids: Sequence[str]) -> dict[str, LocalRun]:
        """How each of these runs stands, if it is mirrored."""
        return local.find(self._db, project, run_ids)

    def mark_local(self, found: Sequence[tuple[LocalRun, str]]) -> None:
        """Mark runs as read from local files, each with what reading goes on from, as text."""
        local.save(self._db, found)

    def save_local_files(self, files: Sequence[LocalFile]) -> None:
        """Note how far these files are read."""
        local.save_files(self._db, files)

    def forget_local_files(self, paths: Sequence[str]) -> None:
        """Know nothing more of these files; what was read from them stays."""
        local.forget_files(self._db, paths)

    def forget_run(self, project: ProjectKey, run_id: str) -> None:
        """Remove a run and everything that is mirrored of it."""
        self._views_changed |= local.forget(self._db, project, run_id)
        self.written.add(project)

    def adopt_local(self, project: ProjectKey, records: Sequence[RunRecord]) -> None:
        """See which local runs the server now holds, its records being written already.

        Those of which it has the whole history are pulled again as a whole and are no longer marked. The mirrored
        history of the others stays until the server has as much.
        """
        complete, hidden = local.adopt(self._db, project, records)
        self._views_changed |= hidden
        if complete:
            self.request_refresh(project, complete)

    def put_console(self, project: ProjectKey, pages: Sequence[ConsolePage]) -> None:
        """Put each page in place of the lines that it covers; a last page also of all that follow."""
        console.put_console(self._db, project, pages)

    def put_file_lists(self, project: ProjectKey, files: Mapping[str, Sequence[RunFile]]) -> None:
        """Put these lists, by run, in place of what was known of their files."""
        console.put_files(self._db, project, files)

    def put_metadata_files(
        self,
        project: ProjectKey,
        documents: Mapping[str, dict[str, Any] | None],
        nodes: Mapping[str, dict[str, Any]] | None = None,
    ) -> None:
        """Put what the metadata file of each run holds in place of what it held; None where there is no file.

        Its host and git commit stand in for those that a run itself does not tell. `nodes` are their entries in the
        lists of files, as the server tells them.
        """
        metadata.put_files(self._db, project, documents)
        metadata.put_nodes(self._db, project, nodes or {})

    def set_extras(self, entries: Sequence[RunExtras]) -> None:
        """Note how far the system metrics, console and file of these runs are taken, in place of what was noted."""
        console.save(self._db, entries)

    def keep_project_facts(self, project: ProjectKey, told: Mapping[str, Any]) -> None:
        """Put what the server tells of the project in place of what it told before."""
        self.add_project(project)
        facts.keep_project(self._db, project, told)

    def keep_server_facts(self, base_url: str, told: Mapping[str, Any], *, at: datetime) -> None:
        """Put what the server tells of itself, and of whoever holds the key, in place of what it told before."""
        facts.keep_server(self._db, base_url, told, at)

    def keep_run_facts(self, project: ProjectKey, told: Mapping[str, RunFacts]) -> None:
        """Put what the server tells of these runs, by run id, in place of what it told before."""
        facts.keep_of_names(self._db, project, told)

    def keep_exports(self, project: ProjectKey, exported: Mapping[str, int]) -> None:
        """Note up to which step the server has exported the history of these runs, by run id."""
        facts.keep_exports(self._db, project, exported)

    def forget_file_lists(self, project: ProjectKey, run_ids: Sequence[str]) -> None:
        """Have the lists of files of these runs pulled again; what is mirrored of them stays until then."""
        console.forget_lists(self._db, rids.find(self._db, project, run_ids).values())

    def set_cursor(self, project: ProjectKey, cursor: ProjectCursor) -> None:
        """Note how far the project is mirrored now."""
        self.add_project(project)
        projects.set_cursor(self._db, project, cursor)

    def record_attempt(self, project: ProjectKey, at: datetime) -> None:
        """Note that a pass began."""
        self.add_project(project)
        projects.record_attempt(self._db, project, at)

    def record_success(self, project: ProjectKey, at: datetime) -> None:
        """Note that a pass went well; the last error is forgotten."""
        self.add_project(project)
        projects.record_success(self._db, project, at)

    def record_failure(self, project: ProjectKey, error: str, at: datetime) -> None:
        """Note that a pass failed, and why; the last success stays known."""
        self.add_project(project)
        projects.record_failure(self._db, project, error, at)

    def mend(self, project: ProjectKey) -> list[str]:
        """Bring what disagrees within the store in line, and tell what was done; see mirror.store.repair."""
        self.written.add(project)
        return repair.mend(self._db, self._folder, project)
