"""What the published relations and their columns hold, as comments that BI tools show (`COMMENT ON`)."""

from __future__ import annotations

from collections.abc import Iterable

from mirror.store.database import Database
from mirror.store.names import identifier, literal

_RUN = {
    "entity": "The user or team that owns the project",
    "project": "The project's name",
    "run_id": "The run's id, unique within its project",
    "run_path": "entity/project/run_id: one column that identifies a run, for joins",
}

_LEAF = {
    "key": "Dotted path of the value, such as optimizer.lr",
    "value": "The value as text; lists as JSON",
    "number": "The value as a number; null if it is not one",
    "kind": "number, string, bool, null, list or object",
}

_LOGGED = {
    "key": "The name that the value was logged under",
    "value": "The number; NaN and infinities are kept",
    "text": "JSON of a value that is not a number; all digits of an integer beyond 2^53",
}

_RUNS = {
    "name": "Display name",
    "state": "running, finished, failed, crashed, killed, preempting, preempted or pending",
    "created_at": "When the run started (UTC)",
    "heartbeat_at": "When the run last reported to the server (UTC)",
    "updated_at": "When the run was last changed (UTC)",
    "duration_s": "How long the run ran, in seconds",
    "username": "Who started the run",
    "group_name": "The run's group",
    "job_type": "The run's job type",
    "sweep": "Id of the sweep that the run belongs to",
    "notes": "Notes on the run",
    "tags": "Tags, joined by commas; run_tags has one row per tag",
    "git_commit": "Git commit of the code",
    "host": "Host that the run ran on",
    "config": "Config as JSON text of plain values; config_values has one row per value",
    "summary": "Summary as JSON text of plain values; summary_values has one row per value",
    "history_rows": "Number of mirrored history lines",
    "url": "Address of the run's page",
    "deleted_at": "When the mirror noticed that the run was deleted on the server (UTC); null for all others",
    "synced_at": "When the mirror last wrote this record (UTC)",
}

_VIEW = {
    "name": "The server's own short name of it",
    "title": "Its title",
    "description": "Its description",
    "author": "Who created it",
    "created_at": "When it was created (UTC)",
    "updated_at": "When it was last changed (UTC)",
    "spec": "Its content as JSON text",
}

