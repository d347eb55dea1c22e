"""Creates the published views over the internal tables."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Container, Mapping
from contextlib import nullcontext
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from mirror.store import comments, meta, sqlfiles
from mirror.store.database import Database
from mirror.store.names import literal, pattern

_SEGMENTS = """
UNION ALL
SELECT {project}, p.run_id, p.step, p.key, p.value, p.text
FROM read_parquet([{paths}], {options}) AS p
"""

_HIVE = "hive_partitioning = true, hive_types_autocast = false"
_PLAIN = "hive_partitioning = false"

_QUALIFIED = re.compile(r"\b(?:main|store)\.\w+")

_DIGESTS = "views"
"""Key in `store.meta`: the digest of each view's text, as JSON."""

_NULL_NAMES = re.compile(r"=(null|__hive_default_partition__)(/|$)", re.IGNORECASE)
"""Project folders that some DuckDB versions read as NULL; `segment_files.partition` does not create such names."""


def recreate(db: Database, history_folder: Path) -> bool:
    """Recreate the views whose text has changed, and note where contents are. Returns True if anything changed.

    Call it within a transaction whenever segments changed, and after each migration.
    """
    # Views put the folder of contents before their paths.
    moved = meta.put(db, "blobs", f"{history_folder.with_name('blobs')}/")
    texts = {**sqlfiles.read("views"), "history": history(db, history_folder)}
    wanted = {name: _digest(text + repr(comments.RELATIONS.get(name))) for name, text in texts.items()}
    kept = meta.get(db, _DIGESTS) or ""
    made = json.loads(kept) if kept.startswith("{") else {}
    changed = {name for name, digest in wanted.items() if made.get(name) != digest}
    if not changed:
        return moved
    recreated = _in_order(texts, changed)
    with db.on_one_thread() if len(recreated) > 1 else nullcontext():
        for name in recreated:
            db.run(texts[name])
        comments.apply(db, recreated)
    db.cached.run_columns = None
    meta.put(db, _DIGESTS, json.dumps(wanted))
    return True


def distrust(db: Database) -> None:
    """Have all views recreated the next time, since they may not be what was noted of them."""
    meta.forget(db, [_DIGESTS])


def run_columns(db: Database) -> list[Any]:
    """The columns of `main.runs`, which every wide relation has, as DuckDB describes them: name, type and more."""
    if db.cached.run_columns is None:
        db.cached.run_columns = db.run("DESCRIBE main.runs")
    return db.cached.run_columns


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _in_order(texts: Mapping[str, str], changed: Collection[str]) -> list[str]:
    """The names of the changed views and of those that read them, each after the views that it reads.

    Segments come and go all the time, and change nothing for the readers of the view that lists them.
    """
    made = {name: re.search(r"VIEW (\w+\.\w+) AS", text) for name, text in texts.items()}
    views = {matched[1]: name for name, matched in made.items() if matched}
    reads = {
        name: {views[named] for named in _QUALIFIED.findall(text) if named in views} - {name}
        for name, text in texts.items()
    }
    found: dict[str, None] = {}
    for name in TopologicalSorter(reads).static_order():
        if name in changed or (found.keys() - {"history"}) & reads[name]:
            found[name] = None
    return list(found)


def without_replaced(folder: Path) -> str:
    """The condition that leaves out values of replaced runs, for segments read as `p` with their file names."""
    return f"""
        WHERE NOT EXISTS (
            SELECT 1 FROM store.segment_runs AS g JOIN store.segments AS s ON s.segment_id = g.segment_id
            WHERE g.replaced AND g.run_id = p.run_id AND s.path = substr(p.filename, {len(str(folder)) + 2})
        )
    """


def history(db: Database, folder: Path, without: Container[str] = ()) -> str:
    """The text of the view over the tail and all segments in use, except those in `without`.

    Segments whose values are all replaced, or not swapped in yet, are left out. The others are listed one by one,
    because a glob would also match files that are being replaced.
    """
    # Reading entity and project from the folders' names takes one read for all projects; naming them takes one per
    # project. But DuckDB reads every `name=value` of the whole path, including the folders above the home, and reads
    # some names as NULL.
    hive = "=" not in str(folder)
    from_segments = ""
    segments = db.run(
        "SELECT s.entity, s.project, s.path, coalesce(bool_or(g.replaced), false) FROM store.segments AS s "
        "LEFT JOIN store.segment_runs AS g ON g.segment_id = s.segment_id "
        "WHERE s.retired_at IS NULL GROUP BY s.segment_id, s.entity, s.project, s.path "
        "HAVING NOT coalesce(bool_and(g.replaced), false) ORDER BY s.segment_id"
    )
    reads: dict[tuple[bool, str], list[str]] = {}
    for entity, project, path, replaced in segments:
        if path in without:
            continue
        from_path = hive and not _NULL_NAMES.search(path)
        named = f"{literal(entity)} AS entity, {literal(project)} AS project"
        reads.setdefault((replaced, "p.entity, p.project" if from_path else named), []).append(path)
    for (partly, project), paths in sorted(reads.items(), key=lambda read: read[0][0]):
        options = _HIVE if project == "p.entity, p.project" else _PLAIN
        listed = ", ".join(pattern(folder / path) for path in paths)
        options += ", filename = true" * partly
        from_segments += _SEGMENTS.format(project=project, paths=listed, options=options)
        from_segments += without_replaced(folder) if partly else ""
    return sqlfiles.read("views")["history"].replace("{segments}", from_segments)
