"""Projects and runs of the model: their data, and when each time of a run changes."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct, field

from mirror.sandbox import instants, jsontext
from mirror.sandbox.artifacts import Artifact
from mirror.sandbox.clock import Clock
from mirror.sandbox.files import LogLine, StoredFile, log_line
from mirror.sandbox.history import STEP, Lines, merged
from mirror.sandbox.report import Report
from mirror.sandbox.sweep import Sweep

SUMMARY_OWN = (STEP, "_runtime", "_timestamp", "_wandb")
TELEMETRY = {"t": {"1": [1], "3": [13, 16], "4": "3.11.9", "5": "0.21.0", "12": "0.21.0"}}


class Labels(Struct):
    """What a user or a script writes about a run; any value may be absent."""

    display_name: str | None = None
    group: str | None = None
    job_type: str | None = None
    sweep: str | None = None
    notes: str | None = None
    description: str | None = None
    host: str | None = None
    commit: str | None = None
    user: str | None = None


class Project(Struct):
    """A project and its runs, in the order of creation."""

    clock: Clock
    entity: str
    name: str
    number: int
    created_at: datetime
    description: str | None = None
    runs: dict[str, Run] = field(default_factory=dict)
    sweeps: dict[str, Sweep] = field(default_factory=dict)
    reports: dict[str, Report] = field(default_factory=dict)

    @property
    def storage_id(self) -> str:
        """The id in the API."""
        return base64.b64encode(f"Project:v1:{self.name}:{self.entity}".encode()).decode()

    @property
    def internal_id(self) -> str:
        """The number of the project, in the API's form of an id."""
        return base64.b64encode(f"ProjectInternalId:{self.number}".encode()).decode()

    @property
    def last_active(self) -> datetime:
        """The last heartbeat of any run, or the project's creation."""
        return max([self.created_at, *(run.heartbeat_at or run.created_at for run in self.runs.values())])


