"""Opens a file that another process may replace at any moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

TRIES = 20


def open_steady(path: Path, connect: Callable[[], DuckDBPyConnection]) -> DuckDBPyConnection:
    """Return what `connect` opens of the file; if the file was replaced meanwhile, it is opened again.

    DuckDB 2.0 opens a file twice, for its headers and then for the rest. Of a file that is replaced in between, it has
    the headers of the old and the rest of the new one, and a statement fails or may read what is no longer in use.
    """
    import duckdb

    for number in range(TRIES):
        before, last = fingerprint(path), number == TRIES - 1
        try:
            connection = connect()
        except duckdb.Error:
            if last or fingerprint(path) == before:
                raise
            continue
        if last or fingerprint(path) == before:
            break
        connection.close()
    return connection


def fingerprint(path: Path) -> tuple[int, int, int] | None:
    """Changes when the file is replaced or modified. None if there is no file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
