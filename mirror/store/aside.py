"""Keeps damaged files: they are moved to a folder of their own, `aside`, and never deleted."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from mirror.settings.home import Home


def folder(home: Home) -> Path:
    """The folder for damaged files."""
    return home.data / "aside"


def put(home: Home, paths: Iterable[Path], *, keep: bool = False) -> Path:
    """Move files of the home, or with `keep` copy them, to a new folder inside `folder(home)`; return that folder."""
    root = folder(home)
    root.mkdir(mode=0o700, exist_ok=True)
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    for number in range(1, 10_000):
        target = root / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            target.mkdir(mode=0o700)
        except FileExistsError:
            continue
        break
    for path in paths:
        if keep:
            shutil.copy2(path, target / path.name)
        else:
            shutil.move(path, target / path.name)
    return target