class Run:
    """A run. Its methods have the effects of requests of W&B's client, and acquire the clock's lock themselves."""

    def __init__(self, project: Project, run_id: str, created_at: datetime, labels: Labels, state: str) -> None:
        self.clock = project.clock
        self.project = project
        self.run_id = run_id
        self.labels = labels
        self.state = state
        self.stop_requested = False
        self.exitcode: int | None = None
        self.tags: list[str] = []
        self.created_at = created_at
        self.heartbeat_at: datetime | None = created_at
        self.updated_at = created_at
        self.config_document: dict[str, Any] | None = None
        self.summary_document: dict[str, Any] = {}
        self.history = Lines()
        self.events = Lines()
        self.console: list[LogLine] = []
        self.console_kept = 100_000
        self.files: dict[str, StoredFile] = {}
        self.inputs: list[Artifact] = []
        self.outputs: list[Artifact] = []
        self.exports: list[bytes] = []
        self.exported_to = -1
        self.spoilt: dict[str, Any] = {}
        """Fixed answers for fields of the API, whatever the run's data, as from a server with a damaged store."""
        self._config_text: str | None = None
        self._summary_text: str | None = None

    # What a run is

    @property
    def storage_id(self) -> str:
        """The id that mutations use."""
        return base64.b64encode(f"Run:v1:{self.run_id}:{self.project.name}:{self.project.entity}".encode()).decode()

    @property
    def path(self) -> str:
        """`entity/project/run_id`."""
        return f"{self.project.entity}/{self.project.name}/{self.run_id}"

    @property
    def name(self) -> str | None:
        """The display name."""
        return self.labels.display_name

    @property
    def config(self) -> dict[str, Any]:
        """The user's config, plain values."""
        return {key: unwrapped(value) for key, value in (self.config_document or {}).items() if key != "_wandb"}

    @property
    def summary(self) -> dict[str, Any]:
        """The summary, including `_step` and the like."""
        return self.summary_document

    def rows(self) -> list[dict[str, Any]]:
        """Return every history row, parsed, sorted by step."""
        with self.clock.lock:
            return self.history.rows()

    @property
    def config_text(self) -> str | None:
        """The config as the server stores it; None for a run that never had one."""
        if self._config_text is None and self.config_document is not None:
            self._config_text = jsontext.write(self.config_document)
        return self._config_text

    @property
    def summary_text(self) -> str:
        """The summary as the server stores it."""
        if self._summary_text is None:
            self._summary_text = jsontext.write(self.summary_document)
        return self._summary_text

    # What its process does

    def log(self, row: Mapping[str, Any], step: int | None = None, timestamp: float | None = None) -> None:
        """Log a row at the next step, or at `step`: merged at the last step; an earlier step raises ValueError."""
        with self.clock.lock:
            last = self.history.last_step
            at = last + 1 if step is None else step
            if at < last:
                raise ValueError(f"{self.path}: step {at} is before the last step {last}; log at {last} or later")
            now = self.clock.moment()
            if at == last and len(self.history):
                row = merged(self.history.pop(), row)
            self._append(row, at, instants.epoch(now) if timestamp is None else timestamp)
            self.touch(heartbeat=True, at=now)

    def log_many(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Log rows at once. Each may have `_step` (rising) and `_timestamp`; the default is the next step, now."""
        with self.clock.lock:
            now = self.clock.moment()
            stamp = instants.epoch(now)
            step = self.history.last_step
            for row in rows:
                at = int(row.get(STEP, step + 1))
                if at <= step:
                    raise ValueError(f"{self.path}: step {at} does not come after step {step}; sort the rows by _step")
                self._append(row, at, row.get("_timestamp", stamp))
                step = at
            self.touch(heartbeat=True, at=now)

    def _append(self, row: Mapping[str, Any], step: int, timestamp: float) -> None:
        runtime = row.get("_runtime", round(timestamp - instants.epoch(self.created_at), 6))
        full = {**row, STEP: step, "_timestamp": timestamp, "_runtime": runtime}
        self.history.append(full)
        self.summary_document = merged(self.summary_document, full)
        self._summary_text = None

    def log_system(self, row: Mapping[str, Any], timestamp: float | None = None) -> None:
        """Log system metrics with W&B's keys, such as `system.cpu`, `system.gpu.0.gpu`."""
        with self.clock.lock:
            now = self.clock.moment()
            stamp = instants.epoch(now) if timestamp is None else timestamp
            runtime = round(stamp - instants.epoch(self.created_at), 6)
            self.events.append_text(jsontext.write({**row, "_timestamp": stamp, "_runtime": runtime, "_wandb": True}))
            self.touch(heartbeat=True, at=now)

    def heartbeat(self) -> None:
        """Send a heartbeat."""
        self.touch(heartbeat=True)

    def finish(self, state: str = "finished", exitcode: int | None = None) -> None:
        """End the run; both times change."""
        with self.clock.lock:
            self.state = state
            self.exitcode = exitcode if exitcode is not None else int(state != "finished")
            self.touch(heartbeat=True)

    def rewind(self, step: int) -> None:
        """Drop the rows after `step`, to continue from there; exported files are rewritten without them."""
        with self.clock.lock:
            self.history.truncate(step)
            summary: dict[str, Any] = {}
            for row in self.history.rows():
                summary = merged(summary, row)
            self.set_summary(summary)
            if self.exported_to > step:
                self.exports, self.exported_to = [], -1
                self._export(step)
            self.touch(heartbeat=True)

    # What people and the server do to it

    def edit(
        self,
        *,
        config: Mapping[str, Any] | None = None,
        summary: Mapping[str, Any] | None = None,
        tags: Sequence[str] | None = None,
        notes: str | None = None,
        display_name: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
    ) -> None:
        """Change these values as the web page does: `updatedAt` changes, `heartbeatAt` does not.

        `config` and `summary` replace all of the user's values; `_wandb`, `_step` and the like stay.
        """
        with self.clock.lock:
            if config is not None:
                kept = {key: value for key, value in (self.config_document or {}).items() if key == "_wandb"}
                self.set_config({**wrapped(config), **kept})
            if summary is not None:
                own = {key: value for key, value in self.summary_document.items() if key in SUMMARY_OWN}
                self.set_summary({**own, **summary})
            if tags is not None:
                self.tags = list(tags)
            for field, value in (
                ("notes", notes),
                ("display_name", display_name),
                ("group", group),
                ("job_type", job_type),
            ):
                if value is not None:
                    setattr(self.labels, field, value)
            self.touch(heartbeat=False)

    def set_state(self, state: str) -> None:
        """Set the state as the server itself does (crashed after missed heartbeats): no time changes."""
        with self.clock.lock:
            self.state = state
            self.clock.changed()

    def set_config(self, document: dict[str, Any] | None) -> None:
        """Replace the stored config, with wrapped values and `_wandb`. No time changes."""
        self.config_document = document
        self._config_text = None

    def set_summary(self, document: Mapping[str, Any]) -> None:
        """Replace the stored summary. No time changes."""
        self.summary_document = dict(document)
        self._summary_text = None

    def export_history(self, upto_step: int | None = None) -> None:
        """Export the rows up to `upto_step` that are not exported yet to a new Parquet file; later rows stay live."""
        with self.clock.lock:
            self._export(self.history.last_step if upto_step is None else upto_step)
            self.clock.changed()

    def _export(self, upto: int) -> None:
        from mirror.sandbox import parquet

        lines = self.history.page(self.exported_to + 1, upto + 1, None)
        if lines:
            self.exports.append(parquet.file(lines))
            self.exported_to = upto

    def live_steps(self) -> list[int]:
        """Return the steps that are in no exported file; empty while nothing is exported."""
        if not self.exports:
            return []
        return [step for step in self.history.ordered()[0] if step > self.exported_to]

    # Console and files

    def write_console(self, offset: int, lines: Iterable[str]) -> None:
        """Write console lines from `offset` on; existing lines are replaced, as progress bars do."""
        with self.clock.lock:
            for number, text in enumerate(lines, start=offset):
                while len(self.console) <= number:
                    self.console.append(LogLine(len(self.console), None, "", "", ""))
                self.console[number] = log_line(number, text)
            self.clock.changed()

    def resume_console(self, lines: Iterable[str], number: int = 0) -> None:
        """Append lines whose numbers start again at `number`, as some resumed runs have them."""
        with self.clock.lock:
            self.console += [log_line(at, text) for at, text in enumerate(lines, start=number)]
            self.clock.changed()

    def kept_console(self) -> list[LogLine]:
        """Return the lines that the server still has: it drops the oldest ones."""
        return self.console[-self.console_kept :]

    def add_file(self, name: str, content: bytes | str) -> None:
        """Store a file of the run, as an upload does."""
        with self.clock.lock:
            data = content.encode() if isinstance(content, str) else content
            self.files[name] = StoredFile(name, data, self.clock.moment())
            self.clock.changed()

    def log_artifact(self, artifact: Artifact) -> None:
        """Record an artifact as an output of the run; a second time changes nothing."""
        with self.clock.lock:
            if artifact not in self.outputs:
                self.outputs.append(artifact)
            self.clock.changed()

    def use_artifact(self, artifact: Artifact) -> None:
        """Record an artifact as an input of the run; a second time changes nothing."""
        with self.clock.lock:
            if artifact not in self.inputs:
                self.inputs.append(artifact)
            self.clock.changed()

    def metadata(self) -> dict[str, Any]:
        """Return the content of `wandb-metadata.json`; empty without the file, or if it is not an object."""
        stored = self.files.get("wandb-metadata.json")
        if stored is None:
            return {}
        try:
            value = jsontext.read(stored.content)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    def touch(self, *, heartbeat: bool, at: datetime | None = None) -> None:
        """Set `updatedAt` to now, and also `heartbeatAt` if the run's own process sent the request."""
        with self.clock.lock:
            now = self.clock.moment() if at is None else at
            self.updated_at = now
            if heartbeat:
                self.heartbeat_at = now
            self.clock.changed()


def wrapped(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain config values in the form in which the server stores them."""
    return {key: {"value": value, "desc": None} for key, value in config.items()}


def unwrapped(value: Any) -> Any:
    """Return the plain value of one stored config entry."""
    return value["value"] if isinstance(value, dict) and "value" in value else value
