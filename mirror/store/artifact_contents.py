"""What is still to be downloaded of the files of artifacts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from mirror.settings.values import ArtifactPattern
from mirror.store import retries
from mirror.store.contents import ARTIFACT, Selection, Wanted
from mirror.store.database import Database
from mirror.store.records import ProjectKey

CURRENT = "(n.digest IS NOT NULL AND n.size = f.size AND n.md5 IS NOT DISTINCT FROM f.md5)"
"""True if the content that name `n` holds is what the manifest has for file `f`."""

_FILES = f"""
    FROM store.artifact_entries AS f JOIN store.artifact_records AS a ON a.aid = f.aid
    LEFT JOIN store.content_names AS n ON n.kind = '{ARTIFACT}' AND n.owner = f.aid AND n.name = f.path
    WHERE a.deleted_at IS NULL AND f.reference IS NULL AND {CURRENT} IS NOT TRUE
    AND {retries.due("n.next_try_at")}
"""


def wanting(
    db: Database, selection: Selection, now: datetime, projects: Collection[ProjectKey] | None = None
) -> list[int]:
    """The aids of the versions with files that are to be downloaded now, in the order in which they were mirrored."""
    if not selection.artifacts:
        return []
    condition, params = matching(selection.artifacts)
    rows = db.run(f"SELECT DISTINCT a.aid, a.entity, a.project {_FILES} AND {condition} ORDER BY a.aid", [now, *params])
    return [aid for aid, *project in rows if projects is None or ProjectKey(*project) in projects]


def wanted(db: Database, aid: int, now: datetime, after: str | None, most: int) -> list[Wanted]:
    """At most `most` of the files of a version that are to be downloaded now, by path, after the path `after`."""
    rows = db.run(
        f"""
        SELECT a.aid, a.entity, a.project, a.artifact_id, f.path, coalesce(f.size, -1), f.md5, coalesce(n.attempts, 0),
               (SELECT min(c.digest) FROM store.contents AS c WHERE c.md5 = f.md5 AND c.size = f.size),
               a.collection || ':v' || a.version_number
        {_FILES} AND a.aid = ? AND (?::VARCHAR IS NULL OR f.path > ?) ORDER BY f.path LIMIT {int(most)}
        """,
        [now, aid, after, after],
    )
    return [
        Wanted(owner, ProjectKey(entity, project), holder, path, size, md5, None, attempts, stored, ARTIFACT, shown)
        for owner, entity, project, holder, path, size, md5, attempts, stored, shown in rows
    ]


def matching(patterns: Sequence[ArtifactPattern]) -> tuple[str, list[Any]]:
    """The condition that version `a` matches one of these patterns, with its parameters."""
    one = (
        "(a.type GLOB ? AND a.collection GLOB ? AND ('v' || a.version_number GLOB ? OR EXISTS ("
        "SELECT 1 FROM store.artifact_aliases AS s WHERE s.aid = a.aid AND s.alias GLOB ?)))"
    )
    params: list[Any] = []
    for pattern in patterns:
        params += [pattern.type, pattern.collection, pattern.alias, pattern.alias]
    return f"({' OR '.join([one] * len(patterns))})", params
