"""Makes a project's tables consistent again where `mirror.store.checks` finds that they disagree.

Values that only the server has are left to a pass: runs that lost some are marked to be pulled again. What only the
mirror has, such as the documents of deleted runs, is kept.
"""

from __future__ import annotations

from collections.abc import Collection

from mirror.store import (
    checks,
    columns,
    contents,
    files,
    projects,
    refresh,
    rids,
    salvage,
    segment_checks,
    staging,
    views,
    wide,
)
from mirror.store.blobs import Blobs
from mirror.store.database import Database
from mirror.store.leaves import INTEGER, LeafColumns, shown
from mirror.store.records import ProjectKey
from mirror.store.transaction import Transaction

_ALONE = "deleted_at IS NOT NULL OR rid IN (SELECT rid FROM store.local_states)"
"""The runs whose history cannot be pulled again from a server."""


def mend(tx: Transaction, project: ProjectKey) -> list[str]:
    """Repair the project. Returns what was done, one line per repair."""
    db, folder = tx.db, tx.folder
    tx.outdated.add(project)
    if projects.find(db, project) is None:
        return []
    # The recorded digest of the views may be true although the views are not, so they are rebuilt in any case.
    views.distrust(db)
    done = _segments(tx, project)
    done += contents.mend(tx, Blobs(folder.with_name("blobs")), project)
    views.recreate(db, folder)
    done += _single_runs(tx, project)
    done += _owners(tx)
    done += _cursors(tx, project)
    names = [run_id for (run_id,) in _runs(db, project, "run_id")]
    done += _documents(tx, project, names)
    done += _runs_alone(tx, project, [run_id for (run_id,) in _runs(db, project, "run_id", _ALONE)])
    done += _wide_relation(tx, project)
    views.recreate(db, folder)
    return done


def _runs(db: Database, project: ProjectKey, what: str, where: str = "true") -> list[tuple[str]]:
    return db.run(
        f"SELECT {what} FROM store.run_records WHERE entity = ? AND project = ? AND ({where}) ORDER BY rid",
        [project.entity, project.project],
    )


def _segments(tx: Transaction, project: ProjectKey) -> list[str]:
    """Forget damaged segments; the next pass pulls the complete history of their runs again.

    Includes other projects' segments whose file is missing, since no view over history can be created while one is
    listed. Of runs that cannot be pulled again, all readable values are kept. The file stays where it is.
    """
    db, folder = tx.db, tx.folder
    broken = segment_checks.segment_damage(db, folder, project)
    listed = db.run(
        "SELECT segment_id, entity, project, path FROM store.segments WHERE path IN (SELECT unnest(?::VARCHAR[]))",
        [list(broken)],
    )
    done = []
    for path in broken:
        files.check_damaged(folder / path)
    for number, entity, name, path in listed:
        held = rids.find(db, ProjectKey(entity, name), segment_checks.held(db, number))
        condition, params = rids.among(held.values())
        alone = dict(db.run(f"SELECT run_id, rid FROM store.run_records WHERE ({_ALONE}) AND {condition}", params))
        done.append(f"forgot the segment {path} ({broken[path].found})")
        done += salvage.keep(db, folder / path, number, alone)
        for table in ("staged_segments", "segment_runs", "segments"):
            db.run(f"DELETE FROM store.{table} WHERE segment_id = ?", [number])
        refresh.mark(tx, set(held.values()) - set(alone.values()))
    return done


def _single_runs(tx: Transaction, project: ProjectKey) -> list[str]:
    """Keep only the newest row of each run that is stored more than once."""
    db = tx.db
    twice = [
        run_id
        for (run_id,) in db.run(
            "SELECT run_id FROM store.run_records WHERE entity = ? AND project = ? GROUP BY run_id HAVING count(*) > 1",
            _here(project),
        )
    ]
    if not twice:
        return []
    of_runs = "entity = ? AND project = ? AND run_id IN (SELECT unnest(?::VARCHAR[]))"
    kept = db.arrow(
        f"SELECT DISTINCT ON (run_id) * FROM store.run_records WHERE {of_runs} ORDER BY run_id, revision DESC, rid",
        [*_here(project), twice],
    )
    with db.table("kept_runs", kept):
        db.run(f"DELETE FROM store.run_records WHERE {of_runs}", [*_here(project), twice])
        db.run("INSERT INTO store.run_records BY NAME SELECT * FROM kept_runs")
    db.cached.rids.clear()
    return [f"kept one row of {run_id}" for run_id in sorted(twice)]


