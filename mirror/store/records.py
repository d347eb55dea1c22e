"""The records that the server client, sync and the store pass to each other. All times are naive UTC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

if TYPE_CHECKING:
    import pyarrow as pa


class ProjectKey(Struct, frozen=True):
    """A project's address."""

    entity: str
    project: str

    def __str__(self) -> str:
        return f"{self.entity}/{self.project}"


class RunFacts(Struct, frozen=True):
    """What the server returned about a run, stored unchanged for clients of the server's API.

    `fields` has values by the names of the API's fields; a missing field was not returned. `system_metrics` is JSON
    text. `keys` is the part of `historyKeys` that does not follow from the history: `monotonic`, the keys whose numbers
    only rose, `falling`, the other keys with numbers only, and `others`, the entries of all other keys. None: not
    returned.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    system_metrics: str | None = None
    keys: dict[str, Any] | None = None


class RunRecord(Struct, frozen=True):
    """One run as the server returned it.

    `config` and `summary` hold plain values, `config_meta` W&B's own `_wandb` entry, `info` how the run was started
    (program, args, os, python, gpu, gpu_count, cpu_count, git). `info`, `server_events` (the number of system metric
    lines) and `server_log_lines` are None if the server does not report them. `storage_id` is empty for a run that was
    read from a local file. `server_keys` is the server's count of values per history key, None if it reports none; it
    is only for comparison and not stored. `asked_at` is the server's time when it was asked for the run. `unread` names
    the fields that the server sent in an unreadable form, and `flaw` says why; their mirrored values stay.
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


class KnownRun(Struct, frozen=True):
    """What the mirror has of a run: enough to see, without its documents, whether the server has something newer.

    `rows` counts mirrored history lines, `last_step` is the highest mirrored step. `server_rows` and
    `server_last_step` are from the server's last mirrored record of the run. `local`: the run was read from a local
    file, and the server is not known to have it. `ahead`: the server has it, with less history than the file.
    `asked_at` is the server's time when it was asked for that record. `flawed`: parts of the record were unreadable.
    `doubted`: the last mirrored line is to be compared with the server's.
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
    doubted: bool = False


class ProjectCursor(Struct, frozen=True):
    """How far a project is mirrored. All changes until `covered_to`, a time of the server's clock, are mirrored.

    `covered_to` is never later than when the server was asked, and a pass that leaves out older runs does not set it.
    `reconciled_at` is when a full listing was last compared, on this machine's clock. `unexplained_runs` is the
    server's count of runs if that listing could not explain it, else None. `filters` and `history` are the filter and
    the key globs, as JSON text, with which the runs and the history were pulled.
    """

    covered_to: datetime | None = None
    reconciled_at: datetime | None = None
    unexplained_runs: int | None = None
    filters: str | None = None
    history: str | None = None


class RunExtras(Struct, frozen=True):
    """How much of a run's system metrics, console, metadata file and list of files is mirrored.

    `server_events` and `server_log_lines` are the counts in the run's record; `events` and `log_lines` are what these
    counts were when each part was last pulled, None for never. The console continues after `log_cursor`, at line
    `log_from`; `log_live` is True if the run was live then. `file` is None until the metadata file was asked for, then
    "taken", "none" or "not yet". `listed_at` is when the list of files was last pulled, `artifacts_at`
    when what the run used and logged was.
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
    artifacts_at: datetime | None = None


class RunFile(Struct, frozen=True):
    """The server's entry for a file of a run. `name` includes folders, `size` is in bytes, `md5` is base64."""

    file_id: str
    name: str
    size: int
    mimetype: str | None
    updated_at: datetime | None
    md5: str | None


ConsoleLine = tuple[int, datetime | None, str | None, str]
"""The line's number, time, level, and text."""


class ConsolePage(Struct, frozen=True):
    """Console lines of one run from line `first` on. `last`: no line follows this page.

    `labels`, one per line, name the writer of the line if a run has several; None if the server does not report them.
    """

    run_id: str
    first: int
    lines: list[ConsoleLine]
    last: bool
    labels: Sequence[str | None] | None = None


class HistoryPage(Struct, frozen=True):
    """Logged values of one run.

    `values` has one row per value, with the columns step (int64), key (string, may be dictionary-encoded), value
    (double, null unless the value is a number) and text (string, null for plain numbers). `rows` is the number of
    history lines they are from, `last_step` the step up to which nothing is missing, even if the last lines had no
    value to mirror. If `summary` is given, the values are sorted by key and step, without duplicates, and it is what
    `mirror.metrics.summarise` returns for them.
    """

    run_id: str
    values: pa.Table
    rows: int
    last_step: int | None
    summary: pa.Table | None = None


class HistoryMark(Struct, frozen=True):
    """The last mirrored line of a run: its step, how many keys it has, and the numbers of some of them."""

    step: int
    keys: int
    numbers: dict[str, float]


class LocalFile(Struct, frozen=True):
    """A file of the official client, and how far it is read.

    `started_at` is when the run's process started, `head` a checksum of the file's start, `mtime` is in nanoseconds,
    `shift` is added to each step. `note` says why reading the file was given up, else None. `beside` changes when
    files next to it change.
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


class LocalRun(Struct, frozen=True):
    """The state in the mirror of a run that local files contain.

    `local`: it is marked as read from files. `on_server`: the server's record of it is mirrored. `guessed`: the files
    name no entity. `rows` counts mirrored history lines.
    """

    project: ProjectKey
    run_id: str
    local: bool
    on_server: bool
    guessed: bool
    rows: int
    state: str


class ProjectStatus(Struct, frozen=True):
    """What is mirrored of a project, and how its last passes went. `set_aside` counts failed runs, to be retried."""

    entity: str
    project: str
    runs: int
    running: int
    history_rows: int
    last_attempt_at: datetime | None
    last_success_at: datetime | None
    last_error: str | None
    set_aside: int


class SweepRecord(Struct, frozen=True):
    """A sweep. `facts` is what the server returned, as JSON text; of a sweep that it lacks, only the id is known."""

    sweep_id: str
    facts: str
    name: str | None = None
    state: str | None = None
    method: str | None = None
    description: str | None = None
    config: str | None = None
    config_yaml: str | None = None
    metric: str | None = None
    goal: str | None = None
    best_loss: float | None = None
    runs_expected: int | None = None
    prior_runs: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    url: str | None = None
    deleted_at: datetime | None = None


class ProjectListing(Struct, frozen=True):
    """When a list of a project was pulled, the server's count if the list did not explain it, and failures since."""

    listed_at: datetime | None = None
    total: int | None = None
    attempts: int = 0
    next_try_at: datetime | None = None


class OpenSweeps(Struct, frozen=True):
    """How a project's sweeps were listed, how many there are, and the facts of those that may get runs, by id."""

    listing: ProjectListing = field(default_factory=ProjectListing)
    count: int = 0
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class ViewRecord(Struct, frozen=True):
    """A report or another saved view. `facts` is what the server returned except the spec, as JSON text."""

    view_id: str
    view_type: str
    name: str | None
    title: str | None
    description: str | None
    author: str | None
    created_at: datetime | None
    updated_at: datetime | None
    spec: str | None
    url: str | None
    facts: str
    asked_at: datetime | None = None
    deleted_at: datetime | None = None


class KnownView(Struct, frozen=True):
    """What is stored of a saved view: its facts, and the server's time when its spec was requested."""

    facts: str
    asked_at: datetime | None
    deleted: bool


class Published(Struct, frozen=True):
    """A published snapshot, and how long publishing took."""

    path: Path
    seconds: float
    bytes: int
