"""Content of files that nothing names any more: since when, and its end after a grace period."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec import Struct
from msgspec.structs import asdict, replace

from mirror.store import tables
from mirror.store.blobs import Blobs
from mirror.store.contents import ARTIFACT, FILE, NAMED, OF_PIECES, SOURCE, TABLE
from mirror.store.database import Database

_LISTED = f"""
    CASE n.kind
        WHEN '{FILE}' THEN n.owner IN (SELECT rid FROM store.run_records WHERE deleted_at IS NOT NULL)
            OR EXISTS (SELECT 1 FROM store.run_files AS f WHERE f.rid = n.owner AND f.name = n.name)
        WHEN '{ARTIFACT}' THEN n.owner IN (SELECT aid FROM store.artifact_records WHERE entries_of IS NULL)
            OR EXISTS (SELECT 1 FROM store.artifact_entries AS e WHERE e.aid = n.owner AND e.path = n.name)
        ELSE true
    END
"""
"""True if the run's list or the artifact's manifest still has what name `n` is of.

Lists of runs and manifests of artifacts that were deleted on the server stay. A manifest that is to be pulled again may
have the file.
"""


class Garbage(Struct, frozen=True):
    """Content that nothing names, in files and bytes: deleted (or to be deleted), and kept until its grace is over.

    `unlisted` are files in the folder that the store does not list, which count as deleted; `parts` are unfinished
    downloads, which do not.
    """

    deleted: int = 0
    deleted_bytes: int = 0
    kept: int = 0
    kept_bytes: int = 0
    unlisted: int = 0
    parts: int = 0


def note_unnamed(db: Database) -> bool:
    """Note since when content is named by nothing. Returns True if that changed.

    A file that its run's list no longer has names nothing; lists of runs that were deleted on the server stay.
    """
    if not db.value("SELECT count(*) FROM store.contents") and not db.value("SELECT count(*) FROM store.content_names"):
        return False
    with db.transaction():
        gone = db.value(f"DELETE FROM store.content_names AS n WHERE NOT {_LISTED}")
        gone += tables.forget_unnamed(db)
        now = datetime.now(UTC).replace(tzinfo=None)
        unnamed = db.value(
            f"UPDATE store.contents SET unnamed_at = ? WHERE unnamed_at IS NULL AND digest NOT IN ({NAMED})", [now]
        )
        named = db.value(
            f"UPDATE store.contents SET unnamed_at = NULL WHERE unnamed_at IS NOT NULL AND digest IN ({NAMED})"
        )
    return bool(gone or unnamed or named)


def delete_unnamed(db: Database, blobs: Blobs, grace: timedelta) -> Garbage:
    """Delete content that nothing has named for `grace`. Call it only when the published file does not name it, either.

    Readers of older files had the grace period, and what they have open stays readable.
    """
    before = datetime.now(UTC).replace(tzinfo=None) - grace
    old = db.run("SELECT digest, size FROM store.contents WHERE unnamed_at <= ?", [before])
    if old:
        with db.transaction():
            db.run(
                "DELETE FROM store.contents WHERE digest IN (SELECT unnest(?::VARCHAR[]))", [[one[0] for one in old]]
            )
        for digest, _ in old:
            blobs.remove(digest)
    return Garbage(deleted=len(old), deleted_bytes=sum(size for _, size in old))


def garbage(db: Database, blobs: Blobs, grace: timedelta) -> Garbage:
    """What a collection would delete now, and keep for later; changes nothing."""
    now = datetime.now(UTC).replace(tzinfo=None)
    deleted, deleted_bytes, kept, kept_bytes = db.run(
        f"""
        WITH named AS (
            SELECT n.digest, CASE WHEN {OF_PIECES} THEN {SOURCE} END AS source FROM store.content_names AS n
            WHERE n.digest IS NOT NULL AND n.kind <> '{TABLE}' AND {_LISTED}
        )
        SELECT count(*) FILTER (old), coalesce(sum(size) FILTER (old), 0)::BIGINT,
               count(*) FILTER (NOT old), coalesce(sum(size) FILTER (NOT old), 0)::BIGINT
        FROM (
            SELECT size, coalesce(unnamed_at, ?) <= ? AS old FROM store.contents
            WHERE digest NOT IN (
                SELECT digest FROM named UNION ALL
                SELECT p.digest FROM store.content_names AS p
                WHERE p.kind = '{TABLE}' AND p.digest IS NOT NULL
                AND p.name IN (SELECT unnest([digest, source]) FROM named)
            )
        )
        """,
        [now, now - grace],
    )[0]
    loose, parts = leftovers(db, blobs, grace)
    return Garbage(
        deleted + len(loose), deleted_bytes + sum(size for _, size in loose), kept, kept_bytes, len(loose), len(parts)
    )


def leftovers(db: Database, blobs: Blobs, grace: timedelta) -> tuple[list[tuple[str, int]], list[Path]]:
    """Content on the disk that the store does not list, as a killed process leaves it, and unfinished downloads.

    Only what was written more than `grace` ago; as (digest, size) and as paths. Downloads get at least an hour.
    """
    now = datetime.now(UTC)
    before, unfinished_before = (now - grace).timestamp(), (now - max(grace, timedelta(hours=1))).timestamp()
    listed = {digest for (digest,) in db.run("SELECT digest FROM store.contents")}
    loose = [
        (blob.digest, blob.size)
        for blob in blobs.everything()
        if blob.digest not in listed and blob.written_at <= before
    ]
    return loose, [part for part in blobs.parts() if part.stat().st_mtime <= unfinished_before]


def delete_leftovers(db: Database, blobs: Blobs, grace: timedelta) -> Garbage:
    """Delete what `leftovers` finds."""
    loose, parts = leftovers(db, blobs, grace)
    for digest, _ in loose:
        blobs.remove(digest)
    for part in parts:
        part.unlink(missing_ok=True)
    size = sum(size for _, size in loose)
    return Garbage(deleted=len(loose), deleted_bytes=size, unlisted=len(loose), parts=len(parts))


def kept(db: Database) -> Garbage:
    """The content that nothing names and whose grace is not over."""
    count, size = db.run(
        "SELECT count(*), coalesce(sum(size), 0)::BIGINT FROM store.contents WHERE unnamed_at IS NOT NULL"
    )[0]
    return Garbage(kept=count, kept_bytes=size)


def added(first: Garbage, second: Garbage) -> Garbage:
    """The sum of two."""
    other = asdict(second)
    return replace(first, **{name: value + other[name] for name, value in asdict(first).items()})
