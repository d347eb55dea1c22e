"""The files that a lake should hold: segments as they are, and all other rows in parts, each named by its content."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mirror.errors import StoreError
from mirror.lake.tables import PARTITION, File
from mirror.query.export import OF_PROJECTS, RELATIONS
from mirror.settings.home import Home
from mirror.snapshot import parts
from mirror.snapshot.parts import Part
from mirror.snapshot.paths import Project
from mirror.snapshot.segments import of_project
from mirror.store import files, segment_files, views
from mirror.store.names import identifier, literal, pattern
from mirror.store.records import ProjectKey

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FORMAT = 1
"""Goes into the names of files: a file of another format is another file."""

_OPTIONS = "(FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2)"
# The first is relative to now, and would soon be wrong in a file; the second joins three columns, and segments do not
# have it; the third is a place on this machine.
_LEFT_OUT = ("lag_s", "run_path", "local_path")

_SKIPPED_BY = ("run_id", "key", "step")
"""The columns whose least and greatest values are stored, where a table has them."""


class Content:
    """What the published file holds of the chosen projects, as files of tables."""

    def __init__(self, connection: DuckDBPyConnection, home: Home, chosen: Sequence[Project], scratch: Path) -> None:
        """Divide the projects' rows. `scratch` is a folder for temporary files."""
        for key in chosen:
            if not segment_files.fits(ProjectKey(*key)):
                raise StoreError(f"the name of {key} is too long for a folder of a lake; export the other projects")
        self._connection = connection
        self._home = home
        self._chosen = chosen
        self._scratch = scratch
        parts.divide(connection, chosen)

    def of(self, relation: str) -> Relation:
        """Return the files of a table."""
        described = self._connection.execute(f"DESCRIBE main.{identifier(relation)}").fetchall()
        columns = {name: kind for name, kind, *_ in described if name not in _LEFT_OUT}
        kept = [name for name in columns if name not in PARTITION]
        found = parts.of_relation(self._connection, relation, kept, by_run=relation not in OF_PROJECTS)
        named = {self._path(relation, columns, part): part for part in found}
        segments = dict(self._segments()) if relation == parts.TAIL else {}
        return Relation(self._connection, self._scratch, self._home.history, relation, columns, named, segments)

    def _path(self, relation: str, columns: Mapping[str, str], part: Part) -> str:
        text = f"{FORMAT} {dict(columns)} {part.rows} {part.mark}"
        stem = "tail" if relation == parts.TAIL else relation
        digest = hashlib.sha256(text.encode()).hexdigest()[:24]
        number = f"{part.number:05d}" if part.number >= 0 else "rest"
        return f"{segment_files.partition(ProjectKey(*part.project))}/{stem}-{number}-{digest}.parquet"

    def _segments(self) -> Iterator[tuple[str, _Segment]]:
        """Yield the segments of history. Values of replaced runs are left out of one, and its name shows that."""
        digests = segment_files.digests(lambda sql: self._connection.execute(sql).fetchall())
        for key in self._chosen:
            folder = segment_files.partition(ProjectKey(*key))
            for path, count, replaced, hidden in of_project(self._connection, key):
                source = self._home.history / path
                if hidden == count:
                    continue
                name = source.stem
                if replaced:
                    name += f"-{hashlib.sha256(chr(10).join(replaced).encode()).hexdigest()[:16]}"
                segment = _Segment(source, key, count - hidden, bool(replaced), digests.get(path))
                yield f"{folder}/{name}.parquet", segment


class _Segment(NamedTuple):
    """A segment of the mirror; `partly` if values of replaced runs are left out of it."""

    source: Path
    project: Project
    rows: int
    partly: bool
    digest: str | None