def _owners(tx: Transaction) -> list[str]:
    db = tx.db
    done = []
    for table in checks.OWNED:
        count = db.value(f"SELECT count(*) FROM store.{table} AS t ANTI JOIN store.run_records AS r ON r.rid = t.rid")
        if count:
            db.run(f"DELETE FROM store.{table} WHERE rid NOT IN (SELECT rid FROM store.run_records)")
            done.append(f"deleted {count:,} orphaned rows from store.{table}")
    return done


def _cursors(tx: Transaction, project: ProjectKey) -> list[str]:
    """Give each run exactly one cursor. A run that had none or several is pulled again."""
    db = tx.db
    bad = db.run(
        "SELECT r.rid, r.run_id FROM store.run_records AS r LEFT JOIN store.run_history AS h ON h.rid = r.rid "
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


def _documents(tx: Transaction, project: ProjectKey, run_ids: Collection[str]) -> list[str]:
    """Rebuild the leaves from the documents where the two disagree."""
    db = tx.db
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
        texts = db.run("SELECT config, summary FROM store.run_records WHERE rid = ?", [rid])[0]
        documents = [checks.parsed(text) for text in texts]
        if None in documents:
            # The document itself is damaged; only a pass can pull it again.
            continue
        for doc, document in zip(("config", "summary"), documents, strict=True):
            leaves.add(rid, doc, document or {})
        rebuilt.append((rid, run_id))
    if not rebuilt:
        return []
    condition, params = rids.among(rid for rid, _ in rebuilt)
    db.run(f"DELETE FROM store.leaf_rows WHERE {condition}", params)
    with db.table("fresh_leaves", leaves.table()):
        db.run("INSERT INTO store.leaf_rows BY NAME SELECT * FROM fresh_leaves")
    return [f"rebuilt the config and summary values of {run_id}" for _, run_id in rebuilt]


def _runs_alone(tx: Transaction, project: ProjectKey, run_ids: Collection[str]) -> list[str]:
    """Make tags, history and its counts consistent for runs that only the mirror has."""
    db, folder = tx.db, tx.folder
    done = []
    numbers = rids.find(db, project, run_ids)
    shape = {"rid": "BIGINT", "position": "BIGINT", "tag": "VARCHAR"}
    for damage in checks.tags(db, project):
        if damage.run_id in numbers:
            rid = numbers[damage.run_id]
            text = db.value("SELECT tags FROM store.run_records WHERE rid = ?", [rid]) or ""
            split = [(rid, position, tag) for position, tag in enumerate(text.split(",") if text else [])]
            db.run("DELETE FROM store.tag_positions WHERE rid = ?", [rid])
            with db.table("fresh_tags", columns.table(shape, split)):
                db.run("INSERT INTO store.tag_positions BY NAME SELECT * FROM fresh_tags")
            done.append(f"rebuilt the tags of {damage.run_id}")
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
        extent = staging.gather(tx, rid, kept, [rid, *_here(project), run_id])
        staging.swap(tx, project, {run_id: extent})
        done.append(f"counted the history of {run_id} again, which only the mirror has")
    return done


def _wide_relation(tx: Transaction, project: ProjectKey) -> list[str]:
    """Count the keys again, and have the next publish rebuild the wide relation."""
    db = tx.db
    number = projects.find(db, project)
    assert number is not None
    if not checks.wide_relation(db, project):
        return []
    db.run("DELETE FROM store.leaf_keys WHERE project_number = ?", [number])
    db.run(
        "INSERT INTO store.leaf_keys "
        "SELECT ?, l.doc, l.key, count(*), count(*) FILTER (WHERE l.kind = 'number'), "
        "count(*) FILTER (WHERE l.kind = 'bool'), count(*) FILTER (WHERE l.kind = 'null'), "
        f"count(*) FILTER (WHERE {INTEGER}) "
        "FROM store.leaves AS l JOIN store.run_records AS r ON r.rid = l.rid WHERE r.entity = ? AND r.project = ? "
        f"AND {shown('l')} GROUP BY l.doc, l.key ORDER BY 2, 3",
        [number, *_here(project)],
    )
    wide.forget(db, number)
    return [f'rebuilt the wide relation "{project}"']


def _here(project: ProjectKey) -> list[str]:
    return [project.entity, project.project]
