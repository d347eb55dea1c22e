"""The ways to open the published file: for our own statements, for people's, and beside other databases."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mirror.errors import SEGMENT_ADVICE, QueryError, names_segment, nothing_mirrored, unreadable
from mirror.settings.home import Home
from mirror.store.names import escaped

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_CLOSED: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
}


def open_plain(path: Path) -> DuckDBPyConnection:
    """Open the published file read-only, for statements of our own or for a caller that may do as it likes.

    The caller closes it. Raises StoreError when nothing was published yet, or when the file cannot be read.
    """
    if not path.exists():
        raise nothing_mirrored(path)
    import duckdb

    try:
        return duckdb.connect(str(path), read_only=True)
    except duckdb.Error as error:
        raise unreadable(path, error) from error


@contextmanager
def opened(path: Path) -> Iterator[DuckDBPyConnection]:
    """The same until the end of the block, with times in UTC. An error of a statement in the block is a StoreError."""
    import duckdb

    with open_plain(path) as connection:
        try:
            quiet(connection)
            connection.execute("SET TimeZone = 'UTC'").fetchall()
            yield connection
        except duckdb.Error as error:
            raise unreadable(path, error) from error


def open_attached(path: Path, *, spill: str) -> DuckDBPyConnection:
    """Open the published file as the database `mirror` of a DuckDB instance of its own; the caller closes it.

    A second connection to one path would be given the database that is open already, however often the file was
    replaced. What does not fit in memory goes to the folder `spill`. Raises as `open_plain`.
    """
    if not path.exists():
        raise nothing_mirrored(path)
    import duckdb

    try:
        connection = duckdb.connect()
        connection.execute(f"ATTACH {_literal(str(path))} AS mirror (READ_ONLY)").fetchall()
        connection.execute(f"SET temp_directory = {_literal(spill)}").fetchall()
        quiet(connection)
    except duckdb.Error as error:
        raise unreadable(path, error) from error
    return connection


@contextmanager
def connected(home: Home) -> Iterator[DuckDBPyConnection]:
    """Open the published file read-only, for text that people write, and close it after the block.

    The connection reads the file and its history segments; other files, the network, extensions, settings and Python
    variables are out of its reach. Times are UTC. Raises StoreError when nothing was published yet, and when the file
    cannot be read or is not as it should be. It is `mirror.query.sql` that keeps statements from writing
    into the history folder.
    """
    if not home.published.exists():
        raise nothing_mirrored(home.published)
    import duckdb

    # Two readers that share one folder for what memory cannot hold overwrite each other's files.
    spill = f"{home.published}.tmp-{os.getpid()}" if os.access(home.data, os.W_OK) else ""
    try:
        with open_restricted(home.published, home.history, spill=spill) as connection:
            yield connection
    except duckdb.Error as error:
        raise unreadable(home.published, error) from error


def open_restricted(
    path: Path, history: Path, *, spill: str = "", memory: str | None = None, threads: int | None = None
) -> DuckDBPyConnection:
    """Open a published file read-only, with nothing else within reach but its segments; the caller closes it.

    What does not fit in memory goes to the folder `spill`; without one such a query fails. Raises duckdb.Error.
    """
    import duckdb

    connection = duckdb.connect(str(path), read_only=True, config=_CLOSED)
    try:
        quiet(connection)
        for statement in (
            f"SET temp_directory = {_literal(spill)}",
            *([f"SET memory_limit = {_literal(memory)}"] if memory else []),
            *([f"SET threads = {threads:d}"] if threads else []),
            f"SET allowed_directories = [{_literal(str(history))}, {_literal(escaped(history))}]",
            "SET TimeZone = 'UTC'",
            "SET enable_external_access = false",
            "SET lock_configuration = true",
        ):
            connection.execute(statement).fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def version_of(path: Path) -> str:
    """What changes with every publishing of this file. Raises FileNotFoundError before the first."""
    found = path.stat()
    return f"{found.st_ino:x}-{found.st_mtime_ns:x}"


class Watched:
    """A connection that remembers the cursors made of it, so that all of them can be interrupted."""

    def __init__(self, connection: DuckDBPyConnection) -> None:
        self._connection = connection
        self.open = [connection]

    def cursor(self) -> DuckDBPyConnection:
        """A cursor that is interrupted with the others."""
        made = self._connection.cursor()
        self.open.append(made)
        return made

    def interrupt_all(self) -> None:
        """Interrupt whatever runs on the connection and its cursors; what runs next is not."""
        for cursor in list(self.open):
            cursor.interrupt()

    def as_connection(self) -> DuckDBPyConnection:
        """The same, for whoever wants a connection."""
        return cast("DuckDBPyConnection", self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def quiet(connection: DuckDBPyConnection) -> None:
    """Have DuckDB draw no progress bar, which would go to stdout.

    In a notebook without ipywidgets there is none, and the setting cannot be touched.
    """
    if connection.execute("SELECT current_setting('enable_progress_bar')").fetchall()[0][0]:
        connection.execute("SET enable_progress_bar = false").fetchall()


def refusal(error: Exception, *, first_line: int = 1) -> QueryError:
    """DuckDB's error as one line, with the place in the text; `first_line` is where the text began."""
    message = str(error)
    if not message.strip():
        return QueryError(type(error).__name__)
    head, mark, excerpt = message.partition("\n\nLINE ")
    # DuckDB 1.5 says first that the query, which failed half-way, can't go on.
    text = " ".join(head.split()).rpartition("closed pending query result Error: ")[2]
    place = re.match(r"(\d+): (.*)\n(\s*)\^", excerpt) if mark else None
    if place:
        # The excerpt is cut on both sides when the line is long; then only what stands there can be told.
        offset = len(place[3]) - len(f"LINE {place[1]}: ")
        line = int(place[1]) - first_line + 1
        where = f"line {line}, column {offset + 1}"
        if place[2].startswith("..."):
            where = f"line {line}, at `{place[2][offset : offset + 40].rstrip('.')}`"
        text = f"{text} ({where})"
    elif names_segment(text):
        text = f"a segment of history is missing or damaged ({text}); {SEGMENT_ADVICE}"
    return QueryError(text)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