class Relation:
    """The files of one table. `paths` are all of them; only those that are not in the lake yet need to be made."""

    def __init__(
        self,
        connection: DuckDBPyConnection,
        scratch: Path,
        history: Path,
        name: str,
        columns: Mapping[str, str],
        named: Mapping[str, Part],
        segments: Mapping[str, _Segment],
    ) -> None:
        """Create it from the parts and segments by their paths; `columns` are names and types in DuckDB."""
        self._connection = connection
        self._scratch = scratch
        self._history = history
        self.name = name
        self.columns = columns
        self._kept = [column for column in columns if column not in PARTITION]
        self._parts = named
        self._segments = segments
        self._mark = uuid.uuid4().hex[:8]

    @property
    def contents(self) -> list[str]:
        """What stands for the rows of each file: its path within the table, without the mark of an export."""
        return [*self._segments, *self._parts]

    @property
    def rows(self) -> int:
        """The number of rows of all files."""
        return sum(part.rows for part in self._parts.values()) + sum(one.rows for one in self._segments.values())

    @property
    def digest(self) -> str:
        """A digest of what all files hold, and of the columns."""
        return hashlib.sha256(repr((dict(self.columns), sorted(self.contents))).encode()).hexdigest()

    def copies(self, contents: Sequence[str]) -> list[str]:
        """Those of the contents that are files of the mirror as they are, so the same bytes at each export."""
        return [path for path in contents if path in self._segments and not self._segments[path].partly]

    def file(self, path: str, size: int) -> File:
        """Return a copy that is in the lake already, with so many bytes."""
        found = self._segments[path]
        return File(path, found.project, found.rows, size)

    def made(self, missing: Sequence[str]) -> Iterator[tuple[File, Path]]:
        """Yield the files of these contents, each with the local file to copy, which is valid until the next one.

        The same rows may make another file at another time. So what is no plain copy has a mark of this export in its
        path: another one at the same time does not overwrite it.
        """
        for path in missing:
            if path in self._segments:
                yield from self._segment(path, self._segments[path])
        wanted = [self._parts[path] for path in missing if path in self._parts]
        if not wanted:
            return
        by_run, order = self.name not in OF_PROJECTS, RELATIONS[self.name]
        alone = len(wanted) == 1
        if not alone:
            parts.copy_aside(self._connection, self.name, self._kept, order, wanted, by_run=by_run)
        for path in missing:
            if part := self._parts.get(path):
                query, params = (
                    parts.rows_of_one(self.name, self._kept, order, part, by_run=by_run)
                    if alone
                    else parts.rows_of(self._kept, part)
                )
                local = self._scratch / f"{self.name}.parquet"
                self._copy(query, params, local, part.rows)
                yield self._file(self._marked(path), part.project, part.rows, local), local

    def _marked(self, path: str) -> str:
        return f"{path.removesuffix('.parquet')}-{self._mark}.parquet"

    def _segment(self, path: str, segment: _Segment) -> Iterator[tuple[File, Path]]:
        source = segment.source
        if segment.digest is not None and files.digest(source) != segment.digest:
            raise StoreError(f"{source} is damaged and is not exported; run `mirror verify --repair`")
        if not segment.partly:
            yield self._file(path, segment.project, segment.rows, source), source
            return
        query = f"""
            SELECT p.run_id, p.key, p.step, p.value, p.text
            FROM read_parquet([{pattern(source)}], hive_partitioning = false, filename = true) AS p
            {views.without_replaced(self._history)} ORDER BY key, run_id, step
        """
        local = self._scratch / source.name
        self._copy(query, [], local, segment.rows)
        yield self._file(self._marked(path), segment.project, segment.rows, local), local
        local.unlink()

    def _copy(self, query: str, params: Sequence[object], target: Path, expected: int) -> None:
        copied = self._connection.execute(f"COPY ({query}) TO {literal(target)} {_OPTIONS}", list(params)).fetchall()
        if copied[0][0] != expected:
            raise StoreError(f"{copied[0][0]} rows of {self.name} were found instead of {expected}; export again")

    def _file(self, path: str, project: Project, rows: int, local: Path) -> File:
        return File(path, project, rows, local.stat().st_size, _stats(local) if rows else {})


def _stats(local: Path) -> dict[str, dict[str, Any]]:
    """Return the least and the greatest values of the columns by which readers skip files."""
    from pyarrow import parquet

    found = parquet.read_metadata(local)
    names = [found.schema.column(place).name for place in range(found.num_columns)]
    least: dict[str, Any] = {}
    greatest: dict[str, Any] = {}
    for place, name in enumerate(names):
        if name not in _SKIPPED_BY:
            continue
        groups: list[Any] = [found.row_group(group).column(place).statistics for group in range(found.num_row_groups)]
        if all(group is not None and group.has_min_max for group in groups):
            least[name] = min(group.min for group in groups)
            greatest[name] = max(group.max for group in groups)
    return {"minValues": least, "maxValues": greatest}
