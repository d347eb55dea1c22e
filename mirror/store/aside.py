"""What is damaged is kept: moved out of the way into a folder of its own, and never deleted."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from mirror.settings.home import Home


def folder(home: Home) -> Path:
    """Where everything is that was put aside."""
    return home.data / "aside"


def put(home: Home, paths: Iterable[Path], *, keep: bool = False) -> Path:
    """Move files of the home into a new folder of what is put aside, or with `keep` copy them there; the folder."""
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
