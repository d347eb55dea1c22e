"""What clients have changed on the server through the endpoint, until the mirror has it, too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from msgspec import Struct, field

from mirror.errors import MirrorError
from mirror.serve import touched
from mirror.serve.context import SECONDS, RunPath
from mirror.serve.edits import Edits
from mirror.serve.runs import is_live
from mirror.serve.touched import Changed, Touched, changed
from mirror.snapshot.artifact_versions import projects_of
from mirror.snapshot.files import runs_of
from mirror.web.snapshots import Snapshots


class Changes(Struct):
    """Notes changes: `edits` has the runs pulled that were edited, `refresh_files` lists the files of a run again."""

    snapshots: Snapshots
    refresh_files: Callable[[RunPath], None] = lambda _: None
    edits: Edits | None = None
    touched: Touched = field(default_factory=Touched)

    def unpulled(self, path: Sequence[str]) -> bool:
        """Return True if an edit of this run, of any run of this project, or of this entity is not pulled yet."""
        return self.edits is not None and self.edits.unpulled(path)

    async def pulled(self, path: Sequence[str]) -> None:
        """Wait until the edits until now of this project or entity are pulled, for some seconds at most."""
        if self.edits is not None:
            await self.edits.pulled(path)

    def await_pull(self, edited: Sequence[RunPath]) -> None:
        """Record that these runs have been changed, so that they are pulled. Call it in the event loop."""
        if self.edits is not None:
            for run in edited:
                self.edits.note(run)

    def note(self, body: bytes, answer: bytes, entity: str | None) -> list[RunPath]:
        """Request that the file lists that a change affects are pulled again, and note what else it changes.

        `answer` is the server's, `entity` that of runs for which the request has none. Returns the edited runs.
        """
        found = changed(body, answer, entity)
        # Before anything is mirrored, nothing can be outdated.
        with suppress(MirrorError):
            self._look_up(found)
        for run in found.runs:
            self.touched.note(run)
            self.refresh_files(run)
        for key in (*found.artifacts, *found.lists):
            self.touched.note(key)
        return found.edited

    def _look_up(self, found: Changed) -> None:
        """Add what only the mirror knows: where files and artifacts belong, and which processes start or resume runs.

        What the process of a live run changes later is pulled with all that it logs.
        """
        if not (found.files or found.artifact_ids or found.written):
            return
        with self.snapshots.connection(SECONDS) as connection:
            if found.files:
                found.runs += runs_of(connection, found.files)
            if found.artifact_ids:
                found.artifacts += [(touched.ARTIFACTS, *key) for key in projects_of(connection, found.artifact_ids)]
            found.edited += [run for run in found.written if self.unpulled(run) or not is_live(connection, run)]
