"""The writes of one transaction: rows together with the cursors that cover them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from mirror.store import (
    console,
    facts,
    forget,
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
from mirror.store.bulk import BulkWriter
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
    """Writes in an open transaction; all are committed, or none. Created by `Store.transaction`."""

    def __init__(self, db: Database, folder: Path, tail_values: int) -> None:
        self._db = db
        self._tail_values = tail_values
        self.written: set[ProjectKey] = set()
        self._folder = folder
        self._forgotten: dict[int, int] = {}
        self._views_changed = False

    def finish(self) -> None:
        """Update the views after all writes, right before the commit."""
        if self._views_changed:
            views.recreate(self._db, self._folder)

    def _bulk(self, to_come: int = 0) -> BulkWriter:
        return BulkWriter(self._folder, self._tail_values, to_come)

    def add_project(self, project: ProjectKey) -> None:
        """Register the project, even if it has no runs yet."""
        if projects.find(self._db, project) is None:
            projects.add(self._db, project)
            self.written.add(project)

    def upsert_runs(self, records: Sequence[RunRecord], *, now: datetime) -> None:
        """Insert runs with their documents and tags, or replace what is mirrored of them.

        Changes of runs that were mirrored before are recorded, except in the summaries of live runs. A run that was
        marked as deleted loses the mark.
        """
        runs.upsert(self._db, records, now)
        self.written |= {ProjectKey(record.entity, record.project) for record in records}

    def settle_records(self, project: ProjectKey, run_ids: Sequence[str]) -> None:
        """Record that the mirrored records of these runs are complete, so that they are not pulled again."""
        runs.settle(self._db, project, run_ids)

    def set_app_url(self, project: ProjectKey, app_url: str) -> None:
        """Make the URLs of all runs of the project point to the W&B app at `app_url`."""
        runs.set_app_url(self._db, project, app_url)

    def mark_deleted(self, project: ProjectKey, run_ids: Sequence[str], *, at: datetime) -> None:
        """Record that the server does not have these runs any more. Everything mirrored of them stays."""
        runs.mark_deleted(self._db, project, run_ids, at)

    def append_history(self, project: ProjectKey, pages: Sequence[HistoryPage], *, to_come: int = 0) -> None:
        """Add the lines after each run's last mirrored step; lines that are already mirrored are left out.

        `to_come` is how many more values are expected: large batches of a history that will exceed the tail are written
        straight to a segment. Earlier failures of these runs are forgotten. Raises StoreError for a run whose record
        was never written.
        """
        bulk = self._bulk(to_come)
        self._forgotten |= history.append(self._db, project, pages, bulk)
        self._views_changed |= bulk.wrote

    def stage_history(self, project: ProjectKey, pages: Sequence[HistoryPage], *, to_come: int = 0) -> None:
        """Stage lines, after those already staged of each run. Readers do not see them until `swap_history`.

        `to_come` is how many more values are expected, as for `append_history`.
        """
        staging.stage(self._db, project, pages, self._bulk(to_come))

    def staged(self, project: ProjectKey, run_id: str) -> tuple[int, int | None]:
        """How many lines of the run are staged, and up to which step."""
        cursor = staging.staged(self._db, history.find(self._db, project, [run_id])[run_id].rid)
        return cursor.rows, cursor.last_step

    def swap_history(self, project: ProjectKey, run_id: str, *, rows: int, last_step: int | None) -> None:
        """Replace the run's whole mirrored history by what is staged of it, and forget earlier failures."""
        attempts, changed = staging.swap(self._db, project, run_id, rows, last_step, self._bulk())
        self._forgotten |= attempts
        self._views_changed |= changed

    def cut_history(self, project: ProjectKey, run_id: str, *, last_step: int) -> None:
        """Delete the run's mirrored history after a step. Raises StoreError if a segment of the run is damaged."""
        if last_step >= 0:
            segments.check_run(self._db, self._folder, project, run_id)
        self._views_changed |= staging.cut(self._db, project, run_id, last_step, self._bulk())

    def request_refresh(self, project: ProjectKey, run_ids: Sequence[str]) -> None:
        """Have these runs pulled again completely and at once, even if they failed and wait for a retry.

        Includes their system metrics, console, metadata file and list of files.
        """
        console.forget(self._db, rids.find(self._db, project, run_ids).values())
        self.refresh_history(project, run_ids)

    def refresh_history(self, project: ProjectKey, run_ids: Sequence[str]) -> None:
        """Have the whole history of these runs pulled again at once, even if they failed and wait for a retry."""
        cursors = history.find(self._db, project, run_ids).values()
        staging.drop(self._db, [cursor.rid for cursor in cursors])
        for cursor in cursors:
            cursor.refresh, cursor.next_try_at = True, None
        history.save(self._db, cursors)

    def set_aside(self, project: ProjectKey, run_id: str, *, error: str, next_try_at: datetime) -> None:
        """Record that pulling the run failed, and when to retry.

        Adds one to the run's failed attempts, including those that a write in this transaction has just forgotten.
        """
        cursor = history.find(self._db, project, [run_id])[run_id]
        cursor.attempts = self._forgotten.pop(cursor.rid, cursor.attempts) + 1
        cursor.error, cursor.next_try_at = error, next_try_at
        history.save(self._db, [cursor])

    def forget_failures(self, project: ProjectKey, run_ids: Sequence[str]) -> None:
        """Forget the failed attempts of these runs."""
        cursors = list(history.find(self._db, project, run_ids).values())
        for cursor in cursors:
            cursor.clear_failures()
        history.save(self._db, cursors)

    def replace_system_metrics(self, project: ProjectKey, page: HistoryPage) -> None:
        """Replace all mirrored system metrics of the page's run."""
        history.replace_system_metrics(self._db, project, page)

    def append_system_metrics(self, project: ProjectKey, page: HistoryPage) -> None:
        """Add the page to the mirrored system metrics of its run."""
        history.append_system_metrics(self._db, project, page)

    def local_runs(self, project: ProjectKey, run_ids: Sequence[str]) -> dict[str, LocalRun]:
        """The state of each of these runs that is mirrored."""
        return local.find(self._db, project, run_ids)

    def mark_local(self, found: Sequence[tuple[LocalRun, str]]) -> None:
        """Mark runs as read from local files, each with the state, as text, from which reading continues."""
        local.save(self._db, found)

    def save_local_files(self, files: Sequence[LocalFile]) -> None:
        """Record how far these files are read."""
        local.save_files(self._db, files)

    def forget_local_files(self, paths: Sequence[str]) -> None:
        """Forget these files; what was read from them stays."""
        local.forget_files(self._db, paths)

    def forget_run(self, project: ProjectKey, run_id: str) -> None:
        """Remove a run and everything mirrored of it."""
        self._views_changed |= local.forget(self._db, project, run_id)
        self.written.add(project)

    def forget_runs(self, project: ProjectKey, run_ids: Sequence[str]) -> None:
        """Remove those of these runs that are mirrored, with their changes and the record of their local files."""
        self._views_changed |= forget.runs(self._db, project, run_ids)
        self.written.add(project)

    def forget_project(self, project: ProjectKey) -> None:
        """Remove a project with all of its runs, if it is mirrored."""
        self.written |= forget.project(self._db, project)
        self._views_changed = True

    def adopt_local(self, project: ProjectKey, records: Sequence[RunRecord]) -> None:
        """Find the local runs that the server now has completely. Their records must be written already.

        These are unmarked and will be pulled again completely. The history of the others, read from files, stays until
        the server has as much.
        """
        complete, hidden = local.adopt(self._db, project, records)
        self._views_changed |= hidden
        if complete:
            self.request_refresh(project, complete)

    def put_console(self, project: ProjectKey, pages: Sequence[ConsolePage]) -> None:
        """Replace the lines that each page covers; a last page also replaces all lines after it."""
        console.put_console(self._db, project, pages)

    def put_file_lists(self, project: ProjectKey, files: Mapping[str, Sequence[RunFile]]) -> None:
        """Replace the mirrored lists of files of these runs, by run id."""
        console.put_files(self._db, project, files)

    def put_metadata_files(
        self,
        project: ProjectKey,
        documents: Mapping[str, dict[str, Any] | None],
        nodes: Mapping[str, dict[str, Any]] | None = None,
    ) -> None:
        """Replace the mirrored content of each run's metadata file; None if there is no file.

        Its host and git commit are used for runs whose records have none. `nodes` are the files' entries in the lists
        of files, as the server returned them.
        """
        metadata.put_files(self._db, project, documents)
        metadata.put_nodes(self._db, project, nodes or {})

    def set_extras(self, entries: Sequence[RunExtras]) -> None:
        """Replace the record of how much of these runs' system metrics, console and files is mirrored."""
        console.save(self._db, entries)

    def keep_project_facts(self, project: ProjectKey, values: Mapping[str, Any]) -> None:
        """Replace the facts that the server returned about the project."""
        self.add_project(project)
        facts.keep_project(self._db, project, values)

    def keep_server_facts(self, base_url: str, values: Mapping[str, Any], *, at: datetime) -> None:
        """Replace the facts that the server returned about itself and about the key's owner."""
        facts.keep_server(self._db, base_url, values, at)

    def keep_run_facts(self, project: ProjectKey, run_facts: Mapping[str, RunFacts]) -> None:
        """Replace the facts that the server returned about these runs, by run id."""
        facts.keep_runs_by_id(self._db, project, run_facts)

    def keep_exports(self, project: ProjectKey, exported: Mapping[str, int]) -> None:
        """Record up to which step the server has exported the history of these runs, by run id."""
        facts.keep_exports(self._db, project, exported)

    def forget_file_lists(self, project: ProjectKey, run_ids: Sequence[str]) -> None:
        """Have the lists of files of these runs pulled again; the mirrored ones stay until then."""
        console.forget_lists(self._db, rids.find(self._db, project, run_ids).values())

    def set_cursor(self, project: ProjectKey, cursor: ProjectCursor) -> None:
        """Record how far the project is mirrored now."""
        self.add_project(project)
        projects.set_cursor(self._db, project, cursor)

    def record_attempt(self, project: ProjectKey, at: datetime) -> None:
        """Record that a pass started."""
        self.add_project(project)
        projects.record_attempt(self._db, project, at)

    def record_success(self, project: ProjectKey, at: datetime) -> None:
        """Record that a pass succeeded, and forget the last error."""
        self.add_project(project)
        projects.record_success(self._db, project, at)

    def record_failure(self, project: ProjectKey, error: str, at: datetime) -> None:
        """Record that a pass failed, and why. The time of the last success stays."""
        self.add_project(project)
        projects.record_failure(self._db, project, error, at)

    def mend(self, project: ProjectKey) -> list[str]:
        """Repair the project's tables where they disagree. Returns what was done; see mirror.store.repair."""
        self.written.add(project)
        return repair.mend(self._db, self._folder, project)
