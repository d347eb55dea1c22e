"""Brings a project's tables back in line with each other where `mirror.store.checks` finds that they disagree.

What only the server can tell is left to a pass: the runs that lost values are marked to be pulled again. What the
mirror alone still holds, as the documents of deleted runs, is kept.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from mirror.store import checks, columns, projects, rids, salvage, staging, views, wide
from mirror.store.database import Database
from mirror.store.leaves import LeafColumns
from mirror.store.records import ProjectKey

_ALONE = "deleted_at IS NOT NULL OR rid IN (SELECT rid FROM store.local_runs)"
"""The runs whose history no server can tell again."""


def mend(db: Database, folder: Path, project: ProjectKey) -> list[str]:
    """Mend what is damaged and tell, in a line each, what was done. Call it within a transaction."""
    if projects.find(db, project) is None:
        return []
    # What the views are is only remembered; they are made anew, whatever became of them.
    db.run("DELETE FROM store.meta WHERE key = 'views'")
    done = _segments(db, folder, project)
    views.recreate(db, folder)
    done += _single_runs(db, project)
    done += _owners(db)
    done += _cursors(db, project)
    names = [run_id for (run_id,) in _runs(db, project, "run_id")]
    done += _documents(db, project, names)
    done += _runs_alone(db, folder, project, [run_id for (run_id,) in _runs(db, project, "run_id", _ALONE)])
    done += _wide_relation(db, project)
    views.recreate(db, folder)
    return done


def _runs(db: Database, project: ProjectKey, what: str, where: str = "true") -> list[tuple[str]]:
    return db.run(
        f"SELECT {what} FROM store.runs WHERE entity = ? AND project = ? AND ({where}) ORDER BY rid",
        [project.entity, project.project],
    )


def _segments(db: Database, folder: Path, project: ProjectKey) -> list[str]:
    """Forget segments that cannot be trusted; their runs are pulled again as a whole by the next pass.

    Also those of other projects whose file is gone: no view over history can be made while one is listed. Of runs that
    no server can tell again, what can be read is kept. The file stays where it is.
    """
    broken = checks.segment_damage(db, folder, project)
    listed = db.run(
        "SELECT segment_id, entity, project, path FROM store.segments WHERE path IN (SELECT unnest(?::VARCHAR[]))",
        [list(broken)],
    )
    done = []
    for number, entity, name, path in listed:
        held = rids.find(db, ProjectKey(entity, name), checks.held(db, number))
        condition, params = rids.among(held.values())
        alone = dict(db.run(f"SELECT run_id, rid FROM store.runs WHERE ({_ALONE}) AND {condition}", params))
        done.append(f"forgot the segment {path} ({broken[path].found})")
        done += salvage.keep(db, folder / path, number, alone)
        for table in ("staged_segments", "segment_runs", "segments"):
            db.run(f"DELETE FROM store.{table} WHERE segment_id = ?", [number])
        _refresh(db, set(held.values()) - set(alone.values()))
    return done


def _single_runs(db: Database, project: ProjectKey) -> list[str]:
    """Keep the newest row of each run that is there more than once."""
    twice = [
        run_id
        for (run_id,) in db.run(
            "SELECT run_id FROM store.runs WHERE entity = ? AND project = ? GROUP BY run_id HAVING count(*) > 1",
            _here(project),
        )
    ]
    if not twice:
        return []
    those = "entity = ? AND project = ? AND run_id IN (SELECT unnest(?::VARCHAR[]))"
    kept = db.arrow(
        f"SELECT DISTINCT ON (run_id) * FROM store.runs WHERE {those} ORDER BY run_id, revision DESC, rid",
        [*_here(project), twice],
    )
    with db.table("kept_runs", kept):
        db.run(f"DELETE FROM store.runs WHERE {those}", [*_here(project), twice])
        db.run("INSERT INTO store.runs BY NAME SELECT * FROM kept_runs")
    db.rids.clear()
    return [f"kept one row of {run_id}" for run_id in sorted(twice)]


def _owners(db: Database) -> list[str]:
    done = []
    for table in checks.OWNED:
        count = db.value(f"SELECT count(*) FROM store.{table} AS t ANTI JOIN store.runs AS r ON r.rid = t.rid")
        if count:
            db.run(f"DELETE FROM store.{table} WHERE rid NOT IN (SELECT rid FROM store.runs)")
            done.append(f"deleted {count:,} rows of no run from store.{table}")
    return done


def _cursors(db: Database, project: ProjectKey) -> list[str]:
    """Give each run the one cursor that it needs; a run that had none, or two, is pulled again."""
    bad = db.run(
        "SELECT r.rid, r.run_id FROM store.runs AS r LEFT JOIN store.run_history AS h ON h.rid = r.rid "
        "WHERE r.entity = ? AND r.project = ? GROUP BY r.rid, r.run_id HAVING count(h.rid) <> 1 ORDER BY r.rid",
        _here(project),
    )
    condition, params = rids.among(rid for rid, _ in bad)
    if bad:
        db.run(f"DELETE FROM store.run_history WHERE {condition}", params)
        shape = {"rid": "BIGINT", "rows": "BIGINT", "refresh": "BOOLEAN", "attempts": "BIGINT"}
        with db.table("fresh_cursors", columns.table(shape, [(rid, 0, True, 0) for rid, _ in bad])):
            db.run("INSERT INTO store.run_history BY NAME SELECT * FROM fresh_cursors")
    return [f"gave {run_id} a new history cursor" for _, run_id in bad]


def _documents(db: Database, project: ProjectKey, run_ids: Collection[str]) -> list[str]:
    """Take the documents apart again where leaves disagree."""
    wrong = {
        damage.run_id
        for _, damaged in checks.documents(db, project, list(run_ids))
        for damage in damaged
        if damage.run_id is not None
    }
    numbers = rids.find(db, project, wrong)
    leaves = LeafColumns()
    rebuilt = []
    for run_id, rid in numbers.items():
        texts = db.run("SELECT config, summary FROM store.runs WHERE rid = ?", [rid])[0]
        documents = [checks.parsed(text) for text in texts]
        if None in documents:
            # The document itself is damaged; only a pass can bring it again.
            continue
        for doc, document in zip(("config", "summary"), documents, strict=True):
            leaves.add(rid, doc, document or {})
        rebuilt.append((rid, run_id))
    if not rebuilt:
        return []
    condition, params = rids.among(rid for rid, _ in rebuilt)
    db.run(f"DELETE FROM store.leaves WHERE {condition}", params)
    with db.table("fresh_leaves", leaves.table()):
        db.run("INSERT INTO store.leaves BY NAME SELECT * FROM fresh_leaves")
    return [f"wrote the config and summary values of {run_id} anew" for _, run_id in rebuilt]


def _runs_alone(db: Database, folder: Path, project: ProjectKey, run_ids: Collection[str]) -> list[str]:
    """Bring tags, history and its counts in line for runs that only the mirror has."""
    done = []
    numbers = rids.find(db, project, run_ids)
    shape = {"rid": "BIGINT", "position": "BIGINT", "tag": "VARCHAR"}
    for damage in checks.tags(db, project):
        if damage.run_id in numbers:
            rid = numbers[damage.run_id]
            text = db.value("SELECT tags FROM store.runs WHERE rid = ?", [rid]) or ""
            split = [(rid, place, tag) for place, tag in enumerate(text.split(",") if text else [])]
            db.run("DELETE FROM store.run_tags WHERE rid = ?", [rid])
            with db.table("fresh_tags", columns.table(shape, split)):
                db.run("INSERT INTO store.run_tags BY NAME SELECT * FROM fresh_tags")
            done.append(f"wrote the tags of {damage.run_id} anew")
    checks.lay_history(db, folder, ())
    wrong = {
        damage.run_id
        for counted in checks.history(db, project, list(run_ids))
        for damage in counted.damage
        if damage.run_id is not None
    } | {damage.run_id for damage in checks.cursors(db, project) if damage.run_id in numbers and damage.run_id}
    for run_id in sorted(wrong):
        rid = numbers[run_id]
        kept = f"SELECT ?, step, key, last(value), last(text) FROM {checks.HISTORY} "
        kept += "WHERE entity = ? AND project = ? AND run_id = ? GROUP BY step, key ORDER BY key, step"
        rows, last = staging.gather(db, rid, kept, [rid, *_here(project), run_id])
        staging.swap(db, project, run_id, rows, last)
        done.append(f"counted the history of {run_id} anew, which only the mirror has")
    return done


def _wide_relation(db: Database, project: ProjectKey) -> list[str]:
    """Count the keys anew, and have the wide relation made anew by the next publish."""
    number = projects.find(db, project)
    assert number is not None
    if not checks.wide_relation(db, project):
        return []
    db.run("DELETE FROM store.leaf_keys WHERE project_number = ?", [number])
    db.run(
        "INSERT INTO store.leaf_keys "
        "SELECT ?, l.doc, l.key, count(*), count(*) FILTER (WHERE l.kind = 'number'), "
        "count(*) FILTER (WHERE l.kind = 'bool'), count(*) FILTER (WHERE l.kind = 'null') "
        "FROM store.leaves AS l JOIN store.runs AS r ON r.rid = l.rid WHERE r.entity = ? AND r.project = ? "
        "AND l.element IS NULL AND (l.kind <> 'object' OR l.text IS NOT NULL) GROUP BY l.doc, l.key ORDER BY 2, 3",
        [number, *_here(project)],
    )
    wide.forget(db, number)
    return [f'made the wide relation "{project}" anew']


def _refresh(db: Database, numbers: Iterable[int]) -> None:
    """Have these runs pulled again as a whole by the next pass."""
    listed = list(numbers)
    condition, params = rids.among(listed)
    staging.drop(db, listed)
    db.run(f"UPDATE store.run_history SET refresh = true, next_try_at = NULL WHERE {condition}", params)


def _here(project: ProjectKey) -> list[str]:
    return [project.entity, project.project]
