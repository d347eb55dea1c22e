"""Exports the mirror as a lake: Hive-partitioned Parquet in a folder or an S3 bucket, with a manifest of its files.

Files are never changed: a segment of history keeps its name, and any other file is named after its content's digest.
So a second export writes only what is new. The manifest is written last; it switches readers from one complete state
to the next.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirror.errors import StoreError
from mirror.query.export import RELATIONS, opened
from mirror.query.lake_target import LakeTarget
from mirror.settings.home import Home
from mirror.snapshot.paths import Project
from mirror.snapshot.segments import TAIL, of_project
from mirror.store import files, segment_files, views
from mirror.store.names import identifier, literal, pattern
from mirror.store.records import ProjectKey

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

GRACE = timedelta(hours=24)
"""How long a file stays after it was dropped from the manifest, for readers that started with an older manifest."""

MANIFEST = "manifest.json"
FORMAT = 1

_OURS = re.compile(
    rf"({'|'.join(RELATIONS)})/entity=[^/]+/project=[^/]+/"
    r"(\d+-\d{8}-[0-9a-f]{32}(-[0-9a-f]{16})?|[a-z_]+-[0-9a-f]{24})\.parquet(\.[0-9a-f]+\.part)?"
)
_OPTIONS = "(FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2)"
_PARTITION = ("entity", "project")
# The first is relative to now, and would soon be wrong in a file; the second joins three columns, and segments do not
# have it; the third is a place on this machine.
_LEFT_OUT = ("lag_s", "run_path", "local_path")


@dataclass(frozen=True)
class File:
    """A file in the manifest: its path within the lake, its size in bytes and its number of rows."""

    path: str
    bytes: int
    rows: int


@dataclass(frozen=True)
class Export:
    """What an export did: files written and their bytes, files kept and deleted, and the rows of the whole lake."""

    written: int
    bytes: int
    kept: int
    deleted: int
    rows: int


def export(home: Home, chosen: Sequence[Project], place: LakeTarget, *, grace: timedelta = GRACE) -> Export:
    """Make the lake contain exactly the chosen projects as they are in the published file.

    Until the new manifest is written, readers see the former state. Files that are no longer in the manifest are
    deleted after `grace`. Raises StoreError if something cannot be read or written; the former state is still there.
    """
    now = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
    before = _retired_before(place)
    present = {path: size for path, size in place.listing().items() if _OURS.fullmatch(path)}
    listed: dict[str, list[File]] = {relation: [] for relation in RELATIONS}
    columns = {}
    written: list[File] = []
    published_at = _published_at(home)
    with opened(home) as connection, tempfile.TemporaryDirectory(prefix="mirror-lake-") as scratch:
        for relation in RELATIONS:
            columns[relation] = _columns(connection, relation)
            for key in chosen:
                for file, source in _files(connection, home, relation, key, Path(scratch), present):
                    if present.get(file.path) != file.bytes:
                        place.put(source, file.path)
                        written.append(file)
                    listed[relation].append(file)
    files = [file for found in listed.values() for file in found]
    retired = {path: before.get(path, now) for path in present.keys() - {file.path for file in files}}
    kept = {path: since for path, since in retired.items() if since + grace > now}
    manifest = {
        "format": FORMAT,
        "snapshot_at": published_at.isoformat(),
        "written_at": now.isoformat(),
        "relations": {
            relation: {
                "columns": columns[relation],
                "partitioned_by": list(_PARTITION),
                "rows": sum(file.rows for file in found),
                "files": [asdict(file) for file in found],
            }
            for relation, found in listed.items()
        },
        "retired": [{"path": path, "since": since.isoformat()} for path, since in sorted(kept.items())],
    }
    place.settle()
    place.write(MANIFEST, json.dumps(manifest, ensure_ascii=False, indent=1).encode())
    for path in sorted(retired.keys() - kept.keys()):
        place.delete(path)
    return Export(
        written=len(written),
        bytes=sum(file.bytes for file in written),
        kept=len(files) - len(written),
        deleted=len(retired) - len(kept),
        rows=sum(file.rows for file in files),
    )


def _files(
    connection: DuckDBPyConnection, home: Home, relation: str, key: Project, scratch: Path, present: dict[str, int]
) -> Iterator[tuple[File, Path]]:
    """The files of a relation and project, each with the local file to copy, which is valid until the next one."""
    project = ProjectKey(*key)
    if not segment_files.fits(project):
        raise StoreError(f"the name of {key} is too long for a folder of a lake; export the other projects by name")
    folder = f"{relation}/{segment_files.partition(project)}"
    if relation == "history":
        yield from _segments(connection, home.history, key, folder, scratch, present)
        query = TAIL
    else:
        kept = [identifier(name) for name in _columns(connection, relation) if name not in _PARTITION]
        query = (
            f"SELECT {', '.join(kept)} FROM main.{identifier(relation)} WHERE entity = ? AND project = ? ORDER BY ALL"
        )
    source = scratch / f"{relation}.parquet"
    rows = _copy(connection, query, list(key), source)
    stem = "tail" if relation == "history" else relation
    yield _file(f"{folder}/{stem}-{_digest(source)}.parquet", source, rows), source


def _segments(
    connection: DuckDBPyConnection,
    folder: Path,
    project: Project,
    target: str,
    scratch: Path,
    present: dict[str, int],
) -> Iterator[tuple[File, Path]]:
    """The segments, unchanged. From one with values of replaced runs these are left out, and its name shows that."""
    digests = segment_files.digests(lambda sql: connection.execute(sql).fetchall())
    for path, count, replaced, hidden in of_project(connection, project):
        source = folder / path
        if f"{target}/{source.name}" not in present and path in digests and files.digest(source) != digests[path]:
            raise StoreError(f"{source} is damaged and is not exported; run `mirror verify --repair`")
        if not replaced:
            yield _file(f"{target}/{source.name}", source, count), source
            continue
        if hidden == count:
            continue
        digest = hashlib.sha256("\n".join(replaced).encode()).hexdigest()[:16]
        name = f"{target}/{source.stem}-{digest}.parquet"
        if name in present:
            yield File(name, present[name], count - hidden), source
            continue
        query = f"""
            SELECT p.run_id, p.key, p.step, p.value, p.text
            FROM read_parquet([{pattern(source)}], hive_partitioning = false, filename = true) AS p
            {views.without_replaced(folder)} ORDER BY key, run_id, step
        """
        filtered = scratch / source.name
        rows = _copy(connection, query, [], filtered)
        yield _file(name, filtered, rows), filtered
        filtered.unlink()


def _copy(connection: DuckDBPyConnection, query: str, params: Sequence[str], target: Path) -> int:
    return int(connection.execute(f"COPY ({query}) TO {literal(target)} {_OPTIONS}", params).fetchall()[0][0])


def _file(path: str, source: Path, rows: int) -> File:
    return File(path, source.stat().st_size, rows)


def _columns(connection: DuckDBPyConnection, relation: str) -> dict[str, str]:
    described = connection.execute(f"DESCRIBE main.{identifier(relation)}").fetchall()
    return {name: kind for name, kind, *_ in described if name not in _LEFT_OUT}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:24]


def _published_at(home: Home) -> datetime:
    return datetime.fromtimestamp(home.published.stat().st_mtime, UTC).replace(tzinfo=None, microsecond=0)


def _retired_before(place: LakeTarget) -> dict[str, datetime]:
    """The files that the last manifest lists as retired, and since when."""
    text = place.read(MANIFEST)
    if text is None:
        return {}
    try:
        manifest: Any = json.loads(text)
        if manifest["format"] != FORMAT:
            raise StoreError(
                f"{place.name}/{MANIFEST} is of format {manifest['format']}, not {FORMAT}: use another folder"
            )
        return {entry["path"]: datetime.fromisoformat(entry["since"]) for entry in manifest["retired"]}
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{place.name}/{MANIFEST} is not the manifest of a lake: use another folder") from error
