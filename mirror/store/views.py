"""The published relations over the machine tables."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container, Mapping
from graphlib import TopologicalSorter
from pathlib import Path

from mirror.store import sqlfiles
from mirror.store.database import Database
from mirror.store.names import literal

_SEGMENTS = """
UNION ALL
SELECT entity, project, run_id, step, key, value, text
FROM read_parquet([{paths}], hive_partitioning = true, hive_types_autocast = false)
"""

_PARTLY_REPLACED = """
UNION ALL
SELECT p.entity, p.project, p.run_id, p.step, p.key, p.value, p.text
FROM read_parquet([{paths}], hive_partitioning = true, hive_types_autocast = false, filename = true) AS p
{without_replaced}
"""


def recreate(db: Database, history_folder: Path) -> bool:
    """Make the views anew where their text is not what it should be; whether that was so.

    Call it within a transaction whenever segments changed, and after each migration.
    """
    texts = sqlfiles.read("views") | {"history": history(db, history_folder)}
    digest = hashlib.sha256("\n".join(texts.values()).encode()).hexdigest()
    if db.run("SELECT value FROM store.meta WHERE key = 'views'") == [(digest,)]:
        return False
    for name in _in_order(texts):
        db.run(texts[name])
    db.run("DELETE FROM store.meta WHERE key = 'views'")
    db.run("INSERT INTO store.meta VALUES ('views', ?)", [digest])
    return True


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
    text = sqlfiles.read("views")["history"].rstrip().removesuffix(";")
    segments = db.run(
        "SELECT s.path, coalesce(bool_or(g.replaced), false) FROM store.segments AS s "
        "LEFT JOIN store.segment_runs AS g ON g.segment_id = s.segment_id "
        "WHERE s.retired_at IS NULL GROUP BY s.segment_id, s.path "
        "HAVING NOT coalesce(bool_and(g.replaced), false) ORDER BY s.segment_id"
    )
    for template, partly in ((_SEGMENTS, False), (_PARTLY_REPLACED, True)):
        if paths := [path for path, replaced in segments if replaced is partly and path not in without]:
            listed = ", ".join(literal(folder / path) for path in paths)
            text += template.format(paths=listed, without_replaced=without_replaced(folder))
    return text
