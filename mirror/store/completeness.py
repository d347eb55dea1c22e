"""What the mirror holds of runs beside their history: counts, contents of files, artifacts with their files."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct, field

from mirror.store import artifact_contents, contents
from mirror.store.contents import ARTIFACT, FILE, Selection
from mirror.store.database import Database
from mirror.store.records import ProjectKey, RunFile

_AT_ONCE = 1000
"""How many runs, or files of an artifact, are looked at together."""


class HeldRun(Struct, frozen=True):
    """A run that the server had at the last pass.

    `server_events` and `server_log_lines` are the server's counts, None if it reports none; `events` and `log_lines`
    are what these were when each part was pulled, None for never.
    """

    rid: int
    run_id: str
    state: str
    rows: int
    server_events: int | None
    events: int | None
    server_log_lines: int | None
    log_lines: int | None


class HeldContent(Struct, frozen=True):
    """The content that is held of a file, and of which version; `error` is why a newer one is not."""

    digest: str | None
    size: int | None
    md5: str | None
    updated_at: datetime | None
    error: str | None

    def is_of(self, file: RunFile) -> bool:
        """Return True if this is the content that the server lists now."""
        same = self.digest is not None and self.size == file.size and self.md5 == file.md5
        return same and (file.md5 is not None or self.updated_at == file.updated_at)


class HeldArtifact(Struct, frozen=True):
    """A version of an artifact. `listed`: its manifest is here. `files` has what its manifest lists, but references."""

    listed: bool
    files: dict[str, tuple[int, HeldContent | None]] = field(default_factory=dict)


def missing(db: Database, selection: Selection, now: datetime, project: ProjectKey) -> tuple[int, int]:
    """How many of the listed files of a project a round would download now, and their bytes."""
    found: list[tuple[str | None, int]] = []
    numbers = contents.wanting(db, selection, now, [project]) if selection.globs else []
    for start in range(0, len(numbers), _AT_ONCE):
        files, _ = contents.wanted(db, selection, now, numbers[start : start + _AT_ONCE])
        found += [(file.stored, file.size) for file in files]
    for aid in artifact_contents.wanting(db, selection, now, [project]):
        after = None
        while files := artifact_contents.wanted(db, aid, now, after, _AT_ONCE):
            found += [(file.stored, max(0, file.size)) for file in files]
            after = files[-1].name
    sizes = [size for stored, size in found if stored is None]
    return len(sizes), sum(sizes)


def runs(db: Database, project: ProjectKey, run_ids: Sequence[str] = ()) -> list[HeldRun]:
    """The runs of a project, or those of them with these ids, that are not deleted and not only in local files."""
    rows = db.run(
        """
        SELECT r.rid, r.run_id, r.state, coalesce(h.rows, 0), r.server_events, x.events, r.server_log_lines, x.log_lines
        FROM store.run_records AS r
        LEFT JOIN store.run_history AS h ON h.rid = r.rid
        LEFT JOIN store.run_extras AS x ON x.rid = r.rid
        LEFT JOIN store.local_states AS l ON l.rid = r.rid
        WHERE r.entity = ? AND r.project = ? AND r.deleted_at IS NULL AND l.rid IS NULL
        AND (? OR r.run_id IN (SELECT unnest(?::VARCHAR[]))) ORDER BY r.run_id
        """,
        [project.entity, project.project, not run_ids, list(run_ids)],
    )
    return [HeldRun(*row) for row in rows]


def files(db: Database, numbers: Sequence[int]) -> dict[int, dict[str, HeldContent]]:
    """What is held of the files of these runs, by rid and name."""
    rows = db.run(
        "SELECT owner, name, digest, size, md5, updated_at, error FROM store.content_names "
        f"WHERE kind = '{FILE}' AND owner IN (SELECT unnest(?::BIGINT[]))",
        [list(numbers)],
    )
    found: dict[int, dict[str, HeldContent]] = {}
    for rid, name, *held in rows:
        found.setdefault(rid, {})[name] = HeldContent(*held)
    return found


def artifacts(db: Database, ids: Sequence[str]) -> dict[str, HeldArtifact]:
    """The mirrored ones of these versions of artifacts, by the server's id."""
    versions = db.run(
        "SELECT artifact_id, max(aid) FILTER (entries_of IS NOT NULL) FROM store.artifact_records "
        "WHERE artifact_id IN (SELECT unnest(?::VARCHAR[])) AND deleted_at IS NULL GROUP BY artifact_id",
        [list(ids)],
    )
    found = {artifact_id: HeldArtifact(listed=aid is not None) for artifact_id, aid in versions}
    rows = db.run(
        f"""
        SELECT a.artifact_id, e.path, e.size, n.digest, n.size, n.md5, n.updated_at, n.error, n.md5 = e.md5
        FROM store.artifact_entries AS e
        JOIN store.artifact_records AS a ON a.aid = e.aid
        LEFT JOIN store.content_names AS n ON n.kind = '{ARTIFACT}' AND n.owner = e.aid AND n.name = e.path
        WHERE e.aid IN (SELECT unnest(?::BIGINT[])) AND e.reference IS NULL
        """,
        [[aid for _, aid in versions if aid is not None]],
    )
    for artifact_id, path, size, *held, same in rows:
        content = HeldContent(*held) if same and held[1] == size else None
        found[artifact_id].files[path] = (size or 0, content)
    return found
