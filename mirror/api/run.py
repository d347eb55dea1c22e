"""One run of the mirror."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import quote

from mirror.api import edits
from mirror.api.display import display, frame
from mirror.api.fields import FIELDS, TOLD
from mirror.api.files import File, Files, metadata
from mirror.api.frames import checked, shown
from mirror.api.histories import HistoryScan, sampled, wrong_keys
from mirror.api.official import asked_of_server, asks
from mirror.api.people import User, camel
from mirror.api.summary import Summary
from mirror.api.sweeps import Sweep
from mirror.api.unsaved import Unsaved, carry_over, unsaved
from mirror.errors import ArgumentError, CommError, UsageError
from mirror.serve.history import described, latest_events
from mirror.snapshot.runs import RunPage
from mirror.snapshot.snapshot import Address
from mirror.wandb_json import loads

if TYPE_CHECKING:
    from mirror.api.api import Api
    from mirror.remote.mutations import Edit
    from mirror.snapshot.run_query import Named

ENDED = ("finished", "crashed", "failed", "killed")


class Run:
    """A run as the mirror holds it, shaped as the official client's `Run`.

    Reading needs no network, but for the content of files and, where they are not mirrored, `files` and `metadata`.
    What is changed (`config`, `summary`, `tags`, `notes`, `name`, `group`, `job_type`, `description`) is sent to the
    server by `update`, then mirrored.
    """

    def __init__(self, api: Api, page: RunPage, row: Named) -> None:
        """Runs come from `Api.run` and `Api.runs`."""
        # A list has thousands of these: what they share stands in their page.
        self._api = api
        self._page = page
        self._row = row
        self._own: dict[str, Any] | None = None

    # Which run it is

    @property
    def id(self) -> str:
        """The run id: eight characters, or what the script chose."""
        return self._row[1]

    @property
    def entity(self) -> str:
        """The user or team that owns the project."""
        return self._page.key.entity

    @property
    def project(self) -> str:
        """The project."""
        return self._page.key.project

    @property
    def path(self) -> list[str]:
        """Entity, project and run id, ready for an address."""
        return [quote(part, safe="") for part in (self.entity, self.project, self.id)]

    @property
    def url(self) -> str | None:
        """The run's page on the server; None for a run that no server has yet."""
        return self._text("url")

    @property
    def storage_id(self) -> str:
        """The server's own id of the run, which writes name."""
        return str(self._fact("storage_id"))

    # What people write about it

    @property
    def name(self) -> str | None:
        """The name that people see, such as "sunny-sky-12"."""
        own = self._own
        return self._row[2] if own is None or "name" not in own else cast("str | None", own["name"])

    @name.setter
    def name(self, value: str | None) -> None:
        self._held["name"] = value

    @property
    def display_name(self) -> str | None:
        """The same as `name`."""
        return self.name

    @display_name.setter
    def display_name(self, value: str | None) -> None:
        self.name = value

    @property
    def notes(self) -> str | None:
        """Notes about the run."""
        return self._editable("notes")

    @notes.setter
    def notes(self, value: str | None) -> None:
        self._held["notes"] = value

    @property
    def description(self) -> str | None:
        """The run's description."""
        return self._editable("description")

    @description.setter
    def description(self, value: str | None) -> None:
        self._held["description"] = value

    @property
    def tags(self) -> list[str]:
        """Tags, in their order. Append to the list or replace it, then `update`."""
        if "tags" not in self._held:
            self._held["tags"] = list(self._fact("tags"))
        tags: list[str] = self._held["tags"]
        return tags

    @tags.setter
    def tags(self, value: Iterable[str]) -> None:
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise ArgumentError(f"tags={value!r}: a list of texts, such as ['baseline']")
        self._held["tags"] = list(value)

    @property
    def group(self) -> str | None:
        """The group of runs that it belongs to."""
        return self._editable("group_name")

    @group.setter
    def group(self, value: str | None) -> None:
        self._held["group_name"] = value

    @property
    def job_type(self) -> str | None:
        """What it does, such as "train" or "eval"."""
        return self._editable("job_type")

    @job_type.setter
    def job_type(self, value: str | None) -> None:
        self._held["job_type"] = value

    @property
    def config(self) -> dict[str, Any]:
        """Inputs such as hyperparameters, as plain values. Change the dictionary, then `update`."""
        if "config" not in self._held:
            self._held["config"] = self._config()
        config: dict[str, Any] = self._held["config"]
        return config

    @config.setter
    def config(self, value: Mapping[str, Any]) -> None:
        if not isinstance(value, Mapping):
            raise ArgumentError(f"config={value!r}: a dictionary")
        self._held["config"] = dict(value)

    @property
    def summary(self) -> Summary:
        """Outputs: the latest value of each logged key, and what was set by hand. `update` writes changes."""
        if "summary" not in self._held:
            self._held["summary"] = Summary(self._summary(), self._write_summary)
        summary: Summary = self._held["summary"]
        return summary

    @property
    def summary_metrics(self) -> dict[str, Any]:
        """The summary as a plain dictionary."""
        values: dict[str, Any] = self.summary._json_dict  # noqa: SLF001
        return values

    # What it is

    @property
    def state(self) -> str:
        """One of running, finished, crashed, failed, killed, pending, preempting, preempted."""
        return str(self._fact("state"))

    @property
    def commit(self) -> str | None:
        """The git commit."""
        return self._text("git_commit")

    @property
    def host(self) -> str | None:
        """The machine it ran on."""
        return self._text("host")

    @property
    def user(self) -> User:
        """Who started it. Raises AttributeError where the server did not say."""
        username = self._text("username")
        if username is None:
            raise AttributeError(f"the server did not say who started {self._address}")
        told = {name: value for name, value in (self._fact("told").get("user") or {}).items() if name == "name"}
        return User({**told, "username": username}, lambda: self._official.user)

    @property
    def username(self) -> str:
        """The entity, as in the official client; who started the run is `user.username`."""
        return self.entity

    @property
    def sweep_name(self) -> str | None:
        """The id of its sweep."""
        return self._text("sweep")

    @property
    def sweep(self) -> Sweep | None:
        """Its sweep."""
        name = self.sweep_name
        return Sweep(self.entity, self.project, name, self._api) if name else None

    @property
    def created_at(self) -> str | None:
        """When it started: ISO 8601, UTC."""
        return _time(self._fact("created_at"))

    @property
    def heartbeat_at(self) -> str | None:
        """When its process last spoke: ISO 8601, UTC."""
        return _time(self._fact("heartbeat_at"))

    @property
    def updated_at(self) -> str | None:
        """When it was last logged to or edited: ISO 8601, UTC."""
        return _time(self._fact("updated_at"))

    @property
    def deleted(self) -> bool:
        """Whether it is gone from the server; the mirror keeps such runs."""
        return self._fact("deleted_at") is not None

    @property
    def lastHistoryStep(self) -> int:  # noqa: N802
        """The highest mirrored step; -1 without history."""
        return self._page.reader.extent(self._row[0]).last_step

    @property
    def history_keys(self) -> dict[str, Any] | None:
        """The logged keys: `{"keys": {key: {"typeCounts", "monotonic", "previousValue"}}, "lastStep", "sets"}`.

        Which keys only rose is as the server told it, else found out from the values. None for a run without history.
        """
        rid, snapshot = self._row[0], self._page.snapshot
        about = {"name": self.id, "last_step": self.lastHistoryStep, "historyLineCount": self._fact("server_rows")}
        heavy = self._fact("heavy")
        told = {} if heavy is None else {rid: heavy}
        return described(snapshot.cursor, self._page.key, {rid: about}, told).get(rid)

    @property
    def rawconfig(self) -> dict[str, Any]:
        """The config with W&B's own part of it, `_wandb`."""
        own = self._page.document(self._row[0], "config_meta")
        return {**({"_wandb": own} if own else {}), **self.config}

    @property
    def json_config(self) -> str:
        """The config as the server stores it: JSON, each value wrapped."""
        return json.dumps({key: {"value": value, "desc": None} for key, value in self.rawconfig.items()})

    @property
    def metadata(self) -> dict[str, Any] | None:
        """What `wandb-metadata.json` says of machine, command and git; None for a run without it.

        Where `sync.metadata` does not mirror it, the server is asked, once. Raises CommError when it cannot be had.
        """
        if "metadata" not in self._held:
            text, known = self._page.snapshot.metadata(self._row[0])
            self._held["metadata"] = loads(text) if text else None if known else metadata(self)
        told: dict[str, Any] | None = self._held["metadata"]
        return told

    # History

    def history(
        self,
        samples: int | None = 500,
        keys: list[str] | None = None,
        x_axis: str = "_step",
        pandas: bool = True,
        stream: Literal["default", "system"] = "default",
        *,
        format: Literal["dicts", "pandas", "polars", "arrow"] | None = None,  # noqa: A002
    ) -> Any:
        """Logged values, `samples` rows of them at most, evenly spaced, the first and the last among them.

        `samples=None` gives every row. With `keys`, only rows that hold all of them and `x_axis`, cut down to these.
        Keys that are no list of texts give [] and a warning, as in the official client. Returns a pandas DataFrame, or
        a list of dictionaries with `pandas=False`; `format` chooses among "pandas", "dicts", "polars" and "arrow".
        Nested objects are dotted keys, such as "grad.norm".
        """
        form = checked(format) if format is not None else "pandas" if pandas else "dicts"
        if wrong := wrong_keys(keys, stream):
            warnings.warn(wrong, stacklevel=2)
            return []
        found = sampled(self._page.reader, self._address, self._fact("server_rows"), samples, keys, x_axis, stream)
        return shown(found[0], form, found[1], found[2])

    def scan_history(
        self,
        keys: list[str] | None = None,
        page_size: int = 1_000,
        min_step: int = 0,
        max_step: int | None = None,
        use_cache: bool = True,  # noqa: ARG002
    ) -> HistoryScan:
        """Every row from `min_step` (inclusive) to `max_step` (exclusive), as dictionaries, by rising step.

        With `keys`, only rows that hold all of them, cut down to these. `page_size` and `use_cache` are taken for the
        official client's sake; nothing depends on them.
        """
        return HistoryScan(
            self._page.reader, self._address, keys=keys, page_size=page_size, min_step=min_step, max_step=max_step
        )

    beta_scan_history = scan_history
    download_history_exports = asks("download_history_exports")

    @property
    def system_metrics(self) -> dict[str, Any]:
        """The latest value of each system metric, as the server told it; {} for none.

        Where the mirror does not hold it, the server is asked. Raises CommError.
        """
        heavy = self._fact("heavy")
        if heavy is not None and heavy[0] is not None:
            return loads(heavy[0]) or {}
        if not self.storage_id:
            read = self._page.snapshot.cursor
            return loads(latest_events(read, self._page.key, [self.id]).get(self.id, "{}")) or {}
        found: dict[str, Any] = asked_of_server(lambda: self._official.system_metrics)
        return found

    @property
    def read_only(self) -> bool:
        """Whether the key may not edit it. Raises CommError where neither the mirror nor the server tells."""
        return bool(self._named("readOnly"))

    @property
    def project_id(self) -> Any:
        """The server's own number of the project. Raises CommError as `read_only`."""
        return self._named("projectId")

    def console_logs(self, *, per_page: int = 1000, last: int | None = None) -> Any:
        """The lines of its console, oldest first, each with number, timestamp, level, label and content.

        From the mirror where `sync.console` mirrors them, else the official client asks the server. `last` gives the
        last lines only. `per_page` is taken for the official client's sake.
        """
        lines = self._page.snapshot.console(self._row[0], last)
        if lines is not None:
            return lines
        return asked_of_server(lambda: self._official.console_logs(per_page=per_page, last=last))

    # Files, whose content only the server has

    def files(self, names: list[str] | None = None, pattern: str | None = None, per_page: int = 50) -> Files:
        """The run's files: all, those of these names, or those that fit a LIKE pattern ("%.json").

        Told by the mirror where `sync.files` mirrors the list, else by the server.
        """
        mirrored = partial(self._page.snapshot.files, self._row[0])
        return Files(self._api.session, self, mirrored, names or [], pattern, per_page)

    def file(self, name: str) -> File:
        """One file on the server. Raises CommError when there is none of that name."""
        found = self.files([name])
        if not len(found):
            raise CommError(f"{self._address} has no file {name}", FileNotFoundError(name))
        return found[0]

    def upload_file(self, path: str, root: str = ".") -> File:
        """Upload a file to the run; its name is the path from `root` on. Raises CommError and MissingPackage."""
        try:
            made = asked_of_server(lambda: self._official.upload_file(path, root))
        except CommError as error:
            # It was uploaded, under a name that is safe; the official client then looks for the one that was given.
            if isinstance(error.exc, IndexError):
                self._mirrored()
            raise
        self._mirrored()
        return File(self._api.session, self, dict(made._attrs))  # noqa: SLF001

    # Writing

    def update(self) -> None:
        """Write what was changed of this run to the server, then into the mirror.

        Only changes are sent: of config, summary and tags, what others changed meanwhile stays. Raises CommError,
        with nothing changed in the mirror, when the server refuses.
        """
        self._apply(edits.changes(self, self._held, documents=("config", "summary")))

    def save(self) -> None:
        """The same as `update`."""
        self.update()

    def append_history(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows to the history of a run that has ended, on the server, then in the mirror.

        A row counts on from the last step unless it holds `_step`, and is stamped now unless it holds `_timestamp`. The
        summary takes the last values. A crashed or killed run counts as failed afterwards, since W&B's stream knows no
        other end. Raises ArgumentError for rows that do not fit, CommError when the server refuses.
        """
        edits.append(self._api.session, self._address, list(rows))
        self._mirrored()

    def delete(self, delete_artifacts: bool = False) -> None:
        """Delete the run on the server; the mirror keeps what it holds, marked as deleted.

        Refused unless the Api was made with `allow_delete=True`.
        """
        if not self._api.allow_delete:
            raise UsageError(f"{self._address} is not deleted: that takes mirror.Api(allow_delete=True)")
        edits.delete(self._api.session, self._address, delete_artifacts=delete_artifacts)
        self._mirrored(self._held)

    def load(self, force: bool = False) -> dict[str, Any]:
        """The run's fields under the server's names; `force` reads it anew from the newest snapshot.

        What was changed and not written is dropped by `force`.
        """
        if force:
            self._reload()
        return self._attrs

    def load_full_data(self, force: bool = False) -> dict[str, Any]:
        """The same as `load`: the mirror holds the whole run."""
        return self.load(force)

    stop = asks("stop", changes=True)
    update_state = asks("update_state", changes=True)
    log_artifact = asks("log_artifact")
    use_artifact = asks("use_artifact")
    logged_artifacts = asks("logged_artifacts")
    used_artifacts = asks("used_artifacts")

    @classmethod
    def create(
        cls,
        api: Api,
        run_id: str | None = None,
        project: str | None = None,
        entity: str | None = None,
        state: Literal["running", "pending"] = "running",
    ) -> Run:
        """Create an empty run on the server, then in the mirror. Raises CommError and MissingPackage."""
        return api.created(lambda official, kind: kind.create(official, run_id, project, entity, state))

    @property
    def _official(self) -> Any:
        return asked_of_server(lambda: self._api.session.official.run("/".join(self.path)))

    def wait_until_finished(self) -> None:
        """Pull the run every five seconds until it has ended."""
        import time

        while self.state not in ENDED:
            time.sleep(5)
            self._mirrored()

    # Inside

    @property
    def _address(self) -> Address:
        return Address(self._row[0], *self._page.key, self._row[1])

    @property
    def _held(self) -> dict[str, Any]:
        """What was looked at and may have been changed, or was set. Most runs of a list never have any."""
        if self._own is None:
            self._own = {}
        return self._own

    def _apply(self, edit: Edit) -> None:
        if edit:
            edits.write(self._api.session, [self._address], edit)
            self._mirrored(self._held)

    def _write_summary(self) -> None:
        held = {key: value for key, value in self._held.items() if key == "summary"}
        edit = edits.changes(self, held, documents=("summary",))
        if edit:
            edits.write(self._api.session, [self._address], edit)
            self._mirrored(("summary",))

    def _mirrored(self, written: Iterable[str] = ()) -> None:
        """Have the mirror take the run, and show it. Changes of what was not `written` wait on for `update`."""
        written = set(written)
        held = {key: value for key, value in self._held.items() if key not in written}
        changes = unsaved(held, self._fact, self._original)
        self._api.session.pull_written([self._address])
        self._reload(changes)

    def _reload(self, changes: Unsaved | None = None) -> None:
        snapshot = self._api.newest()
        address = snapshot.address(str(self._address), None, deleted=True)
        self._page, self._row = RunPage(snapshot, [address.rid], address.key), snapshot.named([address.rid])[0]
        carry_over(changes or Unsaved(), self._held, self._fact, self._original)

    def _original(self, document: str) -> dict[str, Any]:
        return self._config() if document == "config" else self._summary()

    def _fact(self, column: str) -> Any:
        return self._page.fact(self._row[0], column)

    def _text(self, column: str) -> str | None:
        value: str | None = self._fact(column)
        return value

    def _editable(self, column: str) -> str | None:
        own = self._own
        value: str | None = self._fact(column) if own is None or column not in own else own[column]
        return value

    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = self._page.document(self._row[0], "config")
        return config

    def _summary(self) -> dict[str, Any]:
        summary: dict[str, Any] = self._page.document(self._row[0], "summary")
        return summary

    @property
    def _attrs(self) -> dict[str, Any]:
        """The fields under the names that the server's API gives them; those that only the server has are left out."""
        fields = {name: find(self) for name, find in FIELDS.items()}
        told = self._fact("told")
        fields |= {name: told[name] for name in TOLD if name in told}
        if (heavy := self._fact("heavy")) is not None and heavy[0] is not None:
            fields["systemMetrics"] = self.system_metrics
        return fields

    def _named(self, name: str) -> Any:
        """One of these fields; one that is not mirrored is asked of the server. Raises CommError, and KeyError."""
        if name == "systemMetrics":
            return self.system_metrics
        if name not in TOLD:
            return FIELDS[name](self)
        told = self._fact("told")
        return told[name] if name in told else asked_of_server(lambda: getattr(self._official, name))

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_"):
            with suppress(KeyError):
                return self._named(camel(name))
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def to_html(self, height: int = 420, hidden: bool = False) -> str:
        """A frame that shows the run's page."""
        return frame(self.url, height, hidden="run" if hidden else None)

    def display(self, height: int = 420, hidden: bool = False) -> bool:
        """Show the run's page in a notebook; False where there is none."""
        return display(self.to_html(height, hidden))

    def _repr_html_(self) -> str:
        return self.to_html()

    def __repr__(self) -> str:
        return f"<Run {'/'.join(self.path)} ({self.state})>"


def _time(value: datetime | None) -> str | None:
    """A time as the server writes it."""
    return None if value is None else f"{value.isoformat()}Z"
