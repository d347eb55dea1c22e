"""Copies a mirror to a folder and back: the published file, the segments and contents that it lists, and the config.

A backup is a folder with `backup.json`, which has the config in it, a database, `history/` and `blobs/`. The database
is the published file: a byte copy of the state, whose cursors belong to its data, so a mirror continues from it. Only
`backup.json` is replaced, in one step; until then the folder still has the earlier backup.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
from msgspec import Struct
from msgspec.structs import asdict

from mirror.errors import StoreBusy, StoreError, UsageError
from mirror.settings.home import Home
from mirror.store import aside, contents, files, identity, migrations, recovery, segment_files
from mirror.store.blobs import Blobs
from mirror.store.database import log_files, opening_error, scan
from mirror.version import VERSION

logger = logging.getLogger(__name__)

_FORMAT = 1

_COUNTS = "SELECT count(*), coalesce(sum(history_rows), 0)::BIGINT FROM main.runs"
"""Over the published relation, which files of every version have."""


class Summary(Struct, frozen=True):
    """What a backup has: runs, history rows, segments, the bytes of all its files, and those that were copied now.

    `contents` counts the contents of files of runs.
    """

    runs: int
    history_rows: int
    segments: int
    bytes: int
    copied_bytes: int
    contents: int = 0


class _Manifest(Struct, frozen=True):
    format: int
    version: str
    made_at: str
    mirror: str
    runs: int
    history_rows: int
    database: str
    """The name of the database: the SHA-256 of its content, and `.duckdb`."""

    config: str | None
    """The text of the config, which never has credentials; None if there is none."""

    segments: dict[str, list[Any]]
    """Bytes and SHA-256 of each segment, by path within `history`."""


def make(home: Home, target: Path) -> Summary:
    """Copy the published mirror of a home to a folder, which may have an earlier backup of the same mirror.

    Segments that the folder has are not copied again, since they never change. Beside a running daemon: have it publish
    first, for what was committed last.
    """
    target = target.expanduser().absolute()
    if target == home.data or target.is_relative_to(home.history) or home.data.is_relative_to(target):
        raise UsageError(f"{target} is part of the mirror itself; name a folder outside of {home.data}")
    if not home.published.exists():
        raise StoreError(f"nothing is mirrored in {home.data}, so there is nothing to back up")
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target} is not a folder")
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(target, fcntl.LOCK_EX):
            return _make(home, target, _former(target))
    except OSError as error:
        raise StoreError(f"{target} was not written: {_problem(error)}; an earlier backup in it stays") from error


def _make(home: Home, target: Path, former: _Manifest | None) -> Summary:
    scratch = target / f".{os.getpid()}-{uuid.uuid4().hex[:8]}.part"
    try:
        # One open descriptor: the daemon may replace the file meanwhile.
        files.copy(home.published, scratch)
        with _opened(scratch, home.published) as reader:
            born = _name(reader)
            if former is not None and former.mirror != born:
                raise UsageError(f"{target} has a backup of another mirror; name another folder")
            scan(reader, reader.execute("SELECT current_database()").fetchall()[0][0])
            listed = _segments(reader)
            held = _contents(reader)
            runs, rows = reader.execute(_COUNTS).fetchall()[0]
        copies, copied = _copy_segments(home.history, target / "history", listed, former)
        copied += _copy_contents(Blobs(home.blobs), Blobs(target / "blobs"), held, "run `mirror verify --repair`")
        config = home.config.read_text(encoding="utf-8", errors="replace") if home.config.exists() else None
        manifest = _Manifest(
            *(_FORMAT, VERSION, datetime.now(UTC).isoformat(timespec="seconds"), born, runs, rows),
            *(f"{files.digest(scratch)}.duckdb", config, copies),
        )
        size = scratch.stat().st_size
        scratch.replace(target / manifest.database)
        _write(target, manifest)
    finally:
        scratch.unlink(missing_ok=True)
    _delete_unlisted(target, manifest, held)
    total = size + sum(int(length) for length, _ in copies.values()) + sum(held.values())
    return Summary(runs, rows, len(copies), total, copied + size, len(held))


def restore(source: Path, home: Home, *, replace: bool) -> Summary:
    """Put a backup into a home, as its state; open the store afterwards, which publishes it.

    The files of the backup are compared with their digests first. A config that the home has stays. With `replace`, the
    databases that the home has are moved to its folder `aside`. Raises UsageError for a home that has a mirror, without
    `replace`, and StoreError for a damaged backup; then nothing was changed.
    """
    source = source.expanduser().absolute()
    if _manifest(source) is None:
        raise UsageError(f"{source} has no backup.json, so it is not a backup of `mirror backup`")
    there = [path for path in (home.state, home.published, *log_files(home.state)) if path.exists()]
    if there and not replace:
        kept = aside.folder(home.data)
        raise UsageError(f"{home.data} has a mirror already; --replace replaces it, and keeps its databases in {kept}")
    with _locked(source, fcntl.LOCK_SH):
        return _restore(source, home, there)


def _restore(source: Path, home: Home, there: Sequence[Path]) -> Summary:
    manifest = _manifest(source)
    assert manifest is not None
    _check(source, manifest)
    with _opened(source / manifest.database) as reader:
        migrations.check_known(source, migrations.applied(lambda sql: reader.execute(sql).fetchall()))
        held = _contents(reader)
    there_already = Blobs(source / "blobs")
    _check_contents(there_already, held)
    state = recovery.new_copy(home.state)
    try:
        home.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        copied = 0
        for path, (length, digest) in manifest.segments.items():
            # One of this name may be there, and may be what was damaged.
            if not _has(home.history / path, length) or files.digest(home.history / path) != digest:
                copied += _put(source / "history" / path, home.history / path)
        copied += _copy_contents(there_already, Blobs(home.blobs), held, "nothing was restored")
        copied += files.copy(source / manifest.database, state)
        # From here on the home changes: all of the backup is there.
        if manifest.config is not None and not home.config.exists():
            home.config.parent.mkdir(parents=True, exist_ok=True)
            home.config.write_text(manifest.config, encoding="utf-8")
        if there:
            aside.put(home.data, there)
        if home.state.exists():
            raise StoreBusy(f"{home.state} was created meanwhile, as by a daemon; stop it, and restore with --replace")
        state.replace(home.state)
        files.sync_folder(home.data)
    except OSError as error:
        raise StoreError(f"{home.data} was not restored: {_problem(error)}; restore again") from error
    finally:
        if state.exists():
            state.unlink()
    total = home.state.stat().st_size + sum(int(length) for length, _ in manifest.segments.values())
    counts = (manifest.runs, manifest.history_rows, len(manifest.segments))
    return Summary(*counts, total + sum(held.values()), copied, len(held))


def check_restored(home: Home, expected: Summary) -> None:
    """Compare the published file of a restored home with the backup. Raises StoreError if they differ."""
    with _opened(home.published) as reader:
        found = reader.execute(_COUNTS).fetchall()[0]
        # Reads the segments as readers do, by their new place.
        reader.execute("SELECT count(*) FROM history").fetchall()
    if found != (expected.runs, expected.history_rows):
        raise StoreError(f"{home.published} has {found} runs and history rows, unlike the backup; restore again")


def _former(target: Path) -> _Manifest | None:
    """Return the manifest of an earlier backup in the folder. Raises UsageError if the folder has anything else."""
    former = _manifest(target)
    if former is None:
        # A first backup that was interrupted leaves segments and unfinished files.
        ours = ("history", "blobs")
        if any(entry.suffix not in (".part", ".duckdb") and entry.name not in ours for entry in target.iterdir()):
            raise UsageError(f"{target} is not empty, and has no earlier backup; name an empty or a new folder")
    return former


def _manifest(folder: Path) -> _Manifest | None:
    path = folder / "backup.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] > _FORMAT:
            raise UsageError(f"{path} was written by wandb-mirror {found['version']}, newer than this one; update it")
        return _Manifest(**found)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} cannot be read ({error}); the backup is damaged") from error


def _check(source: Path, manifest: _Manifest) -> None:
    """Compare each file of a backup with its digest."""
    wanted = {source / manifest.database: manifest.database.removesuffix(".duckdb")}
    wanted |= {source / "history" / path: digest for path, (_, digest) in manifest.segments.items()}
    for path, digest in wanted.items():
        _check_file(path, digest, "its digest in backup.json")


def _check_file(path: Path, digest: str, where: str) -> None:
    """Raise StoreError if the file cannot be read, or its digest is another one than is found `where`."""
    try:
        same = files.digest(path) == digest
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}); nothing was restored") from error
    if not same:
        raise StoreError(f"{path} is damaged: it differs from {where}; nothing was restored")


@contextmanager
def _opened(path: Path, shown: Path | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database for reading. An error names the path `shown` instead, if given."""
    try:
        with duckdb.connect(str(path), read_only=True) as reader:
            yield reader
    except duckdb.Error as error:
        raise opening_error(shown or path, error) from error


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    """Keep other backups out of the folder: LOCK_EX to write one, LOCK_SH to read it. Raises StoreBusy and OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreBusy(f"another backup or restore uses {folder}; wait until it has ended") from error
        except OSError as error:
            # Not every network file system has locks.
            logger.debug("%s cannot be locked: %s", folder, error)
        yield
    finally:
        os.close(descriptor)


def _problem(error: OSError) -> str:
    """What is wrong, and with which file."""
    reason = error.strerror or str(error)
    return f"{reason}: {error.filename}" if error.filename else reason


def _name(reader: duckdb.DuckDBPyConnection) -> str:
    """Return what identifies the mirror of a file."""
    found = identity.of(lambda sql: reader.execute(sql).fetchall())
    if found is None:
        raise StoreError("the published file holds no mirror")
    return found.mirror or found.born.isoformat()


def _segments(reader: duckdb.DuckDBPyConnection) -> dict[str, str | None]:
    """Return the digest, if it was recorded, of each segment in use, by path."""
    noted = segment_files.digests(lambda sql: reader.execute(sql).fetchall())
    rows = reader.execute("SELECT path FROM store.segments WHERE retired_at IS NULL ORDER BY path").fetchall()
    return {path: noted.get(path) for (path,) in rows}


def _copy_segments(
    source: Path, target: Path, listed: Mapping[str, str | None], former: _Manifest | None
) -> tuple[dict[str, list[Any]], int]:
    """Copy the segments that are not there yet. Returns the manifest's entries, and how many bytes were copied."""
    known = former.segments if former is not None else {}
    entries: dict[str, list[Any]] = {}
    copied = 0
    for path, recorded in listed.items():
        if path in known and _has(target / path, known[path][0]) and recorded in (None, known[path][1]):
            entries[path] = known[path]
            continue
        (target / path).unlink(missing_ok=True)
        try:
            length = _put(source / path, target / path)
        except FileNotFoundError as error:
            raise StoreError(f"the segment {source / path} is missing; run `mirror verify --repair`") from error
        digest = files.digest(target / path)
        if recorded not in (None, digest):
            (target / path).unlink()
            raise StoreError(
                f"the segment {source / path} is damaged; run `mirror verify --repair`, then back up again"
            )
        entries[path] = [length, digest]
        copied += length
    return entries, copied


