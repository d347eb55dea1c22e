"""The folder of file content: each content is one read-only file, named by the SHA-256 of its bytes.

`blobs/ab/cdef...` is the content whose digest begins with `abcdef`. It gets there complete, by a rename, and never
changes. `blobs/.parts` has downloads under way.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from mirror.store import files
from mirror.store.sharing import Sharing

_DIGEST = re.compile(r"[0-9a-f]{64}")
_PRIVATE = 0o400


class Blob(Struct, frozen=True):
    """A content on the disk: its digest, its bytes, and when it was written, in seconds since 1970."""

    digest: str
    size: int
    written_at: float


class Blobs:
    """The content of one mirror. Reading creates nothing; any thread may use it."""

    def __init__(self, folder: Path, sharing: Sharing | None = None) -> None:
        self.folder = folder
        self.sharing = sharing

    def path(self, digest: str) -> Path:
        """Where the content with this digest is stored, if it is."""
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"{digest!r} is not a SHA-256 digest")
        return self.folder / digest[:2] / digest[2:]

    def has(self, digest: str, size: int) -> bool:
        """Return True if the content is stored, with its full length."""
        try:
            return self.path(digest).stat().st_size == size
        except OSError:
            return False

    def part(self, name: str) -> Path:
        """The path for a download that is under way; makes the folder."""
        self._make(self.folder / ".parts", shared=False)
        return self.folder / ".parts" / name

    def place(self, part: Path, digest: str, size: int) -> None:
        """Move a complete download to its place, durably. Its content must have been compared with the digest.

        One that is stored already stays. Raises OSError.
        """
        files.sync_file(part)
        target = self.path(digest)
        if self.has(digest, size):
            part.unlink()
            return
        if not target.parent.exists():
            self._make(target.parent)
            files.sync_folder(self.folder)
        if self.sharing is None:
            part.chmod(_PRIVATE)
        else:
            self.sharing.put_on(part, self.sharing.file_mode)
        part.replace(target)
        files.sync_folder(target.parent)

    def _make(self, folder: Path, *, shared: bool = True) -> None:
        """Make a folder below that of the content, and this one first, for those who may read what is published."""
        for one in (self.folder, folder):
            if not one.exists():
                one.mkdir(mode=0o700, parents=True, exist_ok=True)
                if self.sharing is not None and (shared or one == self.folder):
                    self.sharing.put_on(one, self.sharing.folder_mode)

    def remove(self, digest: str) -> None:
        """Delete a content. Readers that have it open keep it."""
        self.path(digest).unlink(missing_ok=True)

    def everything(self) -> Iterator[Blob]:
        """Every content on the disk, whether the store lists it or not."""
        if not self.folder.exists():
            return
        for folder in sorted(self.folder.iterdir()):
            if not folder.is_dir() or len(folder.name) != 2:
                continue
            with os.scandir(folder) as entries:
                for entry in entries:
                    digest = folder.name + entry.name
                    if _DIGEST.fullmatch(digest):
                        found = entry.stat(follow_symlinks=False)
                        yield Blob(digest, found.st_size, found.st_mtime)

    def parts(self) -> list[Path]:
        """The unfinished downloads."""
        folder = self.folder / ".parts"
        return sorted(folder.iterdir()) if folder.exists() else []

    def free(self) -> int:
        """The bytes that are free on the disk."""
        there = self.folder if self.folder.exists() else self.folder.parent
        return shutil.disk_usage(there).free

    def share(self, sharing: Sharing | None) -> None:
        """Let those read the content who may read the published file. Looks at every file, so only after a change."""
        if sharing == self.sharing:
            return
        self.sharing = sharing
        if sharing is None or not self.folder.exists():
            return
        sharing.put_on(self.folder, sharing.folder_mode)
        for folder in self.folder.iterdir():
            if len(folder.name) == 2:
                sharing.put_on(folder, sharing.folder_mode)
                for path in folder.iterdir():
                    sharing.put_on(path, sharing.file_mode)
