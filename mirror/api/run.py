"""One mirrored run."""

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
from mirror.api.fields import FIELDS, STORED_AS_REPORTED
from mirror.api.files import File, Files, metadata
from mirror.api.frames import checked, shown
from mirror.api.histories import HistoryScan, sampled, wrong_keys
from mirror.api.official import call_server, official_method
from mirror.api.people import User, camel
from mirror.api.summary import Summary
from mirror.api.sweeps import Sweep
from mirror.api.unsaved import Unsaved, carry_over, unsaved
from mirror.errors import ArgumentError, CommError, UsageError
from mirror.serve.history import described, latest_events
from mirror.snapshot.runs import RunPage
from mirror.snapshot.snapshot import Address
from mirror.states import ENDED
from mirror.wandb_json import loads

if TYPE_CHECKING:
    from mirror.api.api import Api
    from mirror.remote.mutations import Edit
    from mirror.snapshot.run_query import Named


class Run:
    """A mirrored run, with the interface of the official client's `Run`.

    Reading needs no network, except for the content of files and, if they are not mirrored, `files` and `metadata`.
    `update` sends changes (of `config`, `summary`, `tags`, `notes`, `name`, `group`, `job_type`, `description`) to the
    server, then pulls them into the mirror.
    """

    def __init__(self, api: Api, page: RunPage, row: Named) -> None:
        """Use `Api.run` or `Api.runs` to get one."""
        # A list has thousands of these, so what they share is stored once, in their page.
        self._api = api
        self._page = page
        self._row = row
        self._own: dict[str, Any] | None = None

    # Which run it is

    @property
    def id(self) -> str:
        """The run id: eight characters, or as set by the script."""
        return self._row[1]

    @property
    def entity(self) -> str:
        """The user or team that owns the project."""
        return self._page.key.entity

    @property
    def project(self) -> str:
        """The name of the project."""
        return self._page.key.project

    @property
    def path(self) -> list[str]:
        """Entity, project and run id, ready for an address."""
        return [quote(part, safe="") for part in (self.entity, self.project, self.id)]

    @property
    def url(self) -> str | None:
        """The run's page on the server; None for a run that is not on a server yet."""
        return self._text("url")

    @property
    def storage_id(self) -> str:
        """The server's own id of the run, which writes refer to."""
        return str(self._fact("storage_id"))

    # Fields that can be edited

    @property
    def name(self) -> str | None:
        """The display name, such as "sunny-sky-12"."""
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
            raise ArgumentError(f"tags={value!r}: must be a list of strings, such as ['baseline']")
        self._held["tags"] = list(value)

    @property
    def group(self) -> str | None:
        """The group that it belongs to."""
        return self._editable("group_name")

    @group.setter
    def group(self, value: str | None) -> None:
        self._held["group_name"] = value

    @property
    def job_type(self) -> str | None:
        """The kind of job, such as "train" or "eval"."""
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
            raise ArgumentError(f"config={value!r}: must be a dictionary")
        self._held["config"] = dict(value)

    @property
    def summary(self) -> Summary:
        """Outputs: the latest value of each logged key, and values set by hand. `update` writes changes."""
        if "summary" not in self._held:
            self._held["summary"] = Summary(self._summary(), self._write_summary)
        summary: Summary = self._held["summary"]
        return summary

    @property
    def summary_metrics(self) -> dict[str, Any]:
        """The summary as a plain dictionary."""
        values: dict[str, Any] = self.summary._json_dict  # noqa: SLF001
        return values

    # Fields that cannot be edited

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
        """The user who started it. Raises AttributeError if the server did not report one."""
        username = self._text("username")
        if username is None:
            raise AttributeError(f"the server did not report who started {self._address}")
        reported = {name: value for name, value in (self._fact("told").get("user") or {}).items() if name == "name"}
        return User({**reported, "username": username}, lambda: self._official.user)

    @property
    def username(self) -> str:
        """The entity, as in the official client; `user.username` is the user who started the run."""
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
        """The last heartbeat of its process: ISO 8601, UTC."""
        return _time(self._fact("heartbeat_at"))

    @property
    def updated_at(self) -> str | None:
        """When it was last logged to or edited: ISO 8601, UTC."""
        return _time(self._fact("updated_at"))

    @property
    def deleted(self) -> bool:
        """Whether it was deleted on the server; the mirror keeps such runs."""
        return self._fact("deleted_at") is not None

    @property
    def lastHistoryStep(self) -> int:  # noqa: N802
        """The highest mirrored step; -1 without history."""
        return self._page.reader.extent(self._row[0]).last_step

    @property
    def history_keys(self) -> dict[str, Any] | None:
        """The logged keys: `{"keys": {key: {"typeCounts", "monotonic", "previousValue"}}, "lastStep", "sets"}`.

        "monotonic" is as the server reported it, else computed from the values. None for a run without history.
        """
        rid, snapshot = self._row[0], self._page.snapshot
        about = {"name": self.id, "last_step": self.lastHistoryStep, "historyLineCount": self._fact("server_rows")}
        heavy = self._fact("heavy")
        reported = {} if heavy is None else {rid: heavy}
        return described(snapshot.cursor, self._page.key, {rid: about}, reported).get(rid)

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
        """The content of `wandb-metadata.json` (machine, command, git); None for a run without it.

        Unless `sync.metadata` mirrors it, the server is asked, once. Raises CommError if that fails.
        """
        if "metadata" not in self._held:
            text, known = self._page.snapshot.metadata(self._row[0])
            self._held["metadata"] = loads(text) if text else None if known else metadata(self)
        content: dict[str, Any] | None = self._held["metadata"]
        return content

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
        """Return logged values: at most `samples` rows, evenly spaced, including the first and the last.

        `samples=None` returns every row. With `keys`, only rows that hold all of them and `x_axis`, with only these
        keys. If `keys` is not a list of strings, returns [] and warns, as the official client does. Returns a pandas
        DataFrame, or a list of dictionaries with `pandas=False`; `format` is "pandas", "dicts", "polars" or "arrow".
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
        """Return every row from `min_step` (inclusive) to `max_step` (exclusive) as a dictionary, in order of steps.

        With `keys`, only rows that hold all of them, with only these keys. `page_size` and `use_cache` are only
        accepted for compatibility with the official client.
        """
        return HistoryScan(
            self._page.reader, self._address, keys=keys, page_size=page_size, min_step=min_step, max_step=max_step
        )

    beta_scan_history = scan_history
    download_history_exports = official_method("download_history_exports")

    @property
    def system_metrics(self) -> dict[str, Any]:
        """The latest value of each system metric, as the server reported it; {} if there are none.

        If the mirror does not hold it, the server is asked. Raises CommError.
        """
        heavy = self._fact("heavy")
        if heavy is not None and heavy[0] is not None:
            return loads(heavy[0]) or {}
        if not self.storage_id:
            cursor = self._page.snapshot.cursor
            return loads(latest_events(cursor, self._page.key, [self.id]).get(self.id, "{}")) or {}
        metrics: dict[str, Any] = call_server(lambda: self._official.system_metrics)
        return metrics

    @property
    def read_only(self) -> bool:
        """Whether the API key may not edit it. Raises CommError if neither the mirror nor the server has this."""
        return bool(self._field("readOnly"))

    @property
    def project_id(self) -> Any:
        """The server's own number of the project. Raises CommError as `read_only`."""
        return self._field("projectId")

    def console_logs(self, *, per_page: int = 1000, last: int | None = None) -> Any:
        """Return the lines of its console, oldest first, each with number, timestamp, level, label and content.

        From the mirror if `sync.console` mirrors them, else the official client asks the server. `last` limits them to
        the last lines. `per_page` only matters for the server.
        """
        lines = self._page.snapshot.console(self._row[0], last)
        if lines is not None:
            return lines
        return call_server(lambda: self._official.console_logs(per_page=per_page, last=last))

    # Files: only the server has their content

    def files(self, names: list[str] | None = None, pattern: str | None = None, per_page: int = 50) -> Files:
        """Return the run's files: all, those with these names, or those that match a LIKE pattern ("%.json").

        The list comes from the mirror if `sync.files` mirrors it, else from the server.
        """
        mirrored = partial(self._page.snapshot.files, self._row[0])
        return Files(self._api.session, self, mirrored, names or [], pattern, per_page)

    def file(self, name: str) -> File:
        """Return one file on the server. Raises CommError if there is none with this name."""
        found = self.files([name])
        if not len(found):
            raise CommError(f"{self._address} has no file {name}", FileNotFoundError(name))
        return found[0]

    def upload_file(self, path: str, root: str = ".") -> File:
        """Upload a file to the run; its name is its path relative to `root`. Raises CommError and MissingPackage."""
        try:
            uploaded = call_server(lambda: self._official.upload_file(path, root))
        except CommError as error:
            # It was uploaded, but under a sanitised name; the official client then looks for the original name.
            if isinstance(error.exc, IndexError):
                self._pull_written()
            raise
        self._pull_written()
        return File(self._api.session, self, dict(uploaded._attrs))  # noqa: SLF001

    # Writing

    def update(self) -> None:
        """Write the changes of this run to the server, then into the mirror.

        Only changes are sent: what others changed in config, summary and tags in the meantime stays. If the server
        refuses, raises CommError, and the mirror is unchanged.
        """
        self._apply(edits.changes(self, self._held, documents=("config", "summary")))

    def save(self) -> None:
        """The same as `update`."""
        self.update()

    def append_history(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows to the history of a run that has ended, on the server, then in the mirror.

        A row without `_step` gets the next step, and one without `_timestamp` the current time. The summary gets the
        last values. A crashed or killed run is failed afterwards, since W&B's file stream has no other final state.
        Raises ArgumentError for invalid rows, CommError if the server refuses.
        """
        edits.append(self._api.session, self._address, list(rows))
        self._pull_written()

    def delete(self, delete_artifacts: bool = False) -> None:
        """Delete the run on the server; the mirror keeps what it holds, marked as deleted.

        Raises UsageError unless the Api was created with `allow_delete=True`.
        """
        if not self._api.allow_delete:
            raise UsageError(f"{self._address} was not deleted: create the Api with mirror.Api(allow_delete=True)")
        edits.delete(self._api.session, self._address, delete_artifacts=delete_artifacts)
        self._pull_written(self._held)

    def load(self, force: bool = False) -> dict[str, Any]:
        """Return the run's fields by the server's names; `force` reads it again from the newest snapshot.

        `force` also drops changes that were not written.
        """
        if force:
            self._reload()
        return self._attrs

    def load_full_data(self, force: bool = False) -> dict[str, Any]:
        """The same as `load`: the mirror always holds the complete run."""
        return self.load(force)

    stop = official_method("stop", changes=True)
    update_state = official_method("update_state", changes=True)
    log_artifact = official_method("log_artifact")
    use_artifact = official_method("use_artifact")
    logged_artifacts = official_method("logged_artifacts")
    used_artifacts = official_method("used_artifacts")

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
        return call_server(lambda: self._api.session.official.run("/".join(self.path)))

    def wait_until_finished(self) -> None:
        """Pull the run every five seconds until it has ended."""
        import time

        while self.state not in ENDED:
            time.sleep(5)
            self._pull_written()

    # Internals

    @property
    def _address(self) -> Address:
        return Address(self._row[0], *self._page.key, self._row[1])

    @property
    def _held(self) -> dict[str, Any]:
        """Values that were read and may have been changed, or were set. Most runs of a list never have any."""
        if self._own is None:
            self._own = {}
        return self._own

    def _apply(self, edit: Edit) -> None:
        if edit:
            edits.write(self._api.session, [self._address], edit)
            self._pull_written(self._held)

    def _write_summary(self) -> None:
        held = {key: value for key, value in self._held.items() if key == "summary"}
        edit = edits.changes(self, held, documents=("summary",))
        if edit:
            edits.write(self._api.session, [self._address], edit)
            self._pull_written(("summary",))

    def _pull_written(self, written: Iterable[str] = ()) -> None:
        """Pull the run into the mirror and show its new state; fields not in `written` keep their unsaved changes."""
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
        """The fields by the names of the server's API, without those that only the server has."""
        fields = {name: find(self) for name, find in FIELDS.items()}
        reported = self._fact("told")
        fields |= {name: reported[name] for name in STORED_AS_REPORTED if name in reported}
        if (heavy := self._fact("heavy")) is not None and heavy[0] is not None:
            fields["systemMetrics"] = self.system_metrics
        return fields

    def _field(self, name: str) -> Any:
        """Return one of these fields; if it is not mirrored, ask the server. Raises CommError, and KeyError."""
        if name == "systemMetrics":
            return self.system_metrics
        if name not in STORED_AS_REPORTED:
            return FIELDS[name](self)
        reported = self._fact("told")
        return reported[name] if name in reported else call_server(lambda: getattr(self._official, name))

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_"):
            with suppress(KeyError):
                return self._field(camel(name))
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def to_html(self, height: int = 420, hidden: bool = False) -> str:
        """Return an HTML frame that shows the run's page."""
        return frame(self.url, height, hidden="run" if hidden else None)

    def display(self, height: int = 420, hidden: bool = False) -> bool:
        """Show the run's page in a notebook; return False outside of one."""
        return display(self.to_html(height, hidden))

    def _repr_html_(self) -> str:
        return self.to_html()

    def __repr__(self) -> str:
        return f"<Run {'/'.join(self.path)} ({self.state})>"


def _time(value: datetime | None) -> str | None:
    """Format a time as the server does."""
    return None if value is None else f"{value.isoformat()}Z"
