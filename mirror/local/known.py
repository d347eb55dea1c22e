"""The files that were read until now, by path and by run."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from mirror.local.reading import order
from mirror.store.records import LocalFile, ProjectKey

COPY = "a copy of "
REPLACED = "replaced by "
"""Prefixes of the note of a file that is not read any more; it is stored with the file."""


def is_replaced(file: LocalFile) -> bool:
    """Return True if another file replaced this one; otherwise a file with a note is a copy."""
    return file.note is not None and file.note.startswith(REPLACED)


def copied_path(file: LocalFile) -> str | None:
    """Return the path of the file that this one is a copy of; None if it is not a copy."""
    note = file.note or ""
    return note.removeprefix(COPY) if note.startswith(COPY) else None


class Known:
    """An index of files by path and by run."""

    def __init__(self, files: Iterable[LocalFile] = ()) -> None:
        self._files: dict[str, LocalFile] = {}
        self._runs: dict[tuple[str, str], dict[str, LocalFile]] = {}
        for file in files:
            self.add(file)

    def get(self, path: str) -> LocalFile | None:
        """Return the file at a path."""
        return self._files.get(path)

    def add(self, file: LocalFile) -> None:
        """Add a file, replacing the one at the same path."""
        self.drop(file.path)
        self._files[file.path] = file
        self._runs.setdefault((file.project, file.run_id), {})[file.path] = file

    def drop(self, path: str) -> None:
        """Forget the file at a path."""
        file = self._files.pop(path, None)
        if file is not None:
            del self._runs[file.project, file.run_id][path]

    def of(self, key: tuple[ProjectKey, str]) -> Collection[LocalFile]:
        """Return the files of a run."""
        project, run_id = key
        return [
            file for file in self._runs.get((project.project, run_id), {}).values() if file.entity == project.entity
        ]

    def twin(self, file: LocalFile, *, any_entity: bool) -> LocalFile | None:
        """Return the file that is read for the same run and start as this one, even if a later start replaced it."""
        for known in self._runs.get((file.project, file.run_id), {}).values():
            same_start = order(known.started_at) == order(file.started_at)
            is_read = known.note is None or is_replaced(known)
            if same_start and is_read and (any_entity or known.entity == file.entity):
                return known
        return None
