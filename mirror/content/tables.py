"""Converts the files of W&B Tables that are here to Parquet, one after the other, beside everything else."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from mirror.content import table_compose, table_pieces
from mirror.content.table_json import BadTable
from mirror.content.table_parquet import convert
from mirror.content.table_pieces import Found
from mirror.errors import CommError, one_line
from mirror.remote import artifacts
from mirror.remote.client import Server
from mirror.store import files, tables
from mirror.store.blobs import Blobs
from mirror.store.tables import Converted
from mirror.sync.context import utc_now
from mirror.sync.writer import Writer

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

log = logging.getLogger("mirror.content")

T = TypeVar("T")

_DIGEST = re.compile(r"[0-9a-f]{64}")

MADE_BY = 1
"""The version of the conversion: a higher one converts all tables again."""

COMMIT_SECONDS = 2.0

CLIENTS_AT_ONCE = 100
"""Artifacts that one request asks for."""


ASK_AGAIN = timedelta(hours=1)
"""After this time the server is asked again for an artifact that it did not know by its client's id."""


async def name_artifacts(server: Server, writer: Writer) -> None:
    """Learn which artifacts have the tables of runs: values name them by ids that clients gave them.

    Without an answer, the tables in files of runs are shown; the server is asked again later.
    """
    now = utc_now()
    wanted = await writer.read(lambda db: tables.unnamed_clients(db, now - ASK_AGAIN))
    for start in range(0, len(wanted), CLIENTS_AT_ONCE):
        some = wanted[start : start + CLIENTS_AT_ONCE]
        found: dict[str, str | None] = dict.fromkeys(some)
        try:
            found = await artifacts.by_client_ids(server, some)
        except CommError as error:
            log.warning("the server does not say which artifacts have the tables of runs: %s", error)
        await writer.write(lambda tx, found=found: tables.save_clients(tx, found, now))  # type: ignore[misc]


async def convert_pending(writer: Writer) -> int:
    """Convert every table whose file is here, and those whose Parquet was lost. Returns how many were converted.

    A file that is not a table is recorded with its error. Raises MirrorError, and OSError if the disk fails.
    """
    if missing := await writer.read(lambda db: tables.lost(db, writer.blobs)):
        await writer.write(lambda tx: tables.drop(tx, missing))
    plain = await writer.read(lambda db: tables.pending(db, MADE_BY, str(writer.blobs.folder)))
    count = await _make(writer, plain, _convert)
    if found := await writer.read(lambda db: table_pieces.outdated(db, writer.blobs, MADE_BY)):
        with table_compose.opened() as connection:
            count += await _make(writer, found, partial(_compose, connection))
    return count


async def _make(writer: Writer, wanted: Sequence[T], convert_one: Callable[[Blobs, T], Converted | None]) -> int:
    done: list[Converted] = []
    count = 0
    saved_at = time.monotonic()
    try:
        for one in wanted:
            converted = await asyncio.to_thread(convert_one, writer.blobs, one)
            if converted is not None:
                done.append(converted)
                count += converted.error is None
            if time.monotonic() - saved_at > COMMIT_SECONDS:
                saved, done = done, []
                await _save(writer, saved)
                saved_at = time.monotonic()
    finally:
        await _save(writer, done)
    return count


async def _save(writer: Writer, done: list[Converted]) -> None:
    if done:
        await asyncio.shield(writer.write(lambda tx: tables.save(tx, writer.blobs, done, MADE_BY)))


def _convert(blobs: Blobs, source: str) -> Converted | None:
    """Convert one table, and move its Parquet to its place. Returns None if its file was lost."""
    if not blobs.path(source).exists():
        return None
    part = blobs.part(f"table-{uuid.uuid4().hex}")
    media = _Media(blobs)
    try:
        found = convert(blobs.path(source), part, media)
        digest, size = files.digest(part), part.stat().st_size
        blobs.place(part, digest, size)
    except BadTable as error:
        return Converted(source, error=one_line(f"not a table: {error}"))
    finally:
        part.unlink(missing_ok=True)
    place = str(blobs.folder) if media.here else None
    absent = len(media.absent)
    return Converted(
        source, found.columns, found.names, found.types, found.rows, digest, size, place=place, absent=absent
    )


def _compose(connection: DuckDBPyConnection, blobs: Blobs, found: Found) -> Converted | None:
    """Make one table of its pieces, and move its Parquet to its place. Returns None if that of a piece was lost."""
    source = found.table.source
    if found.pieces is None:
        return Converted(source, error=one_line(str(found.error)), made_of=found.made_of)
    if not all(blobs.path(leaf.parquet).exists() for leaf in table_compose.leaves(found.pieces)):
        return None
    part = blobs.part(f"table-{uuid.uuid4().hex}")
    try:
        made = table_compose.compose(connection, found.pieces, part, blobs.path)
        digest, size = files.digest(part), part.stat().st_size
        blobs.place(part, digest, size)
    except BadTable as error:
        return Converted(source, error=one_line(str(error)), made_of=found.made_of)
    finally:
        part.unlink(missing_ok=True)
    return Converted(source, made.columns, made.names, made.types, made.rows, digest, size, made_of=found.made_of)


class _Media:
    """The paths of media cells: that of their content where it is here, else the path in the artifact."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self.here: set[str] = set()
        self.absent: set[str] = set()

    def __call__(self, cell: dict[str, Any]) -> str:
        """Return the path for a cell."""
        path, digest = str(cell["path"]), str(cell.get("sha256")).lower()
        if digest not in self.here and digest not in self.absent:
            there = _DIGEST.fullmatch(digest) is not None and self._blobs.path(digest).exists()
            (self.here if there else self.absent).add(digest)
        return str(self._blobs.path(digest)) if digest in self.here else path
