"""The files that were read so far, by path and by run."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from mirror.local.reading import order
from mirror.store.records import LocalFile, ProjectKey

COPY = "a copy of "
REPLACED = "replaced by "
"""How the note begins of a file that is not read any more."""


class Known:
    """Finds a file by its path, and the files of a run, without a look at all of them."""

    def __init__(self, files: Iterable[LocalFile] = ()) -> None:
        self._files: dict[str, LocalFile] = {}
        self._runs: dict[tuple[str, str], dict[str, LocalFile]] = {}
        for file in files:
            self.add(file)

    def get(self, path: str) -> LocalFile | None:
        """The file at a path."""
        return self._files.get(path)

    def add(self, file: LocalFile) -> None:
        """Put a file in place of what was known of its path."""
        self.drop(file.path)
        self._files[file.path] = file
        self._runs.setdefault((file.project, file.run_id), {})[file.path] = file

    def drop(self, path: str) -> None:
        """Know nothing more of a path."""
        file = self._files.pop(path, None)
        if file is not None:
            del self._runs[file.project, file.run_id][path]

    def of(self, key: tuple[ProjectKey, str]) -> Collection[LocalFile]:
        """The files of a run."""
        project, run_id = key
        return [
            file for file in self._runs.get((project.project, run_id), {}).values() if file.entity == project.entity
        ]

    def twin(self, file: LocalFile, *, any_entity: bool) -> LocalFile | None:
        """The file that is read for the run and start of this one, also one that a later start replaced."""
        for known in self._runs.get((file.project, file.run_id), {}).values():
            start = order(known.started_at) == order(file.started_at)
            main = known.note is None or known.note.startswith(REPLACED)
            if start and main and (any_entity or known.entity == file.entity):
                return known
        return None
