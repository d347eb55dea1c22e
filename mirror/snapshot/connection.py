"""The ways to open the published file: for our own statements, for SQL that users write, or attached as a database."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mirror.errors import Forbidden, QueryError, names_segment, nothing_mirrored, unreadable, unreadable_segment
from mirror.settings.home import Home
from mirror.store.names import escaped, literal
from mirror.store.steady import open_steady

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_CLOSED: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
}

_INNER = re.compile(r"(?:\w+\.)?store\.\w+|pg_\w+")
"""Tables that are not for queries: those of the store, and those that DuckDB has for clients of PostgreSQL."""


def open_plain(path: Path, *, relations_only: bool = False) -> DuckDBPyConnection:
    """Open the published file read-only and without further restrictions, for our own statements and the Python API.

    The caller closes it. Raises StoreError if nothing was published yet, or if the file cannot be read; unless only the
    published relations are needed, also for a file of an older program whose tables have other names.
    """
    if not path.exists():
        raise nothing_mirrored(path)
    import duckdb

    try:
        connection = open_steady(path, lambda: duckdb.connect(str(path), read_only=True))
        if not relations_only:
            _check_tables(connection, path)
    except duckdb.Error as error:
        raise unreadable(path, error) from error
    return connection


@contextmanager
def opened(path: Path) -> Iterator[DuckDBPyConnection]:
    """Like `open_plain`, for the block, with times in UTC. An error of a statement in the block is a StoreError."""
    import duckdb

    with open_plain(path) as connection:
        try:
            quiet(connection)
            connection.execute("SET TimeZone = 'UTC'").fetchall()
            yield connection
        except duckdb.Error as error:
            raise unreadable(path, error) from error


def open_attached(path: Path, *, spill: str) -> DuckDBPyConnection:
    """Attach the published file as the database `mirror` in a new DuckDB instance; the caller closes it.

    If it were opened by its path, DuckDB would return the database that is already open in this process, even if the
    file was replaced since. What does not fit in memory goes to the folder `spill`. Raises as `open_plain`.
    """
    if not path.exists():
        raise nothing_mirrored(path)
    import duckdb

    def attach() -> DuckDBPyConnection:
        instance = duckdb.connect()
        instance.execute(f"ATTACH {literal(path)} AS mirror (READ_ONLY)").fetchall()
        return instance

    try:
        connection = open_steady(path, attach)
        connection.execute(f"SET temp_directory = {literal(spill)}").fetchall()
        quiet(connection)
        _check_tables(connection, path, "mirror.")
    except duckdb.Error as error:
        raise unreadable(path, error) from error
    return connection


@contextmanager
def connected(home: Home) -> Iterator[DuckDBPyConnection]:
    """Open the published file read-only, for SQL that users write, and close it after the block.

    The connection can read the file, its history segments and the content of files, but no other files, network,
    extensions, settings or Python variables. Times are UTC. Raises StoreError if nothing was published yet, or if the
    file is unreadable or damaged. `mirror.query.sql` is what keeps statements from writing to these folders.
    """
    if not home.published.exists():
        raise nothing_mirrored(home.published)
    import duckdb

    # Two readers that spill to the same folder overwrite each other's files.
    spill = f"{home.published}.tmp-{os.getpid()}" if os.access(home.data, os.W_OK) else ""
    try:
        with open_restricted(home.published, home.history, spill=spill) as connection:
            yield connection
    except duckdb.Error as error:
        raise unreadable(home.published, error) from error


def open_restricted(
    path: Path,
    history: Path,
    *,
    spill: str = "",
    memory: str | None = None,
    threads: int | None = None,
    published: Path | None = None,
    limited: bool = False,
) -> DuckDBPyConnection:
    """Open a published file read-only, with access to its segments and the content of files; the caller closes it.

    `published` is the name for messages, if `path` is a temporary one. With `limited`, only the segments and contents
    can be read that the file itself lists.

    What does not fit in memory goes to the folder `spill`; without a folder such a query fails. Raises duckdb.Error,
    and StoreError for a file whose tables have other names, as those of an older program have.
    """
    import duckdb

    connection = open_steady(path, lambda: duckdb.connect(str(path), read_only=True, config=_CLOSED))
    try:
        quiet(connection)
        _check_tables(connection, published or path)
        folders, files = _own_files(connection, history) if limited else ([history, history.with_name("blobs")], [])
        allowed = [text for folder in folders for text in (str(folder), escaped(folder))]
        for statement in (
            f"SET temp_directory = {literal(spill)}",
            *([f"SET memory_limit = {literal(memory)}"] if memory else []),
            *([f"SET threads = {threads:d}"] if threads else []),
            f"SET allowed_directories = [{', '.join(literal(one) for one in allowed)}]",
            *([f"SET allowed_paths = [{', '.join(literal(one) for one in files)}]"] if files else []),
            "SET TimeZone = 'UTC'",
            "SET enable_external_access = false",
            "SET lock_configuration = true",
        ):
            connection.execute(statement).fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def _own_files(connection: DuckDBPyConnection, history: Path) -> tuple[list[Path], list[str]]:
    """The folders of the segments of the file's projects, and the contents that it names."""
    from mirror.store.records import ProjectKey
    from mirror.store.segment_files import partition

    projects = connection.execute("SELECT entity, project FROM store.project_records").fetchall()
    blobs = history.with_name("blobs")
    contents = connection.execute("SELECT digest FROM store.contents").fetchall()
    files = [blobs / digest[:2] / digest[2:] for (digest,) in contents]
    return [history / partition(ProjectKey(*row)) for row in projects], [
        text for file in files for text in dict.fromkeys((str(file), escaped(file)))
    ]


