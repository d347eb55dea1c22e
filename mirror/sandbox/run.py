"""One run of the model: what was written to it, and which of its times moves when."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mirror.sandbox import instants, jsontext
from mirror.sandbox.files import LogLine, StoredFile, log_line
from mirror.sandbox.history import Lines, merged

if TYPE_CHECKING:
    from mirror.sandbox.world import Project, World

SUMMARY_OWN = ("_step", "_runtime", "_timestamp", "_wandb")
TELEMETRY = {"t": {"1": [1], "3": [13, 16], "4": "3.11.9", "5": "0.21.0", "12": "0.21.0"}}


@dataclass
class Labels:
    """What a person or a script writes about a run; any of them may be absent."""

    display_name: str | None = None
    group: str | None = None
    job_type: str | None = None
    sweep: str | None = None
    notes: str | None = None
    description: str | None = None
    host: str | None = None
    commit: str | None = None
    user: str | None = None


class Run:
    """A run. Its methods do what a client of W&B would bring about, and take the world's lock themselves."""

    def __init__(self, project: Project, run_id: str, created_at: datetime, labels: Labels, state: str) -> None:
        self.project = project
        self.world: World = project.world
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
        self.exports: list[bytes] = []
        self.exported_to = -1
        self.spoilt: dict[str, Any] = {}
        """What is answered for fields of the API whatever the run holds, as a server does whose store is damaged."""
        self._config_text: str | None = None
        self._summary_text: str | None = None

    # What a run is

    @property
    def storage_id(self) -> str:
        """The id that mutations take."""
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
        """The summary, `_step` and its like included."""
        return self.summary_document

    def rows(self) -> list[dict[str, Any]]:
        """Every history row by rising step, parsed."""
        with self.world.lock:
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
        """Log a row at the next step, or at `step`; one at the last step is merged into it, an earlier one refused."""
        with self.world.lock:
            last = self.history.last_step
            at = last + 1 if step is None else step
            if at < last:
                raise ValueError(f"{self.path}: step {at} is before the last step {last}; log at {last} or later")
            now = self.world.moment()
            if at == last and len(self.history):
                row = merged(self.history.pop(), row)
            self._take(row, at, instants.epoch(now) if timestamp is None else timestamp)
            self.touch(heartbeat=True, at=now)

    def log_many(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Log rows at once. Each may hold `_step` (rising) and `_timestamp`; without them it is the next step, now."""
        with self.world.lock:
            now = self.world.moment()
            stamp = instants.epoch(now)
            step = self.history.last_step
            for row in rows:
                at = int(row.get("_step", step + 1))
                if at <= step:
                    raise ValueError(f"{self.path}: step {at} does not come after step {step}; sort the rows by _step")
                self._take(row, at, row.get("_timestamp", stamp))
                step = at
            self.touch(heartbeat=True, at=now)

    def _take(self, row: Mapping[str, Any], step: int, timestamp: float) -> None:
        runtime = row.get("_runtime", round(timestamp - instants.epoch(self.created_at), 6))
        full = {**row, "_step": step, "_timestamp": timestamp, "_runtime": runtime}
        self.history.append(full)
        self.summary_document = merged(self.summary_document, full)
        self._summary_text = None

    def log_system(self, row: Mapping[str, Any], timestamp: float | None = None) -> None:
        """Log system metrics, keys as W&B names them: `system.cpu`, `system.gpu.0.gpu`."""
        with self.world.lock:
            now = self.world.moment()
            stamp = instants.epoch(now) if timestamp is None else timestamp
            runtime = round(stamp - instants.epoch(self.created_at), 6)
            self.events.append_text(jsontext.write({**row, "_timestamp": stamp, "_runtime": runtime, "_wandb": True}))
            self.touch(heartbeat=True, at=now)

    def heartbeat(self) -> None:
        """Say that the process is alive."""
        self.touch(heartbeat=True)

    def finish(self, state: str = "finished", exitcode: int | None = None) -> None:
        """End the run; both times move."""
        with self.world.lock:
            self.state = state
            self.exitcode = exitcode if exitcode is not None else int(state != "finished")
            self.touch(heartbeat=True)

    def rewind(self, step: int) -> None:
        """Drop the rows after `step` and go on from there; exported files are written anew without them."""
        with self.world.lock:
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
        """Change what is given, as from the web page: `updatedAt` moves, `heartbeatAt` does not.

        `config` and `summary` replace all of the user's values; `_wandb`, `_step` and their like stay.
        """
        with self.world.lock:
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
        """Mark the run as the server does by itself (crashed after missed heartbeats): no time moves."""
        with self.world.lock:
            self.state = state
            self.world.changed()

    def set_config(self, document: dict[str, Any] | None) -> None:
        """Replace the stored config, wrapped values and `_wandb` included. Moves no time."""
        self.config_document = document
        self._config_text = None

    def set_summary(self, document: Mapping[str, Any]) -> None:
        """Replace the stored summary. Moves no time."""
        self.summary_document = dict(document)
        self._summary_text = None

    def export_history(self, upto_step: int | None = None) -> None:
        """Write the rows up to there that are not exported yet to one more Parquet file; the others stay live."""
        with self.world.lock:
            self._export(self.history.last_step if upto_step is None else upto_step)
            self.world.changed()

    def _export(self, upto: int) -> None:
        from mirror.sandbox import parquet

        lines = self.history.page(self.exported_to + 1, upto + 1, None)
        if lines:
            self.exports.append(parquet.file(lines))
            self.exported_to = upto

    def live_steps(self) -> list[int]:
        """Steps that stand in no exported file; empty while nothing is exported at all."""
        if not self.exports:
            return []
        return [step for step in self.history.ordered()[0] if step > self.exported_to]

    # Console and files

    def write_console(self, offset: int, lines: Iterable[str]) -> None:
        """Put console lines from `offset` on; a line that is there already is replaced, as progress bars do."""
        with self.world.lock:
            for number, text in enumerate(lines, start=offset):
                while len(self.console) <= number:
                    self.console.append(LogLine(len(self.console), None, "", "", ""))
                self.console[number] = log_line(number, text)
            self.world.changed()

    def resume_console(self, lines: Iterable[str], number: int = 0) -> None:
        """Put lines behind the others whose numbers begin again, as some resumed runs have them."""
        with self.world.lock:
            self.console += [log_line(at, text) for at, text in enumerate(lines, start=number)]
            self.world.changed()

    def kept_console(self) -> list[LogLine]:
        """The lines that the server still has: those far back are gone."""
        return self.console[-self.console_kept :]

    def add_file(self, name: str, content: bytes | str) -> None:
        """Store a file of the run, as an upload does."""
        with self.world.lock:
            data = content.encode() if isinstance(content, str) else content
            self.files[name] = StoredFile(name, data, self.world.moment())
            self.world.changed()

    def metadata(self) -> dict[str, Any]:
        """The contents of `wandb-metadata.json`; empty without the file or when it is no object."""
        stored = self.files.get("wandb-metadata.json")
        if stored is None:
            return {}
        try:
            value = jsontext.read(stored.content)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    def touch(self, *, heartbeat: bool, at: datetime | None = None) -> None:
        """Move `updatedAt`, and `heartbeatAt` when the run's own process spoke."""
        with self.world.lock:
            now = self.world.moment() if at is None else at
            self.updated_at = now
            if heartbeat:
                self.heartbeat_at = now
            self.world.changed()


def wrapped(config: Mapping[str, Any]) -> dict[str, Any]:
    """Plain config values as the server stores them."""
    return {key: {"value": value, "desc": None} for key, value in config.items()}


def unwrapped(value: Any) -> Any:
    """The plain value of one stored config entry."""
    return value["value"] if isinstance(value, dict) and "value" in value else value
