"""Exports the mirror to a lake: one Delta table for each relation, brought up to date by what is new.

No file is ever changed: a segment of history keeps its name, and any other file is named by its content. Each table is
replaced in one commit; `_snapshot.json`, written last, names the versions that belong together.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from mirror.errors import StoreError, UsageError, names_segment, unreadable
from mirror.lake import snapshot_file
from mirror.lake.content import Content, Relation
from mirror.lake.snapshot_file import State, TableState
from mirror.lake.tables import File, Superseded, Table, check_installed
from mirror.lake.target import LakeTarget
from mirror.query.export import RELATIONS
from mirror.settings.home import Home
from mirror.settings.values import Impossible, kept
from mirror.snapshot.connection import open_attached
from mirror.snapshot.paths import Project, projects
from mirror.store import identity
from mirror.store.names import literal
from mirror.store.steady import fingerprint

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

KEEP = timedelta(days=7)
"""How long old versions stay readable."""

GRACE = timedelta(days=1)
"""How long a file that no version has stays: an export that is under way may be about to commit it."""

TIDY_EVERY = timedelta(days=1)

_OURS = re.compile(
    r"entity=[^/]+/project=[^/]+/(\d+-\d{8}-[0-9a-f]{32}(-[0-9a-f]{16})?|[a-z_]+-(\d+|rest)-[0-9a-f]{24})"
    r"(-[0-9a-f]{8})?\.parquet(\.[0-9a-f]+\.part)?"
)


class Export(Struct, frozen=True):
    """What an export did: files written and their bytes, files kept and deleted, and the rows of the whole lake.

    `superseded` if another export wrote a newer state meanwhile; then this one ended early.
    """

    snapshot_at: datetime
    tables: int
    written: int
    bytes: int
    kept: int
    deleted: int
    rows: int
    superseded: bool = False


def export(
    home: Home,
    chosen: Sequence[Project] | None,
    target: LakeTarget,
    *,
    keep: timedelta = KEEP,
    memory: str | None = None,
) -> Export:
    """Make the lake contain exactly the chosen projects, or all, as they are in the published file.

    Old versions stay readable for `keep`. DuckDB uses up to `memory`, such as "2GB", and the disk beyond. Raises
    StoreError if something cannot be read or written, or if the lake belongs to another mirror; what `_snapshot.json`
    names is still there.
    """
    check_installed()
    with tempfile.TemporaryDirectory(prefix="mirror-lake-") as scratch, _opened(home, Path(scratch)) as opened:
        connection, state = opened
        if memory is not None:
            connection.execute(f"SET memory_limit = {literal(memory)}").fetchall()
        former = snapshot_file.read(target, state)
        if former.generation > state.generation:
            raise StoreError(
                f"{target.name} holds a newer state of this mirror ({former.generation} and {state.generation} "
                "publications), as after a backup was restored; use another folder"
            )
        content = Content(connection, home, projects(connection) if chosen is None else chosen, Path(scratch))
        work = _Work(target, content, state, keep, former)
        try:
            for relation in RELATIONS:
                work.bring_up_to_date(relation)
            work.finish()
        except Superseded:
            return work.result(superseded=True)
        return work.result()


def kept_for(text: object, name: str) -> timedelta:
    """Read how long old versions stay. Raises UsageError, which begins with `name`, if that is not valid."""
    try:
        return timedelta(seconds=kept(text))
    except Impossible as error:
        raise UsageError(f"{name} {error}") from None


class _Work:
    """One export: the tables that are up to date, and the sums over them."""

    def __init__(
        self, target: LakeTarget, content: Content, state: State, keep: timedelta, former: snapshot_file.Written
    ) -> None:
        self._target = target
        self._content = content
        self._state = state
        self._keep = keep
        self._former = former
        self._tables: dict[str, TableState] = {}
        self._changed = self._written = self._bytes = self._deleted = 0

    def bring_up_to_date(self, relation: str) -> None:
        """Copy what the table lacks, and commit it."""
        wanted = self._content.of(relation)
        if (former := self._former.tables.get(relation)) and self._is_current(relation, wanted, former):
            self._tables[relation] = former
            return
        table = self._open(relation, wanted)
        held = table.files()
        missing = [content for content in wanted.contents if content not in held]
        files = {content: held[content] for content in wanted.contents if content in held}
        files |= self._copied(wanted, missing)
        known = set(missing)

        def check(file: File) -> None:
            if file.content not in known and self._target.size(f"{relation}/{file.path}") != file.bytes:
                name = f"{self._target.name}/{relation}/{file.path}"
                raise StoreError(f"{name} was deleted by another program; export again")

        commit = table.commit(files, check)
        self._target.settle(f"{relation}/_delta_log/{commit.version:020}.json")
        self._tables[relation] = TableState(commit.version, wanted.rows, len(files), wanted.digest)
        self._changed += bool(commit.added or commit.removed)
        self._written += commit.added

    def _is_current(self, relation: str, wanted: Relation, former: TableState) -> bool:
        """Return True if the table has this content already, and no commit came after the one that wrote it."""
        if former.content != wanted.digest or self._former.keep != self._keep:
            return False
        return self._target.size(f"{relation}/_delta_log/{former.version + 1:020}.json") is None

    def _open(self, relation: str, wanted: Relation) -> Table:
        return Table(self._target, relation, wanted.columns, self._state, self._keep)

    def _copied(self, wanted: Relation, missing: Sequence[str]) -> dict[str, File]:
        """Copy these files to the lake, and return them by what stands for their rows."""
        # A copy may be there from an export that was interrupted, or for readers of older versions.
        sizes = {path: self._target.size(f"{wanted.name}/{path}") for path in wanted.copies(missing)}
        files = {path: wanted.file(path, size) for path, size in sizes.items() if size is not None}
        for file, source in wanted.made([content for content in missing if content not in files]):
            self._target.put(source, f"{wanted.name}/{file.path}")
            self._bytes += file.bytes
            files[file.content] = file
        self._target.settle()
        return files

    def finish(self) -> None:
        """Delete files of old versions, if that is due, and write `_snapshot.json`. Raises Superseded."""
        tidied, now = self._former.tidied, datetime.now(UTC).replace(tzinfo=None, microsecond=0)
        if tidied is None or now >= tidied + min(self._keep, TIDY_EVERY):
            self._deleted, tidied = sum(self._tidy(relation) for relation in self._tables), now
        if snapshot_file.read(self._target, self._state).generation > self._state.generation:
            raise Superseded
        snapshot_file.write(self._target, self._state, self._tables, keep=self._keep, now=now, tidied=tidied)

    def _tidy(self, relation: str) -> int:
        """Delete the files that no version within the time to keep has, and return their number."""
        table = self._open(relation, self._content.of(relation))
        outdated = [path for path in table.outdated(self._keep, GRACE) if _OURS.fullmatch(path)]
        for path in outdated:
            self._target.delete(f"{relation}/{path}")
        return len(outdated)

    def result(self, *, superseded: bool = False) -> Export:
        """Return the sums."""
        return Export(
            snapshot_at=self._state.snapshot_at,
            tables=self._changed,
            written=self._written,
            bytes=self._bytes,
            kept=sum(table.files for table in self._tables.values()) - self._written,
            deleted=self._deleted,
            rows=sum(table.rows for table in self._tables.values()),
            superseded=superseded,
        )


@contextmanager
def _opened(home: Home, scratch: Path) -> Iterator[tuple[DuckDBPyConnection, State]]:
    """Open the published file as it is now. Statements must not contain user text."""
    import duckdb

    while True:
        published = fingerprint(home.published)
        connection = open_attached(home.published, spill=str(scratch))
        if published is not None and published == fingerprint(home.published):
            break
        connection.close()
    try:
        connection.execute("USE mirror").fetchall()
        connection.execute("SET TimeZone = 'UTC'").fetchall()
        found = identity.of(lambda sql: connection.execute(sql).fetchall())
        if found is None or found.mirror is None:
            raise StoreError(f"{home.published} was published by an older version; `mirror sync` publishes it again")
        published_at = datetime.fromtimestamp(published[2] // 10**9, UTC).replace(tzinfo=None)
        yield connection, State(found.mirror, found.generation, published_at)
    except duckdb.Error as error:
        if names_segment(str(error)):
            raise unreadable(home.published, error) from error
        raise StoreError(f"the export failed: {' '.join(str(error).split())}") from error
    except OSError as error:
        if names_segment(str(error)):
            raise unreadable(home.published, error) from error
        raise StoreError(f"the export failed: {error.filename}: {error.strerror or error}") from error
    finally:
        connection.close()