def _check_tables(connection: DuckDBPyConnection, path: Path, catalog: str = "") -> None:
    """Close the connection and raise StoreError if the tables of the file have other names than we read."""
    from mirror.store import migrations

    try:
        migrations.check_readable(path, lambda sql: connection.execute(sql).fetchall(), catalog)
    except BaseException:
        connection.close()
        raise


def version_of(path: Path) -> str:
    """An identifier of the published file's content, new each time it is published.

    Raises FileNotFoundError if nothing was published yet.
    """
    status = path.stat()
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}"


class Watched:
    """A connection that remembers the cursors created from it, so that all of them can be interrupted."""

    def __init__(self, connection: DuckDBPyConnection) -> None:
        self._connection = connection
        self.open = [connection]

    def cursor(self) -> DuckDBPyConnection:
        """Create a cursor that `interrupt_all` includes."""
        cursor = self._connection.cursor()
        self.open.append(cursor)
        return cursor

    def interrupt_all(self) -> None:
        """Interrupt the statements that run now on the connection and its cursors; later ones are not affected."""
        for cursor in list(self.open):
            cursor.interrupt()

    def as_connection(self) -> DuckDBPyConnection:
        """Return this object, typed as a connection."""
        return cast("DuckDBPyConnection", self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def quiet(connection: DuckDBPyConnection) -> None:
    """Turn off DuckDB's progress bar, which would be drawn on stdout.

    In a notebook without ipywidgets there is no bar, and setting the option fails.
    """
    if connection.execute("SELECT current_setting('enable_progress_bar')").fetchall()[0][0]:
        connection.execute("SET enable_progress_bar = false").fetchall()


def refusal(error: Exception, *, first_line: int = 1) -> QueryError:
    """Turn DuckDB's error into one line, with the line and column in the user's text.

    `first_line` is the line of the statement on which that text begins.
    """
    message = str(error)
    if not message.strip():
        return QueryError(type(error).__name__)
    head, mark, excerpt = message.partition("\n\nLINE ")
    # For a query that fails half-way, DuckDB 1.5 puts this in front of the error itself.
    text = _published_only(" ".join(head.split()).rpartition("closed pending query result Error: ")[2])
    marked = re.match(r"(\d+): (.*)\n(\s*)\^", excerpt) if mark else None
    if marked:
        # DuckDB cuts the excerpt of a long line on both sides; then the column is unknown, so quote the text there.
        offset = len(marked[3]) - len(f"LINE {marked[1]}: ")
        line = int(marked[1]) - first_line + 1
        where = f"line {line}, column {offset + 1}"
        if marked[2].startswith("..."):
            where = f"line {line}, at `{marked[2][offset : offset + 40].rstrip('.')}`"
        text = f"{text} ({where})"
    elif names_segment(text):
        text = str(unreadable_segment(text))
    import duckdb

    return Forbidden(text) if isinstance(error, duckdb.PermissionException) else QueryError(text)


def _published_only(text: str) -> str:
    """DuckDB's message, in which it offers only published relations: not our tables, nor those of DuckDB itself."""
    offer = re.search(r' Did you mean "(.+)"\?', text)
    if offer is None:
        return text
    from mirror.filters import nearest
    from mirror.store.comments import RELATIONS

    names = offer[1].split(" or ")
    published = [name for name in names if not _INNER.fullmatch(name)]
    wrong = re.search(r"Table with name (.+) does not exist", text)
    # `tags` means run_tags, although tables is spelled more like it.
    if wrong and (ending := [name for name in RELATIONS if name.endswith(f"_{wrong[1]}")]):
        published = ending
    if published == names:
        return text
    if not published:
        near = nearest(wrong[1], list(RELATIONS)) if wrong else None
        published = [near] if near else []
    advice = f' Did you mean "{" or ".join(published)}"?' if published else " SHOW TABLES lists the relations"
    return text.replace(offer[0], advice)
