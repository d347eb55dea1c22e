"""The published relations over the machine tables."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container, Iterable, Mapping
from graphlib import TopologicalSorter
from pathlib import Path

from mirror.store import sqlfiles
from mirror.store.database import Database
from mirror.store.names import literal, pattern

_SEGMENTS = """
UNION ALL
SELECT {project}, p.run_id, p.step, p.key, p.value, p.text
FROM read_parquet([{paths}], {options}) AS p
"""

_HIVE = "hive_partitioning = true, hive_types_autocast = false"
_PLAIN = "hive_partitioning = false"

_NULL_NAMES = re.compile(r"=(null|__hive_default_partition__)(/|$)", re.IGNORECASE)
"""Folders of projects that some DuckDB reads as NULL; `segments.partition` makes no such any more."""


def recreate(db: Database, history_folder: Path) -> bool:
    """Make the views anew where their text is not what it should be; whether that was so.

    Call it within a transaction whenever segments changed, and after each migration.
    """
    texts = sqlfiles.read("views") | {"history": history(db, history_folder)}
    others = _digest(text for name, text in texts.items() if name != "history")
    wanted = f"{others} {_digest([texts['history']])}"
    made = db.run("SELECT value FROM store.meta WHERE key = 'views'")
    if made == [(wanted,)]:
        return False
    # Segments come and go all the time, and change nothing but the one view that lists them.
    same = any(digests.split(" ")[0] == others for (digests,) in made)
    for name in ["history"] if same else _in_order(texts):
        db.run(texts[name])
    db.run("DELETE FROM store.meta WHERE key = 'views'")
    db.run("INSERT INTO store.meta VALUES ('views', ?)", [wanted])
    return True


def _digest(texts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def _in_order(texts: Mapping[str, str]) -> list[str]:
    """The names of the views, each after those that it reads."""
    made = {name: re.search(r"VIEW (\w+\.\w+) AS", text) for name, text in texts.items()}
    views = {name: found[1] for name, found in made.items() if found}
    reads = {
        name: {other for other, view in views.items() if other != name and re.search(rf"\b{view}\b", text)}
        for name, text in texts.items()
    }
    return list(TopologicalSorter(reads).static_order())


def without_replaced(folder: Path) -> str:
    """The condition that leaves out, of segments read as `p` with their file names, the values of replaced runs."""
    return f"""
        WHERE NOT EXISTS (
            SELECT 1 FROM store.segment_runs AS g JOIN store.segments AS s ON s.segment_id = g.segment_id
            WHERE g.replaced AND g.run_id = p.run_id AND s.path = substr(p.filename, {len(str(folder)) + 2})
        )
    """


def history(db: Database, folder: Path, without: Container[str] = ()) -> str:
    """The view over the tail and every segment in use but those `without`.

    Segments of which every value is replaced, or not in place yet, are left out. The others stand there one by one:
    a pattern would also match files that are being replaced.
    """
    # To read entity and project from the folders' names takes one read for all projects, where to name them takes one a
    # project. But DuckDB reads every `name=value` of the whole path, also of those that the home lies in, and some
    # names as NULL.
    hive = "=" not in str(folder)
    text = sqlfiles.read("views")["history"].rstrip().removesuffix(";")
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
        told = hive and not _NULL_NAMES.search(path)
        named = f"{literal(entity)} AS entity, {literal(project)} AS project"
        reads.setdefault((replaced, "p.entity, p.project" if told else named), []).append(path)
    for (partly, project), paths in sorted(reads.items(), key=lambda read: read[0][0]):
        options = _HIVE if project == "p.entity, p.project" else _PLAIN
        listed = ", ".join(pattern(folder / path) for path in paths)
        text += _SEGMENTS.format(project=project, paths=listed, options=f"{options}{', filename = true' * partly}")
        text += without_replaced(folder) if partly else ""
    return text
