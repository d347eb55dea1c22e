"""The standing SQL, from the `sql` folder of the source tree or of the installed package."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path


@cache
def read(folder: str) -> dict[str, str]:
    """The SQL texts of `sql/<folder>`, by file name without its ending, in the order of their names."""
    found = [entry for entry in (_root() / folder).iterdir() if entry.name.endswith(".sql")]
    return {
        entry.name.removesuffix(".sql"): entry.read_text("utf-8")
        for entry in sorted(found, key=lambda entry: entry.name)
    }


def _root() -> Traversable:
    """A wheel carries the folder inside the package; in the source tree it lies beside it."""
    package = files("mirror")
    packaged = package / "sql"
    return packaged if packaged.is_dir() else Path(str(package)).parent / "sql"
