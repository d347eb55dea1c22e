"""One mirrored run."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Literal

from mirror.api import edits
from mirror.api.artifact_lists import RunArtifacts
from mirror.api.artifacts import official_artifact
from mirror.api.client import Client
from mirror.api.console import ConsoleLogs
from mirror.api.display import Shown
from mirror.api.fields import FIELDS, STORED_AS_REPORTED, camel
from mirror.api.files import File, Files, FileSource, listed, metadata
from mirror.api.frames import checked, shown
from mirror.api.histories import HistoryScan, sampled, wrong_keys
from mirror.api.official import call_server, official_method
from mirror.api.run_edits import EditableRun
from mirror.errors import ArgumentError, CommError, QueryError, UsageError
from mirror.metrics import STEP
from mirror.protocol import ENDED_STATES
from mirror.snapshot import artifact_versions
from mirror.snapshot.described import described, latest_events, line_count
from mirror.wandb_json import loads

__all__ = ["Run"]


_log_artifact = official_method("log_artifact", changes=True)
_use_artifact = official_method("use_artifact", changes=True)
_logged_artifacts = official_method("logged_artifacts")
_used_artifacts = official_method("used_artifacts")


class Run(EditableRun, Shown):
    """A mirrored run, with the interface of the official client's `Run`.

    Reading needs no network, except for `files`, their content and `metadata` if these are not mirrored.
    `update` sends changes (of `config`, `summary`, `tags`, `notes`, `name`, `group`, `job_type`, `description`) to the
    server, then pulls them into the mirror.
    """

    _page_of = "run"

    # History

    def history(
        self,
        samples: int | None = 500,
        keys: list[str] | None = None,
        x_axis: str = STEP,
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
        found = sampled(self._page.reader, self._address, self._server_rows, samples, keys, x_axis, stream)
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

    def table(
        self,
        key: str,
        step: int | None = None,
        *,
        format: Literal["pandas", "dicts", "polars", "arrow"] = "pandas",  # noqa: A002
    ) -> Any:
        """Return a W&B Table that was logged under `key`, at `step` or by default the newest, with typed columns.

        It comes from the mirror, else from the server. Returns a pandas DataFrame, or what `format` names. Raises
        ArgumentError if there is no such table, StoreError if its file is not a table, and CommError.
        """
        from mirror.api import tables
        from mirror.snapshot import logged_tables

        form, address = checked(format), self._address
        run = (address.entity, address.project, address.run_id)
        try:
            found = logged_tables.find(self._page.snapshot.cursor, run, key, step)
        except QueryError as error:
            raise ArgumentError(str(error)) from None
        return tables.shown(tables.read(address, found, self.file, self._api.session.local), form)

    @property
    def history_keys(self) -> dict[str, Any] | None:
        """The logged keys: `{"keys": {key: {"typeCounts", "monotonic", "previousValue"}}, "lastStep", "sets"}`.

        "monotonic" is as the server reported it, else computed from the values. None for a run without history.
        """
        rid, snapshot = self._row[0], self._page.snapshot
        lines = line_count(self._fact("history_rows"), self._server_rows, local=not self.storage_id)
        about = {"name": self.id, "last_step": self.lastHistoryStep, "historyLineCount": lines}
        heavy = self._fact("heavy")
        reported = {} if heavy is None else {rid: heavy}
        return described(snapshot.cursor, self._page.key, {rid: about}, reported).get(rid)

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

    # Files and console

    def files(self, names: list[str] | None = None, pattern: str | None = None, per_page: int = 50) -> Files:
        """Return the run's files: all, those with these names, or those that match a LIKE pattern ("%.json").

        The list comes from the mirror if `sync.files` mirrors it, else from the server.
        """
        mirrored = partial(self._page.snapshot.files, self._row[0])
        return Files(self, self._file_source, mirrored, listed(names), pattern, per_page)

    def file(self, name: str) -> File:
        """Return one file of the run. Raises CommError if there is none with this name."""
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
        return File(self._file_source, dict(uploaded._attrs))  # noqa: SLF001

    @property
    def metadata(self) -> dict[str, Any] | None:
        """The content of `wandb-metadata.json` (machine, command, git); None for a run without it.

        Unless `sync.metadata` mirrors it, the server is asked, once. Raises CommError if that fails.
        """
        if "metadata" not in self._held:
            text, known = self._page.snapshot.metadata(self._row[0])
            if known:
                self._held["metadata"] = loads(text) if text else None
            else:
                self._held["metadata"] = metadata(partial(self.files, per_page=1))
        content: dict[str, Any] | None = self._held["metadata"]
        return content

    def console_logs(self, *, per_page: int = 1000, last: int | None = None) -> Any:
        """Return the lines of its console, oldest first, each with number, timestamp, level, label and content.

        From the mirror if `sync.console` mirrors them, else the official client asks the server. `last` limits them to
        the last lines. `per_page` only matters for the server.
        """
        lines = self._page.snapshot.console(self._row[0], last)
        if lines is not None:
            return ConsoleLogs(self, lines)
        return call_server(lambda: self._official.console_logs(per_page=per_page, last=last))

    @property
    def _file_source(self) -> FileSource:
        content = partial(self._page.snapshot.file_content, self._address)
        return FileSource(self._api.session, self._address, lambda: self._official, self._pull_written, content, self)

    # Artifacts

    def logged_artifacts(self, per_page: int = 100) -> Any:
        """Return the artifacts that the run logged: from the mirror if it holds them all, else the official client's.

        Raises CommError and MissingPackage.
        """
        found = self._artifacts("output")
        return _logged_artifacts(self, per_page) if found is None else found

    def used_artifacts(self, per_page: int = 100) -> Any:
        """Return the artifacts that the run used; as `logged_artifacts`."""
        found = self._artifacts("input")
        return _used_artifacts(self, per_page) if found is None else found

    def _artifacts(self, relation: str) -> RunArtifacts | None:
        found = artifact_versions.of_run(self._page.snapshot.cursor, self._row[0], relation)
        return None if found is None else RunArtifacts(self._api, self._page.snapshot, self, found)

    # Writing

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

    def wait_until_finished(self) -> None:
        """Pull the run every five seconds until it has ended."""
        import time

        while self.state not in ENDED_STATES:
            time.sleep(5)
            self._pull_written()

    # All fields, by the server's names

    @property
    def read_only(self) -> bool:
        """Whether the API key may not edit it. Raises CommError if neither the mirror nor the server has this."""
        return bool(self._field("readOnly"))

    @property
    def project_id(self) -> Any:
        """The server's own number of the project. Raises CommError as `read_only`."""
        return self._field("projectId")

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

    @property
    def _attrs(self) -> dict[str, Any]:
        """The fields by the names of the server's API, without those that only the server has."""
        fields = {name: getattr(self, attribute) for name, attribute in FIELDS.items()}
        reported = self._fact("reported")
        fields |= {name: reported[name] for name in STORED_AS_REPORTED if name in reported}
        if (heavy := self._fact("heavy")) is not None and heavy[0] is not None:
            fields["systemMetrics"] = self.system_metrics
        return fields

    def _field(self, name: str) -> Any:
        """Return one of these fields; if it is not mirrored, ask the server. Raises CommError, and KeyError."""
        if name == "systemMetrics":
            return self.system_metrics
        if name not in STORED_AS_REPORTED:
            return getattr(self, FIELDS[name])
        reported = self._fact("reported")
        return reported[name] if name in reported else call_server(lambda: getattr(self._official, name))

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_"):
            with suppress(KeyError):
                return self._field(camel(name))
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    # What only the server has

    stop = official_method("stop", changes=True)
    update_state = official_method("update_state", changes=True)

    def log_artifact(self, artifact: Any, aliases: Any = None, tags: Any = None) -> Any:
        """As the official client's `log_artifact`; then pulls the run. Raises CommError and MissingPackage."""
        return _log_artifact(self, official_artifact(artifact), aliases, tags)

    def use_artifact(self, artifact: Any, use_as: str | None = None) -> Any:
        """As the official client's `use_artifact`; then pulls the run. Raises CommError and MissingPackage."""
        return _use_artifact(self, official_artifact(artifact), use_as)

    @classmethod
    def create(
        cls,
        api: Client,
        run_id: str | None = None,
        project: str | None = None,
        entity: str | None = None,
        state: Literal["running", "pending"] = "running",
    ) -> Run:
        """Create an empty run on the server, then in the mirror. Raises CommError and MissingPackage."""
        run: Run = api.created(lambda official, kind: kind.create(official, run_id, project, entity, state))
        return run

    def __repr__(self) -> str:
        return f"<Run {'/'.join(self.path)} ({self.state})>"
