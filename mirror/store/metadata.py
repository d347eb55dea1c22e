"""How runs were started, from the server's own fields and from the run's file `wandb-metadata.json`."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from mirror import nested
from mirror.store import columns, rids
from mirror.store.database import Database
from mirror.store.leaves import LeafColumns, shown
from mirror.store.records import ProjectKey, RunRecord
from mirror.store.transaction import Transaction
from mirror.wandb_json import dumps

_SHAPE = {"rid": "BIGINT", **dict.fromkeys(("info", "file", "node"), "VARCHAR")}

Texts = dict[int, tuple[str | None, str | None]]
"""By rid, the JSON texts of the server's fields and of the file."""

_NOTHING = (None, None)


def fill(db: Database, known: Mapping[str, int], records: Sequence[RunRecord]) -> list[RunRecord]:
    """The records with host and commit from the run's file where the server returned none; `known` has the rids."""
    bare = {
        record.run_id: known[record.run_id]
        for record in records
        if not (record.host and record.git_commit) and record.run_id in known
    }
    held = _held(db, bare.values())
    return [
        _filled(record, file) if (file := held.get(bare.get(record.run_id, -1), _NOTHING)[1]) else record
        for record in records
    ]


def keep_info(tx: Transaction, infos: Mapping[int, dict[str, Any]], known: Container[int]) -> None:
    """Store what the server's fields say about these runs, where it differs from what is stored of the known ones."""
    held = _held(tx.db, [rid for rid in infos if rid in known])
    texts = {rid: dumps(info) if info else None for rid, info in infos.items()}
    _write(
        tx,
        {rid: (text, held.get(rid, _NOTHING)[1]) for rid, text in texts.items() if text != held.get(rid, _NOTHING)[0]},
    )


def put_files(
    tx: Transaction,
    project: ProjectKey,
    documents: Mapping[str, dict[str, Any] | None],
    nodes: Mapping[str, dict[str, Any]] | None = None,
) -> None:
    """Replace the mirrored content of each run's metadata file; None if there is no file.

    Its host and git commit are used for runs whose records have none. `nodes` are the files' entries in the lists of
    files, as the server returned them.
    """
    numbers = rids.find(tx.db, project, documents)
    held = _held(tx.db, numbers.values())
    files = {numbers[run_id]: document for run_id, document in documents.items() if run_id in numbers}
    texts = {rid: dumps(document) if document else None for rid, document in files.items()}
    _write(tx, {rid: (held.get(rid, _NOTHING)[0], text) for rid, text in texts.items()})
    facts = [(rid, *_host_and_commit(document)) for rid, document in files.items() if document]
    shape = {"rid": "BIGINT", "file_host": "VARCHAR", "file_commit": "VARCHAR"}
    with tx.db.table("facts", columns.table(shape, facts)):
        filled = tx.db.arrow(
            "SELECT r.* REPLACE (coalesce(nullif(r.host, ''), f.file_host) AS host, "
            "coalesce(nullif(r.git_commit, ''), f.file_commit) AS git_commit) "
            "FROM store.run_records AS r JOIN facts AS f ON f.rid = r.rid "
            "WHERE (coalesce(r.host, '') = '' AND f.file_host IS NOT NULL) "
            "OR (coalesce(r.git_commit, '') = '' AND f.file_commit IS NOT NULL)"
        )
    if filled.num_rows:
        with tx.db.table("filled", filled):
            tx.db.run("DELETE FROM store.run_records WHERE rid IN (SELECT rid FROM filled)")
            tx.db.run("INSERT INTO store.run_records BY NAME SELECT * FROM filled")
    _put_nodes(tx, project, nodes or {})


def _put_nodes(tx: Transaction, project: ProjectKey, nodes: Mapping[str, dict[str, Any]]) -> None:
    numbers = rids.find(tx.db, project, nodes)
    rows = [(rid, dumps(nodes[run_id])) for run_id, rid in numbers.items()]
    with tx.db.table("entries", columns.table({"rid": "BIGINT", "node": "VARCHAR"}, rows)):
        tx.db.run("UPDATE store.metadata_documents AS m SET node = e.node FROM entries AS e WHERE e.rid = m.rid")


def _held(db: Database, numbers: Iterable[int]) -> Texts:
    if not (wanted := list(numbers)):
        return {}
    condition, params = rids.among(wanted)
    rows = db.run(f"SELECT rid, info, file FROM store.metadata_documents WHERE {condition}", params)
    return {rid: (info, file) for rid, info, file in rows}


def _write(tx: Transaction, texts: Texts) -> None:
    if not texts:
        return
    leaves = LeafColumns()
    kept = []
    for rid, (info, file) in texts.items():
        leaves.add(rid, "metadata", _merged(nested.parse(info or "{}"), nested.parse(file or "{}")))
        if info or file:
            kept.append((rid, info, file))
    condition, params = rids.among(texts)
    nodes = dict(tx.db.run(f"SELECT rid, node FROM store.metadata_documents WHERE {condition}", params))
    rows = [(rid, info, file, nodes.get(rid) if file else None) for rid, info, file in kept]
    for table in ("metadata_documents", "metadata_leaves"):
        tx.db.run(f"DELETE FROM store.{table} WHERE {condition}", params)
    with tx.db.table("documents", columns.table(_SHAPE, rows)), tx.db.table("new_leaves", leaves.table()):
        tx.db.run("INSERT INTO store.metadata_documents BY NAME SELECT * FROM documents")
        tx.db.run(
            "INSERT INTO store.metadata_leaves BY NAME SELECT rid, key, kind, number, text FROM new_leaves "
            f"WHERE {shown()} ORDER BY rid, key"
        )


def _merged(info: dict[str, Any], file: dict[str, Any]) -> dict[str, Any]:
    """Both as one document. Values of the file win, also within `git`."""
    git = [document["git"] for document in (info, file) if isinstance(document.get("git"), dict)]
    together = {**info, **file}
    if git:
        together["git"] = {key: value for document in git for key, value in document.items()}
    return together


def _filled(record: RunRecord, file: str) -> RunRecord:
    host, commit = _host_and_commit(nested.parse(file))
    return replace(record, host=record.host or host, git_commit=record.git_commit or commit)


def _host_and_commit(file: dict[str, Any]) -> tuple[str | None, str | None]:
    git = file.get("git")
    values = file.get("host"), git.get("commit") if isinstance(git, dict) else None
    host, commit = (value if isinstance(value, str) and value else None for value in values)
    return host, commit
