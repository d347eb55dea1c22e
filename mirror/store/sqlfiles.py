"""Reads SQL files from the `sql` folder of the source tree or of the installed package."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path


@cache
def read(folder: str) -> dict[str, str]:
    """The SQL texts of `sql/<folder>`, by file name without extension, sorted by name."""
    found = [entry for entry in (_root() / folder).iterdir() if entry.name.endswith(".sql")]
    return {
        entry.name.removesuffix(".sql"): entry.read_text("utf-8")
        for entry in sorted(found, key=lambda entry: entry.name)
    }


def _root() -> Traversable:
    """The `sql` folder: inside the package in a wheel, next to it in the source tree."""
    package = files("mirror")
    packaged = package / "sql"
    return packaged if packaged.is_dir() else Path(str(package)).parent / "sql"