RELATIONS: dict[str, tuple[str, dict[str, str]]] = {
    "projects": (
        "One row per mirrored project",
        {
            "entity": _RUN["entity"],
            "project": _RUN["project"],
            "runs": "Number of runs on the server",
            "running": "Number of runs that are running",
            "history_rows": "Number of mirrored history lines",
            "last_success_at": "When the last complete pass started (UTC); null before the first one",
            "last_error": "Why the last pass failed; null if it succeeded",
            "lag_s": "Seconds since the last success",
        },
    ),
    "runs": ("One row per run. Deleted runs stay, with deleted_at set", _RUN | _RUNS),
    "config_values": ("One row per value of a run's config", _RUN | _LEAF),
    "summary_values": ("One row per value of a run's summary", _RUN | _LEAF),
    "run_metadata": ("One row per value of what is known about how a run was started", _RUN | _LEAF),
    "run_tags": (
        "One row per tag of a run",
        _RUN | {"tag": "The tag", "position": "Its place among the tags of the run, from 0"},
    ),
    "history": ("One row per logged value", _RUN | {"step": "The step that the value was logged at"} | _LOGGED),
    "system_metrics": (
        "One row per value of a run's system metrics; the server keeps only a sample of them",
        _RUN | {"step": "Number of the line in the run"} | _LOGGED,
    ),
    "history_keys": (
        "One row per run and key of its history",
        _RUN
        | {
            "key": _LOGGED["key"],
            "rows": "Number of values",
            "first_step": "First step with a value",
            "last_step": "Last step with a value",
            "min": "Smallest finite number; null if there is none",
            "max": "Largest finite number; null if there is none",
            "last": "The last number, which may be at an earlier step than last_step",
        },
    ),
    "history_x": (
        "One row per logged number, with its x value. Queries should name the run or the key",
        _RUN
        | {
            "key": _LOGGED["key"],
            "x_key": "The key of the x axis, by define_metric; _step if it defines none",
            "x": "Last finite value of x_key at or before the step; null before the first one",
            "step": "The step that the value was logged at",
            "value": _LOGGED["value"],
        },
    ),
    "metric_definitions": (
        "One row per definition by define_metric",
        _RUN
        | {
            "key": "The key, or a prefix of keys, such as val/*",
            "pattern": "True if key is a prefix",
            "x_key": "The key of the x axis (step_metric); null if there is none",
            "summary": "Comma-joined: min, max, mean, best, last, first, copy, none; null for the default",
            "goal": "minimize or maximize",
            "hidden": "True if the W&B app does not chart the key",
        },
    ),
    "console": (
        "One row per line of console output",
        _RUN
        | {
            "line": "Number of the line, from 0",
            "logged_at": "When it was written (UTC); null if the server does not report it",
            "level": "error for what went to stderr, else null",
            "text": "The line",
        },
    ),
    "files": (
        "One row per file of a run, and where its content is, if sync.files mirrors that",
        _RUN
        | {
            "name": "Name, including the folders within the run",
            "size": "Bytes",
            "mimetype": "MIME type",
            "updated_at": "When it was last uploaded (UTC)",
            "md5": "Base64 of the MD5 digest",
            "digest": "SHA-256 of the content; null if it is not in the mirror",
            "local_path": "The content, a read-only file; null if it is not in the mirror",
        },
    ),
    "media": (
        "One row per image, video, table or other media file that was logged or is in the summary",
        _RUN
        | {
            "key": _LOGGED["key"],
            "step": "The step that it was logged at; null for a value of the summary",
            "item": "Its place in a list of media, from 0",
            "type": "image-file, video-file, audio-file, table-file, html-file, object3D-file, plotly-file or the like",
            "caption": "Its caption",
            "width": "Pixels",
            "height": "Pixels",
            "path": "Name of the file in the run, as in the relation files",
            "digest": "SHA-256 of the content; null if it is not known",
            "local_path": "The content, a read-only file; null if it is not in the mirror",
        },
    ),
    "storage": (
        "What takes space, one row per run, kind and type, and per version of an artifact",
        _RUN
        | {
            "run_id": "The run that has the files or logged the artifact; null if there is no such run",
            "kind": "file, artifact, table (as Parquet) or history",
            "type": "Of files media/KIND or the extension, of artifacts their type",
            "artifact": "collection:version; null for files of runs and for history",
            "files": "Number of files, of history of segments that have values of the run",
            "server_bytes": "Bytes that the server lists; null where it lists none",
            "mirrored_bytes": "Bytes that are here, each file counted; of history the share of segments",
            "stored_bytes": "The same without content that an earlier row has: what it takes on the disk",
        },
    ),
    "tables": (
        "One row per W&B Table that was logged or is in the summary",
        _RUN
        | {
            "key": _LOGGED["key"],
            "step": "The step that it was logged at; null for a value of the summary",
            "type": "table-file, incremental-table-file, joined-table or partitioned-table",
            "columns": "JSON list of its columns; null until its file is here",
            "rows": "Rows in its file; until that is here, rows that were logged",
            "logged_rows": "Rows that were logged; clients may upload fewer of them",
            "path": "Name of its file in the run, as in the relation files, or in an artifact",
            "digest": "SHA-256 of its file; null if it is not known",
            "local_path": "Its file, read-only JSON; null if it is not in the mirror",
            "parquet_path": "The same table as Parquet with typed columns; null if it is not in the mirror",
            "error": "Why it is not here, or cannot be read",
        },
    ),
    "histograms": (
        "One row per bin of a logged histogram",
        _RUN
        | {
            "key": _LOGGED["key"],
            "step": "The step that it was logged at",
            "bin": "Number of the bin, from 0",
            "low": "Lower edge of the bin",
            "high": "Upper edge of the bin",
            "count": "Number of values in the bin",
        },
    ),
    "artifacts": (
        "One row per version of an artifact collection, if sync.artifacts mirrors them. Deleted versions stay",
        {
            "entity": _RUN["entity"],
            "project": _RUN["project"],
            "type": "The artifact's type, such as model or dataset",
            "collection": "Name of the collection, without a version",
            "version": "The version, such as v3",
            "version_number": "The version as a number",
            "aliases": "Aliases such as latest, joined by commas; null for none",
            "digest": "The server's digest of all files together",
            "size": "Bytes of all files, as the server counts them",
            "file_count": "Number of files, as the server counts them",
            "state": "PENDING until it is complete, then COMMITTED; DELETED",
            "created_at": "When it was created (UTC)",
            "updated_at": "When it was last changed (UTC)",
            "run_id": "The run that logged it; null if none did",
            "description": "Its description",
            "metadata": "Its metadata as JSON text",
            "ttl_s": "Seconds that the server keeps it; null for no limit",
            "artifact_id": "The server's id; a version that is linked to another collection has the same there",
            "deleted_at": "When the mirror noticed that it was deleted on the server (UTC); null for all others",
            "run_path": "entity/project/run_id of the run that logged it",
        },
    ),
    "artifact_files": (
        "One row per file of an artifact version, and where its content is, if sync.artifacts mirrors that",
        {
            "entity": _RUN["entity"],
            "project": _RUN["project"],
            "collection": "Name of the collection, without a version",
            "version": "The version, such as v3",
            "path": "Name, including the folders within the artifact",
            "size": "Bytes; null for a reference whose size is not known",
            "md5": "Base64 of the MD5 digest; of a reference what the manifest lists, such as an ETag",
            "reference": "Address of a file outside of W&B; null for a file of the artifact's own",
            "digest": "SHA-256 of the content; null if it is not in the mirror",
            "local_path": "The content, a read-only file; null if it is not in the mirror",
        },
    ),
    "artifact_usage": (
        "One row per artifact version that a run used or logged",
        {
            "entity": _RUN["entity"],
            "project": "Project of the run",
            "run_id": _RUN["run_id"],
            "artifact_entity": "The user or team that owns the artifact's project",
            "artifact_project": "Project of the artifact, which may be another one than the run's",
            "collection": "Name of the collection, without a version",
            "version": "The version, such as v3",
            "relation": "input: the run used it; output: the run logged it",
            "run_path": _RUN["run_path"],
        },
    ),
    "sweeps": (
        "One row per sweep of a project. Deleted sweeps stay, with deleted_at set",
        {
            "entity": _RUN["entity"],
            "project": _RUN["project"],
            "sweep_id": "The sweep's id, as in the column sweep of runs",
            "name": "Display name, else the name in its config, else its id",
            "state": "RUNNING, PENDING, PAUSED, FINISHED or CANCELED, as the server says it",
            "method": "grid, random, bayes or custom",
            "description": "Its description",
            "config": "Its configuration as JSON text; null if it cannot be read",
            "config_yaml": "Its configuration as it was written",
            "metric": "The summary key that the sweep optimises; null if it has none",
            "goal": "minimize or maximize",
            "best_run": "Id of the mirrored run with the best finite value of the metric in its summary",
            "best_loss": "The best value of the metric, as the server reports it",
            "runs": "Number of its mirrored runs that exist on the server",
            "runs_expected": "How many runs it will have in total; null if that is not known, as for a random search",
            "prior_runs": "JSON list of the ids of earlier runs that the search considers; null if not reported",
            "created_at": "When the sweep was created (UTC)",
            "updated_at": "When the sweep was last changed (UTC)",
            "url": "Address of the sweep's page",
            "deleted_at": "When the mirror noticed that the sweep does not exist on the server (UTC); null for others",
        },
    ),
    "reports": (
        "One row per report of a project, if sync.reports mirrors them. Deleted ones stay, with deleted_at set",
        {
            "entity": _RUN["entity"],
            "project": _RUN["project"],
            "report_id": "The server's id of the report, which ends the address of its page",
            **_VIEW,
            "url": "Address of the report's page",
            "deleted_at": "When the mirror noticed that it was deleted on the server (UTC); null for all others",
        },
    ),
    "saved_views": (
        "One row per saved view of a project's page, if sync.reports mirrors them",
        {
            "entity": _RUN["entity"],
            "project": _RUN["project"],
            "view_id": "The server's id of the view",
            "view_type": "The server's type of the view, such as project-view",
            **_VIEW,
            "deleted_at": "When the mirror noticed that it was deleted on the server (UTC); null for all others",
        },
    ),
    "run_changes": (
        "One row per change of a run that the mirror noticed",
        _RUN
        | {
            "seen_at": "When the mirror noticed it (UTC)",
            "field": "What changed, such as config.lr or tags",
            "old": "The value before, as text",
            "new": "The value after, as text",
        },
    ),
    "local_runs": (
        "One row per run that was read from files on this machine",
        _RUN
        | {
            "on_server": "True if the server has the run, too",
            "path": "The .wandb file",
            "size": "Bytes of the file",
            "read_to": "Up to which byte it was read",
            "damaged": "What is damaged in the file; null if nothing is",
            "read_at": "When it was last read (UTC)",
        },
    ),
}
"""Each published relation: what its rows are, and what each column holds."""

