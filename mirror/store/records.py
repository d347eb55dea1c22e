"""What crosses between the server client, sync and the store. All times are naive UTC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class ProjectKey:
    """A project's address."""

    entity: str
    project: str

    def __str__(self) -> str:
        return f"{self.entity}/{self.project}"


@dataclass(frozen=True)
class RunFacts:
    """What the server tells of a run that is kept as it is told, for clients of the server's API.

    `fields` holds values by the names of the API's fields; a field that is not there was not told. `system_metrics` is
    JSON text, `keys` what `historyKeys` tells that does not follow from the history: `monotonic`, the keys whose
    numbers only rose, `falling`, the other keys of numbers, and `others`, the entries of those that did not hold
    numbers alone. None: not told.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    system_metrics: str | None = None
    keys: dict[str, Any] | None = None


@dataclass(frozen=True)
class RunRecord:
    """One run as the server tells it.

    `config` and `summary` hold plain values, `config_meta` W&B's own `_wandb` entry, `info` how the run was started
    (program, args, os, python, gpu, gpu_count, cpu_count, git). `info`, `server_events` (system metric lines) and
    `server_log_lines` are None where the server does not tell. `storage_id` is empty for a run that was read from a
    local file. `server_keys` is how many values of each history key the server counts, None where it does not tell; it
    is for comparing and not stored. `asked_at` is what the server's clock showed when it was asked for the run.
    `unread` names the fields of which the server sent what cannot be read, and `flaw` says why: what was mirrored of
    them before stays.
    """

    entity: str
    project: str
    run_id: str
    storage_id: str
    name: str | None
    state: str
    created_at: datetime | None
    heartbeat_at: datetime | None
    updated_at: datetime | None
    duration_s: float | None
    username: str | None
    group_name: str | None
    job_type: str | None
    sweep: str | None
    notes: str | None
    description: str | None
    tags: tuple[str, ...]
    git_commit: str | None
    host: str | None
    url: str | None
    config: dict[str, Any] = field(default_factory=dict)
    config_meta: Any = None
    summary: dict[str, Any] = field(default_factory=dict)
    server_rows: int = 0
    server_last_step: int | None = None
    server_keys: dict[str, int] | None = None
    server_events: int | None = None
    server_log_lines: int | None = None
    info: dict[str, Any] | None = None
    asked_at: datetime | None = None
    unread: tuple[str, ...] = ()
    flaw: str | None = None
    facts: RunFacts | None = None


@dataclass(frozen=True)
class KnownRun:
    """What the mirror holds of a run: enough to see, without its documents, whether the server has something newer.

    `rows` counts mirrored history lines, `last_step` is the highest mirrored step. `server_rows` and
    `server_last_step` are what the server said when the run's record was last written. `local` tells that the run came
    from a local file and the server is not known to have it, `ahead` that it has it, with less history than the file.
    `asked_at` is what the server's clock showed when it was asked for that record, and `flawed` that some of it could
    not be read.
    """

    rid: int
    run_id: str
    state: str
    heartbeat_at: datetime | None
    updated_at: datetime | None
    server_rows: int
    server_last_step: int | None
    rows: int
    last_step: int | None
    refresh: bool
    attempts: int
    next_try_at: datetime | None
    error: str | None
    deleted: bool
    local: bool = False
    ahead: bool = False
    created_at: datetime | None = None
    storage_id: str = ""
    asked_at: datetime | None = None
    flawed: bool = False


@dataclass(frozen=True)
class ProjectCursor:
    """How far a project is mirrored. `covered_to` is a time on the server's clock: what changed until then is mirrored.

    It is never later than when the server was asked, and a pass that leaves older runs out does not set it.
    `reconciled_at` is when a full listing was last compared, on this machine's clock; `unexplained_runs` is how many
    runs the server counted when that listing could not explain its count, else None. `filters` and `history` are the
    filter and the key globs, as JSON text, that the runs and the history were taken with.
    """

    covered_to: datetime | None = None
    reconciled_at: datetime | None = None
    unexplained_runs: int | None = None
    filters: str | None = None
    history: str | None = None


@dataclass(frozen=True)
class RunExtras:
    """What the server counts of a run's system metrics and console, and what was taken of them and of its file.

    `server_events` and `server_log_lines` are from the run's record, `events` and `log_lines` what they were when each
    was taken last; None for never. The console goes on behind `log_cursor`, at line `log_from`; `log_live` tells that
    the run was live then. `file` is None while it was not asked for, else "taken", "none" or "not yet". `listed_at` is
    when the list of its files was taken last.
    """

    rid: int
    run_id: str
    state: str
    server_events: int | None = None
    server_log_lines: int | None = None
    events: int | None = None
    log_lines: int | None = None
    log_cursor: str | None = None
    log_from: int = 0
    log_live: bool = False
    file: str | None = None
    attempts: int = 0
    next_try_at: datetime | None = None
    listed_at: datetime | None = None


@dataclass(frozen=True)
class RunFile:
    """What the server tells of a file of a run: its name with folders, bytes, and the base64 of its MD5 digest."""

    file_id: str
    name: str
    size: int
    mimetype: str | None
    updated_at: datetime | None
    md5: str | None


ConsoleLine = tuple[int, datetime | None, str | None, str]
"""Its number, when it was written, its level, its text."""


@dataclass(frozen=True)
class ConsolePage:
    """Console lines of one run from `first` on. No line follows the `last` page.

    `labels`, one for each line, tell which of several writers it is from; None where the server does not tell.
    """

    run_id: str
    first: int
    lines: list[ConsoleLine]
    last: bool
    labels: Sequence[str | None] | None = None


@dataclass(frozen=True)
class HistoryPage:
    """Logged values of one run.

    `values` has the columns step (int64), key (string, may be dictionary-encoded), value (double, null where the value
    is no number) and text (string, null for plain numbers), one row a value. `rows` is how many history lines they
    came from, `last_step` the highest step up to which nothing is missing, also where the last lines held no value
    that is mirrored. `summary`, where it is given, tells that the values lie key by key and by step without doubles,
    and has one row a key in that order, as `mirror.series.summarise` gives it.
    """

    run_id: str
    values: pa.Table
    rows: int
    last_step: int | None
    summary: pa.Table | None = None


@dataclass(frozen=True)
class HistoryMark:
    """The last mirrored line of a run: its step, how many keys it has, and the numbers of some of them."""

    step: int
    keys: int
    numbers: dict[str, float]


@dataclass(frozen=True)
class LocalFile:
    """A file of the official client, and how far it is read.

    `started_at` is when the run's process began, `head` a checksum of the file's start, `mtime` in nanoseconds, `shift`
    what is added to each step. `note` says why the file is not read any more, else None. `beside` changes with what
    lies beside it.
    """

    path: str
    entity: str
    project: str
    run_id: str
    started_at: str
    read_to: int = 0
    size: int = 0
    mtime: int = 0
    head: str = ""
    damaged: int = 0
    shift: int | None = None
    note: str | None = None
    read_at: datetime | None = None
    beside: str | None = None


@dataclass(frozen=True)
class LocalRun:
    """How a run that local files tell of stands in the mirror.

    `local` tells that it is marked as coming from files, `on_server` that the server's record of it is mirrored, and
    `guessed` that the files name no entity. `rows` counts mirrored history lines.
    """

    project: ProjectKey
    run_id: str
    local: bool
    on_server: bool
    guessed: bool
    rows: int
    state: str


@dataclass(frozen=True)
class ProjectStatus:
    """How a project stands: what is mirrored of it, and how its last passes went. `set_aside` counts failing runs."""

    entity: str
    project: str
    runs: int
    running: int
    history_rows: int
    last_attempt_at: datetime | None
    last_success_at: datetime | None
    last_error: str | None
    set_aside: int


@dataclass(frozen=True)
class Published:
    """A snapshot that readers now see."""

    path: Path
    seconds: float
    bytes: int
