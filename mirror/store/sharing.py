"""Lets other users of the machine read the published file and the segments, and nothing else of a mirror."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from msgspec import Struct

from mirror.settings.home import Home


class Sharing(Struct, frozen=True):
    """Who may read: `mode` has the bits of group and others for reading; `group` is the gid of the files, if set."""

    mode: int
    group: int | None = None

    @property
    def file_mode(self) -> int:
        """The mode of the published file and of segments, which nobody may write."""
        return 0o400 | self.mode & 0o044

    @property
    def folder_mode(self) -> int:
        """The mode of the folders of segments: who may read the files may open their folders."""
        readers = self.mode & 0o044
        return 0o700 | readers | readers >> 2

    def put_on(self, path: Path, mode: int) -> None:
        """Give a file or folder this mode and the group. Does nothing if it has both."""
        found = path.stat()
        if self.group is not None and found.st_gid != self.group:
            os.chown(path, -1, self.group)
        if stat.S_IMODE(found.st_mode) != mode:
            path.chmod(mode)

    def apply(self, home: Home) -> None:
        """Share the published file, if there is one, and all segments. Raises OSError."""
        # Others may pass through the home to files whose names they know, but not list it.
        passing = self.folder_mode & 0o011
        self.put_on(home.data, stat.S_IMODE(home.data.stat().st_mode) & ~0o022 | passing)
        if home.config.parent == home.data and home.config.exists():
            home.config.chmod(0o600)
        for folder, _, names in os.walk(home.history):
            self.put_on(Path(folder), self.folder_mode)
            for name in names:
                path = Path(folder, name)
                if path.suffix == ".parquet":
                    self.put_on(path, self.file_mode)
                elif path.parent == home.history:
                    path.chmod(0o600)
        if home.published.exists():
            self.put_on(home.published, self.file_mode)