WIDE_COLUMNS_LIMIT = 200
"""The most leaf columns of a wide relation that get a comment: each comment copies the view with all its columns."""

_AT_ONCE = 50
"""How many comments one transaction sets. It becomes slower with each one, and each commit writes to the disk."""


def apply(db: Database, relations: Iterable[str]) -> None:
    """Set the comments of these relations and their columns."""
    for relation in relations:
        if relation in RELATIONS:
            comment, columns = RELATIONS[relation]
            db.run(";".join(_statements(relation, comment, columns)))


def wide(db: Database, relation: str, project: str, leaves: Iterable[tuple[str, str, str]]) -> None:
    """Set the comments of a wide relation, in transactions of its own; leaves are document, key and column name."""
    columns = _RUN | _RUNS
    for doc, key, name in list(leaves)[:WIDE_COLUMNS_LIMIT]:
        columns[name] = f"{'Config' if doc == 'config' else 'Final summary'} value at the key {key}"
    statements = _statements(relation, f"One row per run of {project}, with config and summary as columns", columns)
    for start in range(0, len(statements), _AT_ONCE):
        with db.transaction():
            db.run(";".join(statements[start : start + _AT_ONCE]))


def key_table(db: Database, relation: str, comment: str) -> None:
    """Set the comments of the relation of a key under which runs logged W&B Tables."""
    step = {"step": "The step that the table was logged at"}
    db.run(";".join(_statements(relation, comment, _RUN | step)))


def _statements(relation: str, comment: str, columns: dict[str, str]) -> list[str]:
    view = f"main.{identifier(relation)}"
    return [f"COMMENT ON VIEW {view} IS {literal(comment)}"] + [
        f"COMMENT ON COLUMN {view}.{identifier(name)} IS {literal(text)}" for name, text in columns.items()
    ]
