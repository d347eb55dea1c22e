"""Keeps damaged files: they are moved to a folder of their own, `aside`, and never deleted."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path


def folder(data: Path) -> Path:
    """The folder for damaged files in the folder of a home."""
    return data / "aside"


def put(data: Path, paths: Iterable[Path], *, keep: bool = False) -> Path:
    """Move files of the home, or with `keep` copy them, to a new folder inside `folder(data)`; return that folder."""
    root = folder(data)
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