def _contents(reader: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Return the bytes of each content that something names, by digest."""
    return contents.named(lambda sql: reader.execute(sql).fetchall())


def _copy_contents(source: Blobs, target: Blobs, held: Mapping[str, int], advice: str) -> int:
    """Copy the contents that are not there yet, each checked by its name. Returns how many bytes were copied."""
    copied = 0
    for digest, size in held.items():
        if target.has(digest, size):
            continue
        scratch = target.part(digest)
        scratch.unlink(missing_ok=True)
        try:
            files.copy(source.path(digest), scratch)
            if files.digest(scratch) != digest:
                raise StoreError(f"{source.path(digest)} is damaged; {advice}")
            target.place(scratch, digest, size)
        except FileNotFoundError as error:
            raise StoreError(f"{source.path(digest)} is missing; {advice}") from error
        finally:
            scratch.unlink(missing_ok=True)
        copied += size
    return copied


def _check_contents(blobs: Blobs, held: Mapping[str, int]) -> None:
    """Compare each content of a backup with its name. Raises StoreError."""
    for digest in held:
        _check_file(blobs.path(digest), digest, "its name")


def _write(target: Path, manifest: _Manifest) -> None:
    """Replace the manifest of a backup."""
    note = target / ".backup.json.part"
    note.write_text(json.dumps(asdict(manifest), indent=1) + "\n", encoding="utf-8")
    files.sync_file(note)
    note.replace(target / "backup.json")
    files.sync_folder(target)


def _delete_unlisted(target: Path, manifest: _Manifest, held: Mapping[str, int]) -> None:
    """Delete the databases, segments and contents of earlier backups that this one does not list."""
    blobs = Blobs(target / "blobs")
    for blob in blobs.everything():
        if blob.digest not in held:
            blobs.remove(blob.digest)
    kept = {target / manifest.database, *(target / "history" / path for path in manifest.segments)}
    for path in [*target.glob("*.duckdb"), *target.glob(".*.part"), *(target / "history").rglob("*.parquet*")]:
        if path not in kept:
            path.unlink()


def _has(path: Path, length: int) -> bool:
    try:
        return path.stat().st_size == length
    except FileNotFoundError:
        return False


def _put(source: Path, target: Path) -> int:
    """Copy a file durably under its final name, making its folder. Returns its bytes."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    scratch = target.with_name(f"{target.name}.part")
    scratch.unlink(missing_ok=True)
    length = files.copy(source, scratch)
    scratch.replace(target)
    files.sync_folder(target.parent)
    return length


def before_upgrade(home: Home, pending: Sequence[str]) -> Path:
    """Keep a copy of the published file as it is before migrations, in the folder `before-upgrade`; return its path."""
    folder = home.data / "before-upgrade"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    copy = folder / f"state-before-{pending[0]}.duckdb"
    try:
        # A name is enough: the published file is never changed, only replaced.
        os.link(home.published, copy)
    except OSError:
        # Some file systems have no hard links.
        files.copy(home.published, copy)
    return copy
