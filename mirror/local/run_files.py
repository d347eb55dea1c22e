"""Mirrors the folder `files/` beside the files of local runs: the list, and the content that the settings select."""

from __future__ import annotations

import base64
import hashlib
import mimetypes
import os
import stat
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

from msgspec import Struct

from mirror.errors import StoreError
from mirror.local.blocks import NotReadable
from mirror.local.files import opened
from mirror.local.looks import Beat, Hangs, Looks
from mirror.store import contents, local_files
from mirror.store.blobs import Blobs
from mirror.store.contents import Selection
from mirror.store.database import disk_full
from mirror.store.local_files import Held, Unlisted
from mirror.store.records import RunFile
from mirror.sync.context import utc_now
from mirror.sync.writer import Writer

_PIECE = 1 << 20


class _Found(Struct, frozen=True):
    """A file on the disk: its name in the run, its path, size and time (naive UTC)."""

    name: str
    path: Path
    size: int
    updated_at: datetime


async def store(writer: Writer, selection: Selection, looks: Looks) -> list[str]:
    """List the files of the local runs that were read since, and store the wanted content.

    A file that cannot be read is listed without content. Returns a sentence for each such file. Raises StoreError if
    the disk is full or the folder of content cannot be written.
    """
    problems: list[str] = []
    for run in await writer.read(local_files.unlisted):
        # The time before the files are looked at: what is read of the run later has them looked at again.
        now = utc_now()
        held = await writer.read(lambda db, run=run: local_files.held(db, run.rid))  # type: ignore[misc]
        stored = await writer.read(contents.stored_bytes)
        room = selection.budget - stored if selection.budget else None
        own: list[str] = []
        try:
            for path in run.paths:
                await looks.at(path, lambda _, path=path: Path(path).parent.exists())  # type: ignore[misc]
            files = await looks.at(
                run.paths[0],
                lambda beat, run=run, held=held, room=room, own=own: _contents(  # type: ignore[misc]
                    run, held, selection, room, writer.blobs, own, beat
                ),
            )
        except Hangs as error:
            # Looked at again with the next read of files.
            problems.append(f"{run.project}/{run.run_id}: files/ cannot be read: {error.strerror}")
            continue
        problems += own
        await writer.write(lambda tx, run=run, files=files, now=now: local_files.put(tx, writer.blobs, run, files, now))  # type: ignore[misc]
    return problems


def _contents(
    run: Unlisted,
    held: dict[str, Held],
    selection: Selection,
    room: int | None,
    blobs: Blobs,
    problems: list[str],
    beat: Beat,
) -> list[tuple[RunFile, str | None]]:
    """Return the list of a run's files, with the digests of those whose content is stored now."""
    found = _listed(run.paths, beat)
    chosen = [one for one in found if any(fnmatchcase(one.name, glob) for glob in selection.globs)]
    total = 0
    wanted = set()
    for one in sorted(chosen, key=lambda one: (one.size, one.name)):
        total += one.size
        if not selection.most_of_run or total <= selection.most_of_run:
            wanted.add(one.name)
    entries = []
    for one in found:
        known = held.get(one.name)
        same = known is not None and (known.size, known.updated_at) == (one.size, one.updated_at)
        md5 = digest = None
        size = one.size
        if same and known is not None and known.digest is not None:
            md5, digest = known.md5, known.digest
        elif one.name in wanted and (room is None or one.size <= room):
            try:
                md5, digest, size = _copied(one, blobs, beat)
                room = None if room is None else room - size
            except NotReadable as error:
                problems.append(f"{run.project}/{run.run_id}: files/{one.name} cannot be read: {error}")
            except OSError as error:
                if disk_full(error) or error.filename != str(one.path):
                    raise StoreError(f"cannot write {blobs.folder}: {error.strerror or error}") from error
                problems.append(f"{run.project}/{run.run_id}: files/{one.name} cannot be read: {error.strerror}")
        kind = mimetypes.guess_type(one.name)[0]
        entries.append((RunFile("", one.name, size, kind, one.updated_at, md5), digest))
    return entries


def _listed(paths: Sequence[str], beat: Beat) -> list[_Found]:
    """Return the files in the folders beside these run files, by name; those of a later start of the run count.

    The client links files that a script saves, so links to files are followed, but not those to folders.
    """
    found: dict[str, _Found] = {}
    for path in paths:
        root = Path(path).parent / "files"
        for parent, _, names in os.walk(root):
            beat()
            for name in names:
                file = Path(parent) / name
                try:
                    status = file.stat()
                except OSError:
                    continue
                if stat.S_ISREG(status.st_mode):
                    own = (
                        file.relative_to(root).as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "replace")
                    )
                    at = datetime.fromtimestamp(status.st_mtime, UTC).replace(tzinfo=None)
                    found[own] = _Found(own, file, status.st_size, at)
    return [found[name] for name in sorted(found)]


def _copied(one: _Found, blobs: Blobs, beat: Beat) -> tuple[str, str, int]:
    """Store the content of a file; returns its MD5 in Base64, its SHA-256 and its size. Raises OSError, NotReadable."""
    part = blobs.part(f"local-{uuid.uuid4().hex}")
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    size = 0
    try:
        with opened(one.path) as source, part.open("wb") as target:
            while piece := source.read(_PIECE):
                sha256.update(piece)
                md5.update(piece)
                size += len(piece)
                target.write(piece)
                beat()
        blobs.place(part, sha256.hexdigest(), size)
    finally:
        part.unlink(missing_ok=True)
    return base64.b64encode(md5.digest()).decode(), sha256.hexdigest(), size
